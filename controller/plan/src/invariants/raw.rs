//! What the rules read: the raw observation, apart from everything that the policy makes of it.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::judged::Judged;
use crate::{
    Action, Ground, NodeName, Plan, RevisionId, TaskId,
    evidence::FRESH_FOR,
    memory::NodeMemory,
    observation::{Answer, FleetView, HoldState, Life, Mapping, Queue, Task, WorkersView},
    policy::{DeadlineAction, MinConsuming, Scheduled, percent_of},
};

/// Whoever takes jobs again because of somebody else is told to stop after no longer than this.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(4);

pub(super) fn permits(plan: &Plan) -> impl Iterator<Item = (&TaskId, &Ground)> {
    plan.actions.iter().filter_map(|action| match action {
        Action::Permit { task, ground } => Some((task, ground)),
        _ => None,
    })
}

pub(super) fn cancels(plan: &Plan) -> impl Iterator<Item = &TaskId> {
    plan.actions.iter().filter_map(|action| match action {
        Action::Cancel { task, .. } => Some(task),
        _ => None,
    })
}

pub(super) fn holds(plan: &Plan) -> impl Iterator<Item = &TaskId> {
    plan.actions.iter().filter_map(|action| match action {
        Action::Hold { task, .. } => Some(task),
        _ => None,
    })
}

pub(super) fn workers(judged: Judged<'_>) -> Option<&WorkersView> {
    judged.observation.workers.ok()
}

/// Every node that is or ever was this task's.
pub(super) fn nodes(judged: Judged<'_>, task: &TaskId) -> BTreeSet<NodeName> {
    let mut nodes: BTreeSet<NodeName> =
        judged.before.tasks.get(task).map(|known| known.nodes.keys().cloned().collect()).unwrap_or_default();
    if let Some(Mapping::Nodes(found)) = workers(judged).and_then(|workers| workers.tasks.get(task)) {
        nodes.extend(found.iter().cloned());
    }
    nodes
}

pub(super) fn answer<'a>(judged: Judged<'a>, node: &NodeName) -> Option<&'a Answer> {
    let answer = workers(judged)?.nodes.get(node)?;
    (judged.now.duration_since(answer.asked_at) <= FRESH_FOR).then_some(answer)
}

pub(super) fn idle(judged: Judged<'_>, answer: &Answer) -> bool {
    let none = |jobs: &Option<Vec<_>>| jobs.as_ref().is_some_and(Vec::is_empty);
    answer.queues.as_ref().is_some_and(Vec::is_empty)
        && answer.unlisted == 0
        && answer.unseen.is_none()
        && none(&answer.active)
        && none(&answer.reserved)
        && (judged.policy.drain.scheduled == Scheduled::Ignore || none(&answer.scheduled))
}

/// It is seen at work: it takes jobs, or has some that count.
pub(super) fn at_work(judged: Judged<'_>, fleet: &FleetView, task: &TaskId) -> bool {
    let some = |jobs: &Option<Vec<_>>| jobs.as_ref().is_some_and(|jobs| !jobs.is_empty());
    let has_jobs = |answer: &Answer| {
        some(&answer.active)
            || answer.unlisted > 0
            || some(&answer.reserved)
            || (judged.policy.drain.scheduled == Scheduled::Wait && some(&answer.scheduled))
    };
    let busy = || nodes(judged, task).iter().filter_map(|node| answer(judged, node)).any(has_jobs);
    consumes(judged, fleet, task) || (runs_and_is_mapped(judged, fleet, task) && busy())
}

pub(super) fn consumes(judged: Judged<'_>, fleet: &FleetView, task: &TaskId) -> bool {
    let quiet = |node: &NodeName| {
        known_node(judged, task, node).is_some_and(|known| known.between_jobs && !known.consumed.is_empty())
    };
    let takes_jobs = |node: &NodeName| match told(judged, node) {
        Some(queues) => !queues.is_empty(),
        None => quiet(node),
    };
    runs_and_is_mapped(judged, fleet, task) && nodes(judged, task).iter().any(takes_jobs)
}

