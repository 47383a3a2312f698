//! Chooses who leaves when the fleet wants fewer tasks than it had: the idlest of the current revision, as many as there
//! are too many by that. A task that was chosen stays chosen while the choice is needed, and gets its queues back when it is not.

use super::{surplus, view::View};
use crate::{
    evidence::{Evidence, Work},
    memory::{Leaving, Memory, TaskMemory, Why},
    names::TaskId,
    observation::{HoldState, Task},
    policy::HoldMode,
};

/// Writes down who leaves for scale-in. Holds stand in the way of a scale-in only in `Standing` mode, so only there is
/// it ours to drain.
pub fn follow(view: &View<'_>, memory: &mut Memory) {
    let policy = view.policy;
    let ours = policy.drain.scale_in && policy.hold.mode == HoldMode::Standing && !policy.withdrawn;
    if ours && policy.paused {
        return;
    }
    let victims = if ours { victims(view, memory) } else { Vec::new() };
    // A task that is ending leaves, whichever others are chosen; and how it came to that is not forgotten.
    let lives = |id| view.fleet.tasks.get(id).is_some_and(|task| task.life.is_live());
    for (id, task) in &mut memory.tasks {
        match task.leaving {
            None if victims.contains(id) => task.leaving = Some(Leaving { why: Why::ScaleIn, since: view.now }),
            Some(Leaving { why: Why::ScaleIn, .. }) if !victims.contains(id) && lives(id) => task.stay(),
            _ => {}
        }
    }
}

/// One task of the current revision that runs or is about to.
type Candidate<'a> = (&'a TaskId, &'a Task, &'a TaskMemory, &'a Evidence<'a>);

fn victims(view: &View<'_>, memory: &Memory) -> Vec<TaskId> {
    let fleet = view.fleet;
    let live = fleet.tasks.iter().filter(|(_, task)| task.life.is_live() && task.revision == fleet.current);
    let mut current: Vec<Candidate<'_>> =
        live.filter_map(|(id, task)| Some((id, task, memory.tasks.get(id)?, view.evidence.get(id)?))).collect();
    // Those that are replaced leave in any case.
    current.retain(|(_, _, memory, _)| !memory.leaving.is_some_and(|leaving| leaving.why == Why::Replaced));
    let too_many = usize::try_from(surplus::scaled_in(fleet, memory)).unwrap_or(usize::MAX);
    if view.observation.workers.ok().is_none() {
        // None can be chosen by its load now; those that were chosen before stay chosen.
        current.retain(|(_, _, memory, _)| is_leaving(memory));
    }
    current.sort_by_key(order);
    current.into_iter().take(too_many).map(|(id, ..)| id.clone()).collect()
}

/// Those already on their way first; then those that the scheduler may stop without asking us; then the idlest, and
/// those that do not answer last, because they cannot be drained.
fn order<'a>(&(id, task, memory, evidence): &Candidate<'a>) -> impl Ord + use<'a> {
    let work = match evidence.work {
        Work::Idle => 0,
        Work::Busy => 1,
        Work::Unknown => 2,
    };
    (memory.permitted.is_none(), !is_leaving(memory), task.hold != HoldState::Free, work, evidence.load(), id)
}

fn is_leaving(memory: &TaskMemory) -> bool {
    memory.leaving.is_some_and(|leaving| leaving.why == Why::ScaleIn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        observation::Life,
        update::testing::{Stage, at, busy, idle},
    };

    #[test]
    fn the_idlest_leaves_and_stays_when_it_is_wanted_again() {
        let mut stage = Stage::with_task("t1", Life::Running);
        stage.add_task("t2", Life::Running);
        stage.answers("t1", "w@1", busy(at(0)));
        stage.answers("t2", "w@2", idle(at(0)));
        for (desired, expected) in [(1, Some(Why::ScaleIn)), (2, None)] {
            stage.fleet.desired = desired;
            let mut memory = stage.memory.clone();
            follow(&stage.view(at(0)), &mut memory);
            stage.memory = memory;
            let leaving = |id: &str| stage.memory.tasks[&id.into()].leaving.map(|leaving| leaving.why);
            assert_eq!((leaving("t1"), leaving("t2")), (None, expected), "{desired} are wanted");
        }
    }
}
