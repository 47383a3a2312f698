//! The queue gate: as long as the queues that the user names are not seen empty, old tasks keep their queues and stay held,
//! so that the old code empties what was sent to it (docs/decisions/0011).
//!
//! Empty means: no message waits in the queue, and none is delivered and not acknowledged; seen in two looks, far enough
//! apart. A queue that cannot be counted is not empty. The gate says nothing of jobs that run with early acknowledgement:
//! that workers are idle is proven by the drain itself.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::{
    evidence::{FRESH_FOR, fresh},
    memory::{GateMemory, Memory},
    names::{NodeName, QueueName},
    observation::{Answer, Delivered, FailureKind, FleetView, Observation, QueueCount, Seen, WorkersView},
    policy::{Gate, Policy},
    remember::prolong,
    report::{Reason, Verdict},
    situation::Situation,
    tell::{age, names},
};

/// The queues that are to be counted in a look that sees this fleet: those of a gate that is in the way and has not opened.
pub fn to_count<'a>(policy: &'a Policy, fleet: &FleetView, memory: &Memory) -> Option<&'a BTreeSet<QueueName>> {
    let gate = gate(policy)?;
    let has_old = fleet.tasks.values().any(|task| fleet.is_old(task));
    let is_back = memory.rollout.as_ref().is_some_and(|rollout| rollout.back);
    let is_wanted = gate.awaited || ((memory.rollout.is_some() || has_old) && !is_back);
    // What opened before a rollout began does not count in it; and whoever waits wants to know of now.
    let has_opened = memory.rollout.is_some() && !gate.awaited && is_open(gate, memory);
    (is_wanted && !has_opened).then_some(&gate.queues_empty)
}

/// Old tasks keep their queues and stay held. A rollback has no gate: what failed is to go at once.
pub fn is_shut(policy: &Policy, memory: &Memory) -> bool {
    let is_rollout = memory.rollout.as_ref().is_some_and(|rollout| !rollout.back);
    is_rollout && gate(policy).is_some_and(|gate| !is_open(gate, memory))
}

/// Somebody waits for the gate before deploying: tasks are held, and nothing else is done.
pub fn is_awaited(policy: &Policy) -> bool {
    gate(policy).is_some_and(|gate| gate.awaited)
}

fn gate(policy: &Policy) -> Option<&Gate> {
    policy.drain.gate.as_ref().filter(|_| !policy.withdrawn)
}

fn is_open(gate: &Gate, memory: &Memory) -> bool {
    memory.gate.as_ref().is_some_and(|known| known.opened.is_some() && known.queues == gate.queues_empty)
}

/// Follows the gate through a rollout: it opens once, when its queues were seen empty twice, and stays open. One that is
/// awaited is open only as long as they are empty. `rollout` is when the rollout that was known before this look began.
pub fn follow(
    policy: &Policy,
    observation: &Observation,
    rollout: Option<Timestamp>,
    memory: &mut Memory,
    now: Timestamp,
) {
    let before = memory.gate.take();
    let is_rollout = memory.rollout.as_ref().is_some_and(|rollout| !rollout.back);
    let Some(gate) = gate(policy).filter(|gate| gate.awaited || is_rollout) else { return };
    let goes_on = memory.rollout.as_ref().map(|rollout| rollout.since) == rollout;
    let known = before.filter(|known| goes_on && known.queues == gate.queues_empty);
    let mut known = known.unwrap_or_else(|| GateMemory {
        queues: gate.queues_empty.clone(),
        since: now,
        empty: None,
        apart: policy.drain.idle_for,
        opened: None,
    });
    if known.opened.is_none() || gate.awaited {
        let look = Look::of(gate, observation, memory, now);
        known.apart = policy.drain.idle_for.max(look.settles_in);
        known.empty = look.span_if_empty().map(|span| prolong(known.empty, span));
        known.opened = known.empty.filter(|run| run.proves(known.apart)).map(|_| known.opened.unwrap_or(now));
    }
    memory.gate = Some(known);
}

/// What one look tells of all queues of a gate.
struct Look<'a> {
    states: BTreeMap<&'a QueueName, State>,
    /// When the first queue was asked for, and when the last number came.
    span: Option<(Timestamp, Timestamp)>,
    settles_in: SignedDuration,
}

/// What one look tells of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Empty,
    /// So many wait, and so many are delivered and not acknowledged, if that is known.
    Holds {
        ready: u64,
        delivered: Option<u64>,
    },
    Unknown {
        kind: FailureKind,
        why: String,
    },
}

