//! What must always hold, as numbered functions over one reconciliation. They are written against the raw observation, apart from
//! the rules they check, and are called by unit tests, property tests and the simulation alike.
//!
//! 1. A stop is permitted only on proof.
//! 2. Unknown is never idle.
//! 3. An outside failure never releases a hold.
//! 4. Every cancelled consumer ends on a task that stops, or is given back: so what was taken is never forgotten.
//! 5. Consuming workers never fall below the floor because of us.
//! 6. Never more holds than the desired count; old tasks first.
//! 7. "Done" means seen.
//! 8. Nothing is ever stopped by us.
//! 9. A worker that takes jobs again is cancelled again.
//! 10. Planning again on the plan's own memory changes nothing, so two instances agree.
//! 12. If jobs end and the outside recovers, every rollout ends.
//! 13. Behind a shut queue gate nothing of a rollout is cancelled or permitted; and it opens on queues that were seen
//!     empty, never on one that could not be counted.
//! 14. An older revision that is shown as current again is believed when it was seen for some seconds; until then nothing
//!     is done but to hold.
//! 15. The last consumer of a queue that the broker would delete is not cancelled.
//! 16. A task has as many workers as it was ever seen to have, or may have by what is known of it; fewer words prove nothing.
//! 17. A surplus is a scale-in only if fewer are wanted than were; otherwise who is replaced is drained, and nobody else.
//! 19. What we see adds up with what the scheduler counts; what does not is told, and never taken for done.
//!
//! (11, the token bucket, is not policy: it is held where the calls are made.)

mod auto_delete;
mod gate;
mod judged;
mod numbers;
mod raw;
mod rollback;
mod sum;
mod surplus;

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use self::gate::{is_awaited, is_behind_gate};
use self::judged::demand;
use self::raw::{
    answer, at_work, cancels, consumes, current, floor, holds, idle, is_fed_by_others, is_full, is_live, is_turning,
    may_be_stopped, nodes, number, permits, takes_from, workers,
};
pub use self::{
    auto_delete::rule_15,
    gate::rule_13,
    judged::{Check, Judged, Violation},
    numbers::rule_16,
    rollback::rule_14,
    sum::rule_19,
    surplus::rule_17,
};
use crate::{
    Action, Ground, Memory, NodeName, TaskId,
    memory::{TaskMemory, Why},
    observation::{HoldState, Life, Mapping},
    plan,
    policy::{Deadline, DeadlineAction, HoldMode},
};

/// Judges one reconciliation by every rule that can be judged from one reconciliation.
pub fn check(judged: Judged<'_>) -> Check {
    rule_1(judged)?;
    rule_2(judged)?;
    rule_3(judged)?;
    rule_4(judged)?;
    rule_5(judged)?;
    rule_6(judged)?;
    rule_7(judged)?;
    rule_8(judged)?;
    rule_9(judged)?;
    rule_10(judged)?;
    every_step_is_taken(judged)?;
    rule_13(judged)?;
    rule_14(judged)?;
    rule_15(judged)?;
    rule_16(judged)?;
    rule_17(judged)?;
    rule_19(judged)
}

/// A stop is permitted only on proof: every node's cancel read back and every node idle, freshly and at least twice,
/// `idle_for` apart or as long as its nodes need, with no job begun meanwhile; or the deadline that the user set has passed and the user said `PermitStop`.
pub fn rule_1(judged: Judged<'_>) -> Check {
    for (task, ground) in permits(judged.plan) {
        match ground {
            Ground::Deadline { .. } => {
                let since =
                    judged.plan.memory.tasks.get(task).and_then(|known| known.leaving).map(|leaving| leaving.since);
                let passed = judged.policy.drain.deadline.zip(since).is_some_and(|(deadline, since)| {
                    deadline.action == DeadlineAction::PermitStop && judged.now.duration_since(since) >= deadline.after
                });
                demand(1, passed, || format!("{task} was permitted by a deadline that has not passed"))?;
            }
            Ground::Drained => {
                let (mut settles_in, mut begun) = (SignedDuration::ZERO, None);
                for node in nodes(judged, task) {
                    let answer = answer(judged, &node);
                    if let Some(answer) = answer {
                        settles_in = settles_in.max(answer.settles_in);
                        begun = begun.zip(answer.begun).map(|(a, b)| a + b).or(begun).or(answer.begun);
                    }
                    demand(1, answer.is_some_and(|answer| idle(judged, answer)), || {
                        format!("{task} was permitted while {node} had answered {answer:?}")
                    })?;
                }
                let proven = judged.plan.memory.tasks.get(task).and_then(|known| known.idle).is_some_and(|run| {
                    run.observations >= 2
                        && run.last.duration_since(run.first) >= judged.policy.drain.idle_for.max(settles_in)
                        && run.up_for.is_none_or(|(first, last)| settles_in.is_zero() || last - first > settles_in)
                        && run.begun == begun
                });
                demand(1, proven, || format!("{task} was permitted without two idle looks far enough apart"))?;
            }
        }
    }
    no_permit_outlives_its_ground(judged)
}

