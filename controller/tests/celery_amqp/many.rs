//! More nodes than a machine runs, how long it takes, and more than one under a name.

use std::time::Duration;

use futures::StreamExt;
use lapin::{
    BasicProperties, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use serde_json::json;
use test_support::{LONG, RabbitMq, SampleApp, python_with_celery, wait_until};
use tokio::time::Instant;
use worker_drain::workers::Workers;
use worker_drain_plan::{TaskId, observation::Mapping};

use crate::both::{known_tasks, look_until, maps_to, open, patient, settings};

/// Nodes that answer as a worker does, all of them through one queue.
async fn pretend_to_be(nodes: Vec<String>, url: String, ready: tokio::sync::oneshot::Sender<()>) -> lapin::Result<()> {
    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let none = FieldTable::default;
    let flags = ExchangeDeclareOptions::default();
    channel.exchange_declare("celery.pidbox".into(), ExchangeKind::Fanout, flags, none()).await?;
    let flags = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    channel.queue_declare("nodes".into(), flags, none()).await?;
    let bind = QueueBindOptions::default();
    channel.queue_bind("nodes".into(), "celery.pidbox".into(), "".into(), bind, none()).await?;
    let flags = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut requests = channel.basic_consume("nodes".into(), "".into(), flags, none()).await?;
    ready.send(()).expect("somebody waits");
    while let Some(request) = requests.next().await {
        let request: serde_json::Value = serde_json::from_slice(&request?.data).expect("it is JSON");
        let text = |value: &serde_json::Value| value.as_str().expect("it wants a reply").to_owned();
        let (exchange, key) = (text(&request["reply_to"]["exchange"]), text(&request["reply_to"]["routing_key"]));
        let mut headers = FieldTable::default();
        headers.insert("ticket".into(), AMQPValue::LongString(text(&request["ticket"]).into()));
        let properties = BasicProperties::default().with_headers(headers);
        for node in &nodes {
            let reply = json!({node: []}).to_string();
            let (exchange, key) = (exchange.as_str().into(), key.as_str().into());
            let flags = BasicPublishOptions::default();
            channel.basic_publish(exchange, key, flags, reply.as_bytes(), properties.clone()).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_thousand_nodes_are_heard() {
    let broker = RabbitMq::shared().await;
    let ids: Vec<String> = (0..1000).map(|number| format!("task-{number}")).collect();
    let (sender, ready) = tokio::sync::oneshot::channel();
    let mut nodes = tokio::task::JoinSet::new();
    nodes.spawn(pretend_to_be(ids.iter().map(|id| format!("worker@{id}")).collect(), broker.url(), sender));
    ready.await.unwrap();

    // Celery's own bound is 1 s; a slow machine is no failure.
    let celery = patient(&broker.url());
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let began = Instant::now();
    let view = celery.observe(&known_tasks(&ids)).await.unwrap();
    assert!(began.elapsed() < LONG, "it waited for its whole bound");
    assert_eq!(view.nodes.len(), 1000);
    assert!(view.nodes.values().all(|answer| answer.queues.is_some() && answer.scheduled.is_some()));
    println!("a look at 1,000 nodes took {:?}", began.elapsed());
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
async fn two_workers_of_an_older_celery_under_a_name_look_like_one() {
    let broker = RabbitMq::shared().await;
    let app = SampleApp::new(broker.url()).python(python_with_celery("5.5"));
    let workers = (app.worker("worker@one").spawn(), app.worker("worker@one").spawn());
    let _workers = (workers.0.ready().await, workers.1.ready().await);
    let celery = open(&settings(&broker.url()));
    let tasks = known_tasks(&["one"]);
    wait_until("it answers", LONG, async || celery.observe(&tasks).await.is_ok_and(|view| maps_to(&view, "one"))).await;
    for _ in 0..5 {
        let view = celery.observe(&tasks).await.unwrap();
        assert!(!matches!(view.tasks[&TaskId::from("one")], Mapping::Ambiguous { .. }), "it can be seen after all");
    }
}
