//! A task: its states, its containers, its protection.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use serde::Serialize;

use super::{
    definition::TaskDefinition,
    ids::{DeploymentId, InstanceId, ServiceId, TaskId},
    knobs::HostnameShape,
    time::Time,
};

/// Where a task is in its life (AWS: "Amazon ECS task lifecycle").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum LastStatus {
    /// Resources are being made.
    Provisioning,
    /// Containers are about to be started.
    Pending,
    /// All containers were started.
    Running,
    /// Leaving a load balancer.
    Deactivating,
    /// Containers were told to end, or are about to be.
    Stopping,
    /// No container runs any more.
    Deprovisioning,
    /// Over.
    Stopped,
}

impl LastStatus {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Provisioning => "PROVISIONING",
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Deactivating => "DEACTIVATING",
            Self::Stopping => "STOPPING",
            Self::Deprovisioning => "DEPROVISIONING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// What ECS wants of a task. Flips at the decision to stop it; `lastStatus` follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DesiredStatus {
    /// The task shall run.
    Running,
    /// The task shall end.
    Stopped,
}

impl DesiredStatus {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Stopped => "STOPPED",
        }
    }
}

/// `healthStatus` of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Health {
    /// No health check, or no result yet.
    Unknown,
    /// The check passes.
    Healthy,
    /// The check fails; ECS replaces the task, protected or not.
    Unhealthy,
}

/// What the emulator knows of a container's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Not asked for yet.
    Waiting,
    /// Asked for; no word from the runner yet.
    Starting,
    /// Runs.
    Running,
    /// Ended, with this exit code; 128 + n for signal n; none if it never ran.
    Exited(Option<i32>),
}

/// Why a task was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCause {
    /// The service scheduler: a rollout or a scale-in. Never hits a protected task.
    Scaling,
    /// The service scheduler, because the service is deleted.
    Deletion,
    /// The service scheduler, because the task is unhealthy. Protection does not help.
    Unhealthy,
    /// The service scheduler, because its container instance is being emptied.
    Draining,
    /// `StopTask`. Protection does not help.
    User,
    /// An essential container ended.
    Exited,
    /// A container could not be started.
    FailedToStart,
    /// A Spot interruption. Protection does not help.
    Spot,
    /// The platform retires the task's host. Protection does not help.
    Maintenance,
}

impl StopCause {
    /// `stopCode` (API: Task).
    pub fn code(self) -> &'static str {
        match self {
            Self::Scaling | Self::Deletion | Self::Unhealthy | Self::Draining | Self::Maintenance => {
                "ServiceSchedulerInitiated"
            }
            Self::User => "UserInitiated",
            Self::Exited => "EssentialContainerExited",
            Self::FailedToStart => "TaskFailedToStart",
            Self::Spot => "SpotInterruption",
        }
    }
}

/// Why, and since when, a task is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The kind of reason.
    pub cause: StopCause,
    /// `stoppedReason`.
    pub reason: String,
    /// When it was decided.
    pub decided_at: Time,
    /// `stoppingAt`.
    pub stopping_at: Option<Time>,
    /// Whether SIGTERM was sent.
    pub signalled: bool,
    /// `executionStoppedAt`.
    pub execution_stopped_at: Option<Time>,
    /// `stoppedAt`.
    pub stopped_at: Option<Time>,
}

/// One task.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// The cluster's name.
    pub cluster: String,
    /// The service that owns it; none for a standalone task.
    pub service: Option<ServiceId>,
    /// Name of that service, for `group`.
    pub service_name: Option<Arc<str>>,
    /// `startedBy`: the deployment it belongs to; none for a standalone task.
    pub deployment: Option<DeploymentId>,
    /// What it runs.
    pub definition: Arc<TaskDefinition>,
    /// Which availability zone, from zero.
    pub zone: u8,
    /// The container instance that it runs on, where it is the account's own.
    pub instance: Option<InstanceId>,
    /// Its private IPv4 address.
    pub address: Ipv4Addr,
    /// `lastStatus`.
    pub last: LastStatus,
    /// `desiredStatus`.
    pub desired: DesiredStatus,
    /// State of each container, in the order of the definition.
    pub containers: Vec<ContainerState>,
    /// When the task was made.
    pub created_at: Time,
    /// When all containers ran.
    pub started_at: Option<Time>,
    /// `healthStatus`.
    pub health: Health,
    /// Whether it counts as healthy for the scheduler.
    pub healthy: bool,
    /// Protected until then, exclusively.
    pub protected_until: Option<Time>,
    /// The scheduler may not act before, because a protection has only just ended.
    pub stoppable_from: Time,
    /// Why it ends, once it does.
    pub stop: Option<Stop>,
    /// Rises with each change of state.
    pub version: u64,
}

impl Task {
    /// Whether ECS wants it to run: what counts as "running or pending".
    pub fn is_live(&self) -> bool {
        self.desired == DesiredStatus::Running
    }

    /// Whether protection is in force.
    pub fn is_protected(&self, now: Time) -> bool {
        self.protected_until.is_some_and(|until| until > now)
    }

    /// Whether the scheduler may choose it for a scale-in or a rollout.
    pub fn may_be_stopped(&self, now: Time) -> bool {
        self.is_live() && !self.is_protected(now) && self.stoppable_from <= now
    }

    /// The private IPv4 address.
    pub fn ip(&self) -> String {
        self.address.to_string()
    }

    /// Its address where there is no IPv4.
    pub fn ipv6(&self) -> String {
        let [a, b, c, d] = self.address.octets().map(u16::from);
        Ipv6Addr::new(0xfd00, 0, 0, 0, a, b, c, d).to_string()
    }

    /// The DNS name of the task's network interface.
    pub fn private_dns_name(&self, region: &str) -> String {
        let name = self.short_dns_name();
        if region == "us-east-1" { format!("{name}.ec2.internal") } else { format!("{name}.{region}.compute.internal") }
    }

    fn short_dns_name(&self) -> String {
        format!("ip-{}", self.ip().replace('.', "-"))
    }

    /// `runtimeId` of a container: `<task id>-<10 digits>` as on Fargate, or 64 digits as Docker makes them.
    pub fn runtime_id(&self, container: usize, shape: HostnameShape) -> String {
        let mix = (self.id.0 ^ (container as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
            .wrapping_mul(0xda94_2042_e4dd_58b5);
        if shape == HostnameShape::Hex12 {
            format!("{:032x}{:032x}", mix, mix.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645))
        } else {
            // A ten-digit number: at least 10^9, below 10^10.
            format!("{}-{}", self.id, 1_000_000_000 + mix % 9_000_000_000)
        }
    }

    /// What `gethostname()` says in a container, by [`HostnameShape`].
    pub fn hostname(&self, container: usize, shape: HostnameShape, region: &str) -> String {
        match shape {
            HostnameShape::Fqdn => self.private_dns_name(region),
            HostnameShape::Short => self.short_dns_name(),
            HostnameShape::TaskIdNumber => self.runtime_id(container, shape),
            HostnameShape::Hex12 => self.runtime_id(container, shape).chars().take(12).collect(),
            HostnameShape::Shared => "worker".to_owned(),
        }
    }
}
