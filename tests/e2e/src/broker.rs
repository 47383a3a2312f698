//! The broker of a stage.

use test_support::{RabbitMq, Redis, VirtualHost};

/// Which broker a stage has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerKind {
    /// A Redis of its own.
    Redis,
    /// A virtual host on the RabbitMQ that all stages of this process share.
    RabbitMq,
    /// A RabbitMQ of its own, which may be stopped. It takes some seconds to start.
    OwnRabbitMq,
}

/// A broker that runs.
#[derive(Debug)]
pub(crate) enum Broker {
    Redis(Redis),
    RabbitMq(VirtualHost),
    OwnRabbitMq(Box<RabbitMq>),
}

impl Broker {
    pub(crate) async fn start(kind: BrokerKind) -> Self {
        match kind {
            BrokerKind::Redis => Self::Redis(Redis::start().await),
            BrokerKind::RabbitMq => Self::RabbitMq(RabbitMq::shared().await),
            BrokerKind::OwnRabbitMq => Self::OwnRabbitMq(Box::new(RabbitMq::start().await)),
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Redis(redis) => redis.url(),
            Self::RabbitMq(host) => host.url(),
            Self::OwnRabbitMq(rabbit) => rabbit.url(),
        }
    }

    pub(crate) async fn stop(&mut self) {
        match self {
            Self::Redis(redis) => redis.stop().await,
            Self::OwnRabbitMq(rabbit) => rabbit.stop().await,
            Self::RabbitMq(_) => panic!("this RabbitMQ is shared with other stages"),
        }
    }

    pub(crate) async fn restart(&mut self) {
        match self {
            Self::Redis(redis) => redis.restart().await,
            Self::OwnRabbitMq(rabbit) => rabbit.restart().await,
            Self::RabbitMq(_) => panic!("this RabbitMQ is shared with other stages"),
        }
    }
}
