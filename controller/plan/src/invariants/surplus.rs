//! What must hold where more tasks live than are wanted.

use super::{
    judged::{Check, Judged, demand},
    raw::{is_live, is_turning},
};
use crate::{
    Memory, TaskId,
    memory::Why,
    observation::{FleetView, Task},
    policy::HoldMode,
};

/// A surplus is a scale-in only if fewer tasks are wanted than were. Otherwise the scheduler replaces one: the one that it wants
/// gone is drained, or one of a zone that has more of the others than another zone, and never another.
pub fn rule_17(judged: Judged<'_>) -> Check {
    let (Some(fleet), false) = (judged.observation.fleet.ok(), is_turning(judged)) else { return Ok(()) };
    let chosen = |why: Why| {
        judged.plan.memory.tasks.iter().filter(move |(id, known)| {
            let was = leaving(judged.before, id);
            known.leaving.is_some_and(|leaving| leaving.why == why) && was != Some(why)
        })
    };
    let known = judged.before.wanted.as_ref().filter(|known| known.revision == fleet.current);
    let fell = known.is_none_or(|known| known.most > fleet.desired);
    for (task, _) in chosen(Why::ScaleIn) {
        demand(17, fell, || format!("{task} was chosen for a scale-in, and no fewer are wanted than before"))?;
    }
    for (task, _) in chosen(Why::Replaced) {
        let Some(seen) = fleet.tasks.get(task) else { continue };
        let moved = fleet.balances_zones && seen.zone.is_some() && has_a_rival(fleet, task);
        demand(17, seen.displaced.is_certain() || moved, || format!("{task} is not the one that is replaced"))?;
    }
    let policy = judged.policy;
    let ours = policy.hold.mode == HoldMode::Standing && !policy.withdrawn && !policy.paused;
    let stays = fleet
        .tasks
        .iter()
        .find(|(id, task)| is_live(task) && task.displaced.is_certain() && leaving(&judged.plan.memory, id).is_none());
    demand(17, stays.is_none() || !ours, || format!("{stays:?} is wanted gone, and is not to leave"))
}

fn leaving(memory: &Memory, task: &TaskId) -> Option<Why> {
    memory.tasks.get(task).and_then(|known| known.leaving).map(|leaving| leaving.why)
}

/// Another zone has fewer tasks of the current revision than this task's, those aside that are wanted gone.
fn has_a_rival(fleet: &FleetView, task: &TaskId) -> bool {
    let Some(zone) = fleet.tasks.get(task).and_then(|task| task.zone.as_ref()) else { return false };
    let stays = |task: &&Task| is_live(task) && task.revision == fleet.current && !task.displaced.is_certain();
    let current = || fleet.tasks.values().filter(stays);
    let size = |zone: &String| current().filter(|task| task.zone.as_ref() == Some(zone)).count();
    current().filter_map(|task| task.zone.as_ref()).any(|other| size(other) < size(zone))
}
