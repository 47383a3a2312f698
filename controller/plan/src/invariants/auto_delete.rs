//! What must hold of queues that go with their last consumer.

use super::{
    judged::{Check, Judged, demand},
    raw::takes_from,
};
use crate::{Action, QueueName, TaskId, observation::Life};

/// The last that takes jobs from a queue which the broker would then delete is not told to stop.
pub fn rule_15(judged: Judged<'_>) -> Check {
    let Some(fleet) = judged.observation.fleet.ok() else { return Ok(()) };
    let cancelled = |task: &TaskId, name: &QueueName| {
        judged.plan.actions.iter().any(|action| match action {
            Action::Cancel { task: told, queues, .. } => told == task && queues.contains(name),
            _ => false,
        })
    };
    for (task, _) in fleet.tasks.iter().filter(|(_, task)| task.life == Life::Running) {
        let doomed = takes_from(judged, task).filter(|queue| queue.auto_delete && cancelled(task, &queue.name));
        for queue in doomed {
            let mut others = fleet.tasks.iter().filter(|(_, other)| other.life == Life::Running);
            let is_kept = others.any(|(other, _)| {
                takes_from(judged, other).any(|taken| taken.name == queue.name) && !cancelled(other, &queue.name)
            });
            demand(15, is_kept, || {
                format!("{task} is the last that takes jobs from {}, and is told to stop", queue.name)
            })?;
        }
    }
    Ok(())
}
