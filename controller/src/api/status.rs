//! `status`: what a user is told. Every part is made from the planner's report. The comments on fields are what
//! `kubectl explain` shows.

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
    /// True while nothing is known to be lost in the rollout that goes on, or else in the last one.
    pub const CLEAN: &str = "Clean";
    /// True while this generation of the spec was not yet taken up by a reconciliation that saw service and workers: tools that
    /// know kstatus (Helm, Argo CD, Flux) take it as "in progress". A drain that goes on is in progress in no such sense.
    pub const RECONCILING: &str = "Reconciling";
    /// True while only a person can remove what stops the drain: tools that know kstatus take it as "failed".
    pub const STALLED: &str = "Stalled";
}

/// What worker-drain observes and does. Only worker-drain writes it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerDrainStatus {
    /// The generation of the spec that this status is about. If `metadata.generation` is higher, the newest spec has not
    /// been observed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What the drain is doing: `Unknown`, `Steady`, `Draining`, `RollingBack`, `ScalingIn`, `Replacing`, `Paused`,
    /// `Withdrawing` or `Withdrawn`. For people; programs should read the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub phase: Option<String>,
    /// How many old tasks have ended, of all that the current rollout found, such as `2/3`; `-` without a rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub progress: Option<String>,
    /// The deployment that is current. It is written together with `Drained`, in the reconciliation that first saw it; absent while the
    /// service cannot be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<CurrentStatus>,
    /// The youngest deployment that ECS has brought into place (`rolloutState` `COMPLETED`) and of which no task of another one is left:
    /// what a pipeline waits for by the id of its own deployment. Until then this is still the one before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained: Option<DrainedStatus>,
    /// When the oldest running job on a leaving task began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_job_started_at: Option<Time>,
    /// What the drain waits for, as the reason of a condition, such as `JobsRunning`; absent if it waits for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub blocked_by: Option<String>,
    /// `Ready`, `Drained`, `Clean`, `Reconciling` and `Stalled`, all of them from the first reconciliation on. The message names
    /// what blocks the drain, since when, and what would help.
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// The current rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStatus>,
    /// How many tasks are in which state.
    #[serde(default)]
    pub counts: CountsStatus,
    /// The 50 most interesting tasks: leaving ones before staying ones, those with a problem before the others.
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default)]
    pub tasks: Vec<TaskStatus>,
    /// How many more tasks there are that `tasks` does not show.
    #[serde(default)]
    pub tasks_omitted: u32,
    /// The last five rollouts that ended, the newest first.
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default)]
    pub past_rollouts: Vec<PastRolloutStatus>,
    /// How many tasks were drained and permitted to stop, and ended by SIGKILL (exit code 137) all the same, ever: in rollouts and
    /// in scale-ins.
    #[serde(default)]
    pub killed: u32,
    /// Advice that is neither a failure nor a reason to wait.
    #[schemars(length(max = 10), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default)]
    pub notes: Vec<String>,
    /// What worker-drain must remember because it cannot be observed again, such as the queues that were cancelled on a
    /// worker. Serialised; not meant for people. Losing it is safe for jobs, but queues may then stay cancelled after a
    /// rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 524_288))]
    pub memory: Option<String>,
}

impl WorkerDrainStatus {
    /// Says that this status, and each of its conditions, is about this generation of the spec.
    pub fn set_observed_generation(&mut self, generation: Option<i64>) {
        self.observed_generation = generation;
        for condition in &mut self.conditions {
            condition.observed_generation = generation;
        }
    }
}

/// The deployment that is current.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CurrentStatus {
    /// The id of the ECS deployment, such as `ecs-svc/1234567890123456789`.
    pub deployment: String,
    /// The revision that it rolls out, such as `transcoder:42`.
    pub revision: String,
    /// When ECS made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// A deployment of which no task of another one is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainedStatus {
    /// The id of the ECS deployment, such as `ecs-svc/1234567890123456789`.
    pub deployment: String,
    /// The revision that it rolled out, such as `transcoder:42`.
    pub revision: String,
    /// When the last task of another one had ended, or when it was first seen alone.
    pub at: Time,
    /// How its rollout ended, as in `pastRollouts`; absent if no task of another deployment was ever seen beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// A rollout: the time in which tasks of more than one revision exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStatus {
    /// The ECS deployment that is rolled out, by its id.
    pub id: String,
    /// The revision that is rolled out, such as `transcoder:42`.
    pub revision: String,
    /// When it was first seen.
    pub started_at: Time,
    /// How many old tasks were seen in it.
    pub old_tasks: u32,
    /// How many of them have ended.
    pub ended: u32,
    /// How many jobs were cut because a deadline had passed.
    pub jobs_cut: u32,
}

