//! What a user asks for. The comments on fields are what `kubectl explain` shows.

#![allow(clippy::duplicated_attributes, reason = "each printcolumn has a name and a type")]

use kube::{CustomResource, KubeSchema, core::Message};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    celery_spec::CelerySpec,
    http_spec::HttpSpec,
    status::WorkerDrainStatus,
    values::{Duration, Percent, between, if_formed},
};

/// What is drained, and how.
///
/// For each task of an old revision: it is told to take no more jobs, its jobs are waited for, and then the scheduler is
/// permitted to stop it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "workerdrain.io",
    version = "v1alpha1",
    kind = "WorkerDrain",
    plural = "workerdrains",
    singular = "workerdrain",
    shortname = "wd",
    category = "all",
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
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "What is going on"),
    printcolumn(
        name = "Drained",
        type_ = "string",
        json_path = ".status.drained",
        description = "Old tasks that have ended, of those that the rollout found"
    ),
    printcolumn(
        name = "Busy",
        type_ = "integer",
        json_path = ".status.counts.busy",
        description = "Leaving tasks that have jobs"
    ),
    printcolumn(
        name = "Unknown",
        type_ = "integer",
        json_path = ".status.counts.unknown",
        description = "Tasks that do not answer, or whose worker is not found"
    ),
    printcolumn(
        name = "Oldest-Job",
        type_ = "date",
        json_path = ".status.oldestJobStartedAt",
        description = "For how long the oldest job on a leaving task has run"
    ),
    printcolumn(
        name = "Blocked-By",
        type_ = "string",
        json_path = ".status.blockedBy",
        description = "What holds the drain up",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
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
    /// When tasks are held, so that their scheduler cannot stop them, and for how long at a time.
    #[serde(default)]
    pub hold: HoldSpec,
    /// How a task that is to leave is drained.
    #[serde(default)]
    pub drain: DrainRules,
    /// `Enforce` (default): steps are taken. `Plan`: nothing at all is done, holds included; the status shows what would
    /// be. A deployment that begins in mode `Plan` cuts jobs as it does without worker-drain.
    #[serde(default)]
    pub mode: ModeSpec,
    /// Freezes the drain: holds are kept and renewed, and nothing is cancelled, permitted or given back, so that a
    /// rollout does not end while this is true. Default: false.
    #[serde(default)]
    pub paused: bool,
}

/// The tasks that run the workers.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("[has(self.ecs)].exists_one(given, given)").message("give exactly one kind of fleet: ecs")
)]
#[serde(rename_all = "camelCase")]
pub struct FleetSpec {
    /// A service of Amazon ECS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecs: Option<EcsSpec>,
}

/// A service of Amazon ECS. Only services that ECS itself deploys (deployment controller `ECS`) can be drained.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EcsSpec {
    /// The cluster: its short name, such as `media`, or its ARN. Cannot be changed.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = immutable("cluster"))]
    pub cluster: String,
    /// The service: its short name, such as `transcoder`, or its ARN. Cannot be changed.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = immutable("service"))]
    pub service: String,
    /// The region, such as `ap-northeast-2`. Default: that of the environment worker-drain runs in (`AWS_REGION`, the
    /// profile, the machine's metadata). Cannot be changed from one to another.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(
        validation = immutable("region"),
        validation = Rule::new("self.matches('^[a-z]{2,8}(-[a-z]+)+-[0-9]+$')")
            .message(Message::Expression("\"'\" + self + \"' is not a region: write one such as ap-northeast-2\"".into()))
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// An IAM role to assume for all calls to ECS, such as one in another account. Default: none; the environment's own
    /// credentials are used.
    #[schemars(length(min = 20, max = 2048))]
    #[x_kube(
        validation = Rule::new("self.matches('^arn:[a-z-]+:iam::[0-9]{12}:role/.+$')").message(Message::Expression(
            "\"'\" + self + \"' is not the ARN of a role: write one such as arn:aws:iam::123456789012:role/drain\"".into()
        ))
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
}

