//! Tells a scale-in from every other surplus. More tasks than are wanted may live because fewer are wanted than before, or
//! because the scheduler starts a task before it stops the one that it replaces. Only a fall of the number wanted is a scale-in.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::view::View;
use crate::{
    evidence::MAX_ANSWER_LAG,
    memory::{Leaving, Memory, Wanted, Why},
    observation::{FleetView, Task},
};

/// A scheduler that wants fewer tasks stops one that is free to stop much sooner than this (the service scheduler of ECS acts within
/// seconds).
const TAKEN_WITHIN: SignedDuration = SignedDuration::from_mins(2);

/// Remembers how many tasks were wanted. At first sight of a fleet or of a revision it is not known what was wanted before:
/// then all that live are taken for wanted until now, so that a fall that nobody saw is a scale-in; unless the scheduler shows that
/// it replaces one. If that is a scale-in after all, it takes the same task: it keeps zones in balance then too.
///
/// The number is lowered when no more tasks live than are wanted, for longer than one of the two can be an answer from the
/// past; and when a task that was let go for a scale-in is not taken, while the scheduler shows that it replaces one.
pub fn follow(view: &View<'_>, memory: &mut Memory) {
    let (fleet, at) = (view.fleet, view.observed_at);
    let live = live(fleet);
    let known = memory.wanted.take().filter(|known| known.revision == fleet.current);
    let known = known.unwrap_or_else(|| Wanted {
        revision: fleet.current.clone(),
        most: if replaces(fleet) { fleet.desired } else { live },
        calm_since: None,
    });
    let is_calm = live <= fleet.desired;
    let calm_since = is_calm.then(|| known.calm_since.map_or(at, |since| since.min(at)));
    let is_over = calm_since.is_some_and(|since| at.duration_since(since) >= MAX_ANSWER_LAG)
        || (is_left_alone(view, memory) && replaces(fleet));
    let most = if is_over { fleet.desired } else { known.most.max(fleet.desired) };
    memory.wanted = Some(Wanted { most, calm_since, ..known });
}

/// A task that was let go for a scale-in goes on running, held by nothing: the scheduler wants no fewer tasks, or is out of order.
fn is_left_alone(view: &View<'_>, memory: &Memory) -> bool {
    memory.tasks.iter().any(|(id, known)| {
        let is_free = view.fleet.tasks.get(id).is_some_and(Task::runs_unheld);
        let permitted_at = known.permitted.as_ref().map(|permitted| permitted.at);
        let is_long = permitted_at.is_some_and(|at| view.observed_at.duration_since(at) >= TAKEN_WITHIN);
        is_free && is_long && known.leaving.is_some_and(|leaving| leaving.why == Why::ScaleIn)
    })
}

/// The scheduler shows that it replaces a task: it wants one gone, or one zone has more than another and it balances them.
fn replaces(fleet: &FleetView) -> bool {
    let current = || fleet.tasks.values().filter(|task| task.life.is_live() && task.revision == fleet.current);
    let mut zones: BTreeMap<&str, u32> = BTreeMap::new();
    for zone in current().filter_map(|task| task.zone.as_deref()) {
        *zones.entry(zone).or_default() += 1;
    }
    let is_uneven = zones.values().max() != zones.values().min();
    (fleet.balances_zones && is_uneven) || current().any(|task| task.displaced.is_certain())
}

/// How many tasks of the current revision are too many because fewer are wanted than were; those that leave because they are
/// replaced are not counted.
pub fn scaled_in(fleet: &FleetView, memory: &Memory) -> u32 {
    let most = memory.wanted.as_ref().map_or(u32::MAX, |wanted| wanted.most);
    staying(fleet, memory).min(most).saturating_sub(fleet.desired)
}

/// How many there are beyond all that were wanted: the scheduler replaces so many others. `replaced` of them are known.
pub fn unexplained(fleet: &FleetView, memory: &Memory, replaced: u32) -> u32 {
    let most = memory.wanted.as_ref().map_or(u32::MAX, |wanted| wanted.most);
    live(fleet).saturating_sub(replaced).saturating_sub(most.max(fleet.desired))
}

/// Tasks of the current revision that live, but for those that are replaced.
fn staying(fleet: &FleetView, memory: &Memory) -> u32 {
    let is_replaced = |leaving: Leaving| leaving.why == Why::Replaced;
    let current = fleet.tasks.iter().filter(|(_, task)| task.life.is_live() && task.revision == fleet.current);
    let leaving = |id| memory.tasks.get(id).and_then(|known| known.leaving);
    number(current.filter(|(id, _)| !leaving(*id).is_some_and(is_replaced)).count())
}

