//! What a user is told: the resource's status. Every part is made from the planner's report, in [`render`](super::render).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How many tasks the status shows; the most interesting first.
pub const MOST_TASKS: usize = 50;

/// How many names of nodes a task in the status shows.
pub const MOST_NODES: usize = 8;

/// How many rollouts that ended the status shows.
pub const MOST_PAST: usize = 5;

/// The types of the conditions. They are API: documented, and not changed.
pub mod condition {
    /// True while the fleet and its workers are reachable and every task is mapped to its workers.
    pub const READY: &str = "Ready";
    /// True while no task of an old revision is left: `kubectl wait --for=condition=Drained`.
    pub const DRAINED: &str = "Drained";
    /// True while there is work to do: tools that know kstatus (Helm, Argo CD, Flux) take it as "in progress".
    pub const RECONCILING: &str = "Reconciling";
    /// True while something is in the way that only a person can mend: tools that know kstatus take it as "failed".
    pub const STALLED: &str = "Stalled";
}

/// What is going on. Written by worker-drain alone.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerDrainStatus {
    /// The generation of the spec that this status tells of. Older than `metadata.generation`: the newest spec was not
    /// looked at yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What is going on as a whole: `Unknown`, `Steady`, `Draining`, `RollingBack`, `ScalingIn`, `Paused`, `Withdrawing`
    /// or `Withdrawn`. For people; programs should read the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub phase: Option<String>,
    /// Old tasks that have ended, of all that the current rollout found, such as `2/3`; `-` without a rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub drained: Option<String>,
    /// When the oldest job that still runs on a leaving task began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_job_started_at: Option<Time>,
    /// What holds the drain up, in a few words; absent if nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub blocked_by: Option<String>,
    /// `Ready`, `Drained`, `Reconciling` and `Stalled`, all from the first pass on. The message says who blocks, since
    /// when, and what would help.
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The rollout that is going on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// How many tasks are where.
    #[serde(default)]
    pub counts: CountsStatus,
    /// The most interesting tasks, 50 at most: leaving before staying, in trouble before well.
    #[schemars(length(max = 50))]
    #[serde(default)]
    pub tasks: Vec<TaskStatus>,
    /// How many more tasks there are, that `tasks` does not show.
    #[serde(default)]
    pub tasks_omitted: u32,
    /// The last five rollouts that ended, the youngest first.
    #[schemars(length(max = 5))]
    #[serde(default)]
    pub past_rollouts: Vec<PastRolloutStatus>,
    /// Advice that is neither a failure nor a reason to wait.
    #[schemars(length(max = 10))]
    #[serde(default)]
    pub notes: Vec<String>,
    /// What worker-drain must remember and cannot see again, such as the queues that it took from a worker; serialised,
    /// and not for people. Losing it is safe for jobs, but queues may then not be given back after a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 524_288))]
    pub memory: Option<String>,
}

/// A rollout: the time in which tasks of more than one revision exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// The id of the deployment that is being rolled out, as ECS has it.
    pub id: String,
    /// What is rolled out, such as `transcoder:42`.
    pub revision: String,
    /// When it was first seen.
    pub started_at: Time,
    /// Old tasks that were seen in it.
    pub old_tasks: u32,
    /// Those of them that have ended.
    pub ended: u32,
    /// Jobs that were cut because a deadline had passed.
    pub jobs_cut: u32,
}

/// How many tasks are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CountsStatus {
    /// Wanted by the scheduler.
    #[serde(default)]
    pub desired: u32,
    /// Starting or running, of every revision.
    #[serde(default)]
    pub live: u32,
    /// Of those, of an old revision.
    #[serde(default)]
    pub old: u32,
    /// Seen taking jobs.
    #[serde(default)]
    pub consuming: u32,
    /// The floor: how many must be seen taking jobs before another one is told to stop taking them.
    #[serde(default)]
    pub floor: u32,
    /// Held, as read back from the scheduler.
    #[serde(default)]
    pub held: u32,
    /// Leaving, with jobs.
    #[serde(default)]
    pub busy: u32,
    /// Running and without an answer, or without a worker that could be found.
    #[serde(default)]
    pub unknown: u32,
    /// Leaving, and permitted to stop.
    #[serde(default)]
    pub permitted: u32,
    /// Jobs that run or wait on leaving tasks.
    #[serde(default)]
    pub jobs: u32,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TaskStatus {
    /// The end of its id, as the ECS console shows it.
    pub task: String,
    /// What it runs, such as `transcoder:41`.
    pub revision: String,
    /// Why it is to leave, `Rollout` or `ScaleIn`; absent if it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<String>,
    /// Where it is, such as `Busy` or `Serving`.
    pub phase: String,
    /// Since when.
    pub since: Time,
    /// Its workers, by the names that the broker knows; eight at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Jobs that run in it or were received by it. Absent: it did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<u32>,
    /// The job of it that has run longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_job: Option<JobStatus>,
    /// Until when it is held, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_until: Option<Time>,
    /// Why its hold was refused, in the scheduler's own word, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_refused: Option<String>,
    /// What it waits for, and what would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
}

/// One job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobStatus {
    /// Its id.
    pub id: String,
    /// What kind of job it is (Celery: the task's name). Never its arguments.
    pub name: String,
    /// When it began to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
}

/// A rollout that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PastRolloutStatus {
    /// The id of the deployment that was rolled out, as ECS has it.
    pub id: String,
    /// What was rolled out, such as `transcoder:42`.
    pub revision: String,
    /// When it was first seen.
    pub started_at: Time,
    /// When no old task was left.
    pub ended_at: Time,
    /// How it ended: `Drained`, `RolledBack`, `JobsCut` or `EndedUnpermitted` (one or more old tasks ended without our
    /// permit: stopped by a person, failed, or lost with their machine).
    pub outcome: String,
    /// How many old tasks there were.
    pub old_tasks: u32,
    /// Jobs that were cut because a deadline had passed.
    pub jobs_cut: u32,
    /// Old tasks that ended without our permit.
    pub ended_unpermitted: u32,
}
