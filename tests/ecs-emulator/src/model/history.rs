//! What happened, for tests and people.

use std::collections::VecDeque;

use serde::Serialize;

use super::{
    ids::{DeploymentId, TaskId},
    service::RolloutState,
    task::{DesiredStatus, LastStatus, StopCause},
    time::Time,
};

/// One transition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// When, in milliseconds since the epoch.
    pub at: Time,
    /// The service's name; none for standalone tasks.
    pub service: Option<String>,
    /// What.
    #[serde(flatten)]
    pub what: Transition,
}

/// The kinds of transition.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Transition {
    /// A task was made, or its status changed.
    Task {
        /// Which.
        task: TaskId,
        /// Its deployment.
        deployment: Option<DeploymentId>,
        /// `lastStatus`.
        last: LastStatus,
        /// `desiredStatus`.
        desired: DesiredStatus,
        /// The task's version after the change.
        version: u64,
    },
    /// It was decided that a task ends.
    Stop {
        /// Which.
        task: TaskId,
        /// Its deployment.
        deployment: Option<DeploymentId>,
        /// Why.
        cause: StopCause,
        /// `stoppedReason`.
        reason: String,
        /// Until when it was protected at that moment, if it was.
        protected_until: Option<Time>,
    },
    /// A container ended.
    Exit {
        /// Whose.
        task: TaskId,
        /// Which, in the order of the definition.
        container: usize,
        /// Its exit code.
        code: Option<i32>,
    },
    /// SIGTERM was asked for.
    Terminate {
        /// Which task.
        task: TaskId,
    },
    /// SIGKILL was asked for.
    Kill {
        /// Which task.
        task: TaskId,
        /// Which container.
        container: usize,
    },
    /// Protection was set or extended.
    Protected {
        /// Which task.
        task: TaskId,
        /// Until when.
        until: Time,
    },
    /// Protection was taken away by a call.
    Unprotected {
        /// Which task.
        task: TaskId,
    },
    /// Protection ran out.
    ProtectionExpired {
        /// Which task.
        task: TaskId,
    },
    /// `UpdateTaskProtection` was refused for a task.
    ProtectionRefused {
        /// Which task.
        task: TaskId,
        /// `DEPLOYMENT_BLOCKED`, ...
        reason: String,
    },
    /// A deployment began, ended, or was replaced.
    Deployment {
        /// Which.
        deployment: DeploymentId,
        /// `PRIMARY`, `ACTIVE`, `DRAINING` or `INACTIVE`.
        status: &'static str,
        /// Where it is.
        rollout: RolloutState,
        /// Why.
        reason: String,
    },
    /// The desired count was set.
    Desired {
        /// To this.
        count: u32,
    },
    /// A service event was written.
    Event {
        /// Its text.
        message: String,
    },
}

/// The last so many entries.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    entries: VecDeque<Entry>,
}

impl History {
    pub fn push(&mut self, limit: usize, entry: Entry) {
        while self.entries.len() >= limit {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
    }

    pub fn entries(&self) -> &VecDeque<Entry> {
        &self.entries
    }
}
