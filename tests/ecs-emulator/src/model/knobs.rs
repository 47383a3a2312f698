//! What is unknown about ECS, or differs between accounts, as settings.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Pause, rng::Rng, time::seconds};

/// A delay drawn evenly between two bounds. In JSON: `[min, max]`, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "(f64, f64)", into = "(f64, f64)")]
pub struct Span {
    /// The shortest it may take.
    pub min: Duration,
    /// The longest it may take.
    pub max: Duration,
}

impl Span {
    /// Between `min` and `max` seconds.
    pub fn seconds(min: f64, max: f64) -> Self {
        (min, max).into()
    }

    pub(super) fn draw(self, rng: &mut Rng) -> Duration {
        rng.between(self.min, self.max)
    }

    fn divided(self, by: f64) -> Self {
        Self { min: self.min.div_f64(by), max: self.max.div_f64(by) }
    }
}

impl From<(f64, f64)> for Span {
    fn from((min, max): (f64, f64)) -> Self {
        let clean = |x: f64| Duration::try_from_secs_f64(x).unwrap_or_default();
        Self { min: clean(min), max: clean(max.max(min)) }
    }
}

impl From<Span> for (f64, f64) {
    fn from(span: Span) -> Self {
        (span.min.as_secs_f64(), span.max.as_secs_f64())
    }
}

/// When `UpdateTaskProtection` answers `DEPLOYMENT_BLOCKED` for a task that is not protected yet.
///
/// AWS describes it twice, differently ("API failures messages" and "Protect your Amazon ECS tasks from being
/// terminated by scale-in events"), so each reading is a value here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockedRule {
    /// Never.
    Off,
    /// When more tasks than desired would be protected while a deployment is `IN_PROGRESS`.
    WhileInProgress,
    /// The same, but only once the deployment has been in progress for this many seconds.
    WhileInProgressFor(u32),
    /// When more tasks than desired would be protected, deployment or not.
    Always,
}

/// Whether the protection of a task that is protected already can be extended.
///
/// The API model says that repeated calls extend it; AWS's own sample (aws-containers/ecs-task-protection-examples)
/// expects a refusal for a task that has blocked a deployment for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockedRenewal {
    /// Renewals fall under [`BlockedRule`] like everything else.
    Refuse,
    /// Renewals are never refused.
    Allow,
    /// As `Refuse`; and a task of an old deployment is refused, whatever the count, once it has been held past this
    /// many seconds since it was replaced as the newest deployment.
    RefuseOldAfter(u32),
}

/// Which deployment a rollback makes current.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RollbackId {
    /// The last completed deployment itself, under its own id (AWS: "How the deployment circuit breaker detects
    /// failures").
    Reuse,
    /// A new deployment of the same task definition, with no tasks yet (seen in aws/copilot-cli#4838 and
    /// aws/containers-roadmap#117).
    New,
}

/// Where the replacement of an old task comes from when that task ends by itself, or is unhealthy, during a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplaceTerminated {
    /// From the task's own revision (AWS, What's New, November 2025), until the new revision is up in full.
    SameRevision,
    /// From the task's own revision, even then: the widest reading of that announcement.
    SameRevisionAlways,
    /// From the newest revision, as before November 2025.
    Primary,
}

/// When a deployment counts as complete before all is done (API: `earlySuccessCriteria`, for every service alike).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EarlySuccess {
    /// Never.
    Off,
    /// Once so many percent of the desired tasks are healthy and no old task is left.
    Blocking(u32),
    /// Once so many percent of the desired tasks are healthy; old tasks, such as protected ones, may still be there.
    Deferred(u32),
}

/// What `DeleteService` with `force` does to protected tasks. AWS does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeleteForceProtected {
    /// They are stopped.
    Stops,
    /// They stay until protection ends.
    Holds,
}

/// What protection does for a task on a container instance that is set to `DRAINING`. AWS does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainingProtected {
    /// The task stays until protection ends.
    Holds,
    /// The task is stopped all the same.
    Stops,
}

/// The values that `deployments[].status` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentStatusSet {
    /// `PRIMARY`, `ACTIVE` and `INACTIVE`, as documented.
    Documented,
    /// Also `DRAINING`, which was seen for a failed deployment.
    WithDraining,
}

