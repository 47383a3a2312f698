//! The service that is asked for, and what failures say of it.

use worker_drain_plan::observation::{Failure, FailureKind};

use super::operation::Operation;
use crate::aws::{Asked, Reach};

/// Which service, through which identity: for the messages of failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) cluster: String,
    pub(super) service: String,
    pub(super) reach: Reach,
}

impl Target {
    pub(super) fn label(&self) -> String {
        format!("{}/{}", last_part(&self.cluster), last_part(&self.service))
    }

    /// A call about it.
    pub(super) fn asked(&self, operation: Operation) -> Asked<'_> {
        Asked { service: "ECS", prefix: "ecs", operation: operation.name(), what: self.label(), reach: &self.reach }
    }

    pub(super) fn no_cluster(&self) -> Failure {
        Failure::new(
            FailureKind::NotFound,
            format!(
                "there is no ECS cluster {} in Region {}{}. Check fleet.ecs.cluster and fleet.ecs.region, and that {} is of \
                 the right account",
                self.cluster,
                self.reach.region,
                self.reach.endpoint_text(),
                self.reach.caller()
            ),
        )
    }

    pub(super) fn no_service(&self) -> Failure {
        Failure::new(
            FailureKind::NotFound,
            format!(
                "there is no active ECS service {} in cluster {} (Region {}{}). Check fleet.ecs.service, and that it was \
                 not deleted or made in another cluster",
                last_part(&self.service),
                last_part(&self.cluster),
                self.reach.region,
                self.reach.endpoint_text()
            ),
        )
    }
}

/// The name at the end of an ARN, or the name itself: what follows the last `/`.
pub(super) fn last_part(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}
