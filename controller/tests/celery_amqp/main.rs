//! Celery's remote control over AMQP, on real parts: RabbitMQ, and Celery workers of the sample app.

#[path = "../celery_both/mod.rs"]
mod both;
mod brokers;
mod failures;
mod many;
mod moves;

use test_support::{RabbitMq, VirtualHost};

/// Whether the broker tells to how many it hands a request.
const TELLS_HOW_MANY: bool = false;

/// A broker that is nobody else's: a virtual host, on one server for all tests here.
async fn a_broker() -> VirtualHost {
    RabbitMq::shared().await
}

/// A broker that may be stopped.
async fn a_broker_to_stop() -> RabbitMq {
    RabbitMq::start().await
}

/// Ends every connection.
async fn cut_connections(broker: &VirtualHost) {
    broker.close_all_connections().await;
}

/// A broker that can tell of its queues.
trait Queues {
    /// Their names.
    async fn names(&self) -> Vec<String>;
}

impl Queues for VirtualHost {
    async fn names(&self) -> Vec<String> {
        self.queues().await
    }
}

impl Queues for RabbitMq {
    async fn names(&self) -> Vec<String> {
        let listed = self.ctl(&["list_queues", "--quiet", "--no-table-headers", "name"]).await;
        listed.lines().map(String::from).collect()
    }
}

/// Whether we listen to Celery's events on it.
async fn is_listened_to(broker: &impl Queues) -> bool {
    broker.names().await.iter().any(|queue| queue.starts_with("worker-drain-") && queue.ends_with(".celeryev"))
}
