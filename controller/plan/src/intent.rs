//! What is written down before acting, and what is learnt from acting.
//!
//! An intent is harmless if the action then fails; without it, a kill between a cancel and its record would lose the
//! list of queues that an undo needs.

use jiff::Timestamp;

use crate::{
    actions::{Action, Ground, Outcome, Step},
    memory::{Memory, Permitted, Retry, TaskMemory},
    observation::FailureKind,
    situation::Situation,
};

/// Writes down what is about to be done.
pub fn intend(memory: &mut Memory, situation: &Situation<'_>, actions: &[Action]) {
    for action in actions {
        let Some(task) = memory.tasks.get_mut(action.task()) else { continue };
        match action {
            Action::Hold { .. } => task.held = true,
            Action::Cancel { task: id, node, .. } => {
                let queues = situation.members.get(id).and_then(|member| member.evidence.queues(node));
                task.nodes.entry(node.clone()).or_default().taken.extend(queues.unwrap_or_default().iter().cloned());
            }
            Action::Permit { ground, .. } => {
                task.permitting = Some(Permitted { at: situation.now, ground: ground.clone() });
            }
            Action::GiveBack { .. } | Action::Release { .. } => {}
        }
    }
}

/// Writes down what became of actions. Whatever failed may have taken effect all the same: the next look sees the world as
/// it is.
pub fn absorb(memory: &mut Memory, outcomes: &[(Action, Outcome)], now: Timestamp) {
    for (action, outcome) in outcomes {
        let Some(task) = memory.tasks.get_mut(action.task()) else { continue };
        match outcome {
            Outcome::Refused { reason } => set_back(task, action.step(), reason, None, now),
            Outcome::Failed(failure) => set_back(task, action.step(), &failure.message, Some(failure.kind), now),
            Outcome::Stale => {}
            Outcome::Done => {
                // Unless another of the task's nodes was set back just now.
                task.retries.retain(|step, retry| *step != action.step() || retry.at == now);
                done(memory, action, now);
            }
        }
    }
}

fn set_back(task: &mut TaskMemory, step: Step, reason: &str, kind: Option<FailureKind>, now: Timestamp) {
    let before = task.retries.get(&step);
    // The nodes of a task are told one by one, at one time.
    let more = u32::from(before.is_none_or(|before| before.at != now));
    let retry = Retry {
        reason: reason.to_owned(),
        kind,
        since: before.map_or(now, |before| before.since),
        at: now,
        times: before.map_or(0, |before| before.times).saturating_add(more),
    };
    task.retries.insert(step, retry);
}

fn done(memory: &mut Memory, action: &Action, now: Timestamp) {
    let Some(task) = memory.tasks.get_mut(action.task()) else { return };
    match action {
        Action::Permit { ground, .. } if task.permitted.is_none() => {
            task.permitted = Some(Permitted { at: now, ground: ground.clone() });
            task.permitting = None;
            count_cut(memory, ground);
        }
        Action::Release { .. } => task.held = false,
        Action::Hold { .. } | Action::Cancel { .. } | Action::GiveBack { .. } | Action::Permit { .. } => {}
    }
}

/// Counts what a permit cuts.
pub fn count_cut(memory: &mut Memory, ground: &Ground) {
    let Ground::Deadline { jobs } = ground else { return };
    let jobs = jobs.unwrap_or(0);
    memory.cut.tasks = memory.cut.tasks.saturating_add(1);
    memory.cut.jobs = memory.cut.jobs.saturating_add(jobs);
    if let Some(rollout) = &mut memory.rollout {
        rollout.jobs_cut = rollout.jobs_cut.saturating_add(jobs);
    }
}
