//! What the counts of a gate's queues prove. Empty means: no message waits in the queue, and none is delivered and not
//! acknowledged. A queue that cannot be counted is not empty.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{FRESH_FOR, fresh, held};
use crate::{
    memory::Memory,
    names::{NodeName, QueueName},
    observation::{Answer, Delivered, FailureKind, Observation, Queue, QueueCount, Seen, WorkersView},
    policy::{Gate, Scheduled},
};

/// What one observation proves of all queues of a gate.
#[derive(Debug)]
pub struct QueueEvidence<'a> {
    /// Of each queue.
    pub states: BTreeMap<&'a QueueName, QueueState>,
    /// When the first queue was asked for, and when the last number came.
    span: Option<(Timestamp, Timestamp)>,
    /// How far apart two such observations must be.
    pub settles_in: SignedDuration,
}

/// What one observation proves of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueueState {
    /// No message waits in it, and none is delivered and not acknowledged.
    Empty,
    /// So many wait, and so many are delivered and not acknowledged, if that is known.
    Holds {
        /// They wait to be delivered.
        ready: u64,
        /// They were delivered and not acknowledged.
        delivered: Option<u64>,
    },
    /// It could not be counted.
    Unknown {
        /// What sort of failure.
        kind: FailureKind,
        /// For a person.
        why: String,
    },
}

