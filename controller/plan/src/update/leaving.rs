//! Who will leave because its revision is old, and who will not any more.

use super::view::View;
use crate::{
    memory::{Leaving, Memory, Why},
    names::TaskId,
    observation::Task,
};

/// A task leaves from the moment that its revision is seen to be old. One whose revision became current again (a
/// rollback) stays, and all that was proven or permitted for its leaving is void. One that had ended before that (a
/// worker that crashed, which made the rollout fail) was never drained, and is counted by no rollout.
pub fn follow(view: &View<'_>, memory: &mut Memory) {
    let ended_before = |id: &TaskId| view.before.tasks.get(id).is_some_and(|task| task.gone);
    let is_over = |id: &TaskId, task: &Task| task.life.has_ended() && ended_before(id);
    for (id, task) in view.fleet.tasks.iter().filter(|(id, task)| !is_over(id, task)) {
        let Some(memory) = memory.tasks.get_mut(id) else { continue };
        let (old, withdrawn) = (view.fleet.is_old(task), view.policy.withdrawn);
        match memory.leaving {
            // A task that is ending leaves, whatever is wanted now; and how it came to that is not forgotten.
            Some(_) if !task.life.is_live() && (withdrawn || !old) => {}
            _ if withdrawn => memory.stay(),
            Some(Leaving { why: Why::Rollout, .. }) if !old => memory.stay(),
            Some(Leaving { why: Why::ScaleIn | Why::Replaced, since }) if old => {
                memory.leaving = Some(Leaving { why: Why::Rollout, since });
            }
            None if old => memory.leaving = Some(Leaving { why: Why::Rollout, since: view.now }),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        memory::TaskMemory,
        observation::Life,
        update::testing::{Stage, at},
    };

    #[test]
    fn a_task_leaves_while_its_revision_is_old_and_stays_when_it_is_current_again() {
        let mut stage = Stage::with_task("t", Life::Running);
        let mut memory = Memory { tasks: [("t".into(), TaskMemory::default())].into(), ..Memory::default() };
        let leaving = |memory: &Memory| memory.tasks[&"t".into()].leaving.map(|leaving| leaving.why);
        for (current, expected) in [("old", None), ("new", Some(Why::Rollout)), ("old", None)] {
            stage.fleet.current = current.into();
            follow(&stage.view(at(0)), &mut memory);
            assert_eq!(leaving(&memory), expected, "while {current} is current");
        }
    }

    #[test]
    fn a_scale_in_that_is_overtaken_by_a_rollout_keeps_its_time() {
        let mut stage = Stage::with_task("t", Life::Running);
        stage.fleet.current = "new".into();
        let leaving = Some(Leaving { why: Why::ScaleIn, since: at(0) });
        let mut memory = Memory::default();
        memory.tasks.insert("t".into(), TaskMemory { leaving, ..TaskMemory::default() });
        follow(&stage.view(at(9)), &mut memory);
        assert_eq!(memory.tasks[&"t".into()].leaving, Some(Leaving { why: Why::Rollout, since: at(0) }));
    }
}