fn live(fleet: &FleetView) -> u32 {
    number(fleet.tasks.values().filter(|task| task.life.is_live() && task.revision == fleet.current).count())
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        actions::Ground,
        memory::Permitted,
        observation::{HoldState, Life},
        update::testing::{Stage, at},
    };

    #[test]
    fn a_scale_in_is_a_fall_and_nothing_else() {
        let mut stage = Stage::with_task("t1", Life::Running);
        stage.add_task("t2", Life::Running);
        // What is wanted and lives, when it is seen, and how many are too many by a fall and otherwise.
        for (desired, live, seconds, expected) in [
            (2, 2, 0, (0, 0)),
            (2, 3, 1, (0, 1)),
            (1, 3, 2, (1, 1)),
            (1, 1, 3, (0, 0)),
            (1, 2, 4, (1, 0)),
            (1, 1, 5, (0, 0)),
            (1, 1, 15, (0, 0)),
            (1, 2, 16, (0, 1)),
            (3, 3, 17, (0, 0)),
            (2, 3, 18, (1, 0)),
        ] {
            stage.fleet.tasks.clear();
            for number in 0..live {
                stage.add_task(&format!("t{number}"), Life::Running);
            }
            stage.fleet.desired = desired;
            let mut memory = stage.memory.clone();
            follow(&stage.view(at(seconds)), &mut memory);
            stage.memory = memory;
            let found = (scaled_in(&stage.fleet, &stage.memory), unexplained(&stage.fleet, &stage.memory, 0));
            assert_eq!(found, expected, "{live} live and {desired} are wanted, after {seconds} s");
        }
    }

    #[test]
    fn what_was_wanted_before_it_was_first_seen_is_not_known() {
        let mut stage = Stage::with_task("t1", Life::Running);
        stage.add_task("t2", Life::Running);
        let mut memory = stage.memory.clone();
        follow(&stage.view(at(0)), &mut memory);
        assert_eq!(scaled_in(&stage.fleet, &memory), 1);
        stage.fleet.current = "another".into();
        follow(&stage.view(at(20)), &mut memory);
        assert_eq!(memory.wanted.map(|wanted| wanted.most), Some(1), "of another revision it is learnt anew");
    }

    #[test]
    fn a_surplus_at_first_sight_is_no_scale_in_where_zones_are_being_balanced() {
        let mut stage = Stage::with_task("a1", Life::Running);
        for (id, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
            stage.add_task(id, Life::Running);
            stage.task(id).zone = Some(zone.into());
        }
        stage.fleet.desired = 2;
        for (balances, expected) in [(true, (0, 1)), (false, (1, 0))] {
            stage.fleet.balances_zones = balances;
            let mut memory = Memory::default();
            follow(&stage.view(at(0)), &mut memory);
            let found = (scaled_in(&stage.fleet, &memory), unexplained(&stage.fleet, &memory, 0));
            assert_eq!(found, expected, "it balances zones: {balances}");
        }
    }

    #[test]
    fn a_surplus_of_which_nobody_is_taken_is_no_scale_in_where_zones_are_being_balanced() {
        for (balances, hold, seconds, expected, what) in [
            (true, HoldState::Free, 119, (1, 0), "it may be taken still"),
            (true, HoldState::Free, 120, (0, 1), "nobody takes it, and one zone has more than another"),
            (true, HoldState::Until(at(7200)), 120, (1, 0), "it is held"),
            (false, HoldState::Free, 120, (1, 0), "there is no other reason for a surplus"),
        ] {
            let mut stage = Stage::with_task("a1", Life::Running);
            for (id, zone) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
                stage.add_task(id, Life::Running);
                stage.task(id).zone = Some(zone.into());
            }
            (stage.fleet.desired, stage.fleet.balances_zones) = (2, balances);
            stage.task("b1").hold = hold;
            let mut memory = stage.memory.clone();
            memory.wanted = Some(Wanted { revision: stage.fleet.current.clone(), most: 3, calm_since: None });
            let known = memory.tasks.entry("b1".into()).or_default();
            known.leaving = Some(Leaving { why: Why::ScaleIn, since: at(0) });
            known.permitted = Some(Permitted { at: at(0), ground: Ground::Drained });
            follow(&stage.view(at(seconds)), &mut memory);
            let found = (scaled_in(&stage.fleet, &memory), unexplained(&stage.fleet, &memory, 0));
            assert_eq!(found, expected, "{what}");
        }
    }
}
