//! Counting queues on an SQS (moto's), with real messages and with a real Celery worker that takes them.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

use std::{sync::Arc, time::Duration};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_sdk_sqs::Client;
use serde_json::json;
use test_support::{Jobs, LONG, SampleApp, Sqs, free_port, python_with_sqs, wait_until};
use worker_drain::{
    aws::Access,
    clock::SystemClock,
    queues::sqs::{SETTLES_IN, SqsSettings},
};
use worker_drain_plan::{
    QueueName,
    observation::{Delivered, Failure, FailureKind, QueueCount, Seen},
};

type Counter = worker_drain::queues::sqs::Sqs;

async fn config(endpoint: &str, key: (&str, &str)) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::v2026_01_12())
        .endpoint_url(endpoint)
        .region(Region::from_static("us-east-1"))
        .credentials_provider(Credentials::new(key.0, key.1, None, None, "test"))
        .load()
        .await
}

async fn counter(endpoint: &str, key: (&str, &str)) -> Counter {
    let mut settings = SqsSettings::new(Access::default());
    // A busy machine is slow; that it is bounded at all is another test's matter.
    settings.timeouts.attempt = LONG;
    settings.timeouts.operation = LONG;
    Counter::with_config(settings, &config(endpoint, key).await, Arc::new(SystemClock)).unwrap()
}

/// An SQS, one who sends and takes messages, and us.
struct Stage {
    sqs: Sqs,
    client: Client,
    counter: Counter,
}

impl Stage {
    async fn start() -> Self {
        let sqs = Sqs::start().await;
        let key = ("emulated", "emulated");
        let client = Client::new(&config(&sqs.endpoint(), key).await);
        let counter = counter(&sqs.endpoint(), key).await;
        Self { sqs, client, counter }
    }

    async fn make(&self, name: &str) -> String {
        self.client.create_queue().queue_name(name).send().await.unwrap().queue_url.unwrap()
    }

    async fn send(&self, url: &str, delay: i32) {
        let message = self.client.send_message().queue_url(url).message_body("a job");
        message.delay_seconds(delay).send().await.unwrap();
    }

    /// Takes one message, and tells by what it is acknowledged.
    async fn take(&self, url: &str) -> String {
        let taken = self.client.receive_message().queue_url(url).max_number_of_messages(1).visibility_timeout(3600);
        let mut messages = taken.send().await.unwrap().messages.unwrap();
        messages.pop().unwrap().receipt_handle.unwrap()
    }

    async fn counted(&self, name: &str) -> (u64, u64) {
        numbers(&seen(&self.counter, name).await.unwrap())
    }
}

async fn seen(counter: &Counter, name: &str) -> Result<QueueCount, Failure> {
    let queue = QueueName::from(name);
    match counter.count(&[queue.clone()].into()).await.remove(&queue).unwrap() {
        Seen::Ok { value, at } => {
            assert!(at <= value.counted_at);
            Ok(value)
        }
        Seen::Err { failure, .. } => Err(failure),
    }
}

/// What is ready, and what is delivered and not acknowledged.
fn numbers(count: &QueueCount) -> (u64, u64) {
    match count.delivered {
        Delivered::Counted(delivered) => (count.ready, delivered),
        Delivered::Told { .. } => panic!("SQS tells of all of them: {count:?}"),
    }
}

#[tokio::test]
async fn visible_delayed_and_in_flight_messages_count_whatever_the_queue_is_named_by() {
    let stage = Stage::start().await;
    let url = stage.make("slow").await;
    assert_eq!(stage.counted("slow").await, (0, 0));
    stage.send(&url, 0).await;
    stage.send(&url, 0).await;
    assert_eq!(stage.counted("slow").await, (2, 0));
    let handle = stage.take(&url).await;
    assert_eq!(stage.counted("slow").await, (1, 1), "one is in flight");
    stage.send(&url, 900).await;
    for name in ["slow", &url, "arn:aws:sqs:us-east-1:123456789012:slow"] {
        assert_eq!(stage.counted(name).await, (2, 1), "one is delayed: {name}");
    }
    stage.client.delete_message().queue_url(&url).receipt_handle(handle).send().await.unwrap();
    assert_eq!(stage.counted("slow").await, (2, 0), "one is acknowledged");

    let count = seen(&stage.counter, "slow").await.unwrap();
    assert_eq!((count.known, count.settles_in), (true, SETTLES_IN));
}

