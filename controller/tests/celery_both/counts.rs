//! Counting the messages of queues.

use std::time::Duration;

use serde_json::json;
use test_support::{Jobs, LONG, SampleApp, wait_until};
use worker_drain::workers::{Workers, celery::Celery};
use worker_drain_plan::{
    QueueName,
    observation::{Delivered, FailureKind, QueueCount, Seen},
};

use super::{all_answer, known_tasks, look_until, node, open, settings, takes};
use crate::a_broker;

async fn seen(celery: &Celery, queue: &str) -> Seen<QueueCount> {
    let queues = [QueueName::from(queue)].into();
    let counts = celery.count(&queues).await;
    assert_eq!(counts.keys().collect::<Vec<_>>(), queues.iter().collect::<Vec<_>>());
    counts.into_values().next().expect("it was asked for")
}

async fn count(celery: &Celery, queue: &str) -> QueueCount {
    match seen(celery, queue).await {
        Seen::Ok { value, at } => {
            assert!(at <= value.counted_at);
            value
        }
        Seen::Err { failure, .. } => panic!("{failure:?}"),
    }
}

/// How many are delivered and not acknowledged, as far as that is known.
fn delivered(count: &QueueCount) -> Option<u64> {
    match &count.delivered {
        Delivered::Counted(delivered) => Some(*delivered),
        Delivered::Told { consumers, nodes } => {
            let jobs = nodes.values().flat_map(|node| [&node.active, &node.reserved, &node.scheduled]);
            let jobs = jobs.map(|jobs| jobs.as_ref().expect("only whole answers").len() as u64).sum();
            (nodes.len() as u64 >= *consumers).then_some(jobs)
        }
    }
}

/// Counts until there are as many ready, and as many delivered.
async fn count_until(celery: &Celery, queue: &str, ready: u64, held: impl Fn(&QueueCount) -> u64) -> QueueCount {
    let mut last = None;
    wait_until("the queue holds as much as it should", LONG, async || {
        let count = count(celery, queue).await;
        let fine = count.ready == ready && delivered(&count) == Some(held(&count));
        last = Some(count);
        fine
    })
    .await;
    last.expect("it was counted")
}

/// Whether it is the broker that tells of delivered messages.
fn is_counted(count: &QueueCount) -> bool {
    matches!(count.delivered, Delivered::Counted(_))
}

#[tokio::test]
async fn messages_that_wait_are_counted_at_every_priority() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("worker@one").queues(["slow"]).start().await;
    let celery = open(&settings(&broker.url()));
    let tasks = known_tasks(&["one"]);
    let before = all_answer(&celery, &tasks).await.nodes[&node("one")].queues.clone().unwrap();
    celery.cancel(&[(node("one"), vec!["slow".into()])]).await;
    look_until("it is cancelled", &celery, &tasks, |view| takes(view, "one", &[])).await;
    assert!(count_until(&celery, "slow", 0, |_| 0).await.known, "a queue that is empty and was declared");

    let plain = Jobs::with_ids(["a", "b"]).queue("slow").seconds(0.0, 0.0);
    let urgent = Jobs::with_ids(["c", "d", "e"]).queue("slow").priority(9).seconds(0.0, 0.0);
    let (mut all, urgent) = (app.submit(plain).await, app.submit(urgent).await);
    all.extend(urgent);
    count_until(&celery, "slow", 5, |_| 0).await;

    celery.give_back(&[(node("one"), before)]).await;
    app.journal().wait_finished(&all).await;
    count_until(&celery, "slow", 0, |_| 0).await;
}

#[tokio::test]
async fn messages_in_workers_are_counted_whether_they_run_or_wait_or_are_for_later() {
    for acks_late in [true, false] {
        let broker = a_broker().await;
        let app = SampleApp::new(broker.url()).settings(json!({"task_acks_late": acks_late}));
        let workers = (
            app.worker("worker@one").queues(["slow"]).prefetch(3).spawn(),
            app.worker("worker@else").queues(["other"]).spawn(),
        );
        let _workers = (workers.0.ready().await, workers.1.ready().await);
        let celery = open(&settings(&broker.url()));
        all_answer(&celery, &known_tasks(&["one", "else"])).await;

        app.submit(Jobs::with_ids(["later"]).queue("slow").countdown(3600.0)).await;
        let jobs = app.submit(Jobs::with_ids(["a", "b", "c"]).queue("slow").until_told()).await;
        app.journal().wait_started(&jobs, 1).await;
        // With early acknowledgement a running job is acknowledged; its worker, asked instead of the broker, tells of it.
        let held = |count: &QueueCount| if is_counted(count) && !acks_late { 3 } else { 4 };
        count_until(&celery, "slow", 0, held).await;
        count_until(&celery, "other", 0, |_| 0).await;

        app.tell(&jobs);
        app.journal().wait_finished(&jobs).await;
        count_until(&celery, "slow", 0, |_| 1).await;
    }
}

#[tokio::test]
async fn a_worker_that_is_frozen_keeps_its_messages_from_being_taken_for_none() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url()).settings(json!({"task_acks_late": true}));
    let mut worker = app.worker("worker@one").queues(["slow"]).start().await;
    let celery = open(&settings(&broker.url()));
    all_answer(&celery, &known_tasks(&["one"])).await;
    let jobs = app.submit(Jobs::with_ids(["a"]).queue("slow").until_told()).await;
    app.journal().wait_started(&jobs, 1).await;

    worker.freeze();
    let frozen = count(&celery, "slow").await;
    let expected = if is_counted(&frozen) { Some(1) } else { None };
    assert_eq!((frozen.ready, delivered(&frozen)), (0, expected), "{frozen:?}");
    worker.thaw();
    count_until(&celery, "slow", 0, |_| 1).await;
}

#[tokio::test]
async fn a_name_that_no_queue_has_is_told_apart_from_an_empty_queue() {
    let broker = a_broker().await;
    let celery = open(&settings(&broker.url()));
    match seen(&celery, "misspelt").await {
        Seen::Ok { value, .. } => assert!(!value.known && is_counted(&value), "{value:?}"),
        Seen::Err { failure, .. } => {
            assert_eq!(failure.kind, FailureKind::NotFound, "{failure:?}");
            assert!(failure.message.contains("misspelt"), "{failure:?}");
        }
    }
}

/// The hazard of a message that is on its way from the broker to a worker, where neither tells of it.
#[tokio::test]
async fn two_empty_looks_are_not_had_while_jobs_are_on_their_way() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url()).settings(json!({"task_acks_late": true}));
    let _worker = app.worker("worker@one").queues(["slow"]).start().await;
    let celery = open(&settings(&broker.url()));
    all_answer(&celery, &known_tasks(&["one"])).await;
    let jobs = app.submit(Jobs::new(150).queue("slow").seconds(0.0, 0.1)).await;
    let is_empty = async || {
        let count = count(&celery, "slow").await;
        count.ready == 0 && delivered(&count) == Some(0)
    };
    wait_until("the queue is empty, twice", LONG * 2, async || {
        if !is_empty().await {
            return false;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        is_empty().await
    })
    .await;
    let tally = app.journal().tally(&jobs);
    assert_eq!(tally.finished.len(), jobs.len(), "two looks found nothing while jobs were left: {tally:?}");
}
