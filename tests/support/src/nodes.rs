//! More nodes than a machine runs.

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::StreamExt;
use lapin::{
    BasicProperties, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};
use tokio::{
    sync::oneshot::{Sender, channel},
    task::JoinSet,
    time::Instant,
};

/// Nodes that answer as idle workers do, all of them through one subscription. They end
/// when this is dropped.
#[derive(Debug)]
pub struct ModelledNodes(#[expect(dead_code, reason = "it is kept for being dropped")] JoinSet<()>);

impl ModelledNodes {
    /// These, on the broker at this URL. They listen when this returns.
    pub async fn start(url: &str, nodes: Vec<String>) -> Self {
        let mut answering = JoinSet::new();
        let (ready, is_ready) = channel();
        let url = url.to_owned();
        if url.starts_with("redis") {
            answering.spawn(async move { on_redis(&nodes, &url, ready).await.expect("Redis is there") });
        } else {
            answering.spawn(async move { on_rabbitmq(&nodes, &url, ready).await.expect("RabbitMQ is there") });
        }
        is_ready.await.expect("they listen");
        Self(answering)
    }
}

async fn on_redis(nodes: &[String], url: &str, ready: Sender<()>) -> redis::RedisResult<()> {
    let started = Instant::now();
    let client = redis::Client::open(url)?;
    // Its own bound is half a second, which a busy machine passes.
    let unbounded = redis::AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let mut connection = client.get_multiplexed_async_connection_with_config(&unbounded).await?;
    let mut subscription = client.get_async_pubsub().await?;
    subscription.subscribe("/0.celery.pidbox").await?;
    ready.send(()).expect("somebody waits");
    let mut requests = subscription.into_on_message();
    while let Some(message) = requests.next().await {
        let envelope: Value = serde_json::from_slice(message.get_payload_bytes()).expect("it is JSON");
        let body = STANDARD.decode(text(&envelope["body"])).expect("it is base64");
        let request: Value = serde_json::from_slice(&body).expect("it is JSON");
        let queue = format!("{}.reply.celery.pidbox", text(&request["reply_to"]["routing_key"]));
        let mut pipeline = redis::pipe();
        for node in asked(nodes, &request) {
            let reply = STANDARD.encode(json!({node: answer(&request, started)}).to_string());
            let reply = json!({
                "body": reply, "headers": {"ticket": request["ticket"], "clock": 1}, "content-type": "application/json",
                "content-encoding": "utf-8",
                "properties": {"body_encoding": "base64", "delivery_info": {}, "delivery_tag": request["ticket"]},
            });
            pipeline.cmd("LPUSH").arg(&queue).arg(reply.to_string()).ignore();
        }
        pipeline.query_async::<()>(&mut connection).await?;
    }
    Ok(())
}

async fn on_rabbitmq(nodes: &[String], url: &str, ready: Sender<()>) -> lapin::Result<()> {
    let started = Instant::now();
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
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
        let request: Value = serde_json::from_slice(&request?.data).expect("it is JSON");
        let (exchange, key) = (text(&request["reply_to"]["exchange"]), text(&request["reply_to"]["routing_key"]));
        let mut headers = FieldTable::default();
        headers.insert("ticket".into(), AMQPValue::LongString(text(&request["ticket"]).into()));
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_content_encoding("utf-8".into())
            .with_headers(headers);
        for node in asked(nodes, &request) {
            let reply = json!({node: answer(&request, started)}).to_string();
            let flags = BasicPublishOptions::default();
            channel.basic_publish(exchange.into(), key.into(), flags, reply.as_bytes(), properties.clone()).await?;
        }
    }
    Ok(())
}

/// What an idle worker of Celery 5.7 answers, as far as it matters.
fn answer(request: &Value, started: Instant) -> Value {
    match request["method"].as_str() {
        Some("ping") => json!({"ok": "pong"}),
        Some("stats") => json!({"pid": 7, "uptime": started.elapsed().as_secs(), "total": {}}),
        Some("report") => json!({"ok": "software -> celery:5.7.0 (collider)"}),
        Some("conf") => json!({"accept_content": ["json"], "worker_disable_rate_limits": false}),
        _ => json!([]),
    }
}

/// Those of the nodes that a request is for.
fn asked<'a>(nodes: &'a [String], request: &'a Value) -> impl Iterator<Item = &'a String> {
    let destination = request["destination"].as_array();
    nodes.iter().filter(move |node| destination.is_none_or(|all| all.iter().any(|one| one == node.as_str())))
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a request has it")
}
