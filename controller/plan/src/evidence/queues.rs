//! What the counts of a gate's queues prove. Empty means: no message waits in the queue, and none is delivered and not
//! acknowledged. A queue that cannot be counted is not empty.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{FRESH_FOR, fresh, held};
use crate::{
    memory::{Counters, Memory, NodeMemory},
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
    /// Of those workers that may hold messages of these queues in no list. As long as they begin jobs, such a message may wait in one
    /// of them.
    pub counters: Counters,
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
        let hidden = gate.queues_empty.iter().filter_map(|name| {
            let count = seen(name)?.ok()?;
            Some(Tellers::of(name, count, workers, memory).ok()?.hidden())
        });
        // One that takes jobs from several of these queues counts once.
        let hidden: BTreeMap<&NodeName, &Answer> = hidden.flatten().collect();
        Self { states, span, settles_in, counters: Counters::of(hidden.into_values()) }
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
    let delivered = Tellers::of(name, count, workers, memory).map_or_else(Ok, |tellers| tellers.told(now));
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

/// Those who tell which messages of a queue were delivered, where the broker does not: every node that takes jobs from it or did
/// before we told it not to, with its answer, if it gave one.
struct Tellers<'a> {
    consumers: u64,
    unheard: u64,
    nodes: BTreeMap<&'a NodeName, Option<&'a Answer>>,
}

impl<'a> Tellers<'a> {
    /// Of this queue. Errors: nobody needs to tell, because the broker counted so many.
    fn of(
        name: &QueueName,
        count: &'a QueueCount,
        workers: Option<&'a WorkersView>,
        memory: &'a Memory,
    ) -> Result<Self, u64> {
        let (consumers, takers): (_, BTreeMap<&NodeName, &Answer>) = match &count.delivered {
            // One message that went to two queues may be counted once for both, and not at all after the first acknowledgement
            // (seen on Redis with Celery 5.7: one entry in `unacked`).
            Delivered::Counted(0) if shares_messages(name, workers, memory) => (0, BTreeMap::new()),
            Delivered::Counted(delivered) => return Err(*delivered),
            Delivered::Told { consumers, nodes } => (*consumers, nodes.iter().collect()),
        };
        let unheard = consumers.saturating_sub(u64::try_from(takers.len()).unwrap_or(u64::MAX));
        let own = |node: &NodeName| workers.and_then(|workers| workers.nodes.get(node));
        let mut nodes: BTreeMap<_, _> = may_hold(name, memory).map(|node| (node, own(node))).collect();
        // One may have begun to take jobs from it after it was counted.
        nodes.extend(own_takers(name, workers).into_iter().map(|(node, answer)| (node, Some(answer))));
        nodes.extend(takers.into_iter().map(|(node, answer)| (node, Some(answer))));
        Ok(Self { consumers, unheard, nodes })
    }

    /// How many messages of the queue they have by their own words: jobs that run, wait, or are held for later. More than there are,
    /// where one takes jobs from other queues too. Errors: it is not known, because not everybody answered.
    fn told(&self, now: Timestamp) -> Result<u64, String> {
        if self.unheard > 0 {
            return Err(format!(
                "the broker does not count unacknowledged messages, and of its {} consumers {} do not answer",
                self.consumers, self.unheard
            ));
        }
        let mut jobs = 0_u64;
        for (node, answer) in &self.nodes {
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

    /// Those that may hold some in no list for a while: such a message begins in the meantime.
    fn hidden(self) -> impl Iterator<Item = (&'a NodeName, &'a Answer)> {
        let answers = self.nodes.into_iter().filter_map(|(node, answer)| Some((node, answer?)));
        answers.filter(|(_, answer)| answer.settles_in.is_positive())
    }
}

/// Some message may be both in this queue and in another one: of our nodes, or of somebody else who is not known.
fn shares_messages(name: &QueueName, workers: Option<&WorkersView>, memory: &Memory) -> bool {
    let answers = workers.into_iter().flat_map(|workers| workers.nodes.values());
    let seen = answers.filter_map(|answer| answer.queues.as_ref()).flatten();
    let remembered = memory.tasks.values().flat_map(|task| task.nodes.values()).flat_map(NodeMemory::may_hold_from);
    let queues: BTreeSet<&Queue> = seen.chain(remembered).collect();
    let own = queues.iter().filter(|queue| queue.name == *name);
    let meets = |queue: &Queue| queues.iter().any(|other| other.name != *name && queue.may_share(other));
    own.into_iter().any(|queue| queue.may_share_with_others() || meets(queue))
}

fn own_takers<'a>(name: &QueueName, workers: Option<&'a WorkersView>) -> BTreeMap<&'a NodeName, &'a Answer> {
    let takes = |answer: &Answer| answer.queues.iter().flatten().any(|queue| queue.name == *name);
    let nodes = workers.into_iter().flat_map(|workers| &workers.nodes);
    nodes.filter(|(_, answer)| takes(answer)).collect()
}

/// Nodes of tasks that live and that may hold jobs from this queue.
fn may_hold<'a>(name: &QueueName, memory: &'a Memory) -> impl Iterator<Item = &'a NodeName> {
    memory
        .tasks
        .values()
        .filter(|task| !task.gone)
        .flat_map(|task| &task.nodes)
        .filter(move |(_, node)| node.may_hold_from().any(|queue| queue.name == *name))
        .map(|(node, _)| node)
}

fn is_taken_from(name: &QueueName, workers: Option<&WorkersView>, memory: &Memory) -> bool {
    let answers = workers.into_iter().flat_map(|workers| workers.nodes.values());
    let mut queues = answers.filter_map(|answer| answer.queues.as_ref()).flatten();
    queues.any(|queue| queue.name == *name) || may_hold(name, memory).next().is_some()
}

#[cfg(test)]
mod tests;
