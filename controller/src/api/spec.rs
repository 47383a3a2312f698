//! `spec`: what a user asks for. The comments on fields are what `kubectl explain` shows.

#![allow(clippy::duplicated_attributes, reason = "each printcolumn has a name and a type")]

use kube::{
    CustomResource, KubeSchema,
    core::{Message, Rule},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    celery_spec::CelerySpec,
    drain_spec::DrainRules,
    fleet_spec::FleetSpec,
    http_spec::HttpSpec,
    status::WorkerDrainStatus,
    values::{Duration, between, if_formed},
};

/// What is drained, and how.
///
/// Each task of an old revision stops consuming, finishes its jobs, and then the scheduler is permitted to stop it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "workerdrain.io",
    version = "v1alpha1",
    kind = "WorkerDrain",
    plural = "workerdrains",
    singular = "workerdrain",
    // `wd` is also the short name of Temporal's WorkerDeployment (temporal-worker-controller,
    // api/v1alpha1/workerdeployment_types.go). Where both are installed, kubectl takes one of them, so `wdrain` is first.
    shortname = "wdrain",
    shortname = "wd",
    namespaced,
    status = "WorkerDrainStatus",
    derive = "PartialEq",
    doc = "Lets the workers of one fleet finish their jobs before a deployment or a scale-in stops them.",
    selectable = ".spec.fleet.ecs.service",
    printcolumn(
        name = "Service",
        type_ = "string",
        json_path = ".spec.fleet.ecs.service",
        description = "The ECS service that is drained"
    ),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "What the drain is doing"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the fleet and its workers are reachable and every task is mapped to its workers"
    ),
    printcolumn(
        name = "Drained",
        type_ = "string",
        json_path = ".status.progress",
        description = "Old tasks that have ended, of all that the rollout found"
    ),
    printcolumn(
        name = "Busy",
        type_ = "integer",
        json_path = ".status.counts.busy",
        description = "Leaving tasks with jobs"
    ),
    printcolumn(
        name = "Unknown",
        type_ = "integer",
        json_path = ".status.counts.unknown",
        description = "Tasks that do not answer or whose worker is not found"
    ),
    printcolumn(
        name = "Oldest-Job",
        type_ = "date",
        json_path = ".status.oldestJobStartedAt",
        description = "How long the oldest job on a leaving task has been running"
    ),
    printcolumn(
        name = "Blocked-By",
        type_ = "string",
        json_path = ".status.blockedBy",
        description = "What the drain waits for"
    ),
    printcolumn(
        name = "Unheld",
        type_ = "integer",
        json_path = ".status.counts.unheld",
        description = "Current tasks that are not held: another deployment cuts their jobs",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the WorkerDrain was created"
    )
)]
#[x_kube(
    validation = hold_outlives_proof("celery"),
    validation = hold_outlives_proof("http"),
    validation = deadline_outlives_proof("celery"),
    validation = deadline_outlives_proof("http"),
    validation = scale_in_needs_standing()
)]
#[serde(rename_all = "camelCase")]
pub struct WorkerDrainSpec {
    /// The tasks that run the workers. Give exactly one kind of fleet.
    pub fleet: FleetSpec,
    /// The workers that run in them. Give exactly one kind of workers.
    pub workers: WorkersSpec,
    /// When tasks are held, so that the scheduler cannot stop them, and for how long at a time.
    #[serde(default)]
    pub hold: HoldSpec,
    /// How a leaving task is drained.
    #[serde(default)]
    pub drain: DrainRules,
    /// `Enforce` (default): worker-drain acts. `Plan`: it does nothing, holds included; the status shows what it would do.
    /// A deployment that begins in mode `Plan` cuts jobs as it does without worker-drain.
    #[serde(default)]
    pub mode: ModeSpec,
    /// Freezes the drain: holds are kept and renewed; nothing is cancelled, permitted or restored, so a rollout does not
    /// end while this is true. Default: false.
    #[serde(default)]
    pub paused: bool,
}