/// What a task's host name looks like: what Celery puts behind the `@`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostnameShape {
    /// `ip-10-0-1-2.<region>.compute.internal`: Fargate in a VPC with DNS host names.
    Fqdn,
    /// `ip-10-0-1-2`: the first label only.
    Short,
    /// `<task id>-<10 digits>`: Fargate in a VPC without DNS host names; equals the container's `runtimeId`.
    TaskIdNumber,
    /// The first twelve digits of a Docker id: the EC2 launch type in bridge mode.
    Hex12,
    /// One name for every task: host networking, or a fixed `hostname` in the container definition.
    Shared,
}

/// Everything that can be set. Delays are written in JSON as (fractional) seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Knobs {
    /// How often the scheduler looks at a service that has something to decide.
    #[serde(with = "seconds", rename = "tick_seconds")]
    pub tick: Duration,
    /// How long a task is `PROVISIONING`.
    #[serde(rename = "provisioning_seconds")]
    pub provisioning: Span,
    /// How long a task is `PENDING` until its containers are started.
    #[serde(rename = "pending_seconds")]
    pub pending: Span,
    /// When a running task without a health check counts as healthy. AWS: 40 s (API, `DeploymentConfiguration`).
    #[serde(with = "seconds", rename = "healthy_after_seconds")]
    pub healthy_after: Duration,
    /// How long a stopping task is `DEACTIVATING`; zero without a load balancer.
    #[serde(with = "seconds", rename = "deactivating_seconds")]
    pub deactivating: Duration,
    /// From `stoppingAt` to SIGTERM.
    #[serde(with = "seconds", rename = "signal_delay_seconds")]
    pub signal_delay: Duration,
    /// From the last container's end to `STOPPED`.
    #[serde(with = "seconds", rename = "deprovisioning_seconds")]
    pub deprovisioning: Duration,
    /// How long a stopped task stays visible. AWS: about an hour.
    #[serde(with = "seconds", rename = "stopped_retention_seconds")]
    pub stopped_retention: Duration,
    /// From the end of a protection, by expiry or by a call, to the moment the scheduler may act on it.
    #[serde(with = "seconds", rename = "unprotect_delay_seconds")]
    pub unprotect_delay: Duration,
    /// The `stopTimeout` of a container that sets none. AWS: 30 s.
    #[serde(with = "seconds", rename = "default_stop_timeout_seconds")]
    pub default_stop_timeout: Duration,
    /// The longest `stopTimeout`; a longer one is cut. AWS: 120 s on Fargate.
    #[serde(with = "seconds", rename = "max_stop_timeout_seconds")]
    pub max_stop_timeout: Duration,
    /// How much faster than real a protection runs out: with 60, a minute lasts a second.
    pub protection_scale: f64,
    /// At most so many tasks are started in one look at a service; no limit if absent.
    pub start_batch: Option<u32>,
    /// The longest pause between starts when tasks keep failing (AWS, "service throttle logic": 15 minutes).
    #[serde(with = "seconds", rename = "launch_backoff_max_seconds")]
    pub launch_backoff_max: Duration,
    /// See [`BlockedRule`].
    pub blocked_rule: BlockedRule,
    /// See [`BlockedRenewal`].
    pub blocked_renewal: BlockedRenewal,
    /// Deployments of one service that may exist at once (aws/containers-roadmap#2836: 5); no limit if absent.
    pub max_active_deployments: Option<u32>,
    /// See [`RollbackId`].
    pub rollback_id: RollbackId,
    /// See [`ReplaceTerminated`].
    pub replace_terminated: ReplaceTerminated,
    /// See [`EarlySuccess`].
    pub early_success: EarlySuccess,
    /// See [`Pause`]; none if absent.
    pub pause: Option<Pause>,
    /// See [`DeleteForceProtected`].
    pub delete_force_protected: DeleteForceProtected,
    /// See [`DeploymentStatusSet`].
    pub deployments_status_set: DeploymentStatusSet,
    /// See [`HostnameShape`].
    pub hostname_shape: HostnameShape,
    /// The first two numbers of tasks' private addresses. With `[127, N]` they are this machine's own, and tasks can
    /// listen on them.
    pub network: [u8; 2],
    /// Tasks are in subnets without IPv4: ECS tells no `privateIPv4Address` of them, and `ipv6Address` of their containers'
    /// interfaces.
    pub ipv6_only: bool,
    /// Availability zones that tasks are spread over.
    pub zones: u8,
    /// See [`DrainingProtected`].
    pub draining_protected: DrainingProtected,
    /// After how many seconds the scheduler gives up a move between zones because every task of the crowded zone stays
    /// protected: it stops the task that it has started, and begins again. Never if absent.
    pub rebalance_gives_up_seconds: Option<u32>,
    /// What tasks of services say in `startedBy` instead of their deployment, as tasks do that something else than the ECS
    /// service scheduler started.
    pub started_by: Option<String>,
    /// How many more tasks `runningCount` of a service has than run; may be negative.
    pub running_count_off: i32,
    /// Whether calls are limited by AWS's published token buckets ("Request throttling for the Amazon ECS API").
    pub throttling: bool,
    /// Entries kept in the history; zero keeps none, which is what a fast simulation wants.
    pub history_limit: usize,
    /// Task state-change events kept until somebody takes them; zero makes none.
    pub events_limit: usize,
    /// The Region in ARNs and host names.
    pub region: String,
    /// The account number in ARNs.
    pub account: String,
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Default for Knobs {
    /// Realistic delays, documented behaviour, the cautious reading where AWS is silent.
    fn default() -> Self {
        Self {
            tick: secs(5),
            provisioning: Span::seconds(5.0, 10.0),
            pending: Span::seconds(5.0, 15.0),
            healthy_after: secs(40),
            deactivating: Duration::ZERO,
            signal_delay: Duration::from_millis(300),
            deprovisioning: secs(20),
            stopped_retention: secs(3600),
            unprotect_delay: secs(10),
            default_stop_timeout: secs(30),
            max_stop_timeout: secs(120),
            protection_scale: 1.0,
            start_batch: None,
            launch_backoff_max: secs(900),
            blocked_rule: BlockedRule::WhileInProgress,
            blocked_renewal: BlockedRenewal::Refuse,
            max_active_deployments: Some(5),
            rollback_id: RollbackId::Reuse,
            replace_terminated: ReplaceTerminated::SameRevision,
            early_success: EarlySuccess::Off,
            pause: None,
            delete_force_protected: DeleteForceProtected::Stops,
            deployments_status_set: DeploymentStatusSet::Documented,
            hostname_shape: HostnameShape::Fqdn,
            network: [10, 0],
            ipv6_only: false,
            zones: 3,
            draining_protected: DrainingProtected::Holds,
            rebalance_gives_up_seconds: None,
            started_by: None,
            running_count_off: 0,
            throttling: true,
            history_limit: 100_000,
            events_limit: 10_000,
            region: "us-east-1".to_owned(),
            account: "123456789012".to_owned(),
        }
    }
}

