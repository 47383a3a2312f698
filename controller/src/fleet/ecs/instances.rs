//! Which tasks ECS wants another one for, although no deployment does: those on a container instance that is set to DRAINING, and
//! those that fail their health check.
//!
//! Sources: "Draining Amazon ECS container instances" in the developer guide, and `ContainerInstance` (`status`) and `Task`
//! (`containerInstanceArn`, `healthStatus`) in the API reference. Whether task protection keeps ECS from stopping a task on such an
//! instance is not documented; it does not keep the instance from going.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_ecs::types::{ContainerInstance, HealthStatus, Task as EcsTask};
use worker_drain_plan::observation::{Displaced, Failure};

use super::{connect::Connection, operation::Operation};

/// `DescribeContainerInstances` takes so many (API reference).
const BATCH: usize = 100;

/// The container instances that tasks run on. A task on Fargate has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Instances {
    /// By ARN: whether it is being emptied. One that ECS does not know is not in it.
    leaving: BTreeMap<String, bool>,
    /// Why they could not be read, and what would help.
    pub(super) unread: Option<String>,
}

impl Instances {
    /// Whether ECS wants another task in this one's place.
    pub(super) fn displaced(&self, task: &EcsTask) -> Displaced {
        if task.health_status() == Some(&HealthStatus::Unhealthy) {
            return Displaced::Unhealthy;
        }
        match task.container_instance_arn().map(|arn| self.leaving.get(arn)) {
            None | Some(Some(false)) => Displaced::No,
            Some(Some(true)) => Displaced::MachineLeaves,
            Some(None) => Displaced::Unread,
        }
    }
}

/// Reads the instances that these tasks run on. That is nothing that a hold or a permit rests on, so a failure is told and
/// fails no observation: the permission is younger than the others, and who lacks it must be able to go on.
pub(super) async fn read(connection: &Connection, tasks: impl Iterator<Item = &EcsTask>) -> Instances {
    let arns: BTreeSet<&str> = tasks.filter_map(EcsTask::container_instance_arn).collect();
    let arns: Vec<String> = arns.into_iter().map(ToOwned::to_owned).collect();
    let mut instances = Instances::default();
    for batch in arns.chunks(BATCH) {
        match describe(connection, batch).await {
            Ok(found) => instances.leaving.extend(found.iter().filter_map(is_leaving)),
            Err(failure) => {
                instances.unread = Some(told(&failure));
                break;
            }
        }
    }
    instances
}

async fn describe(connection: &Connection, arns: &[String]) -> Result<Vec<ContainerInstance>, Failure> {
    let ask = || {
        let request = connection.client.describe_container_instances().cluster(&connection.target().cluster);
        request.set_container_instances(Some(arns.to_vec())).send()
    };
    let answer = connection.caller.call(Operation::DescribeContainerInstances, ask).await?;
    Ok(answer.container_instances().to_vec())
}

fn is_leaving(instance: &ContainerInstance) -> Option<(String, bool)> {
    let arn = instance.container_instance_arn()?.to_owned();
    Some((arn, matches!(instance.status(), Some("DRAINING" | "DEREGISTERING" | "INACTIVE"))))
}

fn told(failure: &Failure) -> String {
    format!(
        "whether container instances are set to DRAINING could not be read, so a task on such an instance keeps taking jobs until \
         it is stopped; all else goes on: {}",
        failure.message
    )
}
