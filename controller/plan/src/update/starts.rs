//! How long the workers of a task take to come up: some load models, and are no fault while they do.

use jiff::SignedDuration;

use super::view::View;
use crate::memory::Memory;

/// A start that took longer is not learnt from: more likely nobody looked, or the workers could not be asked.
const LONGEST: SignedDuration = SignedDuration::from_hours(1);

/// Learns from each task that was seen to be silent before and answers now.
pub fn follow(view: &View<'_>, memory: &mut Memory) {
    for (id, evidence) in &view.evidence {
        let was_silent = view.before.tasks.get(id).is_some_and(|known| !known.has_worker());
        let (Some((_, answered_at)), true) = (evidence.span, was_silent) else { continue };
        let Some(started_at) = view.fleet.tasks.get(id).and_then(|task| task.started_at) else { continue };
        let took = answered_at.duration_since(started_at);
        if took <= LONGEST && memory.slowest_start.is_none_or(|slowest| slowest < took) {
            memory.slowest_start = Some(took);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        memory::TaskMemory,
        observation::Life,
        update::testing::{Stage, at, consuming},
    };

    fn learnt(known: Option<TaskMemory>, answers_at: i64) -> Option<SignedDuration> {
        let mut stage = Stage::with_task("t", Life::Running);
        stage.task("t").started_at = Some(at(0));
        stage.answers("t", "w@1", consuming(at(answers_at)));
        stage.memory.tasks = known.into_iter().map(|known| ("t".into(), known)).collect();
        let mut memory = Memory { slowest_start: Some(SignedDuration::from_secs(10)), ..Memory::default() };
        follow(&stage.view(at(answers_at)), &mut memory);
        memory.slowest_start
    }

    #[test]
    fn the_longest_start_of_a_task_that_was_silent_before_is_remembered() {
        let silent = || Some(TaskMemory::default());
        assert_eq!(learnt(silent(), 300), Some(SignedDuration::from_secs(300)));
        assert_eq!(learnt(silent(), 5), Some(SignedDuration::from_secs(10)), "it is shorter");
        assert_eq!(learnt(silent(), 3601), Some(SignedDuration::from_secs(10)), "nobody looked");
        assert_eq!(learnt(None, 300), Some(SignedDuration::from_secs(10)), "nobody knows when it began to answer");
    }
}