/// A permit is void when its task stays after all; and one that was given on proof, when work is seen again.
fn no_permit_outlives_its_ground(judged: Judged<'_>) -> Check {
    let Some(fleet) = judged.observation.fleet.ok() else { return Ok(()) };
    for (task, seen) in fleet.tasks.iter().filter(|(_, seen)| is_live(seen)) {
        let known = judged.plan.memory.tasks.get(task);
        let Some((known, permitted)) = known.and_then(|known| Some((known, known.permitted.as_ref()?))) else {
            continue;
        };
        demand(1, known.leaving.is_some(), || format!("{task} stays, and is still permitted to stop"))?;
        let again = permitted.ground == Ground::Drained && seen.life == Life::Running && at_work(judged, fleet, task);
        demand(1, !again, || format!("{task} is at work again, and is still permitted to stop"))?;
    }
    Ok(())
}

/// Unknown is never idle: a task without a node, with a node that could be another's, or with a silent node is not
/// permitted on the ground that it is drained.
pub fn rule_2(judged: Judged<'_>) -> Check {
    for (task, ground) in permits(judged.plan) {
        if *ground != Ground::Drained {
            continue;
        }
        let mapping = workers(judged).and_then(|workers| workers.tasks.get(task));
        demand(2, !matches!(mapping, Some(Mapping::Ambiguous { .. })), || {
            format!("{task} is ambiguous and was permitted")
        })?;
        let nodes = nodes(judged, task);
        demand(2, !nodes.is_empty(), || format!("{task} has no node and was permitted"))?;
        let silent = nodes.iter().find(|node| answer(judged, node).is_none());
        demand(2, silent.is_none(), || format!("{task} was permitted though {silent:?} is silent"))?;
    }
    every_node_is_remembered(judged)
}

/// A node that was once seen to be a task's own is remembered: when it falls silent, nothing else tells of it.
fn every_node_is_remembered(judged: Judged<'_>) -> Check {
    let Some(workers) = workers(judged).filter(|_| judged.observation.fleet.ok().is_some()) else { return Ok(()) };
    for (task, mapping) in &workers.tasks {
        let (Mapping::Nodes(nodes), Some(known)) = (mapping, judged.plan.memory.tasks.get(task)) else { continue };
        let forgotten = nodes.iter().find(|node| !known.nodes.contains_key(*node));
        demand(2, forgotten.is_none(), || format!("{forgotten:?} of {task} is not remembered"))?;
    }
    Ok(())
}

/// An outside failure never releases a hold. (The user's own deadline is no outside failure, nor is withdrawing.)
pub fn rule_3(judged: Judged<'_>) -> Check {
    if judged.observation.fleet.ok().is_none() {
        return demand(3, judged.plan.actions.is_empty(), || String::from("acted on a fleet that could not be seen"));
    }
    if workers(judged).is_none() {
        let drained = permits(judged.plan).find(|(_, ground)| **ground == Ground::Drained);
        demand(3, drained.is_none(), || format!("{drained:?} without a word from the workers"))?;
    }
    for action in &judged.plan.actions {
        if let Action::Release { task } = action {
            let stays = judged.plan.memory.tasks.get(task).is_some_and(|known| known.leaving.is_none());
            demand(3, stays, || format!("{task} is to leave and its hold was released without a permit"))?;
            let (policy, memory) = (judged.policy, &judged.plan.memory);
            let asked_for = policy.withdrawn || (policy.hold.mode == HoldMode::OnRollout && memory.rollout.is_none());
            demand(3, asked_for, || format!("nobody asked for the release of {task}"))?;
        }
    }
    no_hold_is_let_run_out(judged)
}

