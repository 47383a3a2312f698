//! What can be counted and measured from outside: from the journal, ECS's history and the workers' logs.

use std::{collections::BTreeSet, time::Duration};

use ecs_emulator::model::{Operation, RolloutState, Time, Transition};

use crate::{stage::Stage, tasks::TaskView};

/// What became of the jobs and the rollout on a stage.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Jobs that were submitted.
    pub submitted: usize,
    /// Of those: began.
    pub started: usize,
    /// Came to their end.
    pub finished: usize,
    /// Began, and will never end: the task that ran them is gone.
    pub lost: usize,
    /// Never began. When all is over: a worker that was killed had taken them from the queue.
    pub waiting: usize,
    /// Began more than once.
    pub run_twice: usize,
    /// From the deployment to its completion, if it is complete.
    pub rollout: Option<Duration>,
    /// Calls to ECS by anyone but the stage.
    pub ecs_calls: u64,
    /// From the deployment to the first worker that was told to take no more jobs.
    pub to_first_cancel: Option<Duration>,
    /// For each task whose hold was released: from the end of its last job to that.
    pub releases: Vec<Duration>,
}

impl Stage {
    /// What became of these jobs and of the deployment that was made at this time.
    pub fn figures(&self, jobs: &[String], deployed: Time) -> Figures {
        let tally = self.app().journal().tally(jobs);
        Figures {
            submitted: jobs.len(),
            started: tally.started.len(),
            finished: tally.finished.len(),
            lost: self.lost(jobs).len(),
            waiting: jobs.iter().filter(|id| !tally.started.contains(*id)).count(),
            run_twice: tally.run_twice.len(),
            rollout: self.completed(deployed).map(|at| at.since(deployed)),
            ecs_calls: self.ecs_calls(),
            to_first_cancel: self.first_cancel(deployed).map(|at| at.since(deployed)),
            releases: self.releases(),
        }
    }

    /// Those of these jobs that began, have no end, and whose task is gone.
    pub fn lost(&self, jobs: &[String]) -> BTreeSet<String> {
        let gone: BTreeSet<String> = self.tasks().iter().filter(|task| task.is_over()).map(TaskView::node).collect();
        let records = self.app().journal().records();
        let lost =
            |id: &&String| records.get(*id).is_some_and(|record| record.ends.is_empty() && gone.contains(&record.node));
        jobs.iter().filter(lost).cloned().collect()
    }

    /// Calls to ECS that were not the stage's own.
    pub fn ecs_calls(&self) -> u64 {
        let ours = [Operation::RegisterTaskDefinition, Operation::CreateService, Operation::UpdateService];
        self.emulator().with_world(|world| {
            world.calls().iter().filter(|(operation, _)| !ours.contains(operation)).map(|(_, count)| count).sum()
        })
    }

    /// When the first deployment after this time was complete.
    fn completed(&self, deployed: Time) -> Option<Time> {
        self.emulator().with_world(|world| {
            let mut later = world.history().iter().filter(|entry| entry.at >= deployed);
            let done = |what: &Transition| {
                matches!(what, Transition::Deployment { rollout: RolloutState::Completed, status: "PRIMARY", .. })
            };
            later.find(|entry| done(&entry.what)).map(|entry| entry.at)
        })
    }

    /// When the first worker wrote that it takes no more jobs from a queue.
    fn first_cancel(&self, deployed: Time) -> Option<Time> {
        let logs = self.tasks().into_iter().map(|task| self.worker_log(task.id));
        logs.flat_map(|log| log.lines().filter_map(cancelled_at).collect::<Vec<_>>()).filter(|at| *at >= deployed).min()
    }

    fn releases(&self) -> Vec<Duration> {
        let released: Vec<_> = self.emulator().with_world(|world| {
            let entries = world.history().iter();
            entries
                .filter_map(|entry| match entry.what {
                    Transition::Unprotected { task } => Some((entry.at, task)),
                    _ => None,
                })
                .collect()
        });
        let records = self.app().journal().records();
        let last_end = |node: &str| {
            let ends = records.values().filter(|record| record.node == node).flat_map(|record| &record.ends);
            ends.copied().reduce(f64::max)
        };
        let after = |(at, task): (Time, _)| {
            let idle = at.epoch_seconds() - last_end(&self.task(task).node())?;
            Some(Duration::from_secs_f64(idle.max(0.0)))
        };
        released.into_iter().filter_map(after).collect()
    }
}

/// `[2026-11-24 02:29:48,123: INFO/MainProcess] Canceling queue celery`, in UTC.
fn cancelled_at(line: &str) -> Option<Time> {
    let (stamp, rest) = line.strip_prefix('[')?.split_once(": ")?;
    if !rest.contains("Canceling queue") {
        return None;
    }
    let at: jiff::civil::DateTime = stamp.replace(',', ".").parse().ok()?;
    let at = at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond();
    u64::try_from(at).ok().map(Time)
}

/// The value below which so many percent of these lie; `None` if there are none.
pub fn percentile(values: &[Duration], percent: usize) -> Option<Duration> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let place = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(place).copied()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ecs_emulator::model::Time;

    use super::{cancelled_at, percentile};

    #[test]
    fn a_cancel_is_found_in_a_workers_log() {
        let line = "[1970-01-01 00:01:00,250: INFO/MainProcess] Canceling queue celery";
        assert_eq!(cancelled_at(line), Some(Time(60_250)));
        assert_eq!(cancelled_at("[1970-01-01 00:01:00,250: INFO/MainProcess] ready."), None);
        assert_eq!(cancelled_at("Canceling queue celery"), None);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<_> = (1..=10).map(Duration::from_secs).collect();
        assert_eq!(percentile(&values, 50), Some(Duration::from_secs(5)));
        assert_eq!(percentile(&values, 99), Some(Duration::from_secs(10)));
        assert_eq!(percentile(&[], 50), None);
    }
}
