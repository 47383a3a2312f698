//! Counting the messages of queues, by what the broker says and, where it does not say all, by what their consumers
//! answer.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use worker_drain_plan::{
    QueueName,
    observation::{self, Answer, Failure, QueueCount, Seen},
};

use super::{
    match_nodes::Naming,
    poll::{self, Poll},
    remote::{Remote, next},
    transport::{Count, Delivered, Transport},
};

type Takers = BTreeMap<QueueName, BTreeMap<worker_drain_plan::NodeName, Answer>>;

/// Counts these queues. Workers are asked after the broker, because messages go from it to them.
pub(super) async fn count<T: Transport + 'static>(
    remote: &Remote<T>,
    queues: &BTreeSet<QueueName>,
) -> BTreeMap<QueueName, Seen<QueueCount>> {
    let at = remote.clock.now();
    let names: Vec<QueueName> = queues.iter().cloned().collect();
    let counts: BTreeMap<_, _> = names.iter().cloned().zip(remote.transport.count(&names).await).collect();
    let untold: BTreeMap<&QueueName, u64> =
        counts.iter().filter_map(|(name, count)| Some((name, consumers(count.as_ref().ok()?)?))).collect();
    let takers = takers(remote, &untold).await;
    let counted_at = remote.clock.now();
    let seen = |name: &QueueName, count: Result<Count, Failure>| -> Result<QueueCount, Failure> {
        let Count { ready, delivered, known } = count?;
        let delivered = match delivered {
            Delivered::Counted(count) => observation::Delivered::Counted(count),
            Delivered::To(consumers) => {
                let nodes = takers.as_ref().map_err(Clone::clone)?.get(name).cloned().unwrap_or_default();
                observation::Delivered::Told { consumers, nodes }
            }
        };
        Ok(QueueCount { counted_at, ready, delivered, known, settles_in: SignedDuration::ZERO })
    };
    counts
        .into_iter()
        .map(|(name, count)| {
            let seen = match seen(&name, count) {
                Ok(value) => Seen::Ok { value, at },
                Err(failure) => Seen::Err { failure, at: counted_at },
            };
            (name, seen)
        })
        .collect()
}

/// How many may hold messages that the broker does not count. One whose messages wait need not be asked about.
fn consumers(count: &Count) -> Option<u64> {
    match count.delivered {
        Delivered::To(consumers) if count.ready == 0 && consumers > 0 => Some(consumers),
        Delivered::To(_) | Delivered::Counted(_) => None,
    }
}

/// Asks all nodes of the broker, of other fleets too, until as many have answered as take from each of these queues.
async fn takers<T: Transport + 'static>(
    remote: &Remote<T>,
    untold: &BTreeMap<&QueueName, u64>,
) -> Result<Takers, Failure> {
    if untold.is_empty() {
        return Ok(Takers::new());
    }
    let asked_at = remote.clock.now();
    let requests = poll::questions(remote.expires(asked_at));
    let mut sent = remote.transport.publish(&requests).await?;
    let mut poll = Poll::new(asked_at, requests, &sent.receivers, &Naming::Automatic, &BTreeMap::new());
    let deadline = remote.deadline();
    let all = |poll: &Poll| -> Takers { untold.keys().map(|name| ((*name).clone(), poll.takers(name))).collect() };
    let is_enough = |takers: &Takers| {
        let mut heard = untold.iter().map(|(name, consumers)| (takers.get(*name).map_or(0, BTreeMap::len), *consumers));
        heard.all(|(heard, consumers)| u64::try_from(heard).is_ok_and(|heard| heard >= consumers))
    };
    while !is_enough(&all(&poll)) {
        let Some(reply) = next(&mut sent.replies, deadline).await? else { break };
        poll.hear(&reply, remote.clock.now());
    }
    Ok(all(&poll))
}
