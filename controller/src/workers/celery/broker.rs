//! The brokers that there are: the one place where a URL chooses a transport.

use std::{collections::BTreeSet, sync::Arc};

use worker_drain_plan::{NodeName, QueueName, observation::Failure};

use super::{
    amqp::Amqp,
    pidbox::Request,
    redis::Redis,
    settings::{CelerySettings, SentinelSettings, SettingsError},
    transport::{Count, Events, Sent, Transport},
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
    /// The broker of the settings. Does not connect.
    pub fn open(settings: &CelerySettings, clock: Arc<dyn Clock>) -> Result<Self, SettingsError> {
        let scheme = settings.url.scheme()?;
        match scheme.as_str() {
            "amqp" | "amqps" | "pyamqp" => {
                not_for_sentinel(settings, &scheme)?;
                Amqp::new(settings).map(Self::Amqp)
            }
            "redis" | "rediss" | "redis+socket" | "unix" => {
                not_for_sentinel(settings, &scheme)?;
                Redis::new(settings, clock).map(Self::Redis)
            }
            "sentinel" => Redis::new(settings, clock).map(Self::Redis),
            "redis+cluster" | "rediss+cluster" | "rediscluster" | "redis-cluster" => {
                Err(SettingsError::Cluster { scheme })
            }
            "sqs" | "sqs+https" | "sqs+http" => Err(SettingsError::Sqs { scheme }),
            _ => Err(SettingsError::Scheme { scheme }),
        }
    }
}

/// Somebody who gives these thinks of a broker that the URL does not name.
fn not_for_sentinel(settings: &CelerySettings, scheme: &str) -> Result<(), SettingsError> {
    let SentinelSettings { master_name, username, password, tls } = &settings.sentinel;
    let field = match (master_name.is_some(), username.is_some() || password.is_some() || *tls) {
        (false, false) => return Ok(()),
        (true, _) => "transportOptions.masterName",
        (false, true) => "transportOptions.sentinelKwargs",
    };
    Err(SettingsError::NotForSentinel { field, scheme: scheme.to_owned() })
}

impl Transport for Broker {
    async fn publish(&self, requests: &[Request]) -> Result<Sent, Failure> {
        match self {
            Self::Amqp(amqp) => amqp.publish(requests).await,
            Self::Redis(redis) => redis.publish(requests).await,
        }
    }

    async fn count(&self, queues: &[QueueName]) -> Vec<Result<Count, Failure>> {
        match self {
            Self::Amqp(amqp) => amqp.count(queues).await,
            Self::Redis(redis) => redis.count(queues).await,
        }
    }

    async fn shared(&self, nodes: &BTreeSet<NodeName>) -> Result<BTreeSet<NodeName>, Failure> {
        match self {
            Self::Amqp(amqp) => amqp.shared(nodes).await,
            Self::Redis(redis) => redis.shared(nodes).await,
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

    use super::{Broker, CelerySettings, SentinelSettings};
    use crate::{clock::SystemClock, tls::TlsSettings};

    fn open(settings: &CelerySettings) -> Result<&'static str, String> {
        match Broker::open(settings, Arc::new(SystemClock)) {
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
    #[case("sentinel://a:26379;sentinel://b:26379/0", "sentinel")]
    fn the_scheme_chooses(#[case] url: &str, #[case] broker: &str) {
        let mut settings = CelerySettings::new(url);
        settings.sentinel.master_name = (broker == "sentinel").then(|| "main".into());
        let broker = broker.replace("sentinel", "redis");
        assert_eq!(open(&settings).as_deref(), Ok(broker.as_str()));
    }

    #[test]
    fn what_is_for_other_brokers_is_refused() {
        let mut settings = CelerySettings::new("rediss://a");
        settings.sentinel.master_name = Some("main".into());
        assert!(
            open(&settings)
                .unwrap_err()
                .contains("masterName is for Redis Sentinel: the broker's URL begins with rediss://")
        );
        settings.sentinel = SentinelSettings { password: Some("hunter2".into()), ..SentinelSettings::default() };
        let error = open(&settings).unwrap_err();
        assert!(error.contains("sentinelKwargs is for Redis Sentinel") && !error.contains("hunter2"), "{error}");
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[rstest]
    #[case("redis://a", "write rediss://")]
    #[case("unix:///run/redis.sock", "write rediss://")]
    #[case("amqp://a", "write amqps://")]
    #[case("amqps://a;pyamqp://b", "write amqps://")]
    fn tls_where_none_is_spoken_is_refused(#[case] url: &str, #[case] advice: &str) {
        let settings = CelerySettings { tls: Some(TlsSettings::default()), ..CelerySettings::new(url) };
        let error = open(&settings).unwrap_err();
        assert!(error.contains("speaks no TLS") && error.contains(advice), "{error}");
    }

    #[rstest]
    #[case(" ", "is empty")]
    #[case(";", "it has no scheme")]
    #[case("cache:6379", "it has no scheme")]
    #[case("sentinel://a:26379", "needs transportOptions.masterName")]
    #[case("rediscluster://u:hunter2@a", "is a Redis Cluster, on which Celery itself does not run")]
    #[case("sqs://", "no remote control over Amazon SQS")]
    #[case("kafka://u:hunter2@a", "kafka:// is not a broker that is known")]
    fn what_is_wrong_is_said(#[case] url: &str, #[case] expected: &str) {
        let error = open(&CelerySettings::new(url)).unwrap_err();
        assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
    }
}
