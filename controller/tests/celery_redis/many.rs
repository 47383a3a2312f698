//! More nodes than a machine runs, and more than one under a name.

use test_support::{LONG, ModelledNodes, Redis, SampleApp};
use tokio::time::Instant;
use worker_drain::workers::Workers;
use worker_drain_plan::{
    TaskId,
    observation::{Mapping, WorkersView},
};

use crate::both::{known_tasks, look_until, open, patient, settings};

#[tokio::test]
async fn two_workers_under_one_name_are_never_taken_for_one() {
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url());
    let workers = (app.worker("worker@one").spawn(), app.worker("worker@one").spawn());
    let _workers = (workers.0.ready().await, workers.1.ready().await);
    let celery = open(&settings(&redis.url()));

    let shared = |view: &WorkersView| matches!(&view.tasks[&TaskId::from("one")], Mapping::Ambiguous { why } if why.contains("several processes"));
    let view = look_until("both answer", &celery, &known_tasks(&["one"]), shared).await;
    assert!(view.nodes.is_empty());
}

#[tokio::test]
async fn a_thousand_nodes_are_heard_though_one_receiver_was_counted() {
    let redis = Redis::start().await;
    let ids: Vec<String> = (0..1000).map(|number| format!("task-{number}")).collect();
    let _nodes = ModelledNodes::start(&redis.url(), ids.iter().map(|id| format!("worker@{id}")).collect()).await;

    // Celery's own bound is 1 s; a slow machine is no failure.
    let celery = patient(&redis.url());
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let began = Instant::now();
    let view = celery.observe(&known_tasks(&ids)).await.unwrap();
    assert!(began.elapsed() < LONG, "it waited for its whole bound");
    assert_eq!(view.nodes.len(), 1000);
    assert!(view.nodes.values().all(|answer| answer.queues.is_some() && answer.scheduled.is_some()));
    println!("a look at 1,000 nodes took {:?}", began.elapsed());
}
