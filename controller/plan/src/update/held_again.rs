//! Holds that somebody else sets on tasks that we let go: an application that sets ECS task protection itself, another tool, or a
//! person. The scheduler stops nothing that is held.

use super::{foreign::CERTAIN_AFTER, view::View};
use crate::{
    memory::{HeldAgain, Memory, TaskMemory},
    observation::{HoldState, Life},
};

/// Counts each hold that is seen on a task so long after we let it go that it can be neither an answer from before that nor a hold of
/// ours that took effect late. Whoever set it may know of work that we do not, so what was proven before it counts no more.
pub fn follow(view: &View<'_>, memory: &mut Memory) {
    for (id, seen) in &view.fleet.tasks {
        let Some(task) = memory.tasks.get_mut(id) else { continue };
        let is_held = match seen.hold {
            _ if seen.life != Life::Running || task.permitted.is_none() => false,
            HoldState::Unread => continue,
            HoldState::Free => false,
            HoldState::Until(end) => end > view.now,
        };
        if is_held {
            held(view, task);
        } else if let Some(again) = &mut task.held_again {
            again.since = None;
        }
    }
}

fn held(view: &View<'_>, task: &mut TaskMemory) {
    let Some(permitted) = &task.permitted else { return };
    let known = task.held_again.unwrap_or_default();
    let let_go = known.let_go.map_or(permitted.at, |again| again.max(permitted.at));
    let is_new = known.since.is_none_or(|since| since < let_go);
    if is_new && view.observed_at.duration_since(let_go) >= CERTAIN_AFTER {
        let times = known.times.saturating_add(1);
        task.held_again = Some(HeldAgain { times, since: Some(view.observed_at), ..known });
    }
    if task.held_again.is_some_and(|again| again.since == Some(view.observed_at)) {
        task.idle = None;
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        actions::Ground,
        memory::Permitted,
        update::testing::{Stage, at},
    };

    const FREE: HoldState = HoldState::Free;

    fn hours(hours: i64) -> Timestamp {
        at(hours * 3600)
    }

    /// How many holds by others are counted of what is seen at these seconds of a task that was let go at second 0.
    fn counted(seen: &[(i64, HoldState)], change: impl FnOnce(&mut TaskMemory)) -> u32 {
        let mut stage = Stage::with_task("t", Life::Running);
        let permitted = Some(Permitted { at: at(0), ground: Ground::Drained });
        let mut task = TaskMemory { permitted, ..TaskMemory::default() };
        change(&mut task);
        stage.memory.tasks.insert("t".into(), task);
        for (second, hold) in seen {
            stage.task("t").hold = *hold;
            for _ in 0..2 {
                let mut memory = stage.memory.clone();
                follow(&stage.view(at(*second)), &mut memory);
                stage.memory = memory;
            }
        }
        stage.memory.tasks[&"t".into()].held_again.map_or(0, |again| again.times)
    }

    #[test]
    fn a_hold_long_after_its_task_was_let_go_is_somebody_elses() {
        let held = HoldState::Until(hours(2));
        assert_eq!(counted(&[(1, FREE), (24, held)], |_| {}), 0, "it may be one of ours that came late");
        assert_eq!(counted(&[(1, FREE), (25, held), (26, held)], |_| {}), 1);
        assert_eq!(counted(&[(1, FREE), (25, held), (27, HoldState::Unread), (28, held)], |_| {}), 1);
        assert_eq!(counted(&[(25, held), (26, FREE), (27, held)], |_| {}), 2);
        assert_eq!(counted(&[(25, HoldState::Until(at(25)))], |_| {}), 0, "it has run out");
        assert_eq!(counted(&[(25, held)], |task| task.permitted = None), 0, "it is ours");
        let again = HeldAgain { times: 1, since: Some(at(30)), let_go: Some(at(31)), let_go_times: 1 };
        assert_eq!(counted(&[(32, held), (55, held)], |task| task.held_again = Some(again)), 1, "from before that");
        assert_eq!(counted(&[(32, held), (56, held)], |task| task.held_again = Some(again)), 2);
    }
}
