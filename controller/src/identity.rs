//! What a fleet knows of a task by which its workers may be recognised or reached. Neutral ground between
//! [`fleet`](crate::fleet) and [`workers`](crate::workers), which know nothing of each other.

use std::{collections::BTreeSet, net::IpAddr};

use worker_drain_plan::NodeName;

/// What a task is known by, besides its id. Anything may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its containers.
    pub containers: Vec<Container>,
    /// Host names that its network interfaces have (ECS: `privateDnsName` of the ENI attachment).
    pub host_names: BTreeSet<String>,
    /// Its private addresses.
    pub addresses: BTreeSet<IpAddr>,
}

/// One container of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its name in the task definition.
    pub name: String,
    /// Its id in the container runtime (ECS on Fargate: `<task id>-<number>`; on EC2: Docker's 64 hexadecimal digits).
    pub runtime_id: Option<String>,
}

/// A task whose workers are looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// What it is known by.
    pub identity: Identity,
    /// Nodes that were seen to be its own before.
    pub nodes: BTreeSet<NodeName>,
    /// It runs, so that its workers should answer. One that starts or stops is here only so that no other task can
    /// claim its nodes.
    pub running: bool,
}
