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

/// Nodes that answer as workers do that run nothing, all of them through one subscription. They end
/// when this is dropped.
#[derive(Debug)]
pub struct ModelledNodes(#[expect(dead_code, reason = "it is kept for being dropped")] JoinSet<()>);

impl ModelledNodes {
    /// These, on the broker at this URL. They listen when this returns.
    pub async fn start(url: &str, nodes: Vec<String>) -> Self {
        Self::start_with(url, nodes, json!([])).await
    }

    /// As [`Self::start`]; each of them answers this when it is asked for its scheduled jobs.
    pub async fn start_with(url: &str, nodes: Vec<String>, scheduled: Value) -> Self {
        let mut answering = JoinSet::new();
        let (ready, is_ready) = channel();
        let url = url.to_owned();
        let nodes = Nodes { names: nodes, scheduled, started: Instant::now() };
        if url.starts_with("redis") {
            answering.spawn(async move { on_redis(&nodes, &url, ready).await.expect("Redis is there") });
        } else {
            answering.spawn(async move { on_rabbitmq(&nodes, &url, ready).await.expect("RabbitMQ is there") });
        }
        is_ready.await.expect("they listen");
        Self(answering)
    }
}

struct Nodes {
    names: Vec<String>,
    scheduled: Value,
    started: Instant,
}

async fn on_redis(nodes: &Nodes, url: &str, ready: Sender<()>) -> redis::RedisResult<()> {
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
        for node in nodes.asked(&request) {
            let reply = STANDARD.encode(json!({node: nodes.answer(&request)}).to_string());
            // In the order in which kombu writes it.
            let ticket = &request["ticket"];
            let reply = format!(
                r#"{{"body": "{reply}", "content-encoding": "utf-8", "content-type": "application/json", "headers": {{"ticket": {ticket}, "clock": 1}}, "properties": {{"delivery_mode": 1, "delivery_info": {{}}, "priority": 0, "body_encoding": "base64", "delivery_tag": {ticket}}}}}"#
            );
            pipeline.cmd("LPUSH").arg(&queue).arg(reply).ignore();
        }
        pipeline.query_async::<()>(&mut connection).await?;
    }
    Ok(())
}

async fn on_rabbitmq(nodes: &Nodes, url: &str, ready: Sender<()>) -> lapin::Result<()> {
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
        for node in nodes.asked(&request) {
            let reply = json!({node: nodes.answer(&request)}).to_string();
            let flags = BasicPublishOptions::default();
            channel.basic_publish(exchange.into(), key.into(), flags, reply.as_bytes(), properties.clone()).await?;
        }
    }
    Ok(())
}

impl Nodes {
    /// What a worker of Celery 5.7 answers, as far as it matters.
    fn answer(&self, request: &Value) -> Value {
        match request["method"].as_str() {
            Some("ping") => json!({"ok": "pong"}),
            Some("stats") => json!({"pid": 7, "uptime": self.started.elapsed().as_secs(), "total": {}}),
            Some("report") => json!({"ok": "software -> celery:5.7.0 (collider)"}),
            Some("conf") => json!({"accept_content": ["json"], "worker_disable_rate_limits": false}),
            Some("scheduled") => self.scheduled.clone(),
            _ => json!([]),
        }
    }

    /// Those that a request is for.
    fn asked<'a>(&'a self, request: &'a Value) -> impl Iterator<Item = &'a String> {
        let destination = request["destination"].as_array();
        self.names.iter().filter(move |node| destination.is_none_or(|all| all.iter().any(|one| one == node.as_str())))
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a request has it")
}
