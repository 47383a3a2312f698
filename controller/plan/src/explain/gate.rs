//! Puts the queue gate into words.

use super::words::{age, names};
use crate::{
    evidence::queues::{QueueEvidence, QueueState},
    names::QueueName,
    observation::{FailureKind, Observation},
    report::{Reason, Verdict},
    situation::Situation,
};

/// The answer to whether the gate is open, if anything waits for it.
pub fn verdict(situation: &Situation<'_>, observation: &Observation) -> Option<Verdict> {
    let gate = situation.policy.gate()?;
    let known = situation.memory.gate.as_ref()?;
    if let Some(opened) = known.opened {
        let (all, ago) = (names(gate.queues_empty.iter()), age(situation.now.duration_since(opened)));
        let message = format!("seen empty twice, the last time {ago} ago: {all}");
        return Some(Verdict { answer: Some(true), reason: Reason::QueuesEmpty, message });
    }
    let queues = QueueEvidence::of(gate, observation, situation.memory, situation.now);
    let waits = if gate.awaited { "tasks are held" } else { "old tasks keep their queues" };
    let since = age(situation.now.duration_since(known.since));
    let (answer, reason, help) = advice(queues.states.values());
    let message = if known.empty.is_some() {
        let all = names(gate.queues_empty.iter());
        format!(
            "{waits} until queues are empty (drain.gate, for {since}): all are, and are counted again to be sure: {all}"
        )
    } else {
        let why = names(queues.states.iter().filter_map(|(name, state)| described(name, state)));
        format!("{waits} until queues are empty (drain.gate, for {since}): {why}; {help}")
    };
    Some(Verdict { answer, reason, message })
}

fn described(name: &QueueName, state: &QueueState) -> Option<String> {
    match state {
        QueueState::Empty => None,
        QueueState::Holds { ready, delivered: Some(delivered) } => {
            Some(format!("{name} has {ready} ready and {delivered} not acknowledged"))
        }
        QueueState::Holds { ready, delivered: None } => Some(format!("{name} has {ready} ready")),
        QueueState::Unknown { why, .. } => Some(format!("{name} cannot be counted ({why})")),
    }
}

/// What cannot be counted comes before what is not empty: waiting helps the latter.
fn advice<'a>(states: impl Iterator<Item = &'a QueueState> + Clone) -> (Option<bool>, Reason, &'static str) {
    let kinds = states.filter_map(|state| match state {
        QueueState::Unknown { kind, .. } => Some(*kind),
        QueueState::Empty | QueueState::Holds { .. } => None,
    });
    let may_pass = |kind: &FailureKind| matches!(kind, FailureKind::Unreachable | FailureKind::Throttled);
    if kinds.clone().any(|kind| !may_pass(&kind)) {
        let help = "it is not taken for empty: fix that, or remove the queue from drain.gate";
        return (None, Reason::QueuesInvalid, help);
    }
    if kinds.count() > 0 {
        return (None, Reason::QueuesUnknown, "it is not taken for empty; it is counted again");
    }
    let help = "stop what sends to them, or remove drain.gate";
    (Some(false), Reason::QueuesNotEmpty, help)
}
