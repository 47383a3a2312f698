//! Holds that somebody else releases: an application that sets ECS task protection itself around each job, or a person.

use jiff::SignedDuration;

use super::view::View;
use crate::{
    evidence::CLOCKS_APART,
    memory::{Memory, SeenHeld},
    observation::{HoldState, Life},
    policy::HoldMode,
};

/// An answer that shows no hold so long after one that did is not from before that hold, by whoever's clock.
pub(super) const CERTAIN_AFTER: SignedDuration = SignedDuration::from_secs(25);

/// Counts each hold that was there for longer than an answer may be old, was not to end for long, and is gone though we let nobody go.
pub fn follow(view: &View<'_>, memory: &mut Memory) {
    let ours = view.policy.hold.mode == HoldMode::Standing && !view.policy.withdrawn;
    for (id, seen) in &view.fleet.tasks {
        let Some(task) = memory.tasks.get_mut(id) else { continue };
        match seen.hold {
            _ if !ours || seen.life != Life::Running || task.let_go().is_some() => task.seen_held = None,
            HoldState::Unread => {}
            HoldState::Until(until) => {
                let since = task.seen_held.map_or(view.observed_at, |held| held.since.min(view.observed_at));
                task.seen_held = Some(SeenHeld { since, until });
            }
            HoldState::Free => {
                let Some(SeenHeld { since, until }) = task.seen_held.take() else { continue };
                let lasted = view.observed_at.duration_since(since) >= CERTAIN_AFTER;
                if lasted && until.duration_since(view.now) > CLOCKS_APART {
                    task.released_by_others = task.released_by_others.saturating_add(1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{
        actions::Ground,
        memory::{Permitted, TaskMemory},
        update::testing::{Stage, at},
    };

    fn hours(hours: i64) -> Timestamp {
        at(hours * 3600)
    }

    /// How many releases by others are counted of what is seen at these seconds.
    fn counted(seen: &[(i64, HoldState)], change: impl FnOnce(&mut Stage, &mut TaskMemory)) -> u32 {
        let mut stage = Stage::with_task("t", Life::Running);
        let mut task = TaskMemory::default();
        change(&mut stage, &mut task);
        stage.memory.tasks.insert("t".into(), task);
        for (second, hold) in seen {
            stage.task("t").hold = *hold;
            let mut memory = stage.memory.clone();
            follow(&stage.view(at(*second)), &mut memory);
            stage.memory = memory;
        }
        stage.memory.tasks[&"t".into()].released_by_others
    }

    #[test]
    fn a_hold_that_is_gone_before_its_time_though_we_let_nobody_go_was_released_by_somebody_else() {
        let held = HoldState::Until(hours(2));
        let gone = [(0, held), (25, held), (26, HoldState::Free), (27, HoldState::Free)];
        assert_eq!(counted(&gone, |_, _| {}), 1);
        let again = [(0, held), (25, held), (26, HoldState::Free), (30, held), (55, held), (56, HoldState::Free)];
        assert_eq!(counted(&again, |_, _| {}), 2);
        let unread = [(0, held), (25, held), (26, HoldState::Unread), (27, HoldState::Free)];
        assert_eq!(counted(&unread, |_, _| {}), 1);
        let old_answer = [(0, held), (15, held), (24, HoldState::Free)];
        assert_eq!(counted(&old_answer, |_, _| {}), 0, "it may be from before it was held");
        let end = HoldState::Until(at(320));
        let ran_out = [(0, end), (25, end), (26, HoldState::Free)];
        assert_eq!(counted(&ran_out, |_, _| {}), 0, "by another clock it has ended");
        let release = Some(Permitted { at: at(0), ground: Ground::Drained });
        assert_eq!(counted(&gone, |_, task| task.permitting = release), 0, "we let it go");
        assert_eq!(counted(&gone, |stage, _| stage.policy.hold.mode = HoldMode::OnRollout), 0);
        assert_eq!(counted(&gone, |stage, _| stage.policy.withdrawn = true), 0);
    }
}
