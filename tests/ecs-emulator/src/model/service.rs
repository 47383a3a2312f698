//! A service and its deployments.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use serde::Serialize;

use super::{
    definition::TaskDefinition,
    ids::{DeploymentId, ServiceId, TaskId},
    moves::Move,
    time::Time,
};

/// Events of a service that `DescribeServices` answers (API: Service, `events`: the last 100).
pub(super) const MAX_SERVICE_EVENTS: usize = 100;

/// `status` of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceStatus {
    /// In use.
    Active,
    /// Deleted; tasks are still ending.
    Draining,
    /// Deleted and gone.
    Inactive,
}

impl ServiceStatus {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
            Self::Inactive => "INACTIVE",
        }
    }
}

/// `deployments[].status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentStatus {
    /// The newest one; tasks of all others are old.
    Primary,
    /// Replaced, but has tasks.
    Active,
    /// Failed and replaced, but has tasks. See [`DeploymentStatusSet`](super::DeploymentStatusSet).
    Draining,
}

impl DeploymentStatus {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "PRIMARY",
            Self::Active => "ACTIVE",
            Self::Draining => "DRAINING",
        }
    }
}

/// `rolloutState` of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RolloutState {
    /// Not there yet.
    InProgress,
    /// All of its tasks ran and no old one was left.
    Completed,
    /// The circuit breaker opened; it launches nothing any more.
    Failed,
}

impl RolloutState {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "IN_PROGRESS",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
        }
    }
}

/// The deployment circuit breaker (API: `DeploymentCircuitBreaker`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CircuitBreaker {
    /// Whether a deployment can fail at all.
    pub enable: bool,
    /// Whether the last completed deployment is brought back then.
    pub rollback: bool,
}

/// `strategy` of a deployment (API: `DeploymentConfiguration`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Old tasks are replaced by new ones, some at a time.
    #[default]
    Rolling,
    /// All new tasks run beside all old ones for the bake time; then the old ones are stopped.
    BlueGreen,
    /// The same with traffic that shifts in equal steps.
    Linear,
    /// The same with traffic that shifts in two steps.
    Canary,
}

impl Strategy {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rolling => "ROLLING",
            Self::BlueGreen => "BLUE_GREEN",
            Self::Linear => "LINEAR",
            Self::Canary => "CANARY",
        }
    }

    /// The strategy that the API writes so.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Rolling, Self::BlueGreen, Self::Linear, Self::Canary].into_iter().find(|one| one.as_str() == word)
    }
}

/// How a rolling deployment may proceed (API: `DeploymentConfiguration`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeploymentConfiguration {
    /// Of the desired count, rounded up: so many tasks stay healthy.
    pub minimum_healthy_percent: u32,
    /// Of the desired count, rounded down: at most so many tasks run or are pending.
    pub maximum_percent: u32,
    /// See [`CircuitBreaker`].
    pub breaker: CircuitBreaker,
}

impl Default for DeploymentConfiguration {
    /// 100 and 200, no breaker: what ECS uses if nothing is said.
    fn default() -> Self {
        Self { minimum_healthy_percent: 100, maximum_percent: 200, breaker: CircuitBreaker::default() }
    }
}

impl DeploymentConfiguration {
    /// The fewest healthy tasks that must remain.
    pub fn lower(&self, desired: u32) -> u32 {
        (desired * self.minimum_healthy_percent).div_ceil(100)
    }

    /// The most tasks that may run or be pending.
    pub fn upper(&self, desired: u32) -> u32 {
        desired * self.maximum_percent / 100
    }
}

/// Parts of a [`DeploymentConfiguration`] to change; what is absent stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConfigurationChange {
    /// See [`DeploymentConfiguration::minimum_healthy_percent`].
    pub minimum_healthy_percent: Option<u32>,
    /// See [`DeploymentConfiguration::maximum_percent`].
    pub maximum_percent: Option<u32>,
    /// See [`DeploymentConfiguration::breaker`].
    pub breaker: Option<CircuitBreaker>,
}

