//! What docs/idleness.md says of each pool: what a worker has taken, and cannot give back, shows until it is done.

use std::time::Duration;

use serde_json::json;
use test_support::{Jobs, LONG, SampleApp, wait_until};
use worker_drain::workers::{Workers, celery::CelerySettings};
use worker_drain_plan::{
    Memory,
    memory::NodeMemory,
    observation::{Answer, WorkersView},
};

use super::{
    all_answer, ids, known_tasks, look_until, node, open, settings,
    small_fleet::{SmallFleet, drain},
    takes,
};
use crate::a_broker;

/// How many jobs run in it, and how many wait. A worker takes as many as its pool asks for, and gevent asks for fewer.
fn jobs_of(answer: &Answer) -> (usize, usize) {
    let count = |jobs: &Option<Vec<_>>| jobs.as_ref().map_or(0, Vec::len);
    (count(&answer.active), count(&answer.reserved))
}

#[tokio::test]
async fn whatever_the_pool_and_the_acknowledgement_what_was_taken_shows_until_it_is_done() {
    let pools = ["prefork", "threads", "gevent"];
    for acks_late in [false, true] {
        let broker = a_broker().await;
        let app = SampleApp::new(broker.url()).settings(json!({"task_acks_late": acks_late}));
        let spawn = |pool: &str| app.worker(format!("worker@{pool}")).queues([pool]).pool(pool).prefetch(3).spawn();
        let started: Vec<_> = pools.iter().map(|pool| spawn(pool)).collect();
        let mut workers = Vec::new();
        for worker in started {
            workers.push(worker.ready().await);
        }
        let celery = open(&settings(&broker.url()));
        let tasks = known_tasks(&pools);
        all_answer(&celery, &tasks).await;

        let mut jobs = Vec::new();
        for pool in pools {
            let ids = ["a", "b", "c"].map(|job| format!("{pool}-{job}"));
            jobs.extend(app.submit(Jobs::with_ids(ids).queue(pool).until_told()).await);
        }
        app.journal().wait_started(&jobs, pools.len()).await;
        let all = |wanted: fn(&Answer) -> bool| {
            move |view: &WorkersView| {
                view.nodes.len() == pools.len()
                    && view
                        .nodes
                        .values()
                        .all(|answer| answer.active.is_some() && answer.reserved.is_some() && wanted(answer))
            }
        };
        let has_both = all(|answer| jobs_of(answer).0 == 1 && jobs_of(answer).1 > 0);
        look_until("each runs one and holds some", &celery, &tasks, &has_both).await;

        celery.cancel(&pools.map(|pool| (node(pool), vec![pool.into()]))).await;
        // gevent carries orders out in the loop that waits for room in its pool: it says that it still takes jobs.
        let is_cancelled = |view: &WorkersView, pools: &[&str]| pools.iter().all(|pool| takes(view, pool, &[]));
        let obeyed = |view: &WorkersView| is_cancelled(view, &["prefork", "threads"]) && has_both(view);
        let view = look_until("those are cancelled that can be", &celery, &tasks, obeyed).await;
        let taken = view.nodes.values().flat_map(|answer| [ids(answer.active.as_ref()), ids(answer.reserved.as_ref())]);
        let taken: Vec<&str> = taken.flatten().collect();

        app.tell(&jobs);
        let is_idle = all(|answer| jobs_of(answer) == (0, 0));
        let done = |view: &WorkersView| is_cancelled(view, &pools) && is_idle(view);
        look_until("all are cancelled and idle", &celery, &tasks, done).await;
        let tally = app.journal().tally(&jobs);
        assert_eq!(tally.started, tally.finished, "idle before all was done: acks_late {acks_late}");
        let is_done = |id: &&str| tally.finished.iter().any(|finished| finished == id);
        assert!(taken.iter().all(is_done), "what was taken is done: acks_late {acks_late}, {taken:?}, {tally:?}");
    }
}

/// It answers between jobs only, and is given the next one at once: it must hear of the cancel without ever being seen to take jobs.
#[tokio::test]
async fn a_solo_worker_that_is_never_without_a_job_is_cancelled_and_drained() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let spawn = |task: &str| app.worker(format!("worker@{task}")).queues([task]).pool("solo").spawn();
    let (old, new) = (spawn("old"), spawn("new"));
    let _workers = (old.ready().await, new.ready().await);
    let settings = CelerySettings { reply_bound: Duration::from_secs(1), ..settings(&broker.url()) };
    let fleet = SmallFleet::of(&[("old", "old"), ("new", "new")]);
    let mut drain = drain(fleet, open(&settings), Memory::default());
    drain.policy.paused = true;
    wait_until("both have told what they take jobs from", LONG, async || {
        let tasks = drain.reconcile().await.unwrap().plan.memory.tasks;
        let has_told = |node: &NodeMemory| node.between_jobs && !node.consumed.is_empty();
        tasks.len() == 2 && tasks.values().all(|task| task.has_worker() && task.nodes.values().all(has_told))
    })
    .await;

    let jobs = app.submit(Jobs::with_ids(["a", "b", "c", "d"]).queue("old").until_told()).await;
    app.journal().wait_started(&jobs, 1).await;
    drain.policy.paused = false;
    let plan = drain.reconcile().await.unwrap().plan;
    assert!(
        plan.report.tasks.iter().any(|task| task.waiting_for.contains("it is told to take no more jobs")),
        "{plan:?}"
    );
    app.tell(&jobs[..3]);
    wait_until("it is let go", LONG, async || {
        drain.reconcile().await.unwrap();
        drain.fleet.released() == ["old"]
    })
    .await;
    let tally = app.journal().tally(&jobs);
    assert_eq!(tally.started, tally.finished, "nothing was cut");
    assert!(!tally.started.contains(&jobs[3]), "it took jobs for as long as there were some: {tally:?}");
}
