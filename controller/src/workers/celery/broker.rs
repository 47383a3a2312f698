//! The brokers that there are: the one place where a URL chooses a transport.

use std::sync::Arc;

use worker_drain_plan::observation::Failure;

use super::{
    pidbox::Request,
    redis::Redis,
    settings::{CelerySettings, SettingsError},
    transport::{Sent, Transport},
};
use crate::clock::Clock;

/// A broker of some kind.
pub enum Broker {
    /// Redis.
    Redis(Redis),
}

impl Broker {
    /// The broker that the settings tell of. Does not connect.
    pub fn open(settings: &CelerySettings, clock: Arc<dyn Clock>) -> Result<Self, SettingsError> {
        Redis::new(settings, clock).map(Self::Redis)
    }
}

impl Transport for Broker {
    async fn publish(&self, requests: &[Request]) -> Result<Sent, Failure> {
        match self {
            Self::Redis(redis) => redis.publish(requests).await,
        }
    }

    async fn close(&self) {
        match self {
            Self::Redis(redis) => redis.close().await,
        }
    }
}
