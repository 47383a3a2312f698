//! How many tasks must go on consuming, and which drained ones must stay for it. The floor is counted in tasks that are
//! *seen consuming*, old and new together, so a new revision that never comes up never costs the old one its intake.

use std::{cmp::Reverse, collections::BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::hold::Holds;
use crate::{
    evidence::Intake,
    memory::Why,
    names::TaskId,
    observation::Life,
    policy::DeadlineAction,
    situation::{Member, Situation},
};

/// For how long fewer tasks than the floor must be seen consuming before old ones get their queues back: a new worker
/// that misses one observation is no reason, a new revision that crashes again and again is.
const SHORT_FOR: SignedDuration = SignedDuration::from_secs(60);

/// A refused hold outranks the floor: a task that may be stopped at any moment loses its queues first. So does one that its
/// scheduler wants gone.
pub fn may_not_wait(situation: &Situation<'_>, holds: &Holds, member: &Member<'_>) -> bool {
    holds.leave_at_risk(situation, member)
        || situation.is_displaced(member)
        || situation.is_overdue(member, DeadlineAction::PermitStop)
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

/// Those that their scheduler wants gone first, then those that were cancelled before and consume again; then the oldest
/// revision, then the idlest.
pub fn order<'a>(situation: &Situation<'_>, member: &'a Member<'_>) -> impl Ord + use<'a> {
    let made = situation.fleet.revisions.get(&member.task.revision).and_then(|revision| revision.created_at);
    let taken_before = member.memory.nodes.values().any(|node| !node.taken.is_empty());
    (!member.task.displaced.is_certain(), !taken_before, made, member.evidence.load(), member.id)
}

/// Drained old tasks that must not be let go now, because fewer tasks than the floor are seen consuming: as many as are
/// missing, the youngest revision first.
pub fn reserve<'a>(situation: &'a Situation<'_>, holds: &Holds) -> BTreeSet<&'a TaskId> {
    let missing = situation.floor().saturating_sub(situation.consuming());
    let mut able: Vec<&Member<'_>> =
        situation.leaving().filter(|member| can_come_back(situation, holds, member)).collect();
    able.sort_by_key(|member| Reverse(order(situation, member)));
    able.into_iter().take(usize::try_from(missing).unwrap_or(usize::MAX)).map(|member| member.id).collect()
}

/// Whether a task that will leave, and stopped consuming, can be given its queues back.
pub fn can_come_back(situation: &Situation<'_>, holds: &Holds, member: &Member<'_>) -> bool {
    member.evidence.intake == Intake::Cancelled && may_take_again(situation, holds, member)
}

/// Whether a task that will leave can be given back what it lacks: it may take jobs from some queues still, or from others by itself.
pub fn may_take_again(situation: &Situation<'_>, holds: &Holds, member: &Member<'_>) -> bool {
    member.leaving == Some(Why::Rollout)
        && member.task.life == Life::Running
        && member.memory.nodes.values().any(|node| !node.taken.is_empty())
        && member.memory.permitted.is_none()
        && member.is_held(situation.now)
        && !may_not_wait(situation, holds, member)
}

/// Whether the shortage has lasted so long that the reserve gets its queues back.
pub fn is_short(situation: &Situation<'_>) -> bool {
    situation.memory.short_since.is_some_and(|since: Timestamp| situation.now.duration_since(since) >= SHORT_FOR)
}