/// A hold that runs out is renewed while half of what it should be is left, unless the scheduler has just refused that: to
/// let it run out would release it too.
fn no_hold_is_let_run_out(judged: Judged<'_>) -> Check {
    let Some(fleet) = judged.observation.fleet.ok() else { return Ok(()) };
    let policy = judged.policy;
    let permits_stop = |deadline: Deadline| deadline.action == DeadlineAction::PermitStop;
    let by_deadline = !policy.paused && policy.drain.deadline.is_some_and(permits_stop);
    let wanted = |task: &TaskId| {
        judged.plan.memory.tasks.get(task).is_some_and(|known| {
            let leaves = known.leaving.is_some() && !by_deadline;
            let stays = known.leaving.is_none() && policy.hold.mode == HoldMode::Standing;
            known.permitted.is_none() && known.refused().is_none() && !policy.withdrawn && (leaves || stays)
        })
    };
    let soon = judged.now.saturating_add(policy.hold.expires_in / 2).unwrap_or(Timestamp::MAX);
    let runs_out = fleet.tasks.iter().find(|(id, task)| {
        let short = matches!(task.hold, HoldState::Until(end) if end > judged.now && end < soon);
        task.life == Life::Running && short && wanted(id) && !holds(judged.plan).any(|held| held == *id)
    });
    demand(3, runs_out.is_none(), || format!("{runs_out:?} is let run out"))
}

/// What was taken is written down before it is taken, and is never forgotten while the task lives.
pub fn rule_4(judged: Judged<'_>) -> Check {
    let taken = |memory: &Memory, task: &TaskId, node: &NodeName| {
        memory
            .tasks
            .get(task)
            .and_then(|known| known.nodes.get(node))
            .map(|known| known.taken.clone())
            .unwrap_or_default()
    };
    for action in judged.plan.actions.iter().filter(|_| !judged.plan.dry_run) {
        if let Action::Cancel { task, node, queues } = action {
            let known = taken(&judged.plan.memory, task, node);
            let forgotten = queues.iter().find(|queue| known.iter().all(|taken| taken.name != **queue));
            demand(4, forgotten.is_none(), || format!("{forgotten:?} is taken from {node} and not written down"))?;
        }
    }
    for (task, known) in &judged.before.tasks {
        let Some(after) = judged.plan.memory.tasks.get(task) else { continue };
        for (node, before) in &known.nodes {
            let kept = after.nodes.get(node).is_some_and(|after| after.taken.is_superset(&before.taken));
            demand(4, kept, || format!("what was taken from {node} of {task} is forgotten"))?;
        }
    }
    the_memory_is_neither_short_nor_long(judged)
}

/// A task is remembered until it has ended, and no longer than it is seen or counted: what is written must stay small.
fn the_memory_is_neither_short_nor_long(judged: Judged<'_>) -> Check {
    let Some(fleet) = judged.observation.fleet.ok() else { return Ok(()) };
    let memory = &judged.plan.memory;
    let ended = |task: &TaskId| {
        fleet.tasks.get(task).is_none_or(|seen| matches!(seen.life, Life::Stopped { .. } | Life::Missing))
    };
    let mut before = judged.before.tasks.iter();
    let short = before.find(|(task, known)| !memory.tasks.contains_key(*task) && !known.gone && !ended(task));
    demand(4, short.is_none(), || format!("{short:?} has not ended and is forgotten"))?;
    let counted = |task: &TaskId| memory.rollout.as_ref().is_some_and(|rollout| rollout.old.contains(task));
    let mut after = memory.tasks.iter();
    // An answer from the past may show it once more.
    let missed =
        |since: Timestamp| judged.observation.fleet.at().duration_since(since) >= SignedDuration::from_secs(10);
    let is_over =
        |task: &TaskId, known: &TaskMemory| known.gone && !counted(task) && known.missing_since.is_some_and(missed);
    let long = after.find(|(task, known)| is_over(task, known) && !fleet.tasks.contains_key(*task));
    demand(4, long.is_none(), || format!("{long:?} has ended, and is still remembered"))
}

/// Consuming workers never fall below the floor because of us; and where a new task has room to come up, none is
/// cancelled before a new one is seen consuming. A task that may be stopped at any moment is the exception.
pub fn rule_5(judged: Judged<'_>) -> Check {
    let Some(fleet) = judged.observation.fleet.ok() else { return Ok(()) };
    let consuming: BTreeSet<&TaskId> = fleet.tasks.keys().filter(|task| consumes(judged, fleet, task)).collect();
    let cancelled: BTreeSet<&TaskId> = cancels(judged.plan).collect();
    let patient = cancelled.iter().filter(|task| !may_be_stopped(judged, fleet, task)).count();
    if patient == 0 {
        return Ok(());
    }
    let floor = floor(judged, fleet);
    let left = number(consuming.difference(&cancelled).count());
    demand(5, left >= floor, || format!("{left} of {} are left consuming, and the floor is {floor}", consuming.len()))?;
    let is_new = |task: &TaskId| fleet.tasks.get(task).is_some_and(|task| task.revision == *current(judged, fleet));
    let has_room = !is_full(fleet);
    let rollout = cancelled.iter().any(|task| !is_new(task));
    let replaced = consuming.iter().any(|task| is_new(task)) || left >= fleet.desired;
    demand(5, !rollout || !has_room || replaced, || {
        String::from("an old task lost its queues though no new one is seen consuming and there is room for one")
    })
}

