//! A fleet that moves from one broker to another, as a whole: its old tasks' workers are on Redis, its new ones' on RabbitMQ.

use std::sync::Arc;

use test_support::{Jobs, LONG, Redis, SampleApp, wait_until};
use worker_drain::{
    clock::{Clock, SystemClock},
    workers::{Workers, brokers::Brokers},
};
use worker_drain_plan::{
    Memory,
    observation::{FailureKind, WorkersView},
};

use crate::{
    a_broker,
    both::{
        has_said_all, known_tasks, node, queues, settings,
        small_fleet::{SmallFleet, drain},
    },
};

#[tokio::test]
async fn a_fleet_that_moves_to_another_broker_is_drained() {
    let (former, latter) = (Redis::start().await, a_broker().await);
    let apps = [SampleApp::new(former.url()), SampleApp::new(latter.url())];
    let spawned = [apps[0].worker("worker@one").spawn(), apps[1].worker("worker@two").spawn()];
    let mut workers = Vec::new();
    for worker in spawned {
        workers.push(worker.ready().await);
    }
    let both = [settings(&latter.url()), settings(&former.url())];
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let brokers = Brokers::open(&both, &clock).expect("both can be used");
    let tasks = known_tasks(&["one", "two"]);
    let answers = |view: &WorkersView, task: &str| view.nodes.get(&node(task)).is_some_and(has_said_all);
    wait_until("both answer", LONG, async || {
        let view = brokers.observe(&tasks).await.expect("both brokers can be asked");
        answers(&view, "one") && answers(&view, "two")
    })
    .await;
    let jobs = apps[0].submit(Jobs::with_ids(["old"]).until_told()).await;
    apps[0].journal().wait_started(&jobs, 1).await;

    let drain = drain(SmallFleet::of(&[("one", "old"), ("two", "new")]), brokers, Memory::default());
    let takes = async |task: &str| {
        let view = drain.workers.observe(&tasks).await.expect("both brokers can be asked");
        view.nodes.get(&node(task)).map(|answer| queues(answer).len())
    };
    wait_until("the old one takes no more jobs", LONG, async || {
        drain.reconcile().await.expect("memory and fleet are there");
        takes("one").await == Some(0)
    })
    .await;
    assert_eq!(drain.fleet.released(), Vec::<String>::new(), "its job runs");
    apps[0].tell(&jobs);
    wait_until("the old one may stop", LONG, async || {
        drain.reconcile().await.expect("memory and fleet are there");
        drain.fleet.released() == ["one"]
    })
    .await;
    assert!(apps[0].journal().tally(&jobs).unfinished.is_empty());
    assert_eq!(takes("two").await, Some(1));

    former.cli(&["SHUTDOWN", "NOSAVE"]);
    let failure = drain.workers.observe(&tasks).await.expect_err("who is on it cannot be asked");
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(failure.message.starts_with("spec.workers.celery.brokers[1]: "), "{}", failure.message);
}
