//! Chooses who leaves because the scheduler replaces it: the task that the scheduler itself would stop, and never the one that
//! it has just started. That one keeps its queues.

use std::collections::{BTreeMap, BTreeSet};

use super::{surplus, view::View};
use crate::{
    memory::{Leaving, Memory, Why},
    names::TaskId,
    observation::{Displaced, FleetView, Task},
    policy::HoldMode,
};

/// Writes down who is replaced. A task that its scheduler wants gone leaves before another one is there for it; of a crowded
/// zone, one leaves for each task that the scheduler has started elsewhere. Holds stand in the way only in `Standing` mode.
pub fn follow(view: &View<'_>, memory: &mut Memory) {
    let policy = view.policy;
    let ours = policy.hold.mode == HoldMode::Standing && !policy.withdrawn;
    if ours && policy.paused {
        return;
    }
    let replaced = if ours { replaced(view, memory) } else { BTreeSet::new() };
    let lives = |id| view.fleet.tasks.get(id).is_some_and(|task| task.life.is_live());
    for (id, task) in &mut memory.tasks {
        match task.leaving {
            None if replaced.contains(id) => task.leaving = Some(Leaving { why: Why::Replaced, since: view.now }),
            Some(Leaving { why: Why::ScaleIn, since }) if replaced.contains(id) => {
                task.leaving = Some(Leaving { why: Why::Replaced, since });
            }
            Some(Leaving { why: Why::Replaced, .. }) if !replaced.contains(id) && lives(id) => task.stay(),
            _ => {}
        }
    }
}

fn replaced(view: &View<'_>, memory: &Memory) -> BTreeSet<TaskId> {
    let fleet = view.fleet;
    let current = fleet.tasks.iter().filter(|(_, task)| task.life.is_live() && task.revision == fleet.current);
    let displaced = |(id, task): &(&TaskId, &Task)| {
        task.displaced.is_certain() || (task.displaced == Displaced::Unread && is_leaving(memory, id))
    };
    let mut replaced: BTreeSet<TaskId> = current.filter(displaced).map(|(id, _)| id.clone()).collect();
    if fleet.balances_zones {
        let moved = surplus::unexplained(fleet, memory, u32::try_from(replaced.len()).unwrap_or(u32::MAX));
        replaced.extend(of_crowded_zones(view, memory, &replaced, moved));
    }
    replaced
}

/// So many tasks of the zones that have most, counted anew after each; those already on their way first, then the idlest. Where no
/// zone has more than another, nothing tells that the scheduler moves tasks between them.
fn of_crowded_zones(view: &View<'_>, memory: &Memory, displaced: &BTreeSet<TaskId>, moved: u32) -> Vec<TaskId> {
    let mut zones = by_zone(view.fleet, displaced);
    let mut chosen = Vec::new();
    for _ in 0..moved {
        let most = zones.values().map(Vec::len).max().unwrap_or(0);
        let fewest = zones.values().map(Vec::len).min().unwrap_or(0);
        let crowded = zones.values().filter(|tasks| tasks.len() == most && most > fewest).flatten();
        let order = |id: &&&TaskId| {
            let load = view.evidence.get(**id).map(|evidence| (!evidence.is_drained(), evidence.load()));
            let is_permitted = memory.tasks.get(**id).is_some_and(|known| known.permitted.is_some());
            (!is_permitted, !is_leaving(memory, id), load, (**id).clone())
        };
        let Some(id) = crowded.min_by_key(order).map(|id| (*id).clone()) else { break };
        for tasks in zones.values_mut() {
            tasks.retain(|other| **other != id);
        }
        chosen.push(id);
    }
    chosen
}

/// Tasks of the current revision by zone, but for these. A task whose zone is not known is in none.
fn by_zone<'a>(fleet: &'a FleetView, without: &BTreeSet<TaskId>) -> BTreeMap<&'a str, Vec<&'a TaskId>> {
    let mut zones: BTreeMap<&str, Vec<&TaskId>> = BTreeMap::new();
    let current = fleet.tasks.iter().filter(|(_, task)| task.life.is_live() && task.revision == fleet.current);
    for (id, task) in current.filter(|(id, _)| !without.contains(*id)) {
        if let Some(zone) = &task.zone {
            zones.entry(zone).or_default().push(id);
        }
    }
    zones
}

fn is_leaving(memory: &Memory, id: &TaskId) -> bool {
    let leaving = memory.tasks.get(id).and_then(|known| known.leaving);
    leaving.is_some_and(|leaving| leaving.why == Why::Replaced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        observation::Life,
        update::testing::{Stage, at, busy, idle},
    };

    fn leaving(stage: &mut Stage) -> Vec<String> {
        let mut memory = stage.memory.clone();
        surplus::follow(&stage.view(at(0)), &mut memory);
        follow(&stage.view(at(0)), &mut memory);
        stage.memory = memory;
        let tasks = stage.memory.tasks.iter().filter(|(_, known)| known.leaving.is_some());
        tasks.map(|(id, _)| id.to_string()).collect()
    }

    /// Four tasks are wanted: three in `a`, one in `b`.
    fn unbalanced() -> Stage {
        let mut stage = Stage::with_task("a1", Life::Running);
        stage.fleet.desired = 4;
        for id in ["a2", "a3", "b1"] {
            stage.add_task(id, Life::Running);
        }
        for (id, answer) in [("a1", busy(at(0))), ("a2", idle(at(0))), ("a3", busy(at(0))), ("b1", idle(at(0)))] {
            stage.task(id).zone = Some(id[..1].to_owned());
            stage.answers(id, &format!("w@{id}"), answer);
        }
        stage
    }

    #[test]
    fn of_a_crowded_zone_the_idlest_leaves_when_another_task_has_come_elsewhere() {
        let mut stage = unbalanced();
        stage.fleet.balances_zones = true;
        assert!(leaving(&mut stage).is_empty(), "nothing has come");
        stage.add_task("b2", Life::Starting);
        stage.task("b2").zone = Some("b".to_owned());
        stage.memory.tasks.entry("b2".into()).or_default();
        assert_eq!(leaving(&mut stage), ["a2"]);
        stage.answers("a2", "w@a2", busy(at(0)));
        assert_eq!(leaving(&mut stage), ["a2"], "who was chosen stays chosen");
        stage.fleet.tasks.remove(&"b2".into());
        assert!(leaving(&mut stage).is_empty(), "the scheduler has given it up");
    }

    #[test]
    fn without_a_sign_nobody_is_chosen_for_a_surplus() {
        let mut stage = unbalanced();
        assert!(leaving(&mut stage).is_empty());
        stage.add_task("b2", Life::Running);
        stage.task("b2").zone = Some("b".to_owned());
        assert!(leaving(&mut stage).is_empty(), "this scheduler moves no tasks between zones");
    }

    #[test]
    fn who_is_wanted_gone_leaves_before_another_one_is_there() {
        let mut stage = unbalanced();
        for (displaced, expected) in [
            (Displaced::Unread, vec![]),
            (Displaced::MachineLeaves, vec!["a1"]),
            (Displaced::Unread, vec!["a1"]),
            (Displaced::No, vec![]),
            (Displaced::Unhealthy, vec!["a1"]),
        ] {
            stage.task("a1").displaced = displaced;
            assert_eq!(leaving(&mut stage), expected, "{displaced:?}");
        }
    }
}
