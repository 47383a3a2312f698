//! By what fleets, tasks and workers are recognised. Neutral ground between [`fleet`](crate::fleet),
//! [`workers`](crate::workers) and [`record`](crate::record), which know nothing of each other.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

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

/// Which fleet a drain belongs to, for good: what its scheduler called it when it was first seen (ECS: the service's ARN).
/// The fleet learns it and the record keeps it; clones share it.
#[derive(Clone, Debug, Default)]
pub struct FleetId(Arc<OnceLock<String>>);

impl FleetId {
    /// As it was kept; `None`: the fleet was not seen yet.
    pub fn known(id: Option<String>) -> Self {
        Self(Arc::new(id.map(OnceLock::from).unwrap_or_default()))
    }

    /// The id, once the fleet was seen.
    pub fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    /// The fleet was seen. What is known already stays.
    pub fn learn(&self, id: &str) {
        self.0.get_or_init(|| id.to_owned());
    }
}
