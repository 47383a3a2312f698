//! Whose consumers are cancelled now. The floor is counted in tasks that are *seen consuming*, old and new together, so
//! a new revision that never comes up never costs the old one its intake.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::{
    actions::Action,
    evidence::Intake,
    memory::Why,
    names::TaskId,
    observation::Life,
    policy::DeadlineAction,
    situation::{Member, Situation, count},
};

/// For how long fewer tasks than the floor must be seen consuming before old ones get their queues back: a new worker
/// that misses one look is no reason, a new revision that crashes again and again is.
const SHORT_FOR: SignedDuration = SignedDuration::from_secs(60);

/// Consumers that are to be cancelled.
pub fn cancels(situation: &Situation<'_>) -> Vec<Action> {
    let (mut chosen, mut patient): (Vec<&Member<'_>>, Vec<&Member<'_>>) =
        situation.leaving().filter(|member| member.is_consuming()).partition(|member| may_not_wait(situation, member));
    patient.retain(|member| !situation.is_behind_gate(member));
    patient.sort_by_key(|member| order(situation, member));
    let left = situation.consuming().saturating_sub(count(chosen.iter()));
    let spare = left.saturating_sub(keep(situation));
    chosen.extend(patient.into_iter().take(usize::try_from(spare).unwrap_or(usize::MAX)));
    // What is cancelled now stands in front of the queue next time; the order of the steps must not depend on it.
    chosen.sort_by_key(|member| member.id);
    chosen.into_iter().flat_map(cancel).collect()
}

/// A refused hold outranks the floor: a task that may be stopped at any moment loses its queues first.
fn may_not_wait(situation: &Situation<'_>, member: &Member<'_>) -> bool {
    situation.is_at_risk(member) || situation.is_overdue(member, DeadlineAction::PermitStop)
}

/// How many tasks must go on consuming.
///
/// Where new tasks can come up beside the old ones, the full count: old ones go only as new ones are seen consuming.
/// Where the scheduler's ceiling leaves no room for a new task, the floor: old ones go in the steps that it allows.
pub fn keep(situation: &Situation<'_>) -> u32 {
    let floor = situation.floor();
    if situation.memory.rollout.is_none() || has_no_room(situation) {
        floor
    } else {
        floor.max(situation.fleet.desired)
    }
}

/// The scheduler can start no task of the current revision before an old one stops.
pub fn has_no_room(situation: &Situation<'_>) -> bool {
    let (mut live, mut current) = (0, 0);
    for member in situation.live() {
        live += 1;
        current += u32::from(member.task.revision == *situation.current());
    }
    current < situation.fleet.desired && live >= situation.ceiling()
}

/// Those that were cancelled before and consume again first; then the oldest revision, then the idlest.
fn order<'a>(situation: &Situation<'_>, member: &'a Member<'_>) -> impl Ord + use<'a> {
    let made = situation.fleet.revisions.get(&member.task.revision).and_then(|revision| revision.created_at);
    let taken_before = member.memory.nodes.values().any(|node| !node.taken.is_empty());
    (!taken_before, made, member.evidence.load(), member.id)
}

fn cancel<'a>(member: &'a Member<'_>) -> impl Iterator<Item = Action> + use<'a> {
    member.evidence.nodes.keys().filter_map(|node| {
        let queues = member.evidence.queues(node).filter(|queues| !queues.is_empty())?;
        Some(Action::Cancel {
            task: member.id.clone(),
            node: node.clone(),
            queues: queues.iter().map(|queue| queue.name.clone()).collect(),
        })
    })
}

/// Drained old tasks that must not be let go now, because fewer tasks than the floor are seen consuming: as many as are
/// missing, the youngest revision first.
pub fn reserve<'a>(situation: &'a Situation<'_>) -> BTreeSet<&'a TaskId> {
    let missing = situation.floor().saturating_sub(situation.consuming());
    let mut able: Vec<&Member<'_>> = situation.leaving().filter(|member| can_come_back(situation, member)).collect();
    able.sort_by_key(|member| std::cmp::Reverse(order(situation, member)));
    able.into_iter().take(usize::try_from(missing).unwrap_or(usize::MAX)).map(|member| member.id).collect()
}

/// Whether a task that is to leave, and was told to take no more jobs, can be given its queues back.
pub fn can_come_back(situation: &Situation<'_>, member: &Member<'_>) -> bool {
    member.leaving == Some(Why::Rollout)
        && member.task.life == Life::Running
        && member.evidence.intake == Intake::Cancelled
        && member.memory.nodes.values().any(|node| !node.taken.is_empty())
        && member.memory.permitted.is_none()
        && member.is_held(situation.now)
        && !may_not_wait(situation, member)
}

/// Whether the shortage has lasted so long that the reserve gets its queues back.
pub fn is_short(situation: &Situation<'_>) -> bool {
    situation.memory.short_since.is_some_and(|since: Timestamp| situation.now.duration_since(since) >= SHORT_FOR)
}
