//! `spec.drain`: how a leaving task is drained. The comments on fields are what `kubectl explain` shows.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::{Duration, TasksOrPercent, between};

/// How a leaving task is drained.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainRules {
    /// The floor: how many tasks must be seen consuming before another one stops consuming. Either a percentage of the
    /// service's desired count, from `0%` to `100%`, rounded up; or a number of tasks, such as `2`, which counts as the
    /// desired count if it is larger. Default: the service's own minimumHealthyPercent. At `100%` an old task stops
    /// consuming only when a new one has begun; at `0%` all old tasks stop at once, and jobs wait in the queue for the new
    /// ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_consuming: Option<TasksOrPercent>,
    /// A worker is idle when at least two observations, this far apart, found it so: between 1ms and 1h. Default: 1s. It
    /// guards against a job that is in transit during an observation. A longer time only delays each stop.
    #[serde(default = "default_idle_for")]
    #[x_kube(validation = between("1ms", "1h", "idleness is proven by two observations with time between them"))]
    pub idle_for: Duration,
    /// What happens to jobs with a later start time (`eta`, `countdown`) that a worker holds in memory. `Ignore`
    /// (default): they are not waited for; the broker gives them to another worker when this one ends. `Wait`: they count
    /// as work, so a worker with a job for next week ends next week.
    #[serde(default)]
    pub scheduled: ScheduledSpec,
    /// How long a leaving task may take. Default: none; a task may take as long as its jobs do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DeadlineSpec>,
    /// What happens to tasks that leave because the service's desired count was lowered. `Auto` (default): `Drain` with
    /// `hold.mode: Standing`, `Ignore` with `OnRollout`. `Drain`: they are drained as in a rollout; refused with
    /// `OnRollout`, whose tasks are not held when a scale-in begins. `Ignore`: they are not drained; with `Standing` they
    /// stay held, so a scale-in waits until a rollout or a person ends them.
    #[serde(default)]
    pub scale_in: ScaleInSpec,
    /// What must be empty before an old task stops consuming and may stop, so that old tasks finish what was sent to them.
    /// Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateSpec>,
}

fn default_idle_for() -> Duration {
    Duration::from_secs(1)
}

impl Default for DrainRules {
    fn default() -> Self {
        Self {
            min_consuming: None,
            idle_for: default_idle_for(),
            scheduled: ScheduledSpec::default(),
            deadline: None,
            scale_in: ScaleInSpec::default(),
            gate: None,
        }
    }
}

/// What happens to jobs with a later start time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ScheduledSpec {
    #[default]
    /// They are not waited for.
    Ignore,
    /// They count as work.
    Wait,
}

/// How long a leaving task may take, and what happens then.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadlineSpec {
    /// The time from the moment that the task was first seen leaving, between 1s and 720h. Choose it longer than the
    /// longest job; otherwise every rollout cuts jobs (with `PermitStop`) or raises alerts (with `Hold`).
    #[x_kube(validation = between("1s", "720h", "a deadline must be later than the end of the longest job"))]
    pub after: Duration,
    /// What happens when the deadline has passed. `Hold` (default): the task stays held, and the status and an event say
    /// so. `PermitStop`: the scheduler may stop the task while jobs run; these jobs are counted and named as cut.
    #[serde(default)]
    pub action: DeadlineActionSpec,
}

/// What happens when a deadline has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum DeadlineActionSpec {
    #[default]
    /// The task stays held, and this is reported.
    Hold,
    /// The stop is permitted; jobs are cut.
    PermitStop,
}

/// What happens to tasks that leave because the service's desired count was lowered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ScaleInSpec {
    #[default]
    /// They are drained where tasks are held at all times.
    Auto,
    /// They are drained.
    Drain,
    /// They are not drained.
    Ignore,
}

/// What must be empty before old tasks leave. The gate opens once in a rollout and stays open. A scale-in, a rollback, a
/// deadline and a task that may be stopped at any moment do not wait for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateSpec {
    /// The names of 1 to 32 queues; for HTTP workers those of Amazon SQS queues, by name, URL or ARN. Each must be seen
    /// empty at least twice, `idleFor` apart (on SQS a minute): no message waits in it, and none is delivered and not
    /// acknowledged. A queue that cannot be counted is not empty. A producer that still sends to a queue keeps the gate
    /// shut: stop it, or let it send to another queue.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 256)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub queues_empty: Vec<String>,
}
