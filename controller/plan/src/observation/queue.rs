//! The queues that nodes take jobs from.

use serde::{Deserialize, Serialize};

use crate::names::QueueName;

/// A queue that a node takes jobs from, with all that is needed to give it back.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Queue {
    /// Its name.
    pub name: QueueName,
    /// How it is bound, as the node told it. `None`: the broker's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,
    /// The broker deletes it, with the jobs that wait in it, when nobody takes jobs from it any more (AMQP: `auto_delete`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub auto_delete: bool,
}

impl Queue {
    /// One of this name, on the broker's default exchange.
    pub fn named(name: impl Into<QueueName>) -> Self {
        Self { name: name.into(), binding: None, auto_delete: false }
    }

    /// One message may be routed to this queue and to others that nobody knows of: its exchange gives a message to every queue whose
    /// pattern fits (RabbitMQ, "AMQP 0-9-1 Model Explained"). One of kind `direct` gives it to those with the same key, which two
    /// queues hardly ever have.
    pub fn may_share_with_others(&self) -> bool {
        self.binding.as_ref().is_some_and(|own| !own.exchange.is_empty() && own.exchange_type != "direct")
    }

    /// One message may be routed to both: they are bound to one exchange, by keys that have something in common
    /// (RabbitMQ, "AMQP 0-9-1 Model Explained").
    pub fn may_share(&self, other: &Self) -> bool {
        let Some((a, b)) = self.binding.as_ref().zip(other.binding.as_ref()) else { return false };
        let overlap = match a.exchange_type.as_str() {
            "direct" => a.routing_key == b.routing_key,
            "topic" => {
                let words = |binding: &Binding| binding.routing_key.split('.').map(str::to_owned).collect::<Vec<_>>();
                patterns_overlap(&words(a), &words(b))
            }
            _ => true,
        };
        !a.exchange.is_empty() && a.exchange == b.exchange && overlap
    }
}

/// Some routing key fits both: `*` stands for one word, `#` for any number of them.
fn patterns_overlap(a: &[String], b: &[String]) -> bool {
    match (a.split_first(), b.split_first()) {
        (None, None) => true,
        (Some((word, rest)), _) if word == "#" => {
            patterns_overlap(rest, b) || b.split_first().is_some_and(|(_, tail)| patterns_overlap(a, tail))
        }
        (_, Some((word, _))) if word == "#" => patterns_overlap(b, a),
        (Some((x, a)), Some((y, b))) => (x == y || x == "*" || y == "*") && patterns_overlap(a, b),
        _ => false,
    }
}

/// How a queue is bound.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Binding {
    /// The exchange's name.
    pub exchange: String,
    /// The exchange's type, such as `direct`.
    pub exchange_type: String,
    /// The routing key.
    pub routing_key: String,
}

#[cfg(test)]
mod tests {
    use super::{Binding, Queue};

    fn bound(name: &str, exchange_type: &str, routing_key: &str) -> Queue {
        let (exchange_type, routing_key) = (exchange_type.into(), routing_key.into());
        Queue { binding: Some(Binding { exchange: "media".into(), exchange_type, routing_key }), ..Queue::named(name) }
    }

    #[test]
    fn what_is_bound_by_a_pattern_may_share_with_queues_that_are_not_known() {
        for (kind, may) in [("direct", false), ("topic", true), ("fanout", true), ("headers", true)] {
            assert_eq!(bound("a", kind, "video.#").may_share_with_others(), may, "{kind}");
        }
        assert!(!Queue::named("a").may_share_with_others());
    }

    #[test]
    fn one_message_may_go_to_two_queues_where_their_keys_meet() {
        for (kind, a, b, meets) in [
            ("direct", "video", "video", true),
            ("direct", "video", "audio", false),
            ("fanout", "", "", true),
            ("topic", "video.#", "video.hd", true),
            ("topic", "video.#", "video", true),
            ("topic", "#.hd", "video.*", true),
            ("topic", "video.*", "audio.*", false),
            ("topic", "video.*", "video.hd.new", false),
            ("topic", "#", "anything.at.all", true),
        ] {
            let (a, b) = (bound("a", kind, a), bound("b", kind, b));
            assert_eq!((a.may_share(&b), b.may_share(&a)), (meets, meets), "{a:?}, {b:?}");
        }
        assert!(!Queue::named("a").may_share(&Queue::named("b")), "each has a key of its own");
    }
}
