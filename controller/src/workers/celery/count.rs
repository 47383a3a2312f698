//! Counting the messages of queues, by what the broker says and, where it does not say all, by what their consumers
//! answer.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use worker_drain_plan::{
    NodeName, QueueName,
    observation::{self, Answer, Failure, QueueCount, Seen},
};

use super::{
    known::Known,
    look::Look,
    pidbox::{Method, Recipients, Request},
    poll::{Awaited, Poll},
    remote::{Remote, next},
    transport::{Count, Delivered, Transport},
};

type Takers = BTreeMap<QueueName, BTreeMap<NodeName, Answer>>;

/// Counts these queues. Workers are asked after the broker, because messages go from it to them.
pub(super) async fn count<T: Transport + 'static>(
    remote: &Remote<T>,
    known: &Known,
    queues: &BTreeSet<QueueName>,
) -> BTreeMap<QueueName, Seen<QueueCount>> {
    let at = remote.clock.now();
    let names: Vec<QueueName> = queues.iter().cloned().collect();
    let counts: BTreeMap<_, _> = names.iter().cloned().zip(remote.transport.count(&names).await).collect();
    let untold: BTreeMap<&QueueName, u64> =
        counts.iter().filter_map(|(name, count)| Some((name, consumers(count.as_ref().ok()?)?))).collect();
    let takers = takers(remote, known, &untold).await;
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

/// Asks all nodes of the broker, of other fleets too, what they take jobs from, until as many have answered as take from each of
/// these queues; and those what they have.
async fn takers<T: Transport + 'static>(
    remote: &Remote<T>,
    known: &Known,
    untold: &BTreeMap<&QueueName, u64>,
) -> Result<Takers, Failure> {
    if untold.is_empty() {
        return Ok(Takers::new());
    }
    let asked_at = remote.clock.now();
    let requests = vec![Request::new(Method::ActiveQueues, Recipients::Everybody, remote.expires(asked_at))];
    let mut sent = remote.transport.publish(&requests).await?;
    let mut poll = Poll::new(asked_at, requests, &sent.receivers, |_| Awaited::default());
    let deadline = remote.deadline();
    while !untold.iter().all(|(queue, consumers)| poll.takers(queue).len() as u64 >= *consumers) {
        let Some(reply) = next(&mut sent.replies, deadline).await? else { break };
        poll.hear(&reply, remote.clock.now());
    }
    let nodes = untold.keys().flat_map(|queue| poll.takers(queue)).collect();
    let answers = Look::new(remote, known).question_all(&nodes).await?;
    // Those that did not answer all, or take from it no more, are missing: then not all of its consumers are known.
    let takers = |queue: &QueueName| -> BTreeMap<NodeName, Answer> {
        let takes = |answer: &Answer| answer.queues.iter().flatten().any(|taken| taken.name == *queue);
        let whole = answers.iter().filter(|(_, answer)| takes(answer) && answer.is_whole());
        whole.map(|(node, answer)| (node.clone(), answer.clone())).collect()
    };
    Ok(untold.keys().map(|queue| ((*queue).clone(), takers(queue))).collect())
}
