//! Celery's remote control over Redis, on real parts: redis-server, and Celery workers of the sample app.

#[path = "../celery_both/mod.rs"]
mod both;
mod brokers;
mod failures;
mod forgets;
mod long;
mod many;
mod sentinel;
mod separators;

use test_support::Redis;

/// Whether the broker tells to how many it hands a request.
const TELLS_HOW_MANY: bool = true;

/// A broker that is nobody else's, and that goes with the value.
async fn a_broker() -> Redis {
    Redis::start().await
}

/// A broker that may be stopped.
async fn a_broker_to_stop() -> Redis {
    Redis::start().await
}

/// Ends every connection.
async fn cut_connections(broker: &Redis) {
    broker.cut_connections();
}

/// Whether we listen to Celery's events on it. Workers listen to one another's, but not to this one, which nobody sends.
async fn is_listened_to(broker: &Redis) -> bool {
    broker.cli(&["PUBLISH", "/0.celeryev/nobody.sends", "this"]).parse::<u32>().is_ok_and(|receivers| receivers > 0)
}
