//! The proof of idleness: an unbroken run of observations in which a leaving task took no jobs and had none.

use super::view::View;
use crate::memory::{IdleRun, Memory};

/// Idle runs grow while a leaving task is seen drained, and end as soon as it is not. What was proven of a worker is not
/// proven of the one that took its place.
pub fn follow(view: &View<'_>, memory: &mut Memory) {
    for (id, evidence) in &view.evidence {
        let Some(task) = memory.tasks.get_mut(id) else { continue };
        let run = task.idle.filter(|_| !evidence.restarted(task));
        task.idle = match evidence.span {
            Some(span) if task.leaving.is_some() && evidence.is_drained() => {
                Some(IdleRun::extend(run, span, evidence.counters()))
            }
            _ => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        memory::{Leaving, Why},
        observation::{Answer, Life},
        update::testing::{Stage, at, busy, idle},
    };

    #[test]
    fn a_run_grows_with_each_idle_observation_and_ends_with_a_job_a_beginning_or_a_restart() {
        let mut stage = Stage::with_task("t", Life::Running);
        stage.memory.tasks.entry("t".into()).or_default().leaving = Some(Leaving { why: Why::Rollout, since: at(0) });
        let observations =
            [(idle(at(1)), Some(1)), (idle(at(2)), Some(2)), (busy(at(3)), None), (idle(at(4)), Some(1))];
        for (answer, expected) in observations {
            let now = answer.answered_at;
            stage.answers("t", "w@1", answer);
            let mut memory = stage.memory.clone();
            follow(&stage.view(now), &mut memory);
            stage.memory = memory;
            let run = stage.memory.tasks[&"t".into()].idle;
            assert_eq!(run.map(|run| run.observations), expected, "at {now}");
        }
        for (seconds, begun, expected) in [(5, 7, 1), (6, 7, 2), (7, 8, 1)] {
            stage.answers("t", "w@1", Answer { begun: Some(begun), ..idle(at(seconds)) });
            let mut memory = stage.memory.clone();
            follow(&stage.view(at(seconds)), &mut memory);
            stage.memory = memory;
            let run = stage.memory.tasks[&"t".into()].idle;
            assert_eq!(run.map(|run| run.observations), Some(expected), "{begun} jobs begun");
        }
        stage.memory.tasks.entry("t".into()).or_default().nodes.entry("w@1".into()).or_default().instance =
            Some("a".into());
        let mut answer = idle(at(8));
        answer.instance = Some("b".into());
        stage.answers("t", "w@1", answer);
        let mut memory = stage.memory.clone();
        follow(&stage.view(at(8)), &mut memory);
        assert_eq!(memory.tasks[&"t".into()].idle.map(|run| run.observations), Some(1), "another worker");
    }
}