/// The workers that run in the tasks.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("[has(self.celery), has(self.http)].exists_one(given, given)")
        .message("give exactly one kind of workers: celery or http"),
    validation = Rule::new("has(self.celery) == has(oldSelf.celery) && has(self.http) == has(oldSelf.http)").message(
        "the kind of workers cannot be changed, because queues that were cancelled through the one kind would never be \
         restored through the other: delete this WorkerDrain, which restores them, and create one for the other kind"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct WorkersSpec {
    /// Celery workers, reached through their broker by Celery's remote control. Cannot be replaced by `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub celery: Option<CelerySpec>,
    /// Workers that answer over HTTP themselves: Celery workers on Amazon SQS, and workers that are not Celery. Cannot be
    /// replaced by `celery`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSpec>,
    /// For how long after its start a task's workers may be silent before it counts as `Unmapped` or `Unknown`: some load models or
    /// fill caches first. Between 10s and 12h. Default: 2m, or twice the longest start that was seen in this fleet, if that is longer.
    /// A task that has not answered is held in any case; this only says when that becomes worth an alarm.
    #[x_kube(validation = between("10s", "12h", "a worker takes some seconds to start, and one that takes half a day will not"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_timeout: Option<Duration>,
}

/// When tasks are held, and for how long at a time.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldSpec {
    /// `Standing` (default): every task is held from the moment it runs, so no deployment can be faster than worker-drain;
    /// a scale-in waits too. `OnRollout`: tasks are held when a rollout is seen; a service whose minimumHealthyPercent is
    /// under 100 can stop tasks before that and cut their jobs.
    #[serde(default)]
    pub mode: HoldModeSpec,
    /// How long a hold lasts, and so how long jobs are safe when worker-drain is down: between 1m and 48h (the longest that
    /// ECS grants). Holds are renewed when half of it has passed. Default: 2h. If it is too short, an outage of
    /// worker-drain cuts jobs; if it is too long, ECS cannot stop the tasks of an abandoned fleet for that time.
    #[serde(default = "default_expires_in")]
    #[x_kube(validation = between("1m", "48h", "ECS grants holds of whole minutes, of 48 hours at most"))]
    pub expires_in: Duration,
}

fn default_expires_in() -> Duration {
    Duration::from_hours(2)
}

impl Default for HoldSpec {
    fn default() -> Self {
        Self { mode: HoldModeSpec::default(), expires_in: default_expires_in() }
    }
}

/// When a task is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum HoldModeSpec {
    #[default]
    /// Every task is held from the moment it runs.
    Standing,
    /// Tasks are held when a rollout is seen.
    OnRollout,
}

/// Whether worker-drain acts, or only shows what it would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ModeSpec {
    #[default]
    /// It acts.
    Enforce,
    /// It does nothing.
    Plan,
}

/// What a proof of idleness takes with this kind of workers: `idleFor`, and the two observations around it. In CEL.
fn proof(kind: &str) -> String {
    let reply = format!("duration(self.workers.{kind}.replyTimeout)");
    format!("duration(self.drain.idleFor) + {reply} + {reply}")
}

/// The sum, for a person. In CEL. With `format`, because the API server knows no bound of what `string(…)` or a text with
/// it comes to, and refuses the whole resource as too costly.
fn shown(sum: &str) -> String {
    format!(
        "(({sum}).getMilliseconds() % 1000 == 0 ? '%ds'.format([({sum}).getSeconds()]) \
         : '%dms'.format([({sum}).getMilliseconds()]))"
    )
}

/// The sum in words, and what stands in its gaps before the result.
fn proof_terms(kind: &str) -> (String, String) {
    let words = format!("drain.idleFor (%s) + 2 × workers.{kind}.replyTimeout (%s) = %s");
    (words, format!("self.drain.idleFor, self.workers.{kind}.replyTimeout"))
}

/// A renewal may be refused when half of a hold is left: a proof that has begun then must still end in time.
fn hold_outlives_proof(kind: &str) -> Rule {
    let (proof, (terms, values)) = (proof(kind), proof_terms(kind));
    let reply = format!("self.workers.{kind}.replyTimeout");
    let twice = format!("{proof} + {proof}");
    let formed = ["self.hold.expiresIn", "self.drain.idleFor", reply.as_str()];
    let rule = if_formed(&formed, &format!("duration(self.hold.expiresIn) >= {twice}"));
    Rule::new(format!("!has(self.workers.{kind}) || {rule}"))
        .message(Message::Expression(format!(
            "'hold.expiresIn (%s) is too short: half of it must last for a proof of idleness, {terms}; make it %s \
             or more'.format([self.hold.expiresIn, {values}, {}, {}])",
            shown(&proof),
            shown(&twice)
        )))
        .field_path(".hold.expiresIn")
}

/// Otherwise no task could ever be proven idle in time, and every rollout would end at its deadline.
fn deadline_outlives_proof(kind: &str) -> Rule {
    let (proof, (terms, values)) = (proof(kind), proof_terms(kind));
    let reply = format!("self.workers.{kind}.replyTimeout");
    let formed = ["self.drain.deadline.after", "self.drain.idleFor", reply.as_str()];
    let rule = if_formed(&formed, &format!("duration(self.drain.deadline.after) > {proof}"));
    Rule::new(format!("!has(self.workers.{kind}) || !has(self.drain.deadline) || {rule}"))
        .message(Message::Expression(format!(
            "'drain.deadline.after (%s) would pass before any task can be proven idle: that takes \
             {terms}'.format([self.drain.deadline.after, {values}, {}])",
            shown(&proof)
        )))
        .field_path(".drain.deadline.after")
}

fn scale_in_needs_standing() -> Rule {
    Rule::new("self.hold.mode != 'OnRollout' || self.drain.scaleIn != 'Drain'")
        .message(
            "Drain needs hold.mode Standing: with OnRollout no task is held when a scale-in begins. Leave scaleIn out, or \
             set hold.mode to Standing",
        )
        .field_path(".drain.scaleIn")
}
