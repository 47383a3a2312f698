//! What must hold of how many workers a task has.

use super::{
    judged::{Check, Judged, demand},
    raw::{nodes, permits},
};
use crate::Ground;

/// A task has as many workers as it was ever seen to have, as the user says, as was written down beside the fleet, or as it has parts of
/// one program: on the word of fewer it is not permitted to stop because it is drained.
pub fn rule_16(judged: Judged<'_>) -> Check {
    let Some(fleet) = judged.observation.fleet.ok() else { return Ok(()) };
    for (id, _) in permits(judged.plan).filter(|(_, ground)| **ground == Ground::Drained) {
        let Some(task) = fleet.tasks.get(id) else { continue };
        let written = fleet.remembered.as_ref().map(|remembered| &remembered.workers_per_task);
        let told = [Some(&judged.before.workers_per_task), written].into_iter().flatten();
        let told = told.filter_map(|numbers| numbers.get(&task.revision).copied()).max();
        let alike = u32::try_from(task.alike.len()).unwrap_or(u32::MAX);
        let expected = judged.policy.drain.workers_per_task.unwrap_or_else(|| told.unwrap_or(1).max(alike));
        let known = u32::try_from(nodes(judged, id).len()).unwrap_or(u32::MAX);
        demand(16, known >= expected, || format!("{id} was permitted by {known} of {expected} workers"))?;
    }
    let (written, policy) = (judged.plan.remember.is_some(), judged.policy);
    demand(16, !(written && policy.paused), || String::from("numbers are written down in a drain that is paused"))
}