impl<'a> Look<'a> {
    fn of(gate: &'a Gate, observation: &Observation, memory: &Memory, now: Timestamp) -> Self {
        let workers = observation.workers.ok();
        let seen = |name| observation.queues.as_ref().and_then(|queues| queues.get(name));
        let states =
            gate.queues_empty.iter().map(|name| (name, state(name, seen(name), workers, memory, now))).collect();
        let counts =
            || observation.queues.iter().flat_map(BTreeMap::values).filter_map(|seen| Some((seen.at(), seen.ok()?)));
        let span = counts().map(|(at, count)| (at, count.counted_at)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let settles_in = counts().map(|(_, count)| count.settles_in).max().unwrap_or_default();
        Self { states, span, settles_in }
    }

    fn span_if_empty(&self) -> Option<(Timestamp, Timestamp)> {
        self.span.filter(|_| self.states.values().all(|state| *state == State::Empty))
    }
}

fn unknown(kind: FailureKind, why: impl Into<String>) -> State {
    State::Unknown { kind, why: why.into() }
}

fn state(
    name: &QueueName,
    seen: Option<&Seen<QueueCount>>,
    workers: Option<&WorkersView>,
    memory: &Memory,
    now: Timestamp,
) -> State {
    let count = match seen {
        None => return unknown(FailureKind::Unreachable, "it was not counted yet"),
        Some(Seen::Err { failure, .. }) => return unknown(failure.kind, failure.message.clone()),
        Some(Seen::Ok { at, .. }) if now.duration_since(*at) > FRESH_FOR => {
            return unknown(FailureKind::Unreachable, "it was counted too long ago");
        }
        Some(Seen::Ok { value, .. }) => value,
    };
    let delivered = match &count.delivered {
        Delivered::Counted(delivered) => Ok(*delivered),
        Delivered::Told { consumers, nodes } => told(name, *consumers, nodes, workers, memory, now),
    };
    match delivered {
        Ok(0) if count.ready == 0 && (count.known || is_taken_from(name, workers, memory)) => State::Empty,
        Ok(0) if count.ready == 0 => unknown(
            FailureKind::NotFound,
            "the broker knows none of that name, and no worker takes jobs from it; see whether it is spelt right",
        ),
        Ok(delivered) => State::Holds { ready: count.ready, delivered: Some(delivered) },
        Err(_) if count.ready > 0 => State::Holds { ready: count.ready, delivered: None },
        Err(why) => unknown(FailureKind::Unreachable, why),
    }
}

/// How many messages of the queue the workers have by their own words: jobs that run, wait, or are held for later, in every
/// node that takes jobs from it or did before we told it not to. More than there are, where such a node takes jobs from
/// other queues too. Errors: it cannot be told, because not everybody answered.
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
            "the broker does not tell what is not acknowledged, and of its {consumers} consumers {unheard} do not answer"
        ));
    }
    let own = |node: &NodeName| workers.and_then(|workers| workers.nodes.get(node));
    let former = taken(name, memory).filter(|node| !nodes.contains_key(*node)).map(|node| (node, own(node)));
    let mut jobs = 0_u64;
    for (node, answer) in nodes.iter().map(|(node, answer)| (node, Some(answer))).chain(former) {
        let held = answer.filter(|answer| fresh(answer, now)).and_then(held);
        let Some(held) = held else {
            return Err(format!("the broker does not tell what is not acknowledged, and {node} does not answer"));
        };
        jobs = jobs.saturating_add(held);
    }
    Ok(jobs)
}

fn held(answer: &Answer) -> Option<u64> {
    let parts = [&answer.active, &answer.reserved, &answer.scheduled];
    parts.into_iter().map(|jobs| jobs.as_ref().map(|jobs| u64::try_from(jobs.len()).unwrap_or(u64::MAX))).sum()
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

/// The answer to whether the gate is open, if anything waits for it.
pub fn verdict(situation: &Situation<'_>, observation: &Observation) -> Option<Verdict> {
    let gate = gate(situation.policy)?;
    let known = situation.memory.gate.as_ref()?;
    if let Some(opened) = known.opened {
        let (all, ago) = (names(gate.queues_empty.iter()), age(situation.now.duration_since(opened)));
        let message = format!("seen empty twice, the last time {ago} ago: {all}");
        return Some(Verdict { answer: Some(true), reason: Reason::QueuesEmpty, message });
    }
    let look = Look::of(gate, observation, situation.memory, situation.now);
    let waits = if gate.awaited { "tasks are held" } else { "old tasks keep their queues" };
    let since = age(situation.now.duration_since(known.since));
    let (answer, reason, help) = advice(look.states.values());
    let message = if known.empty.is_some() {
        let all = names(gate.queues_empty.iter());
        format!(
            "{waits} until queues are empty (drain.gate, for {since}): all are, and are counted again to be sure: {all}"
        )
    } else {
        let why = names(look.states.iter().filter_map(|(name, state)| told_of(name, state)));
        format!("{waits} until queues are empty (drain.gate, for {since}): {why}; {help}")
    };
    Some(Verdict { answer, reason, message })
}

fn told_of(name: &QueueName, state: &State) -> Option<String> {
    match state {
        State::Empty => None,
        State::Holds { ready, delivered: Some(delivered) } => {
            Some(format!("{name} has {ready} ready and {delivered} not acknowledged"))
        }
        State::Holds { ready, delivered: None } => Some(format!("{name} has {ready} ready")),
        State::Unknown { why, .. } => Some(format!("{name} cannot be counted ({why})")),
    }
}

/// What cannot be counted comes before what is not empty: waiting helps the latter.
fn advice<'a>(states: impl Iterator<Item = &'a State> + Clone) -> (Option<bool>, Reason, &'static str) {
    let kinds = states.filter_map(|state| match state {
        State::Unknown { kind, .. } => Some(*kind),
        State::Empty | State::Holds { .. } => None,
    });
    let may_pass = |kind: &FailureKind| matches!(kind, FailureKind::Unreachable | FailureKind::Throttled);
    if kinds.clone().any(|kind| !may_pass(&kind)) {
        let help = "that is not taken for empty: mend it, or take the queue out of drain.gate";
        return (None, Reason::QueuesInvalid, help);
    }
    if kinds.count() > 0 {
        return (None, Reason::QueuesUnknown, "that is not taken for empty; it is tried again by itself");
    }
    let help = "stop what sends to them, or take drain.gate away";
    (Some(false), Reason::QueuesNotEmpty, help)
}

#[cfg(test)]
mod tests;
