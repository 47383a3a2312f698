//! What is written down before acting, and what is learnt from acting.
//!
//! An intent is harmless if the action then fails; without it, a kill between a cancel and its record would lose the
//! list of queues that an undo needs.

use jiff::Timestamp;

use crate::{
    actions::{Action, Ground, Outcome},
    memory::{Memory, Permitted, Refusal},
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
            Action::GiveBack { .. } | Action::Permit { .. } | Action::Release { .. } => {}
        }
    }
}

/// Writes down what became of actions. An action that failed changes nothing: the next look sees the world as it is.
pub fn absorb(memory: &mut Memory, outcomes: &[(Action, Outcome)], now: Timestamp) {
    for (action, outcome) in outcomes {
        let Some(task) = memory.tasks.get_mut(action.task()) else { continue };
        match (action, outcome) {
            (Action::Hold { .. }, Outcome::Done) => task.refused = None,
            (Action::Hold { .. }, Outcome::Refused { reason }) => {
                let before = task.refused.take();
                task.refused = Some(Refusal {
                    reason: reason.clone(),
                    since: before.as_ref().map_or(now, |before| before.since),
                    at: now,
                    times: before.map_or(1, |before| before.times.saturating_add(1)),
                });
            }
            (Action::Permit { ground, .. }, Outcome::Done) if task.permitted.is_none() => {
                task.permitted = Some(Permitted { at: now, ground: ground.clone() });
                if let Ground::Deadline { jobs } = ground {
                    count_cut(memory, jobs.unwrap_or(0));
                }
            }
            (Action::Release { .. }, Outcome::Done) => task.held = false,
            _ => {}
        }
    }
}

fn count_cut(memory: &mut Memory, jobs: u32) {
    memory.cut.tasks = memory.cut.tasks.saturating_add(1);
    memory.cut.jobs = memory.cut.jobs.saturating_add(jobs);
    if let Some(rollout) = &mut memory.rollout {
        rollout.jobs_cut = rollout.jobs_cut.saturating_add(jobs);
    }
}