/// What says which service it is: one that is drained has holds and queues to get back, and a drain that looks elsewhere
/// would never give them back.
fn immutable(field: &str) -> kube::core::Rule {
    kube::core::Rule::new("self == oldSelf").message(Message::Message(format!(
        "fleet.ecs.{field} cannot be changed, because what was taken from the service's tasks would never be given back: \
         delete this WorkerDrain, which gives it back, and make one for the other service"
    )))
}

/// The workers that run in the tasks.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("[has(self.celery), has(self.http)].exists_one(given, given)")
        .message("give exactly one kind of workers: celery or http")
)]
#[serde(rename_all = "camelCase")]
pub struct WorkersSpec {
    /// Celery workers, asked and told through their broker (Celery's remote control).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub celery: Option<CelerySpec>,
    /// Workers that answer for themselves over HTTP: the way for Celery on Amazon SQS, and for workers that are not
    /// Celery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpSpec>,
}

/// Where a text that is nobody's business is read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretSource {
    /// A key of a Secret in the same namespace. Without Kubernetes, `worker-drain run` takes it from `--secret`, or from
    /// a Secret in the same file.
    pub secret_key_ref: SecretKeyRef,
}

/// A key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it, such as `url`.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// When tasks are held, and for how long at a time.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HoldSpec {
    /// `Standing` (default): every task is held from the moment it runs, so that no deployment can be faster than
    /// worker-drain; a scale-in then waits too. `OnRollout`: tasks are held when a rollout is seen; a service whose
    /// minimumHealthyPercent is under 100 can stop tasks before that, and cut their jobs.
    #[serde(default)]
    pub mode: HoldModeSpec,
    /// How long jobs are safe if worker-drain itself is gone, between 1m and 48h (the most that ECS grants); holds are
    /// renewed at half of it. Default: 2h. Too short, and an outage of worker-drain cuts jobs; too long, and tasks of a
    /// fleet that is no longer looked after cannot be stopped by ECS for as long.
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

/// How a task that is to leave is drained.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainRules {
    /// The floor: how many workers, in percent of the service's desired count, must be seen taking jobs before another
    /// one is told to stop taking them; between 0% and 100%. Default: the service's own minimumHealthyPercent. At 100%
    /// old workers go on only as new ones come; at 0% all old workers stop taking jobs at once, and the queue waits for
    /// the new ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_consuming: Option<Percent>,
    /// A worker counts as idle when it was seen so at least twice, this far apart: between 1ms and 1h. Default: 1s. It
    /// guards against a job that is on its way between two places while one looks. Longer only delays each stop.
    #[serde(default = "default_idle_for")]
    #[x_kube(validation = between("1ms", "1h", "idleness is proven by two looks with time between them"))]
    pub idle_for: Duration,
    /// What becomes of jobs with a later start time (`eta`, `countdown`) that a worker holds in memory. `Ignore`
    /// (default): they are not waited for; the broker gives them to another worker when this one ends. `Wait`: they
    /// count as work, so that a worker with a job for next week does not end before that.
    #[serde(default)]
    pub scheduled: ScheduledSpec,
    /// How long a leaving task may take. Default: none; a task may take as long as its jobs do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DeadlineSpec>,
    /// Whether tasks that leave because the service is made smaller are drained too. Default: true with
    /// `hold.mode: Standing`, false with `OnRollout`, which cannot have it: its tasks are not held when a scale-in begins.
    /// With `Standing` and false, a scale-in waits until a rollout or a person ends the held tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scale_in: Option<bool>,
    /// What must be empty before an old task is told to take no more jobs, and before it may stop: the plain old way, in
    /// which the old code empties what was sent to it. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateSpec>,
}

