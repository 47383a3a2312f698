//! Cancelling consumers and giving queues back, as read back from the nodes.

use std::{collections::BTreeMap, time::Duration};

use serde_json::json;
use test_support::{Jobs, LONG, SampleApp, python_with_celery, wait_until};
use worker_drain::workers::{Workers, celery::CelerySettings};
use worker_drain_plan::{
    Memory, Outcome, QueueName,
    observation::{Binding, Queue, WorkersView},
};

use super::{
    all_answer, consumes, give_back_until, jobs, known_tasks, look_until, node, open, settings,
    small_fleet::{SmallFleet, drain},
    takes,
};
use crate::a_broker;

fn queue_names(names: &[&str]) -> Vec<QueueName> {
    names.iter().map(|name| QueueName::from(*name)).collect()
}

#[tokio::test]
async fn a_cancel_is_read_back_and_undone() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let workers = (app.worker("worker@one").queues(["slow", "fast"]).spawn(), app.worker("worker@two").spawn());
    let _workers = (workers.0.ready().await, workers.1.ready().await);
    let celery = open(&settings(&broker.url()));
    let tasks = known_tasks(&["one", "two"]);
    let before = all_answer(&celery, &tasks).await.nodes[&node("one")].queues.clone().unwrap();
    assert!(before.iter().all(|queue| queue.binding.is_some()), "{before:?}");

    let outcomes = celery.cancel(&[(node("one"), queue_names(&["slow", "fast"]))]).await;
    assert_eq!(outcomes, [Outcome::Done]);
    let view = look_until("it is cancelled, and nobody else is told", &celery, &tasks, |view| {
        consumes(view, "one", &[]) && consumes(view, "two", &["celery"])
    })
    .await;
    assert_eq!(view.nodes[&node("one")].queues, Some(vec![]), "it answered that there are none");

    let waits = app.submit(Jobs::with_ids(["waits"]).queue("slow").seconds(0.0, 0.0)).await;
    // Again, and for a queue that never was: Celery says ok to all of it.
    let again = celery.cancel(&[(node("one"), queue_names(&["slow", "never-was"])), (node("two"), vec![])]).await;
    assert_eq!(again, [Outcome::Done, Outcome::Done]);
    assert_eq!(app.journal().tally(&waits).started.len(), 0);

    let undo = [(node("one"), before.clone())];
    assert_eq!(celery.give_back(&undo).await, [Outcome::Done]);
    let is_back = |view: &WorkersView| consumes(view, "one", &["fast", "slow"]);
    let view = give_back_until("it is back", &celery, &tasks, &undo, is_back).await;
    let sorted =
        |queues: &[Queue]| queues.iter().map(|queue| (queue.name.clone(), queue.clone())).collect::<BTreeMap<_, _>>();
    assert_eq!(sorted(view.nodes[&node("one")].queues.as_ref().unwrap()), sorted(&before), "it is as it was before");
    app.journal().wait_finished(&waits).await;
}

#[tokio::test]
async fn what_was_prefetched_is_still_run() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("worker@one").prefetch(3).start().await;
    let celery = open(&settings(&broker.url()));
    let tasks = known_tasks(&["one"]);
    let submitted = app.submit(Jobs::new(6).seconds(1.0, 1.0)).await;
    look_until("three are held", &celery, &tasks, |view| {
        jobs(view, "one").is_some_and(|(active, reserved)| active == 1 && reserved >= 2)
    })
    .await;

    celery.cancel(&[(node("one"), queue_names(&["celery"]))]).await;
    let view = look_until("it is cancelled and idle", &celery, &tasks, |view| {
        consumes(view, "one", &[]) && jobs(view, "one") == Some((0, 0))
    })
    .await;
    let done = app.journal().tally(&submitted);
    assert!(done.finished.len() >= 3 && done.started == done.finished, "{done:?}\n{view:?}");
}

#[tokio::test]
async fn an_older_celery_obeys_too() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url()).python(python_with_celery("5.5"));
    let _worker = app.worker("worker@old").queues(["slow"]).start().await;
    let celery = open(&settings(&broker.url()));
    let tasks = known_tasks(&["old"]);
    let before = all_answer(&celery, &tasks).await.nodes[&node("old")].queues.clone().unwrap();

    assert_eq!(celery.cancel(&[(node("old"), queue_names(&["slow"]))]).await, [Outcome::Done]);
    look_until("it is cancelled", &celery, &tasks, |view| consumes(view, "old", &[])).await;
    assert_eq!(celery.give_back(&[(node("old"), before)]).await, [Outcome::Done]);
    look_until("it is back", &celery, &tasks, |view| consumes(view, "old", &["slow"])).await;
}

#[tokio::test]
async fn an_order_to_a_silent_node_was_sent_and_no_more_is_known() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let mut worker = app.worker("worker@one").start().await;
    let celery = open(&CelerySettings { reply_bound: Duration::from_secs(1), ..settings(&broker.url()) });
    let tasks = known_tasks(&["one"]);
    all_answer(&celery, &tasks).await;

    worker.freeze();
    let orders = [(node("one"), queue_names(&["celery"])), (node("nobody"), queue_names(&["celery"]))];
    assert_eq!(celery.cancel(&orders).await, [Outcome::Done, Outcome::Done]);
    assert!(celery.observe(&tasks).await.unwrap().nodes.is_empty());
    worker.thaw();
    look_until("it answers again", &celery, &tasks, |view| view.nodes.len() == 1).await;
}

