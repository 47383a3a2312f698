//! Names of things, as ECS writes them.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// A task: 32 hexadecimal digits, the tail of its ARN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(
    /// The digits as a number.
    pub u128,
);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The text is not a task id or a task ARN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a task id: 32 hexadecimal digits are expected")]
pub struct NotATaskId;

impl FromStr for TaskId {
    type Err = NotATaskId;

    /// Accepts an id, or an ARN that ends in one.
    fn from_str(text: &str) -> Result<Self, NotATaskId> {
        let digits = text.rsplit('/').next().unwrap_or(text);
        if digits.len() != 32 {
            return Err(NotATaskId);
        }
        u128::from_str_radix(digits, 16).map(Self).map_err(|_| NotATaskId)
    }
}

impl Serialize for TaskId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A deployment of a service: `ecs-svc/` and a decimal number; also what a task's `startedBy` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeploymentId(
    /// The decimal number.
    pub u64,
);

impl fmt::Display for DeploymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ecs-svc/{}", self.0)
    }
}

impl Serialize for DeploymentId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A service inside one [`World`](super::World): its place in the order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ServiceId(
    /// Zero for the first service ever created.
    pub usize,
);

/// A container instance: 32 hexadecimal digits, the tail of its ARN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(
    /// The digits as a number.
    pub u128,
);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