#[tokio::test]
async fn several_queues_are_counted_each_for_itself_and_one_that_is_not_there_is_never_empty() {
    let stage = Stage::start().await;
    let (slow, _) = (stage.make("slow").await, stage.make("fast").await);
    stage.send(&slow, 0).await;
    let names = ["slow", "fast", "misspelt", "no such name", "arn:aws:sqs:eu-west-1:123456789012:slow"];
    let counts = stage.counter.count(&names.map(QueueName::from).into()).await;
    assert_eq!(counts.len(), names.len());
    assert_eq!(numbers(counts[&"slow".into()].ok().unwrap()), (1, 0));
    assert_eq!(numbers(counts[&"fast".into()].ok().unwrap()), (0, 0));
    let failure = |name: &str| match &counts[&QueueName::from(name)] {
        Seen::Err { failure, .. } => failure.clone(),
        Seen::Ok { value, .. } => panic!("{name}: {value:?}"),
    };
    let misspelt = failure("misspelt");
    assert_eq!(misspelt.kind, FailureKind::NotFound);
    for part in ["Region us-east-1", "queue_name_prefix", "fleet.ecs.region"] {
        assert!(misspelt.message.contains(part), "{misspelt:?}");
    }
    assert_eq!(failure("no such name").kind, FailureKind::Invalid);
    // The Region is that of the ARN.
    let elsewhere = failure("arn:aws:sqs:eu-west-1:123456789012:slow");
    assert!(elsewhere.kind == FailureKind::NotFound && elsewhere.message.contains("eu-west-1"), "{elsewhere:?}");
}

#[tokio::test]
async fn a_queue_that_is_deleted_is_noticed_and_found_again_when_it_is_back() {
    let stage = Stage::start().await;
    let url = stage.make("slow").await;
    assert_eq!(stage.counted("slow").await, (0, 0));
    stage.client.delete_queue().queue_url(&url).send().await.unwrap();
    assert_eq!(seen(&stage.counter, "slow").await.unwrap_err().kind, FailureKind::NotFound);
    stage.make("slow").await;
    assert_eq!(stage.counted("slow").await, (0, 0));
}

#[tokio::test]
async fn a_right_that_is_missing_is_named() {
    let stage = Stage::start().await;
    let url = stage.make("slow").await;
    let key = stage.sqs.without_rights();
    let counter = counter(&stage.sqs.endpoint(), (&key.0, &key.1)).await;
    for (name, right) in [("slow", "sqs:GetQueueUrl"), (&*url, "sqs:GetQueueAttributes")] {
        let failure = seen(&counter, name).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Denied, "{failure:?}");
        assert!(failure.message.contains(&format!("Grant {right} to")), "{failure:?}");
    }
}

#[tokio::test]
async fn an_sqs_that_is_not_there_or_says_nothing_is_unreachable_within_the_bound() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for port in [free_port(), silent.local_addr().unwrap().port()] {
        let mut settings = SqsSettings::new(Access::default());
        settings.timeouts.operation = Duration::from_secs(1);
        let config = config(&format!("http://127.0.0.1:{port}"), ("emulated", "emulated")).await;
        let counter = Counter::with_config(settings, &config, Arc::new(SystemClock)).unwrap();
        let failure = tokio::time::timeout(LONG, seen(&counter, "slow")).await.expect("it is bounded").unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unreachable, "{failure:?}");
        assert!(failure.message.contains("GetQueueUrl for the queue slow"), "{failure:?}");
    }
}

/// What docs/brokers.md tells of a job that runs: in flight as long as its message is not acknowledged.
#[tokio::test]
async fn a_job_of_celery_is_in_flight_until_it_is_acknowledged() {
    for late in [true, false] {
        let stage = Stage::start().await;
        let mut settings = Sqs::settings();
        settings["task_acks_late"] = json!(late);
        let app = SampleApp::new(stage.sqs.url()).settings(settings).python(python_with_sqs());
        let _worker = app.worker("worker@one").concurrency(1).start().await;
        let jobs = app.submit(Jobs::with_ids(["job"]).until_told()).await;
        app.journal().wait_started(&jobs, 1).await;
        let running = (0, u64::from(late));
        wait_until(&format!("{running:?} is counted"), LONG, async || stage.counted("celery").await == running).await;
        app.tell(&jobs);
        app.journal().wait_finished(&jobs).await;
        wait_until("nothing is counted", LONG, async || stage.counted("celery").await == (0, 0)).await;
    }
}