/// How many tasks are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CountsStatus {
    /// The service's desired count.
    #[serde(default)]
    pub desired: u32,
    /// Tasks of every revision that start or run.
    #[serde(default)]
    pub live: u32,
    /// Those of an old revision.
    #[serde(default)]
    pub old: u32,
    /// Tasks that were seen consuming.
    #[serde(default)]
    pub consuming: u32,
    /// The floor: how many tasks must be seen consuming before another one stops consuming.
    #[serde(default)]
    pub floor: u32,
    /// Tasks that are held, as read back from the scheduler.
    #[serde(default)]
    pub held: u32,
    /// Running tasks of the current revision that should be held and are not: another deployment, or a lower desired count,
    /// cuts their jobs.
    #[serde(default)]
    pub unheld: u32,
    /// Leaving tasks with jobs.
    #[serde(default)]
    pub busy: u32,
    /// Running tasks that do not answer or whose worker is not found.
    #[serde(default)]
    pub unknown: u32,
    /// Leaving tasks that are permitted to stop.
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
    /// The end of the task's id, as the ECS console shows it.
    pub task: String,
    /// The revision that it runs, such as `transcoder:41`.
    pub revision: String,
    /// Why the task leaves: `Rollout`, `ScaleIn` or `Replaced`; absent if it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<String>,
    /// The state of the task, such as `Busy` or `Serving`.
    pub phase: String,
    /// When it entered this state.
    pub since: Time,
    /// The names of its workers, as the broker knows them; eight at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub nodes: Vec<String>,
    /// How strong the evidence of each of these workers is; empty if the task has ended. A task is proven idle only if every one of
    /// its workers proves it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub evidence: Vec<EvidenceStatus>,
    /// How many jobs it runs or has received; absent if it did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<u32>,
    /// The job that has been running longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_job: Option<JobStatus>,
    /// When its hold expires; absent if it is not held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_until: Option<Time>,
    /// Why its hold was refused, in the scheduler's words; absent if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_refused: Option<String>,
    /// What the task waits for, and what would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
}

/// How strong the evidence of one worker is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvidenceStatus {
    /// The name of the worker, as the broker knows it.
    pub node: String,
    /// What the worker's last answer is worth as a proof that it holds no job. `Account`: it accounts for every job that it holds
    /// (the package celery-worker-drain, or HTTP). `Lists`: it answers by Celery's own lists; jobs that it may hold besides show when
    /// they begin, and that is waited for. `Incomplete`: it may hold jobs for any length of time without telling of them, so it is never
    /// taken for idle. `None`: it does not answer.
    pub strength: String,
    /// Which jobs the worker may hold without telling of them, or why it does not answer, and what would help; absent if there is nothing
    /// to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// One job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobStatus {
    /// The id of the job.
    pub id: String,
    /// The kind of job (Celery: the task's name). Never its arguments.
    pub name: String,
    /// When the job began to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
}

/// A rollout that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PastRolloutStatus {
    /// The ECS deployment that was rolled out, by its id.
    pub id: String,
    /// The revision that was rolled out, such as `transcoder:42`.
    pub revision: String,
    /// When it was first seen.
    pub started_at: Time,
    /// When the last old task had ended.
    pub ended_at: Time,
    /// How it ended: `Drained`, `RolledBack`, `JobsCut`, `Killed` (one or more old tasks were drained and permitted to stop, and
    /// ended by SIGKILL) or `EndedUnpermitted` (one or more old tasks ended without a permit: stopped by a person, failed, or
    /// lost with their machine).
    pub outcome: String,
    /// How many old tasks there were.
    pub old_tasks: u32,
    /// How many jobs were cut because a deadline had passed.
    pub jobs_cut: u32,
    /// How many old tasks ended without a permit.
    pub ended_unpermitted: u32,
    /// How many of these had ended before worker-drain first saw the service.
    #[serde(default)]
    pub unseen: u32,
    /// How many old tasks were drained and permitted to stop, and ended by SIGKILL (exit code 137).
    #[serde(default)]
    pub killed: u32,
}
