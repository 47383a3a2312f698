//! Follows a rollout from the first old task that is seen to the last one that is seen to end.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::view::View;
use crate::{
    memory::{Memory, Permitted, Rollout},
    names::TaskId,
    observation::{FleetView, Life, Task},
    report::{PastRollout, RolloutOutcome},
};

/// Brings the rollout up to date, and ends it when no old task is left.
pub fn follow(view: &View<'_>, memory: &mut Memory) {
    let (fleet, now) = (view.fleet, view.now);
    let old: BTreeSet<TaskId> = fleet
        .tasks
        .iter()
        .filter(|(id, task)| fleet.is_old(task) && is_counted(memory, id))
        .map(|(id, _)| id.clone())
        .collect();
    if memory.rollout.is_none() && old.iter().any(|id| memory.tasks.get(id).is_some_and(|task| !task.gone)) {
        memory.rollout = Some(Rollout::to(fleet.current.clone(), now));
    }
    if view.before.current.is_none() && !view.policy.withdrawn {
        count_unseen(view, &old, memory);
    }
    if let Some(mut rollout) = memory.rollout.take() {
        redirect(&mut rollout, fleet);
        rollout.old.extend(old);
        count_ended(&mut rollout, fleet, memory);
        if rollout.old.iter().all(|id| rollout.ended.contains(id)) {
            memory.past.insert(0, past(&rollout, fleet, memory, now));
            memory.past.truncate(Memory::PAST_ROLLOUTS);
        } else {
            memory.rollout = Some(rollout);
        }
    }
}

/// If a deployment is older than this when a fleet is first observed, an earlier process, whose memory is lost, may have drained
/// those of its old tasks that are gone.
const YOUNG: SignedDuration = SignedDuration::from_mins(10);
/// The same, if none of its old tasks is left: that process may have been done with it.
const YOUNG_AND_OVER: SignedDuration = SignedDuration::from_mins(2);

/// The fleet is observed for the very first time, and fewer old tasks are left than were wanted: the others had ended before
/// that, held by nobody.
///
/// Where the scheduler starts new tasks before it stops old ones, as many old ones may have ended as new ones run; otherwise
/// as many as are missing. That the desired count rose together with the deployment cannot be told from it.
fn count_unseen(view: &View<'_>, old: &BTreeSet<TaskId>, memory: &mut Memory) {
    let fleet = view.fleet;
    let made_at = fleet.revisions.get(&fleet.current).and_then(|revision| revision.created_at);
    // The first deployment of a fleet has no old tasks.
    let is_first = made_at.is_none() || fleet.made_at.is_none_or(|made| made_at <= Some(made + FIRST_WITHIN));
    let young = if memory.rollout.is_some() { YOUNG } else { YOUNG_AND_OVER };
    let is_young = made_at.is_some_and(|made| view.observed_at.duration_since(made) < young);
    let runs = |task: &Task| task.revision == fleet.current && task.life == Life::Running;
    let replaced = count(fleet.tasks.values().filter(|task| runs(task)));
    let missing = fleet.desired.saturating_sub(count(old.iter()));
    let unseen = if fleet.minimum_healthy_percent < 100 { missing } else { missing.min(replaced) };
    if unseen > 0 && is_young && !is_first {
        let rollout = memory.rollout.get_or_insert_with(|| Rollout::to(fleet.current.clone(), view.now));
        rollout.unseen = unseen;
    }
}

/// A fleet and its first deployment are made in one call.
const FIRST_WITHIN: SignedDuration = SignedDuration::from_secs(2);

/// A task that ended before it would leave is counted by no rollout.
fn is_counted(memory: &Memory, id: &TaskId) -> bool {
    memory.tasks.get(id).is_some_and(|task| !task.gone || task.leaving.is_some())
}

/// The fleet may have turned to yet another revision. If tasks of that one were already being drained, it went back.
fn redirect(rollout: &mut Rollout, fleet: &FleetView) {
    let current_again = |id: &TaskId| fleet.tasks.get(id).is_some_and(|task| task.revision == fleet.current);
    let lives = |id: &TaskId| fleet.tasks.get(id).is_some_and(|task| task.life.is_live());
    let returned = rollout.old.iter().any(current_again);
    // Whoever was being stopped when the fleet turned back ends all the same, and is counted.
    rollout.old.retain(|id| !(current_again(id) && lives(id)));
    if rollout.to != fleet.current || returned {
        rollout.to = fleet.current.clone();
        rollout.back = returned;
    }
}

/// Counts those that ended. Whoever was never permitted was ended by somebody else, unless it never ran. That is judged when
/// the end is first seen: later nobody asks for the task, and then it is not known any more whether it ran.
fn count_ended(rollout: &mut Rollout, fleet: &FleetView, memory: &Memory) {
    for id in &rollout.old {
        let Some(task) = memory.tasks.get(id).filter(|task| task.gone) else { continue };
        if !rollout.ended.insert(id.clone()) {
            continue;
        }
        let ran = fleet.tasks.get(id).is_none_or(|seen| seen.life == Life::Missing || seen.started_at.is_some());
        if ran && task.let_go().is_none() {
            rollout.ended_unpermitted.insert(id.clone());
        }
        if task.killed {
            rollout.killed.insert(id.clone());
        }
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

fn past(rollout: &Rollout, fleet: &FleetView, memory: &Memory, now: Timestamp) -> PastRollout {
    // Also of a deadline that had passed before the rollout began, in a scale-in.
    let mut permits = rollout.old.iter().filter_map(|id| memory.tasks.get(id)?.let_go());
    let outcome = if permits.any(Permitted::by_deadline) {
        RolloutOutcome::JobsCut
    } else if !rollout.killed.is_empty() {
        RolloutOutcome::Killed
    } else if !rollout.ended_unpermitted.is_empty() || rollout.unseen > 0 {
        RolloutOutcome::EndedUnpermitted
    } else if rollout.back {
        RolloutOutcome::RolledBack
    } else {
        RolloutOutcome::Drained
    };
    PastRollout {
        to: rollout.to.clone(),
        label: fleet.label(&rollout.to),
        since: rollout.since,
        until: now,
        tasks: count(rollout.old.iter()).saturating_add(rollout.unseen),
        outcome,
        jobs_cut: rollout.jobs_cut,
        ended_unpermitted: count(rollout.ended_unpermitted.iter()).saturating_add(rollout.unseen),
        unseen: rollout.unseen,
        killed: count(rollout.killed.iter()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        memory::{Leaving, TaskMemory, Why},
        update::testing::{Stage, at},
    };

    #[test]
    fn a_rollout_lasts_from_the_first_old_task_to_the_end_of_the_last_one() {
        let mut stage = Stage::with_task("t", Life::Running);
        stage.fleet.current = "new".into();
        let leaving = Some(Leaving { why: Why::Rollout, since: at(0) });
        let mut memory = Memory::default();
        memory.tasks.insert("t".into(), TaskMemory { leaving, ..TaskMemory::default() });
        follow(&stage.view(at(0)), &mut memory);
        assert_eq!(memory.rollout.as_ref().map(|rollout| rollout.old.len()), Some(1));

        stage.task("t").life = Life::Stopped { reason: "by hand".into(), exit_code: Some(0) };
        stage.task("t").started_at = Some(at(0));
        memory.tasks.entry("t".into()).or_default().gone = true;
        follow(&stage.view(at(5)), &mut memory);
        assert_eq!(memory.rollout, None);
        assert_eq!(memory.past[0].outcome, RolloutOutcome::EndedUnpermitted);
        assert_eq!((memory.past[0].since, memory.past[0].until), (at(0), at(5)));
    }
}