impl ConfigurationChange {
    /// The configuration after the change.
    #[must_use]
    pub fn applied_to(self, old: DeploymentConfiguration) -> DeploymentConfiguration {
        DeploymentConfiguration {
            minimum_healthy_percent: self.minimum_healthy_percent.unwrap_or(old.minimum_healthy_percent),
            maximum_percent: self.maximum_percent.unwrap_or(old.maximum_percent),
            breaker: self.breaker.unwrap_or(old.breaker),
        }
    }
}

/// One deployment of a service.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// What it rolls out.
    pub definition: Arc<TaskDefinition>,
    /// See [`DeploymentStatus`].
    pub status: DeploymentStatus,
    /// See [`RolloutState`].
    pub rollout: RolloutState,
    /// `rolloutStateReason`.
    pub reason: String,
    /// When it was made.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
    /// Tasks it should have: the desired count for the primary, what the rollout has left for an old one.
    pub target: u32,
    /// `failedTasks`: tasks that failed in a row before any was healthy.
    pub failed_tasks: u32,
    /// Failures that slow down further starts; unlike `failed_tasks` it is kept after a breaker opened.
    pub(super) launch_failures: u32,
    pub(super) launch_from: Time,
    /// When a newer one took its place.
    pub replaced_at: Option<Time>,
    /// It brings an earlier one back.
    pub(super) is_rollback: bool,
    /// See [`super::Pause`].
    pub(super) paused_until: Option<Time>,
    /// Since when all of its tasks are healthy: from then on it bakes.
    pub(super) bakes_since: Option<Time>,
}

/// A line of `DescribeServices` `events`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceEvent {
    /// A UUID.
    pub id: u128,
    /// When it was written.
    pub created_at: Time,
    /// What it says.
    pub message: String,
}

/// A completed deployment, as a later rollback finds it.
#[derive(Debug, Clone)]
pub(super) struct Completed {
    pub id: DeploymentId,
    pub definition: Arc<TaskDefinition>,
    pub created_at: Time,
}

/// One service.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its place in the world.
    pub id: ServiceId,
    /// The cluster's name.
    pub cluster: String,
    /// Its name.
    pub name: Arc<str>,
    /// See [`ServiceStatus`].
    pub status: ServiceStatus,
    /// `desiredCount`.
    pub desired: u32,
    /// See [`DeploymentConfiguration`].
    pub configuration: DeploymentConfiguration,
    /// See [`Strategy`].
    pub strategy: Strategy,
    /// `bakeTimeInMinutes`: for how long old tasks stay when all new ones are healthy; not for a rolling deployment.
    pub bake_minutes: u32,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// `availabilityZoneRebalancing` is `ENABLED`.
    pub rebalances: bool,
    pub(super) moving: Option<Move>,
    /// Newest first; the first is the primary.
    pub deployments: Vec<Deployment>,
    /// Oldest first, at most 100.
    pub events: VecDeque<ServiceEvent>,
    /// When it was made.
    pub created_at: Time,
    /// Tasks that are not `STOPPED`.
    pub tasks: BTreeSet<TaskId>,
    pub(super) last_completed: Option<Completed>,
    pub(super) force_deleted: bool,
    pub(super) steady: bool,
    pub(super) tick_at: Option<Time>,
    pub(super) tick_phase: u64,
    pub(super) last_block: Option<String>,
}

impl Service {
    /// The newest deployment. Every service has one until it is gone.
    pub fn primary(&self) -> Option<&Deployment> {
        self.deployments.first()
    }

    /// The deployment by id, if the service still lists it.
    pub fn deployment(&self, id: DeploymentId) -> Option<&Deployment> {
        self.deployments.iter().find(|deployment| deployment.id == id)
    }

    pub(super) fn deployment_mut(&mut self, id: DeploymentId) -> Option<&mut Deployment> {
        self.deployments.iter_mut().find(|deployment| deployment.id == id)
    }

    pub(super) fn say(&mut self, id: u128, now: Time, message: String) {
        if self.events.len() == MAX_SERVICE_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(ServiceEvent { id, created_at: now, message });
    }
}
