//! The broker of a stage, and with it the way to the workers.

use serde_json::Value;
use test_support::{RabbitMq, Redis, SampleApp, Sqs, VirtualHost, free_port, python_with_sqs};

/// What HTTP workers are shown.
pub const TOKEN: &str = "a-token-for-tests-only";

/// Which broker a stage has, and how its workers are asked: by Celery's remote control, unless it is said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerKind {
    /// A Redis of its own.
    Redis,
    /// A virtual host on the RabbitMQ that all stages of this process share.
    RabbitMq,
    /// A RabbitMQ of its own, which may be stopped. It takes some seconds to start.
    OwnRabbitMq,
    /// Amazon SQS, by HTTP.
    SqsByHttp,
}

/// A broker that runs.
#[derive(Debug)]
pub enum Broker {
    /// See [`BrokerKind::Redis`].
    Redis(Redis),
    /// See [`BrokerKind::RabbitMq`].
    RabbitMq(VirtualHost),
    /// See [`BrokerKind::OwnRabbitMq`].
    OwnRabbitMq(Box<RabbitMq>),
    /// See [`BrokerKind::SqsByHttp`]; with the port at which workers answer.
    Sqs(Sqs, u16),
}

impl Broker {
    /// Starts one.
    pub async fn start(kind: BrokerKind) -> Self {
        match kind {
            BrokerKind::Redis => Self::Redis(Redis::start().await),
            BrokerKind::RabbitMq => Self::RabbitMq(RabbitMq::shared().await),
            BrokerKind::OwnRabbitMq => Self::OwnRabbitMq(Box::new(RabbitMq::start().await)),
            BrokerKind::SqsByHttp => Self::Sqs(Sqs::start().await, free_port()),
        }
    }

    /// The sample app on it.
    pub fn app(&self, settings: &Value) -> SampleApp {
        match self {
            Self::Redis(redis) => SampleApp::new(redis.url()).settings(settings.clone()),
            Self::RabbitMq(host) => SampleApp::new(host.url()).settings(settings.clone()),
            Self::OwnRabbitMq(rabbit) => SampleApp::new(rabbit.url()).settings(settings.clone()),
            Self::Sqs(sqs, port) => SampleApp::new(sqs.url())
                .settings(Sqs::settings())
                .python(python_with_sqs())
                .variable("SAMPLE_HTTP", "1")
                .variable("WORKER_DRAIN_HTTP_TOKEN", TOKEN)
                .variable("WORKER_DRAIN_HTTP_ADDRESS", "${ECS_PRIVATE_IP}")
                .variable("WORKER_DRAIN_HTTP_PORT", port.to_string()),
        }
    }

    /// Stops it, with all that it holds.
    pub async fn stop(&mut self) {
        match self {
            Self::Redis(redis) => redis.stop().await,
            Self::OwnRabbitMq(rabbit) => rabbit.stop().await,
            Self::RabbitMq(_) => panic!("this RabbitMQ is shared with other stages"),
            Self::Sqs(..) => panic!("SQS is not stopped"),
        }
    }

    /// Starts it again, as it was.
    pub async fn restart(&mut self) {
        match self {
            Self::Redis(redis) => redis.restart().await,
            Self::OwnRabbitMq(rabbit) => rabbit.restart().await,
            Self::RabbitMq(_) => panic!("this RabbitMQ is shared with other stages"),
            Self::Sqs(..) => panic!("SQS is not stopped"),
        }
    }
}
