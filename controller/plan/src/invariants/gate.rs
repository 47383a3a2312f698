//! What must hold of a queue gate.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::{
    judged::{Check, Judged, demand},
    raw::{cancels, may_be_stopped, permits},
};
use crate::{
    Action, Ground, Memory, TaskId,
    evidence::FRESH_FOR,
    memory::Why,
    observation::{Answer, Delivered, QueueCount, Seen},
    policy::Gate,
};

/// Behind a shut queue gate nothing of a rollout is cancelled, but for what may be stopped anyway, and nothing is permitted
/// on the ground that it is drained. It opens on queues that were counted freshly and are empty, twice, and on nothing
/// else. While somebody waits for it before deploying, nothing is done but to hold.
pub fn rule_13(judged: Judged<'_>) -> Check {
    let Some(fleet) = judged.observation.fleet.ok() else { return Ok(()) };
    let Some(gate) = gate(judged) else { return Ok(()) };
    if gate.awaited {
        let other = judged.plan.actions.iter().find(|action| !matches!(action, Action::Hold { .. }));
        demand(13, other.is_none(), || format!("{other:?} while somebody waits for the gate"))?;
    }
    for task in cancels(judged.plan).filter(|task| is_behind_gate(judged, task)) {
        demand(13, may_be_stopped(judged, fleet, task), || format!("{task} is cancelled behind a shut gate"))?;
    }
    for (task, ground) in permits(judged.plan).filter(|(task, _)| is_behind_gate(judged, task)) {
        demand(13, *ground != Ground::Drained, || format!("{task} is permitted behind a shut gate"))?;
    }
    let since = |memory: &Memory| memory.rollout.as_ref().map(|rollout| rollout.since);
    let was_open = is_open(gate, judged.before) && since(judged.before) == since(&judged.plan.memory);
    if !is_open(gate, &judged.plan.memory) || (was_open && !gate.awaited) {
        return Ok(());
    }
    for name in &gate.queues_empty {
        let seen = judged.observation.queues.as_ref().and_then(|queues| queues.get(name));
        demand(13, seen.is_some_and(|seen| is_empty(judged, seen)), || {
            format!("the gate opened while of {name} was seen {seen:?}")
        })?;
    }
    let settles_in = settles_in(judged);
    let proven = judged.plan.memory.gate.as_ref().and_then(|known| known.empty).is_some_and(|run| {
        run.observations >= 2
            && run.last.duration_since(run.first) >= judged.policy.drain.idle_for.max(settles_in)
            && run.up_for.is_none_or(|(first, last)| settles_in.is_zero() || last - first > settles_in)
    });
    demand(13, proven, || String::from("the gate opened without two looks far enough apart"))
}

/// How long those who were asked instead of the broker may hold messages in no list.
fn settles_in(judged: Judged<'_>) -> SignedDuration {
    let counts = judged.observation.queues.iter().flat_map(BTreeMap::values).filter_map(Seen::ok);
    let told = counts.filter_map(|count| match &count.delivered {
        Delivered::Told { nodes, .. } => nodes.values().map(|answer| answer.settles_in).max(),
        Delivered::Counted(_) => None,
    });
    told.max().unwrap_or_default()
}

fn gate(judged: Judged<'_>) -> Option<&Gate> {
    judged.policy.drain.gate.as_ref().filter(|_| !judged.policy.withdrawn)
}

pub(super) fn is_awaited(judged: Judged<'_>) -> bool {
    gate(judged).is_some_and(|gate| gate.awaited)
}

fn is_open(gate: &Gate, memory: &Memory) -> bool {
    memory.gate.as_ref().is_some_and(|known| known.opened.is_some() && known.queues == gate.queues_empty)
}

/// It will leave because its revision is old, and the gate is shut. A rollback has no gate.
pub(super) fn is_behind_gate(judged: Judged<'_>, task: &TaskId) -> bool {
    let memory = &judged.plan.memory;
    gate(judged).is_some_and(|gate| !is_open(gate, memory))
        && memory.rollout.as_ref().is_some_and(|rollout| !rollout.back)
        && memory.tasks.get(task).and_then(|known| known.leaving).is_some_and(|leaving| leaving.why == Why::Rollout)
}

fn is_empty(judged: Judged<'_>, seen: &Seen<QueueCount>) -> bool {
    let is_fresh = judged.now.duration_since(seen.at()) <= FRESH_FOR;
    let has_none = |answer: &Answer| {
        answer.unlisted == 0
            && answer.unseen.is_none()
            && [&answer.active, &answer.reserved, &answer.scheduled]
                .iter()
                .all(|jobs| jobs.as_ref().is_some_and(Vec::is_empty))
    };
    is_fresh
        && seen.ok().is_some_and(|count| {
            count.ready == 0
                && match &count.delivered {
                    Delivered::Counted(delivered) => *delivered == 0,
                    Delivered::Told { consumers, nodes } => {
                        u64::try_from(nodes.len()).is_ok_and(|heard| heard >= *consumers)
                            && nodes.values().all(has_none)
                    }
                }
        })
}
