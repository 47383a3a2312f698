//! What is written down before acting, and what is learnt from acting.
//!
//! An intent is harmless if the action then fails; without it, a kill between a cancel and its record would lose the
//! list of queues that an undo needs.

use jiff::Timestamp;

use crate::{
    actions::{Action, Outcome, Step},
    memory::{Memory, Permitted, PhaseSince, Retry, TaskMemory},
    names::{NodeName, QueueName},
    observation::{FailureKind, Queue, WorkersView},
    report::TaskReport,
};

/// Writes down what is about to be done. `workers` are those on whose answers that was decided.
pub fn intend(memory: &mut Memory, actions: &[Action], workers: Option<&WorkersView>, now: Timestamp) {
    let told = |node: &NodeName| -> Option<&[Queue]> { workers?.nodes.get(node)?.queues.as_deref() };
    for action in actions {
        let Some(task) = memory.tasks.get_mut(action.task()) else { continue };
        match action {
            Action::Hold { .. } => task.held = true,
            Action::Cancel { node, queues, .. } => {
                let known = task.nodes.entry(node.clone()).or_default();
                let told = told(node).unwrap_or_default();
                known.taken.extend(told.iter().cloned());
                // It is silent, or its answer is too old to count: then what it last told counts.
                let is_told = |name: &QueueName| told.iter().any(|queue| queue.name == *name);
                let last = known.consumed.iter().filter(|queue| queues.contains(&queue.name) && !is_told(&queue.name));
                known.taken.extend(last.cloned());
            }
            Action::Permit { ground, .. } => {
                task.permitting = Some(Permitted { at: now, ground: ground.clone() });
                task.seen_held = None;
            }
            // It may take jobs from now on: that it had none when it was let go tells nothing of its end.
            Action::GiveBack { node, .. } => {
                task.released = task.released.take().filter(Permitted::by_deadline);
                let known = task.nodes.entry(node.clone()).or_default();
                (known.given_back, known.read_back) = (Some(now), None);
            }
            Action::Release { .. } => task.seen_held = None,
        }
    }
}

/// Writes down since when each task has been where it is.
pub fn note_phases(memory: &mut Memory, tasks: &[TaskReport]) {
    for task in tasks {
        if let Some(known) = memory.tasks.get_mut(&task.task) {
            known.phase = Some(PhaseSince { phase: task.phase, since: task.since });
        }
    }
}

/// Writes down what became of actions. What failed may have taken effect all the same: the next observation sees the world
/// as it is.
pub fn absorb(memory: &mut Memory, outcomes: &[(Action, Outcome)], now: Timestamp) {
    for (action, outcome) in outcomes {
        let Some(task) = memory.tasks.get_mut(action.task()) else { continue };
        match outcome {
            Outcome::Refused { reason } => count_failure(task, action.step(), reason, None, now),
            Outcome::Failed(failure) => count_failure(task, action.step(), &failure.message, Some(failure.kind), now),
            Outcome::Stale => {}
            Outcome::Done => {
                // Unless it failed just now for another of the task's nodes.
                task.retries.retain(|step, retry| *step != action.step() || retry.at == now);
                done(memory, action, now);
            }
        }
    }
}

/// Writes down what became of [`crate::Plan::remember`].
pub fn absorb_remembering(memory: &mut Memory, outcome: &Outcome, now: Timestamp) {
    memory.remembering = match outcome {
        Outcome::Done => None,
        Outcome::Stale => memory.remembering.take(),
        Outcome::Refused { reason } => Some(failed(memory.remembering.as_ref(), reason, None, now)),
        Outcome::Failed(failure) => {
            Some(failed(memory.remembering.as_ref(), &failure.message, Some(failure.kind), now))
        }
    };
}

fn count_failure(task: &mut TaskMemory, step: Step, reason: &str, kind: Option<FailureKind>, now: Timestamp) {
    let retry = failed(task.retries.get(&step), reason, kind, now);
    task.retries.insert(step, retry);
}

fn failed(before: Option<&Retry>, reason: &str, kind: Option<FailureKind>, now: Timestamp) -> Retry {
    // The nodes of a task are told one by one, at one time.
    let more = u32::from(before.is_none_or(|before| before.at != now));
    Retry {
        reason: reason.to_owned(),
        kind,
        since: before.map_or(now, |before| before.since),
        at: now,
        times: before.map_or(0, |before| before.times).saturating_add(more),
    }
}

fn done(memory: &mut Memory, action: &Action, now: Timestamp) {
    let Some(task) = memory.tasks.get_mut(action.task()) else { return };
    match action {
        Action::Permit { ground, .. } if task.permitted.is_none() => {
            task.permitted = Some(Permitted { at: now, ground: ground.clone() });
            task.permitting = None;
            memory.count_cut(ground);
        }
        Action::Permit { .. } => {
            if let Some(again) = &mut task.held_again {
                again.was_let_go(now);
            }
        }
        Action::Release { .. } => task.held = false,
        Action::Hold { .. } | Action::Cancel { .. } | Action::GiveBack { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        actions::Ground,
        observation::Life,
        update::testing::{Stage, at, consuming},
    };

    #[test]
    fn what_a_cancel_takes_is_written_down_before_it_is_sent() {
        let mut stage = Stage::with_task("t", Life::Running);
        stage.answers("t", "w@1", consuming(at(0)));
        let cancel = Action::Cancel { task: "t".into(), node: "w@1".into(), queues: vec!["slow".into()] };
        intend(&mut stage.memory, &[cancel], stage.observation.workers.ok(), at(0));
        let taken = &stage.memory.tasks[&"t".into()].nodes[&"w@1".into()].taken;
        assert_eq!(taken.iter().map(|queue| queue.name.as_str()).collect::<Vec<_>>(), ["slow"]);
    }

    #[test]
    fn whoever_gets_its_queues_back_is_let_go_by_no_earlier_proof() {
        for (ground, kept) in [(Ground::Drained, false), (Ground::Deadline { jobs: Some(1) }, true)] {
            let mut stage = Stage::with_task("t", Life::Running);
            stage.memory.tasks.entry("t".into()).or_default().released = Some(Permitted { at: at(0), ground });
            let give_back = Action::GiveBack { task: "t".into(), node: "w@1".into(), queues: Vec::new() };
            intend(&mut stage.memory, &[give_back], None, at(1));
            assert_eq!(stage.memory.tasks[&"t".into()].released.is_some(), kept);
        }
    }

    #[test]
    fn a_step_that_fails_for_two_nodes_at_once_has_failed_once() {
        let mut stage = Stage::with_task("t", Life::Running);
        stage.memory.tasks.entry("t".into()).or_default();
        let cancel = |node: &str| Action::Cancel { task: "t".into(), node: node.into(), queues: Vec::new() };
        let refused = Outcome::Refused { reason: "no".into() };
        for seconds in [1, 2] {
            absorb(
                &mut stage.memory,
                &[(cancel("w@1"), refused.clone()), (cancel("w@2"), refused.clone())],
                at(seconds),
            );
        }
        assert_eq!(stage.memory.tasks[&"t".into()].retries[&Step::Cancel].times, 2);
    }
}
