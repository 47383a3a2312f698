//! To which revision the fleet is drained: what a pipeline waits for by that revision's name.

use super::view::View;
use crate::{memory::Memory, report::DrainedTo};

/// Notes the current revision when no task of another one is left and its scheduler has brought it into place, and takes that back
/// when one is seen after all. A revision that its scheduler may still give up is not drained to, though all others are gone; and while
/// not every task is accounted for nothing is known.
pub fn follow(view: &View<'_>, memory: &mut Memory) {
    let fleet = view.fleet;
    if let Some(rollout) = &memory.rollout {
        memory.drained_to.take_if(|drained| drained.id == rollout.to);
    }
    let is_in_place = !fleet.is_rolling_out && !fleet.is_deleted;
    let is_certain = fleet.unplaced.values().all(|task| task.life.has_ended()) && memory.miscount.is_none();
    if memory.rollout.is_some() || !is_certain || !is_in_place || view.policy.withdrawn {
        return;
    }
    let past = memory.past.first().filter(|past| past.to == fleet.current);
    let known = memory.drained_to.as_ref().filter(|known| known.id == fleet.current);
    if known.is_some_and(|known| past.is_none_or(|past| past.until <= known.at)) {
        return;
    }
    memory.drained_to = Some(DrainedTo {
        id: fleet.current.clone(),
        label: fleet.label(&fleet.current),
        at: past.map_or(view.now, |past| past.until),
        outcome: past.map(|past| past.outcome),
    });
}