/// Somebody has those of its nodes that take jobs do so again and again: they are told to stop after a pause.
pub(super) fn is_fed_by_others(judged: Judged<'_>, task: &TaskId) -> bool {
    let takes_jobs = |node: &NodeName| match told(judged, node) {
        Some(queues) => !queues.is_empty(),
        None => known_node(judged, task, node).is_some_and(|known| !known.consumed.is_empty()),
    };
    let waits = |node: &NodeName| {
        known_node(judged, task, node).and_then(|known| known.taken_up.as_ref()).is_some_and(|known| {
            let since = judged.now.duration_since(known.at);
            known.times >= 3 && !since.is_negative() && since < LONGEST_PAUSE
        })
    };
    nodes(judged, task).iter().filter(|node| takes_jobs(node)).all(waits)
}

/// The queues that its nodes are seen to take jobs from; those that are silent, that they last told of.
pub(super) fn takes_from<'a>(judged: Judged<'a>, task: &'a TaskId) -> impl Iterator<Item = &'a Queue> {
    let of_node = move |node: NodeName| -> Vec<&'a Queue> {
        match (told(judged, &node), known_node(judged, task, &node)) {
            (Some(queues), _) => queues.iter().collect(),
            (None, known) => known.into_iter().flat_map(|known| &known.consumed).collect(),
        }
    };
    nodes(judged, task).into_iter().flat_map(of_node)
}

fn told<'a>(judged: Judged<'a>, node: &NodeName) -> Option<&'a [Queue]> {
    answer(judged, node)?.queues.as_deref()
}

fn known_node<'a>(judged: Judged<'a>, task: &TaskId, node: &NodeName) -> Option<&'a NodeMemory> {
    judged.plan.memory.tasks.get(task)?.nodes.get(node)
}

/// Nothing holds it, or not for long, or its deadline lets it go; or its scheduler wants it gone, held or not.
pub(super) fn may_be_stopped(judged: Judged<'_>, fleet: &FleetView, task: &TaskId) -> bool {
    let known = judged.plan.memory.tasks.get(task);
    let soon = judged.now.saturating_add(judged.policy.hold.expires_in / 2).unwrap_or(Timestamp::MAX);
    let unheld = match fleet.tasks.get(task).map(|task| task.hold) {
        Some(HoldState::Until(end)) => {
            end <= judged.now || (end < soon && known.is_some_and(|known| known.refused().is_some()))
        }
        Some(HoldState::Free) => true,
        _ => false,
    };
    let overdue =
        judged.policy.drain.deadline.zip(known.and_then(|known| known.leaving)).is_some_and(|(deadline, leaving)| {
            deadline.action == DeadlineAction::PermitStop && judged.now.duration_since(leaving.since) >= deadline.after
        });
    unheld || overdue || is_displaced(judged, fleet, task)
}

/// Its scheduler wants it gone, and another task takes jobs that is not wanted gone.
fn is_displaced(judged: Judged<'_>, fleet: &FleetView, task: &TaskId) -> bool {
    let certain = |task: &TaskId| fleet.tasks.get(task).is_some_and(|task| task.displaced.is_certain());
    certain(task) && fleet.tasks.keys().any(|other| !certain(other) && consumes(judged, fleet, other))
}

fn runs_and_is_mapped(judged: Judged<'_>, fleet: &FleetView, task: &TaskId) -> bool {
    fleet.tasks.get(task).is_some_and(|task| task.life == Life::Running)
        && !matches!(workers(judged).and_then(|workers| workers.tasks.get(task)), Some(Mapping::Ambiguous { .. }))
}

/// The floor, in tasks.
pub(super) fn floor(judged: Judged<'_>, fleet: &FleetView) -> u32 {
    let own = MinConsuming::Percent(fleet.minimum_healthy_percent);
    judged.policy.drain.min_consuming.unwrap_or(own).of(fleet.desired)
}

/// The revision that is believed to be current.
pub(super) fn current<'a>(judged: Judged<'a>, fleet: &'a FleetView) -> &'a RevisionId {
    judged.plan.memory.current.as_ref().map_or(&fleet.current, |current| &current.revision)
}

/// Another is shown as current, and not believed yet.
pub(super) fn is_turning(judged: Judged<'_>) -> bool {
    judged.plan.memory.current.as_ref().is_some_and(|current| current.turning.is_some())
}

/// It runs or is about to.
pub(super) fn is_live(task: &Task) -> bool {
    matches!(task.life, Life::Running | Life::Starting)
}

/// As many tasks live as the scheduler may have.
pub(super) fn is_full(fleet: &FleetView) -> bool {
    let live = number(fleet.tasks.values().filter(|task| is_live(task)).count());
    live >= percent_of(fleet.desired, fleet.maximum_percent, false)
}

pub(super) fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
