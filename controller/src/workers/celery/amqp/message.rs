//! Our names on the broker, and messages as kombu sends them over AMQP.
//!
//! Exchanges and queues are those of kombu's `pidbox` (`kombu/pidbox.py`), observed on kombu 5.7.0 and RabbitMQ 3.10.

use jiff::Timestamp;
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable, ShortString},
};
use uuid::Uuid;

use crate::workers::celery::{
    pidbox::{ReplyTo, Request},
    transport::Reply,
};

/// What our queues begin with: permissions can then be given for them alone.
pub(super) const OURS: &str = "worker-drain-";

/// Names of one connection: another has another queue, so that no late reply to one can reach the other.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The fanout exchange that every node listens on.
    pub(super) exchange: ShortString,
    /// The direct exchange that replies go through.
    pub(super) reply_exchange: ShortString,
    /// Our queue for replies.
    pub(super) queue: ShortString,
    /// Its routing key.
    pub(super) oid: ShortString,
}

impl Names {
    pub(super) fn new(control_exchange: &str) -> Self {
        let oid = format!("{OURS}{}", Uuid::new_v4());
        let reply_exchange = format!("reply.{control_exchange}.pidbox");
        Self {
            exchange: format!("{control_exchange}.pidbox").into(),
            queue: format!("{oid}.{reply_exchange}").into(),
            reply_exchange: reply_exchange.into(),
            oid: oid.into(),
        }
    }

    pub(super) fn reply_to(&self) -> ReplyTo {
        ReplyTo { exchange: self.reply_exchange.to_string(), routing_key: self.oid.to_string() }
    }
}

/// What Celery's own reply queues have: milliseconds without a reader until it is removed, and until a message is.
pub(super) fn queue_arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-expires".into(), AMQPValue::LongInt(10_000));
    arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(300_000));
    arguments
}

/// The properties of a request. Delivery mode 1: it is of no use to anybody after the broker's restart.
pub(super) fn properties(request: &Request) -> BasicProperties {
    let mut headers = FieldTable::default();
    // A logical clock that nobody's is behind: we have seen nothing that others have not.
    headers.insert("clock".into(), AMQPValue::LongLongInt(1));
    headers.insert("expires".into(), AMQPValue::LongLongInt(seconds(request.expires)));
    BasicProperties::default()
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        .with_delivery_mode(1)
        .with_priority(0)
        .with_headers(headers)
}

/// Whole seconds, rounded up: never earlier than what was asked for.
fn seconds(at: Timestamp) -> i64 {
    at.as_second() + i64::from(at.subsec_nanosecond() > 0)
}

/// Reads a reply. `None`: it is none.
pub(super) fn reply(delivery: Delivery) -> Option<Reply> {
    let ticket = match delivery.properties.headers().as_ref()?.inner().get("ticket")? {
        AMQPValue::LongString(ticket) => String::from_utf8(ticket.as_bytes().to_vec()).ok()?,
        AMQPValue::ShortString(ticket) => ticket.to_string(),
        _ => return None,
    };
    Some(Reply { ticket, body: delivery.data.into() })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{Names, properties, seconds};
    use crate::workers::celery::pidbox::{Method, Recipients, Request};

    #[test]
    fn names_are_kombus() {
        let names = Names::new("media");
        assert_eq!((names.exchange.as_str(), names.reply_exchange.as_str()), ("media.pidbox", "reply.media.pidbox"));
        assert_eq!(names.queue.as_str(), format!("{}.reply.media.pidbox", names.oid));
        assert!(names.queue.as_str().starts_with("worker-drain-"));
        assert_ne!(names.oid, Names::new("media").oid, "another connection is another address");
    }

    #[test]
    fn a_request_expires() {
        let half: Timestamp = "2026-01-01T00:00:00.5Z".parse().unwrap();
        assert_eq!(seconds(half), 1_767_225_601);
        assert_eq!(seconds(Timestamp::UNIX_EPOCH), 0);
        let properties = properties(&Request::new(Method::Active, Recipients::Everybody, half));
        assert!(properties.headers().as_ref().unwrap().inner().contains_key("expires"));
        assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
    }
}