/// Never more holds than the desired count, and old tasks first.
pub fn rule_6(judged: Judged<'_>) -> Check {
    let Some(fleet) = judged.observation.fleet.ok() else { return Ok(()) };
    let is_held = |task: &TaskId| {
        fleet
            .tasks
            .get(task)
            .is_some_and(|task| matches!(task.hold, HoldState::Until(end) if end > judged.now) && is_live(task))
    };
    let held = fleet.tasks.keys().filter(|task| is_held(task)).count();
    let new: Vec<&TaskId> = holds(judged.plan).filter(|task| !is_held(task)).collect();
    let all = number(held + new.len());
    demand(6, new.is_empty() || all <= fleet.desired, || format!("{all} holds for {} tasks", fleet.desired))?;
    let leaves = |task: &&TaskId| judged.plan.memory.tasks.get(*task).is_some_and(|known| known.leaving.is_some());
    let first_staying = new.iter().position(|task| !leaves(task)).unwrap_or(new.len());
    demand(6, !new[first_staying..].iter().any(leaves), || String::from("a staying task is held before a leaving one"))
}

/// "Done" means seen: a task counts as ended only if its scheduler said that it has, or knows it no more. What has ended
/// once does not live again, whatever a stale answer says.
pub fn rule_7(judged: Judged<'_>) -> Check {
    let Some(fleet) = judged.observation.fleet.ok() else { return Ok(()) };
    let ended_before = |task| {
        judged.before.rollout.as_ref().is_some_and(|rollout| rollout.ended.contains(task))
            || judged.before.tasks.get(task).is_some_and(|known| known.gone)
    };
    let ended = judged.plan.memory.rollout.iter().flat_map(|rollout| &rollout.ended);
    for task in ended.filter(|task| !ended_before(task)) {
        let seen = fleet.tasks.get(task).is_none_or(|task| matches!(task.life, Life::Stopped { .. } | Life::Missing));
        demand(7, seen, || format!("{task} counts as ended and is seen living"))?;
    }
    let live_old = fleet.tasks.iter().find(|(id, task)| {
        task.revision != *current(judged, fleet)
            && matches!(task.life, Life::Starting | Life::Running | Life::Stopping)
            && !ended_before(id)
    });
    let report = &judged.plan.report;
    let is_named =
        report.drained_to.as_ref().is_some_and(|drained| drained.id == *current(judged, fleet)) && !is_turning(judged);
    demand(7, live_old.is_none() || !is_named || fleet.is_deleted, || {
        String::from("the fleet is said to be drained to its revision")
    })?;
    demand(7, live_old.is_none() || report.drained.answer != Some(true), || {
        format!("drained, though {live_old:?} is there")
    })
}

/// Nothing is ever stopped by us: the scheduler would replace it from the old revision.
pub fn rule_8(judged: Judged<'_>) -> Check {
    for action in &judged.plan.actions {
        // No wildcard: an action that stops something could not be added without coming by here.
        match action {
            Action::Hold { .. }
            | Action::Cancel { .. }
            | Action::GiveBack { .. }
            | Action::Permit { .. }
            | Action::Release { .. } => {}
        }
    }
    Ok(())
}

