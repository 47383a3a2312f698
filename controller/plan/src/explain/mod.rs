//! What a person is told, and when to observe again: everything is worked out once here, and only shown elsewhere.

pub mod drain;
pub mod foreign;
pub mod wake;
pub mod words;

mod clean;
mod deleted;
mod gate;
mod nodes;
mod notes;
mod stalled;
mod task;
mod unaccounted;
mod withdrawn;
mod workers;

use jiff::SignedDuration;

use self::wake::Awaited;
use crate::{
    observation::Observation,
    report::{Report, TaskReport},
    rules::Decision,
    situation::Situation,
};

/// A decision, explained.
pub struct Explanation {
    /// What a person is told.
    pub report: Report,
    /// When to observe again at the latest.
    pub wake_after: SignedDuration,
    /// Whose jobs' ends would make an observation worth it before that.
    pub awaited: Awaited,
}

/// Explains what was decided.
pub fn explain(situation: &Situation<'_>, observation: &Observation, decision: &Decision) -> Explanation {
    let live = situation.members.values().map(|member| task::task(situation, member, decision));
    let ended = situation.fleet.tasks.keys().filter_map(|id| task::ended(situation, id));
    let tasks: Vec<TaskReport> = live.chain(ended).collect();
    Explanation {
        report: drain::report(situation, observation, tasks, decision),
        wake_after: wake::wake_after(situation, &decision.actions),
        awaited: wake::awaited(situation),
    }
}