/// What must be empty before old tasks go. It opens once in a rollout and stays open; a scale-in and a rollback do not wait
/// for it, and neither does a task that may be stopped at any moment, nor a deadline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GateSpec {
    /// Queues by their names, 1 to 32; for HTTP workers those of Amazon SQS, by name, URL or ARN. Each must be seen empty at
    /// least twice, `idleFor` apart (on SQS a minute): no message waits in it, none is delivered and not acknowledged. One
    /// that cannot be counted is not empty. Whatever still sends to a queue keeps the gate shut: stop it, or send to another
    /// queue.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 256)))]
    pub queues_empty: Vec<String>,
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
            scale_in: None,
            gate: None,
        }
    }
}

/// What becomes of jobs with a later start time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ScheduledSpec {
    #[default]
    /// They are not waited for.
    Ignore,
    /// They count as work.
    Wait,
}

/// How long a leaving task may take, and what then.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadlineSpec {
    /// From the moment that the task was first seen leaving; between 1s and 720h. Longer than the longest job, or jobs
    /// are cut (with `PermitStop`) or alarms go off (with `Hold`) in every rollout.
    #[x_kube(validation = between("1s", "720h", "a deadline is to be later than the longest job"))]
    pub after: Duration,
    /// What is done then. `Hold` (default): the task is held on, and that is said loudly. `PermitStop`: the scheduler may
    /// stop the task though jobs run; they are counted and named as jobs cut.
    #[serde(default)]
    pub action: DeadlineActionSpec,
}

/// What is done when a deadline has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum DeadlineActionSpec {
    #[default]
    /// Hold on, and say so.
    Hold,
    /// Permit the stop; jobs are cut.
    PermitStop,
}

/// Whether steps are taken, or only shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ModeSpec {
    #[default]
    /// Steps are taken.
    Enforce,
    /// Nothing is done.
    Plan,
}

/// What a proof of idleness takes with this kind of workers: `idleFor`, and the two looks around it. In CEL.
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
fn hold_outlives_proof(kind: &str) -> kube::core::Rule {
    let (proof, (terms, values)) = (proof(kind), proof_terms(kind));
    let reply = format!("self.workers.{kind}.replyTimeout");
    let twice = format!("{proof} + {proof}");
    let formed = ["self.hold.expiresIn", "self.drain.idleFor", reply.as_str()];
    let rule = if_formed(&formed, &format!("duration(self.hold.expiresIn) >= {twice}"));
    kube::core::Rule::new(format!("!has(self.workers.{kind}) || {rule}"))
        .message(Message::Expression(format!(
            "'hold.expiresIn (%s) is too short: half of it must last for a proof of idleness, {terms}; make it %s \
             or more'.format([self.hold.expiresIn, {values}, {}, {}])",
            shown(&proof),
            shown(&twice)
        )))
        .field_path(".hold.expiresIn")
}

/// Otherwise no task could ever be proven idle in time, and every rollout would end at its deadline.
fn deadline_outlives_proof(kind: &str) -> kube::core::Rule {
    let (proof, (terms, values)) = (proof(kind), proof_terms(kind));
    let reply = format!("self.workers.{kind}.replyTimeout");
    let formed = ["self.drain.deadline.after", "self.drain.idleFor", reply.as_str()];
    let rule = if_formed(&formed, &format!("duration(self.drain.deadline.after) > {proof}"));
    kube::core::Rule::new(format!("!has(self.workers.{kind}) || !has(self.drain.deadline) || {rule}"))
        .message(Message::Expression(format!(
            "'drain.deadline.after (%s) would pass before any task can be proven idle: that takes \
             {terms}'.format([self.drain.deadline.after, {values}, {}])",
            shown(&proof)
        )))
        .field_path(".drain.deadline.after")
}

fn scale_in_needs_standing() -> kube::core::Rule {
    kube::core::Rule::new("self.hold.mode != 'OnRollout' || !has(self.drain.scaleIn) || !self.drain.scaleIn")
        .message(
            "true needs hold.mode Standing: with OnRollout no task is held when a scale-in begins. Leave scaleIn out, or \
             set hold.mode to Standing",
        )
        .field_path(".drain.scaleIn")
}
