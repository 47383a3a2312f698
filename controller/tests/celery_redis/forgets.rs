//! Celery 5.5 on Redis forgets, when it reconnects, what was added to it (celery#10352). As long as a drain is there, that is
//! seen and mended: by the whole loop, on a real worker, with a fleet of one task that stays.

use test_support::{LONG, Redis, SampleApp, python_with_celery_5_5, wait_until};
use worker_drain::workers::Workers;
use worker_drain_plan::{Memory, memory::TaskMemory};

use crate::both::{
    all_answer, known_tasks, look_until, node, open, settings,
    small_fleet::{SmallFleet, drain},
    takes,
};

#[tokio::test]
async fn what_a_worker_forgets_when_it_reconnects_is_given_back_again() {
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url()).python(python_with_celery_5_5());
    let _worker = app.worker("worker@one").queues(["slow", "fast"]).start().await;
    let celery = open(&settings(&redis.url()));
    let tasks = known_tasks(&["one"]);
    let before = all_answer(&celery, &tasks).await.nodes[&node("one")].queues.clone().unwrap();

    // A rollout that was rolled back took a queue from it.
    celery.cancel(&[(node("one"), vec!["slow".into()])]).await;
    look_until("it is cancelled", &celery, &tasks, |view| takes(view, "one", &["fast"])).await;
    let mut known = TaskMemory::default();
    let taken = before.iter().filter(|queue| queue.name.as_str() == "slow").cloned().collect();
    known.nodes.entry(node("one")).or_default().taken = taken;
    let memory = Memory { tasks: [("one".into(), known)].into(), ..Memory::default() };
    let drain = drain(SmallFleet::of(&[("one", "new")]), celery, memory);

    let settles = async |why: &str| {
        wait_until(why, LONG * 2, async || drain.pass().await.is_ok_and(|pass| pass.plan.report.settled)).await;
        look_until(why, &drain.workers, &tasks, |view| takes(view, "one", &["fast", "slow"])).await;
    };
    settles("the queue is given back").await;

    redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    let forgotten = "it has reconnected, and forgotten what was added";
    look_until(forgotten, &drain.workers, &tasks, |view| takes(view, "one", &["fast"])).await;
    settles("the queue is given back again").await;
    assert!(drain.fleet.released().is_empty());
}
