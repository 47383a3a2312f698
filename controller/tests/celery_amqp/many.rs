//! More nodes than a machine runs, how long it takes, and more than one under a name.

use std::time::Duration;

use test_support::{LONG, ModelledNodes, RabbitMq, SampleApp, python_with_celery, wait_until};
use tokio::time::Instant;
use worker_drain::workers::Workers;
use worker_drain_plan::{
    TaskId,
    observation::{Mapping, WorkersView},
};

use crate::both::{has_said_all, known_tasks, look_until, maps_to, node, open, patient, settings};

#[tokio::test]
async fn a_thousand_nodes_are_heard() {
    let broker = RabbitMq::shared().await;
    let ids: Vec<String> = (0..1000).map(|number| format!("task-{number}")).collect();
    let _nodes = ModelledNodes::start(&broker.url(), ids.iter().map(|id| format!("worker@{id}")).collect()).await;

    // Celery's own bound is 1 s; a slow machine is no failure.
    let celery = patient(&broker.url());
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let began = Instant::now();
    // A node that introduced itself late in the first look answers in the next one; a look that waited for its whole bound would
    // be too late.
    let all = |view: &WorkersView| view.nodes.len() == 1000 && view.nodes.values().all(has_said_all);
    look_until("a thousand are heard in one look", &celery, &known_tasks(&ids), all).await;
    println!("1,000 nodes were heard after {:?}", began.elapsed());
}

#[tokio::test]
async fn a_look_takes_no_longer_than_its_node() {
    let broker = RabbitMq::shared().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("worker@one").start().await;
    let tasks = known_tasks(&["one"]);
    let celery = open(&settings(&broker.url()));
    look_until("it answers", &celery, &tasks, |view| view.nodes.len() == 1).await;
    let mut took = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        celery.observe(&tasks).await.unwrap();
        took.push(began.elapsed());
    }
    took.sort_unstable();
    println!("a look at one node took {:?}, the slowest of 50 {:?}", took[25], took[49]);
    // Its bound is two seconds: it is over when all have answered.
    assert!(took[25] < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn a_second_worker_under_a_name_does_not_start() {
    let broker = RabbitMq::shared().await;
    let app = SampleApp::new(broker.url());
    let _first = app.worker("worker@one").start().await;
    let mut second = app.worker("worker@one").spawn();
    second.process().ended(LONG).await;
    assert!(second.process().log().contains("RESOURCE_LOCKED"));
    let celery = open(&settings(&broker.url()));
    look_until("the first answers", &celery, &known_tasks(&["one"]), |view| maps_to(view, "one")).await;
}

/// A limit, and the reason to name nodes by their task: docs/brokers.md tells it.
#[tokio::test]
async fn two_workers_of_an_older_celery_under_a_name_are_told_from_one_where_one_seems_idle() {
    let broker = RabbitMq::shared().await;
    let app = SampleApp::new(broker.url()).python(python_with_celery("5.5"));
    let workers = (app.worker("worker@one").spawn(), app.worker("worker@one").spawn());
    let _workers = (workers.0.ready().await, workers.1.ready().await);
    let celery = open(&settings(&broker.url()));
    let tasks = known_tasks(&["one"]);
    wait_until("it answers", LONG, async || celery.observe(&tasks).await.is_ok_and(|view| maps_to(&view, "one"))).await;
    // One of them obeys, and the other takes jobs.
    celery.cancel(&[(node("one"), vec!["celery".into()])]).await;
    look_until("that there are two is seen where one seems idle", &celery, &tasks, |view| {
        matches!(view.tasks[&TaskId::from("one")], Mapping::Ambiguous { .. })
    })
    .await;
}
