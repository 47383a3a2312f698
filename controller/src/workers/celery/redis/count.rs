//! Counting queues as kombu keeps them on Redis (`kombu/transport/redis.py`, read in kombu 5.7.0): a list for each priority,
//! and one hash for all messages of all queues that are delivered and not acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use redis::pipe;
use serde::{Deserialize, de::IgnoredAny};
use worker_drain_plan::QueueName;

use super::{error::Problem, link::Link, names::Names};
use crate::workers::celery::transport::{Count, Delivered};

/// How many entries of the hash are asked for at once. Each holds a whole message.
const SCAN: u64 = 100;
/// How many entries are read. More than this, and they count for every queue: that there are some is what matters.
const MOST: usize = 2_000;

/// Counts these queues: first what waits, then what is delivered, because that is the way messages go.
pub(super) async fn count(link: &Link, names: &Names, queues: &[QueueName]) -> Result<Vec<Count>, Problem> {
    let mut pipeline = pipe();
    for queue in queues {
        for list in names.lists_named(queue.as_str()) {
            pipeline.cmd("LLEN").arg(list);
        }
        // Celery binds a queue that is not declared otherwise to an exchange of the same name.
        pipeline.cmd("EXISTS").arg(names.bindings_of(queue.as_str()));
    }
    let numbers: Vec<u64> = link.ask(&pipeline).await?;
    let unacked = Unacked::scan(link, names).await?;
    let of_each = names.lists_named("").len() + 1;
    if numbers.len() != queues.len() * of_each {
        return Err(Problem::Strange);
    }
    let counts = queues.iter().zip(numbers.chunks_exact(of_each)).map(|(queue, numbers)| {
        let (known, lists) = numbers.split_last().unwrap_or((&0, &[]));
        let ready = lists.iter().sum();
        let delivered = unacked.of(queue.as_str());
        Count { ready, delivered: Delivered::Counted(delivered), known: *known > 0 || ready + delivered > 0 }
    });
    Ok(counts.collect())
}

/// Where to go on, and entries: delivery tags with what is delivered.
type Scanned = (u64, Vec<(Vec<u8>, Vec<u8>)>);

/// What is delivered and not acknowledged, by where it was sent to.
#[derive(Debug, Default)]
struct Unacked {
    /// By exchange and routing key.
    sent_to: BTreeMap<(String, String), u64>,
    /// Of no queue that could be determined.
    anywhere: u64,
    /// By exchange: routing keys and queues.
    bindings: BTreeMap<String, BTreeSet<(String, String)>>,
}

/// What kombu writes beside each message: the exchange and the routing key that it was sent to.
#[derive(Deserialize)]
struct Entry(IgnoredAny, Option<String>, Option<String>);

impl Unacked {
    async fn scan(link: &Link, names: &Names) -> Result<Self, Problem> {
        let mut unacked = Self::default();
        // An entry may be returned twice while the hash changes.
        let mut seen = BTreeSet::new();
        let mut cursor = 0_u64;
        loop {
            let mut pipeline = pipe();
            pipeline.cmd("HSCAN").arg(&names.unacked).arg(cursor).arg("COUNT").arg(SCAN);
            let ((next, entries),): (Scanned,) = link.ask(&pipeline).await?;
            for (tag, entry) in entries {
                if seen.insert(tag) {
                    unacked.take_in(&entry);
                }
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
            if seen.len() >= MOST {
                unacked.anywhere += 1;
                break;
            }
        }
        let exchanges: BTreeSet<String> = unacked.sent_to.keys().map(|(exchange, _)| exchange.clone()).collect();
        for exchange in exchanges.into_iter().filter(|exchange| !exchange.is_empty()) {
            let mut pipeline = pipe();
            pipeline.cmd("SMEMBERS").arg(names.bindings_of(&exchange));
            let (members,): (Vec<String>,) = link.ask(&pipeline).await?;
            let parts = members.iter().filter_map(|member| names.parts_of(member));
            let parts = parts.map(|(key, queue)| (key.to_owned(), queue.to_owned())).collect();
            unacked.bindings.insert(exchange, parts);
        }
        Ok(unacked)
    }

    fn take_in(&mut self, entry: &[u8]) {
        match serde_json::from_slice(entry) {
            Ok(Entry(_, exchange, Some(routing_key))) => {
                *self.sent_to.entry((exchange.unwrap_or_default(), routing_key)).or_default() += 1;
            }
            _ => self.anywhere += 1,
        }
    }

    /// How many are, or may be, of this queue: a message whose queue cannot be determined counts for each that it may be of.
    fn of(&self, queue: &str) -> u64 {
        let sent = self.sent_to.iter().filter(|((exchange, key), _)| self.may_reach(exchange, key, queue));
        sent.map(|(_, count)| count).sum::<u64>() + self.anywhere
    }

    fn may_reach(&self, exchange: &str, routing_key: &str, queue: &str) -> bool {
        if exchange.is_empty() {
            return routing_key == queue;
        }
        let bindings = self.bindings.get(exchange);
        let Some(bindings) = bindings.filter(|bindings| !bindings.is_empty()) else { return true };
        // A fanout exchange heeds no key, and one of topics has patterns.
        let exactly = bindings.iter().any(|(key, _)| key == routing_key);
        bindings.iter().any(|(key, bound)| bound == queue && (!exactly || key == routing_key))
    }
}

#[cfg(test)]
mod tests {
    use super::Unacked;

    fn unacked(entries: &[&str], bindings: &[(&str, &[(&str, &str)])]) -> Unacked {
        let mut unacked = Unacked::default();
        for entry in entries {
            unacked.take_in(entry.as_bytes());
        }
        let owned = |(key, queue): &(&str, &str)| ((*key).to_owned(), (*queue).to_owned());
        unacked.bindings = bindings
            .iter()
            .map(|(exchange, bound)| ((*exchange).to_owned(), bound.iter().map(owned).collect()))
            .collect();
        unacked
    }

    #[test]
    fn a_message_is_of_the_queue_that_it_was_sent_to() {
        let sent = unacked(
            &[r#"[{"body": "e30="}, "", "slow"]"#, r#"[{}, "media", "video.hd"]"#],
            &[("media", &[("video.hd", "video"), ("audio", "audio")])],
        );
        assert_eq!(["slow", "video", "audio", "fast"].map(|queue| sent.of(queue)), [1, 1, 0, 0]);
    }

    #[test]
    fn a_message_whose_queue_cannot_be_told_counts_for_each_that_it_may_be_of() {
        let topic = unacked(&[r#"[{}, "topic", "a.b"]"#], &[("topic", &[("a.*", "video"), ("#", "audio")])]);
        assert_eq!(["video", "audio", "slow"].map(|queue| topic.of(queue)), [1, 1, 0]);
        for strange in ["[{}, null, null]", "no json", r#"[{}, "gone", "key"]"#] {
            assert_eq!(unacked(&[strange], &[]).of("slow"), 1, "{strange}");
        }
    }
}
