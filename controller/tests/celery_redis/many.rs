//! More nodes than a machine runs, and more than one under a name.

use test_support::{ModelledNodes, Redis, SampleApp};
use tokio::time::Instant;
use worker_drain_plan::{
    TaskId,
    observation::{Mapping, WorkersView},
};

use crate::both::{has_said_all, known_tasks, look_until, open, patient, settings};

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
    // A node that introduced itself late in the first look answers in the next one; a look that waited for its whole bound would
    // be too late.
    let all = |view: &WorkersView| view.nodes.len() == 1000 && view.nodes.values().all(has_said_all);
    look_until("a thousand are heard in one look", &celery, &known_tasks(&ids), all).await;
    println!("1,000 nodes were heard after {:?}", began.elapsed());
}
