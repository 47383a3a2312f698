//! The brokers that there are: the one place where a URL chooses a transport.

use std::sync::Arc;

use worker_drain_plan::observation::Failure;

use super::{
    amqp::Amqp,
    pidbox::Request,
    redis::Redis,
    settings::{CelerySettings, SettingsError},
    transport::{Events, Sent, Transport},
};
use crate::clock::Clock;

/// A broker of some kind.
pub enum Broker {
    /// RabbitMQ.
    Amqp(Amqp),
    /// Redis.
    Redis(Redis),
}

impl Broker {
    /// The broker that the settings tell of. Does not connect.
    pub fn open(settings: &CelerySettings, clock: Arc<dyn Clock>) -> Result<Self, SettingsError> {
        let scheme = settings.url.scheme()?;
        match scheme.as_str() {
            "amqp" | "amqps" | "pyamqp" => Amqp::new(settings).map(Self::Amqp),
            "redis" | "rediss" | "redis+socket" | "unix" => Redis::new(settings, clock).map(Self::Redis),
            "sentinel" => Err(SettingsError::NotYet { scheme }),
            "sqs" | "sqs+https" | "sqs+http" => Err(SettingsError::Sqs { scheme }),
            _ => Err(SettingsError::Scheme { scheme }),
        }
    }
}

impl Transport for Broker {
    async fn publish(&self, requests: &[Request]) -> Result<Sent, Failure> {
        match self {
            Self::Amqp(amqp) => amqp.publish(requests).await,
            Self::Redis(redis) => redis.publish(requests).await,
        }
    }

    async fn close(&self) {
        match self {
            Self::Amqp(amqp) => amqp.close().await,
            Self::Redis(redis) => redis.close().await,
        }
    }

    async fn events(&self) -> Result<Events, Failure> {
        match self {
            Self::Amqp(amqp) => amqp.events().await,
            Self::Redis(redis) => redis.events().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rstest::rstest;

    use super::{Broker, CelerySettings};
    use crate::clock::SystemClock;

    fn open(url: &str) -> Result<&'static str, String> {
        match Broker::open(&CelerySettings::new(url), Arc::new(SystemClock)) {
            Ok(Broker::Amqp(_)) => Ok("amqp"),
            Ok(Broker::Redis(_)) => Ok("redis"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[rstest]
    #[case("amqp://a", "amqp")]
    #[case("AMQPS://a", "amqp")]
    #[case("pyamqp://a;amqp://b", "amqp")]
    #[case(" redis://a", "redis")]
    #[case("unix:///run/redis.sock", "redis")]
    fn the_scheme_chooses(#[case] url: &str, #[case] broker: &str) {
        assert_eq!(open(url).as_deref(), Ok(broker));
    }

    #[rstest]
    #[case(" ", "is empty")]
    #[case(";", "it has no scheme")]
    #[case("cache:6379", "it has no scheme")]
    #[case("sentinel://a:26379", "sentinel:// is not supported yet")]
    #[case("sqs://", "no remote control over Amazon SQS")]
    #[case("kafka://u:hunter2@a", "kafka:// is not a broker that is known")]
    fn what_is_wrong_is_said(#[case] url: &str, #[case] expected: &str) {
        let error = open(url).unwrap_err();
        assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
    }
}
