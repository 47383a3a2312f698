//! Which tasks there are, and which have ended.

use jiff::{SignedDuration, Timestamp};

use super::view::View;
use crate::{
    evidence::MAX_ANSWER_LAG,
    memory::{Memory, TaskMemory},
    names::TaskId,
    observation::{FleetView, Life},
};

/// For how long the scheduler must not know a task before it counts as ended, unless its stop was permitted: a fresh
/// task may be missing from one answer and be there in the next.
const MISSING_FOR: SignedDuration = SignedDuration::from_secs(60);

/// What a container exits with that was ended by SIGKILL: 128 + 9. ECS sends it to one that has not ended `stopTimeout` after
/// SIGTERM (Amazon ECS API Reference, `ContainerDefinition`); the kernel does to one that is out of memory.
const SIGKILLED: i32 = 137;

/// Remembers every task that lives, and that it ended when it has. What ended before we ever saw it is no business of ours.
pub fn follow(fleet: &FleetView, observed_at: Timestamp, memory: &mut Memory) {
    for (id, task) in &fleet.tasks {
        if !memory.tasks.contains_key(id) && task.life.has_ended() {
            continue;
        }
        let known = memory.tasks.entry(id.clone()).or_default();
        match task.life {
            Life::Stopped { exit_code, .. } => {
                known.gone = true;
                if exit_code == Some(SIGKILLED) && !known.killed && known.let_go_by_proof() {
                    known.killed = true;
                    memory.killed = memory.killed.saturating_add(1);
                }
            }
            Life::Missing => missing(known, observed_at),
            Life::Starting | Life::Running | Life::Stopping => known.missing_since = None,
        }
    }
    for (_, task) in memory.tasks.iter_mut().filter(|(id, _)| !fleet.tasks.contains_key(id)) {
        missing(task, observed_at);
    }
}

fn missing(task: &mut TaskMemory, observed_at: Timestamp) {
    let since = task.missing_since.map_or(observed_at, |since| since.min(observed_at));
    task.missing_since = Some(since);
    if task.permitted.is_some() || observed_at.duration_since(since) >= MISSING_FOR {
        task.gone = true;
    }
}

/// Forgets what ended, is counted by no rollout, and is not even seen any more: for longer than an answer may be old, or one
/// from the past would make it a task that nobody knows.
pub fn forget(view: &View<'_>, memory: &mut Memory) {
    let Memory { rollout, tasks, .. } = memory;
    let counted = |id: &TaskId| rollout.as_ref().is_some_and(|rollout| rollout.old.contains(id));
    let missed = |task: &TaskMemory| {
        task.missing_since.is_some_and(|since| view.observed_at.duration_since(since) >= MAX_ANSWER_LAG)
    };
    tasks.retain(|id, task| !task.gone || counted(id) || view.fleet.tasks.contains_key(id) || !missed(task));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        actions::Ground,
        memory::Permitted,
        update::testing::{Stage, at},
    };

    #[test]
    fn a_task_that_is_missing_counts_as_ended_after_a_minute_or_once_permitted() {
        let mut stage = Stage::with_task("t", Life::Running);
        follow(&stage.fleet, at(0), &mut stage.memory);
        stage.fleet.tasks.clear();
        for (seconds, gone) in [(1, false), (60, false), (61, true)] {
            follow(&stage.fleet, at(seconds), &mut stage.memory);
            assert_eq!(stage.memory.tasks[&"t".into()].gone, gone, "after {seconds} s");
        }
    }

    #[test]
    fn who_was_permitted_on_proof_and_is_killed_is_counted_once() {
        let drained = || Some(Permitted { at: at(0), ground: Ground::Drained });
        let cut = || Some(Permitted { at: at(0), ground: Ground::Deadline { jobs: Some(1) } });
        for (permitted, exit_code, killed) in [
            (drained(), Some(137), 1),
            (drained(), Some(0), 0),
            (drained(), Some(143), 0),
            (drained(), None, 0),
            (cut(), Some(137), 0),
            (None, Some(137), 0),
        ] {
            let mut stage = Stage::with_task("t", Life::Stopped { reason: String::new(), exit_code });
            stage.memory.tasks.insert("t".into(), TaskMemory { permitted: permitted.clone(), ..TaskMemory::default() });
            for seconds in [1, 2] {
                follow(&stage.fleet, at(seconds), &mut stage.memory);
            }
            let (count, is_marked) = (stage.memory.killed, stage.memory.tasks[&"t".into()].killed);
            assert_eq!((count, is_marked), (killed, killed == 1), "{permitted:?}, {exit_code:?}");
        }
    }

    #[test]
    fn what_ended_before_it_was_ever_seen_is_not_remembered() {
        let mut stage = Stage::with_task("t", Life::Missing);
        follow(&stage.fleet, at(0), &mut stage.memory);
        assert!(stage.memory.tasks.is_empty());
    }

    #[test]
    fn what_ended_is_forgotten_when_no_answer_can_show_it_any_more() {
        let mut stage = Stage::with_task("t", Life::Running);
        let known = TaskMemory { gone: true, missing_since: Some(at(0)), ..TaskMemory::default() };
        stage.memory.tasks.insert("t".into(), known);
        stage.fleet.tasks.clear();
        for (seconds, remembered) in [(9, true), (10, false)] {
            let mut memory = stage.memory.clone();
            forget(&stage.view(at(seconds)), &mut memory);
            assert_eq!(!memory.tasks.is_empty(), remembered, "after {seconds} s");
        }
    }
}
