//! What is asserted in every situation.

use e2e::{Stage, TaskView};

/// Exit codes of `worker-drain run`.
pub const DRAINED: i32 = 0;
pub const ENDED_UNPERMITTED: i32 = 5;
pub const SUPERSEDED: i32 = 6;
pub const KILLED: i32 = 5;

/// Every job ran to its end, exactly once. Read from the jobs' own journal.
pub fn assert_all_ran_once(stage: &Stage, jobs: &[String]) {
    let tally = stage.app().journal().tally(jobs);
    assert!(tally.unfinished.is_empty(), "jobs are lost: {:?}", tally.unfinished);
    assert!(tally.run_twice.is_empty(), "jobs ran twice: {:?}", tally.run_twice);
}

/// These tasks have jobs, and nobody has asked them to end.
pub fn assert_untouched_and_busy(stage: &Stage, tasks: &[TaskView], jobs: &[String]) {
    for task in tasks {
        let task = stage.task(task.id);
        assert!(task.is_live(), "{} was stopped with jobs running: {:?}", task.node(), task.stop);
        assert!(!stage.running_on(&task, jobs).is_empty(), "{} has lost its jobs", task.node());
    }
}

/// These tasks ended by themselves when they were asked to; none was killed.
pub fn assert_ended_gently(stage: &Stage, tasks: &[TaskView]) {
    for task in tasks {
        let task = stage.task(task.id);
        assert!(task.is_over(), "{} has not ended", task.node());
        assert_eq!(task.exit, Some(0), "{} was killed or failed", task.node());
    }
}