/// Every task of an old revision leaves, however late it appears; and a leaving worker that was cancelled and is seen
/// taking jobs again is cancelled again, as soon as the floor allows; or after a pause, if somebody else has it do so again and again.
pub fn rule_9(judged: Judged<'_>) -> Check {
    let Some(fleet) = judged.observation.fleet.ok() else { return Ok(()) };
    let memory = &judged.plan.memory;
    let leaves = |task: &TaskId| {
        let why = memory.tasks.get(task).and_then(|known| known.leaving).map(|leaving| leaving.why);
        why == Some(Why::Rollout)
    };
    let old = |task: &TaskId| {
        fleet.tasks.get(task).is_some_and(|seen| is_live(seen) && seen.revision != *current(judged, fleet))
    };
    let stays = fleet.tasks.keys().find(|task| old(task) && !leaves(task));
    demand(9, stays.is_none() || judged.policy.withdrawn || is_turning(judged), || {
        format!("{stays:?} is old and is not to leave")
    })?;
    if judged.policy.paused || is_awaited(judged) || is_turning(judged) {
        return Ok(());
    }
    let cancelled: BTreeSet<&TaskId> = cancels(judged.plan).collect();
    let goes_on = |task: &&TaskId| consumes(judged, fleet, task) && !cancelled.contains(*task);
    let left = number(fleet.tasks.keys().filter(goes_on).count());
    let most = floor(judged, fleet).max(fleet.desired);
    let again = fleet.tasks.keys().find(|task| {
        let known = memory.tasks.get(*task);
        known.is_some_and(|known| known.leaving.is_some() && known.nodes.values().any(|node| !node.taken.is_empty()))
            && consumes(judged, fleet, task)
            && takes_from(judged, task).any(|queue| !queue.auto_delete)
            && !cancelled.contains(*task)
            && !is_behind_gate(judged, task)
            && !is_fed_by_others(judged, task)
    });
    demand(9, again.is_none() || left <= most, || format!("{again:?} takes jobs again and is let"))
}

/// Planning again on the plan's own memory changes nothing.
pub fn rule_10(judged: Judged<'_>) -> Check {
    // The plan is a function of what it reads: where nothing new is remembered, planning again is what was done just now.
    if judged.plan.memory == *judged.before {
        return Ok(());
    }
    let again = plan(judged.policy, judged.observation, &judged.plan.memory, judged.now);
    demand(10, again.actions == judged.plan.actions, || {
        format!("planned {:?}, and then {:?}", judged.plan.actions, again.actions)
    })?;
    demand(10, again.memory == judged.plan.memory, || {
        format!("remembered {:?}, and then {:?}", judged.plan.memory, again.memory)
    })?;
    demand(10, again.report == judged.plan.report, || {
        format!("reported {:?}, and then {:?}", judged.plan.report, again.report)
    })
}

/// Whatever the floor allows is done: no leaving task keeps its queues while more tasks consume than must. Where new
/// tasks have no room to come up beside the old ones, that is the floor, and the full count elsewhere. Without this a
/// rollout would wait for what never comes, which is rule 12.
pub fn every_step_is_taken(judged: Judged<'_>) -> Check {
    let Some(fleet) = judged.observation.fleet.ok() else { return Ok(()) };
    if judged.policy.paused || is_awaited(judged) || is_turning(judged) {
        return Ok(());
    }
    let memory = &judged.plan.memory;
    let new = fleet.tasks.values().filter(|task| is_live(task) && task.revision == *current(judged, fleet)).count();
    let no_room = is_full(fleet) && number(new) < fleet.desired;
    let floor = floor(judged, fleet);
    let keep = if memory.rollout.is_none() || no_room { floor } else { floor.max(fleet.desired) };
    let cancelled: BTreeSet<&TaskId> = cancels(judged.plan).collect();
    let left: Vec<&TaskId> =
        fleet.tasks.keys().filter(|task| !cancelled.contains(task) && consumes(judged, fleet, task)).collect();
    let leaves = |task: &TaskId| memory.tasks.get(task).is_some_and(|known| known.leaving.is_some());
    let may_go = |task: &TaskId| takes_from(judged, task).any(|queue| !queue.auto_delete);
    let waits = left
        .iter()
        .find(|task| leaves(task) && may_go(task) && !is_behind_gate(judged, task) && !is_fed_by_others(judged, task));
    demand(12, waits.is_none() || number(left.len()) <= keep, || {
        format!("{waits:?} keeps its queues though {} consume and {keep} must", left.len())
    })
}

/// When jobs have ended and everything can be seen, nothing is left of any rollout: no task leaves, and no task that
/// stays lacks a queue that was taken from it. To be asked of a world that was left alone for long enough.
pub fn rule_12(judged: Judged<'_>) -> Check {
    demand(12, judged.plan.report.settled, || format!("not settled: {:#?}", judged.plan.report))?;
    for (task, known) in &judged.plan.memory.tasks {
        for (node, known) in &known.nodes {
            let queues = answer(judged, node).and_then(|answer| answer.queues.as_ref());
            let lacking =
                known.taken.iter().find(|taken| queues.is_none_or(|q| q.iter().all(|q| q.name != taken.name)));
            demand(4, lacking.is_none(), || format!("{node} of {task} was left without {lacking:?}"))?;
        }
    }
    Ok(())
}