impl<'a> QueueEvidence<'a> {
    /// What was counted proves this now.
    pub fn of(gate: &'a Gate, observation: &Observation, memory: &Memory, now: Timestamp) -> Self {
        let workers = observation.workers.ok();
        let seen = |name| observation.queues.as_ref().and_then(|queues| queues.get(name));
        let states =
            gate.queues_empty.iter().map(|name| (name, state(name, seen(name), workers, memory, now))).collect();
        let counts =
            || observation.queues.iter().flat_map(BTreeMap::values).filter_map(|seen| Some((seen.at(), seen.ok()?)));
        let span = counts().map(|(at, count)| (at, count.counted_at)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let tellers = counts().filter_map(|(_, count)| match &count.delivered {
            Delivered::Told { nodes, .. } => Some(nodes.values()),
            Delivered::Counted(_) => None,
        });
        let answers = tellers.flatten().chain(workers.into_iter().flat_map(|workers| workers.nodes.values()));
        let told = answers.map(|answer| answer.settles_in);
        let settles_in = counts().map(|(_, count)| count.settles_in).chain(told).max().unwrap_or_default();
        Self { states, span, settles_in }
    }

    /// From the first question to the last number, if every queue was empty.
    pub fn span_if_empty(&self) -> Option<(Timestamp, Timestamp)> {
        self.span.filter(|_| self.states.values().all(|state| *state == QueueState::Empty))
    }
}

fn unknown(kind: FailureKind, why: impl Into<String>) -> QueueState {
    QueueState::Unknown { kind, why: why.into() }
}

fn state(
    name: &QueueName,
    seen: Option<&Seen<QueueCount>>,
    workers: Option<&WorkersView>,
    memory: &Memory,
    now: Timestamp,
) -> QueueState {
    let count = match seen {
        None => return unknown(FailureKind::Unreachable, "it was not counted yet"),
        Some(Seen::Err { failure, .. }) => return unknown(failure.kind, failure.message.clone()),
        Some(Seen::Ok { at, .. }) if now.duration_since(*at) > FRESH_FOR => {
            return unknown(FailureKind::Unreachable, "it was counted too long ago");
        }
        Some(Seen::Ok { value, .. }) => value,
    };
    let delivered = match &count.delivered {
        // One message that went to two queues may be counted once for both, and not at all after the first acknowledgement
        // (seen on Redis with Celery 5.7: one entry in `unacked`).
        Delivered::Counted(0) if shares_messages(name, workers, memory) => {
            told(name, 0, &own_takers(name, workers), workers, memory, now)
        }
        Delivered::Counted(delivered) => Ok(*delivered),
        Delivered::Told { consumers, nodes } => told(name, *consumers, nodes, workers, memory, now),
    };
    match delivered {
        Ok(0) if count.ready == 0 && (count.known || is_taken_from(name, workers, memory)) => QueueState::Empty,
        Ok(0) if count.ready == 0 => unknown(
            FailureKind::NotFound,
            "the broker knows none of that name, and no worker takes jobs from it; check its spelling",
        ),
        Ok(delivered) => QueueState::Holds { ready: count.ready, delivered: Some(delivered) },
        Err(_) if count.ready > 0 => QueueState::Holds { ready: count.ready, delivered: None },
        Err(why) => unknown(FailureKind::Unreachable, why),
    }
}

/// How many messages of the queue the workers have by their own words: jobs that run, wait, or are held for later, in every
/// node that takes jobs from it or did before we told it not to. More than there are, where such a node takes jobs from
/// other queues too. Errors: it is not known, because not everybody answered.
fn told(
    name: &QueueName,
    consumers: u64,
    nodes: &BTreeMap<NodeName, Answer>,
    workers: Option<&WorkersView>,
    memory: &Memory,
    now: Timestamp,
) -> Result<u64, String> {
    let heard = u64::try_from(nodes.len()).unwrap_or(u64::MAX);
    if let Some(unheard) = consumers.checked_sub(heard).filter(|unheard| *unheard > 0) {
        return Err(format!(
            "the broker does not count unacknowledged messages, and of its {consumers} consumers {unheard} do not answer"
        ));
    }
    let own = |node: &NodeName| workers.and_then(|workers| workers.nodes.get(node));
    let former = taken(name, memory).filter(|node| !nodes.contains_key(*node)).map(|node| (node, own(node)));
    let mut jobs = 0_u64;
    for (node, answer) in nodes.iter().map(|(node, answer)| (node, Some(answer))).chain(former) {
        let answer = answer.filter(|answer| fresh(answer, now));
        let Some((answer, held)) = answer.and_then(|answer| Some((answer, held(answer, Scheduled::Wait)?))) else {
            return Err(format!("the broker does not count unacknowledged messages, and {node} does not answer"));
        };
        if let Some(unseen) = answer.unseen.as_ref().filter(|_| held == 0) {
            return Err(format!(
                "the broker does not count unacknowledged messages, and {node} may hold some: {unseen}"
            ));
        }
        jobs = jobs.saturating_add(held.into());
    }
    Ok(jobs)
}

/// Some message may be both in this queue and in another one that our nodes take jobs from, or did.
fn shares_messages(name: &QueueName, workers: Option<&WorkersView>, memory: &Memory) -> bool {
    let answers = workers.into_iter().flat_map(|workers| workers.nodes.values());
    let seen = answers.filter_map(|answer| answer.queues.as_ref()).flatten();
    let taken = memory.tasks.values().flat_map(|task| task.nodes.values()).flat_map(|node| &node.taken);
    let queues: BTreeSet<&Queue> = seen.chain(taken).collect();
    let own = queues.iter().filter(|queue| queue.name == *name);
    own.into_iter().any(|queue| queues.iter().any(|other| other.name != *name && queue.may_share(other)))
}

fn own_takers(name: &QueueName, workers: Option<&WorkersView>) -> BTreeMap<NodeName, Answer> {
    let takes = |answer: &Answer| answer.queues.iter().flatten().any(|queue| queue.name == *name);
    let nodes = workers.into_iter().flat_map(|workers| &workers.nodes);
    nodes.filter(|(_, answer)| takes(answer)).map(|(node, answer)| (node.clone(), answer.clone())).collect()
}

/// Nodes of tasks that live from which we took this queue.
fn taken<'a>(name: &'a QueueName, memory: &'a Memory) -> impl Iterator<Item = &'a NodeName> {
    memory
        .tasks
        .values()
        .filter(|task| !task.gone)
        .flat_map(|task| &task.nodes)
        .filter(move |(_, node)| node.taken.iter().any(|queue| queue.name == *name))
        .map(|(node, _)| node)
}

fn is_taken_from(name: &QueueName, workers: Option<&WorkersView>, memory: &Memory) -> bool {
    let answers = workers.into_iter().flat_map(|workers| workers.nodes.values());
    let mut queues = answers.filter_map(|answer| answer.queues.as_ref()).flatten();
    queues.any(|queue| queue.name == *name) || taken(name, memory).next().is_some()
}

#[cfg(test)]
mod tests;
