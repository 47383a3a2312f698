//! More nodes than a machine runs, and more than one under a name.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use test_support::{LONG, Redis, SampleApp};
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

/// Nodes that answer as a worker does, all of them through one subscription.
async fn pretend_to_be(nodes: Vec<String>, url: String, ready: tokio::sync::oneshot::Sender<()>) {
    use futures::StreamExt;
    let client = redis::Client::open(url).expect("it is a URL of Redis");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis is there");
    let mut subscription = client.get_async_pubsub().await.expect("Redis is there");
    subscription.subscribe("/0.celery.pidbox").await.expect("Redis is there");
    ready.send(()).expect("somebody waits");
    let mut requests = subscription.into_on_message();
    while let Some(message) = requests.next().await {
        let envelope: serde_json::Value = serde_json::from_slice(message.get_payload_bytes()).expect("it is JSON");
        let body = STANDARD.decode(envelope["body"].as_str().expect("it has a body")).expect("it is base64");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("it is JSON");
        let queue =
            format!("{}.reply.celery.pidbox", body["reply_to"]["routing_key"].as_str().expect("it wants a reply"));
        let mut pipeline = redis::pipe();
        for node in &nodes {
            let reply = STANDARD.encode(json!({node: []}).to_string());
            let headers = json!({"ticket": body["ticket"], "clock": 1});
            let reply = json!({"body": reply, "headers": headers, "properties": {"body_encoding": "base64"}});
            pipeline.cmd("LPUSH").arg(&queue).arg(reply.to_string()).ignore();
        }
        pipeline.query_async::<()>(&mut connection).await.expect("Redis is there");
    }
}

#[tokio::test]
async fn a_thousand_nodes_are_heard_though_one_receiver_was_counted() {
    let redis = Redis::start().await;
    let ids: Vec<String> = (0..1000).map(|number| format!("task-{number}")).collect();
    let (sender, ready) = tokio::sync::oneshot::channel();
    let mut nodes = tokio::task::JoinSet::new();
    nodes.spawn(pretend_to_be(ids.iter().map(|id| format!("worker@{id}")).collect(), redis.url(), sender));
    ready.await.unwrap();

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
