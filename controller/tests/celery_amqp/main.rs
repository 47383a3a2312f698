//! Celery's remote control over AMQP, on real parts: RabbitMQ, and Celery workers of the sample app.

#[path = "../celery_both/mod.rs"]
mod both;
mod brokers;
mod failures;
mod many;

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