#[tokio::test]
async fn a_queue_comes_back_with_its_exchange_its_type_and_its_routing_key() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url()).settings(json!({"task_queues": {
        "video": {"exchange": "media", "exchange_type": "topic", "routing_key": "video.#"},
        "audio": {"exchange": "sound", "exchange_type": "direct", "routing_key": "loud"},
    }}));
    let _worker = app.worker("worker@one").queues(["video", "audio"]).start().await;
    let celery = open(&settings(&broker.url()));
    let tasks = known_tasks(&["one"]);
    let before = all_answer(&celery, &tasks).await.nodes[&node("one")].queues.clone().unwrap();
    let binding = |exchange: &str, exchange_type: &str, routing_key: &str| {
        Some(Binding {
            exchange: exchange.into(),
            exchange_type: exchange_type.into(),
            routing_key: routing_key.into(),
        })
    };
    let by_name = |queues: &[Queue]| -> BTreeMap<String, Option<Binding>> {
        queues.iter().map(|queue| (queue.name.to_string(), queue.binding.clone())).collect()
    };
    let expected = BTreeMap::from([
        ("audio".into(), binding("sound", "direct", "loud")),
        ("video".into(), binding("media", "topic", "video.#")),
    ]);
    assert_eq!(by_name(&before), expected, "as it tells of them");

    celery.cancel(&[(node("one"), queue_names(&["video", "audio"]))]).await;
    look_until("it is cancelled", &celery, &tasks, |view| takes(view, "one", &[])).await;
    let topic = Jobs::with_ids(["hd", "sd"]).seconds(0.0, 0.0);
    let mut waits = app.submit(topic.exchange("media", "topic", "video.hd.new")).await;
    waits.extend(app.submit(Jobs::with_ids(["song"]).seconds(0.0, 0.0).exchange("sound", "direct", "loud")).await);
    assert_eq!(app.journal().tally(&waits).started.len(), 0);

    assert_eq!(celery.give_back(&[(node("one"), before)]).await, [Outcome::Done]);
    let view = look_until("it is back", &celery, &tasks, |view| takes(view, "one", &["audio", "video"])).await;
    assert_eq!(by_name(view.nodes[&node("one")].queues.as_ref().unwrap()), expected, "as they were");
    app.journal().wait_finished(&waits).await;
    let later = Jobs::with_ids(["uhd"]).seconds(0.0, 0.0).exchange("media", "topic", "video.uhd");
    let later = app.submit(later).await;
    app.journal().wait_finished(&later).await;
}

/// Each worker has a copy of every message of a broadcast, and nobody else could take it.
#[tokio::test]
async fn a_broadcast_queue_is_left_alone_and_its_jobs_are_waited_for() {
    let broker = a_broker().await;
    let start = |task: &str, unique: &str| {
        let broadcast = format!("bcast.{unique}");
        let news =
            json!({"exchange": "news", "exchange_type": "fanout", "routing_key": "news", "queue_auto_delete": true});
        let app = SampleApp::new(broker.url()).settings(
            json!({"task_queues": {"slow": {"exchange": "slow", "routing_key": "slow"}, broadcast.clone(): news}}),
        );
        (app.worker(format!("worker@{task}")).queues(["slow".to_owned(), broadcast]).prefetch(2).spawn(), app)
    };
    let (old, app) = start("old", "7bcacca6-f55b-4bb0-b6b4-3768566613c9");
    let (new, other) = start("new", "57c39620-980c-4702-8489-50e21856a173");
    let _workers = (old.ready().await, new.ready().await);
    let fleet = SmallFleet::of(&[("old", "old"), ("new", "new")]);
    let drain = drain(fleet, open(&settings(&broker.url())), Memory::default());
    let tasks = known_tasks(&["old", "new"]);
    all_answer(&drain.workers, &tasks).await;
    let publish =
        async |id: &str| app.submit(Jobs::with_ids([id]).exchange("news", "fanout", "news").until_told()).await;
    let first = publish("first").await;
    app.journal().wait_started(&first, 1).await;
    other.journal().wait_started(&first, 1).await;
    wait_until("it takes no jobs that others could take", LONG, async || {
        drain.reconcile().await.unwrap();
        takes(&drain.workers.observe(&tasks).await.unwrap(), "old", &[])
    })
    .await;
    let second = publish("second").await;
    look_until("it has a copy all the same", &drain.workers, &tasks, |view| jobs(view, "old") == Some((1, 1))).await;
    drain.reconcile().await.unwrap();
    assert_eq!(drain.fleet.released(), Vec::<String>::new());
    app.tell(first.iter().chain(&second));
    wait_until("it is let go", LONG, async || {
        drain.reconcile().await.unwrap();
        drain.fleet.released() == ["old"]
    })
    .await;
    assert!(app.journal().tally(first.iter().chain(&second)).unfinished.is_empty());
}