impl Knobs {
    /// Short delays, for tests that run real processes.
    pub fn fast() -> Self {
        Self {
            tick: Duration::from_millis(300),
            provisioning: Span::seconds(0.2, 0.2),
            pending: Span::seconds(0.1, 0.1),
            healthy_after: secs(1),
            signal_delay: Duration::from_millis(50),
            deprovisioning: Duration::from_millis(200),
            unprotect_delay: Duration::from_millis(300),
            launch_backoff_max: secs(5),
            ..Self::default()
        }
    }

    /// Realistic behaviour without history, events or throttling: what a simulation wants that runs the model often.
    pub fn simulation() -> Self {
        Self { history_limit: 0, events_limit: 0, throttling: false, ..Self::default() }
    }

    /// Divides every delay of the scheduler and of the task timeline by `factor`.
    ///
    /// `stopTimeout`, the time a stopped task stays visible, and protection keep their real length: they are promises
    /// to processes and clients that live on real clocks. See [`Knobs::protection_scale`].
    #[must_use]
    pub fn scaled(mut self, factor: f64) -> Self {
        for delay in [
            &mut self.tick,
            &mut self.healthy_after,
            &mut self.deactivating,
            &mut self.signal_delay,
            &mut self.deprovisioning,
            &mut self.unprotect_delay,
            &mut self.launch_backoff_max,
        ] {
            *delay = delay.div_f64(factor);
        }
        self.provisioning = self.provisioning.divided(factor);
        self.pending = self.pending.divided(factor);
        self
    }
}
