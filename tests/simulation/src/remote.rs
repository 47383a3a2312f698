//! What the workers of a seed are called, and what their broker is like.

use std::time::Duration;

use ecs_emulator::model::{HostnameShape, Task};
use worker_drain::identity::{Container, Identity};
use worker_drain_plan::NodeName;

use crate::{chance::Chance, setup::Work};

/// The Region of the model.
const REGION: &str = "us-east-1";

/// What stands behind the `@` of a worker's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The task's id.
    TaskId,
    /// The DNS name of the task's network interface.
    DnsName,
    /// Its first label.
    ShortDnsName,
    /// The container's id on Fargate.
    RuntimeId,
    /// The first twelve digits of the container's id, as Docker has it.
    DockerId,
    /// The task's address.
    Address,
}

/// What a broker tells of those who got a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receivers {
    /// Their number, as Redis does.
    Counted,
    /// Nothing, as RabbitMQ does.
    Untold,
    /// That there are none, as some proxies of Redis do.
    None,
}

/// How workers are asked.
#[derive(Clone, Copy, Debug)]
pub struct Remote {
    /// What the manifest says of their names; nothing: they are recognised.
    pub node_name: Option<&'static str>,
    /// Their hosts.
    pub host: Host,
    /// What the broker tells of receivers.
    pub receivers: Receivers,
    /// How long replies are awaited.
    pub reply_bound: Duration,
    /// Requests that have expired are dropped (as on RabbitMQ), and not carried out after all (as seen on Redis).
    pub drops_expired: bool,
    /// A worker that ends still answers.
    pub answers_ending: bool,
    /// Workers of other fleets on the same broker.
    pub unmatched_workers: u8,
}

impl Remote {
    /// What this seed has.
    pub fn draw(chance: &mut Chance, work: Work) -> Self {
        let hosts = [Host::TaskId, Host::DnsName, Host::ShortDnsName, Host::RuntimeId, Host::DockerId, Host::Address];
        let templates = [
            ("celery@{taskId}", Host::TaskId),
            ("celery@{privateDnsName}", Host::DnsName),
            ("celery@{privateIp}", Host::Address),
            ("celery@{runtimeId}", Host::RuntimeId),
            ("{containerName}@{runtimeId}", Host::RuntimeId),
        ];
        let recognised = chance.percent(50);
        let host = chance.pick(&hosts);
        // Of several workers in a task, a template must name each.
        let (template, named) = chance.pick(if work.nodes > 1 { &templates[4..] } else { &templates });
        Self {
            node_name: (!recognised).then_some(template),
            host: if recognised { host } else { named },
            receivers: chance.pick(&[Receivers::Counted, Receivers::Counted, Receivers::Untold, Receivers::None]),
            reply_bound: Duration::from_millis(chance.pick(&[500, 1000, 1000, 2500])),
            drops_expired: chance.percent(50),
            answers_ending: chance.percent(50),
            unmatched_workers: chance.pick(&[0, 0, 0, 1]),
        }
    }

    /// What ECS tells of a task, once its containers run: one container for each worker.
    pub fn identity(self, task: &Task, nodes: usize) -> Identity {
        let shape = self.shape();
        let container = |n| Container { name: first_name(n), runtime_id: Some(task.runtime_id(n, shape)) };
        Identity {
            containers: (0..nodes).map(container).collect(),
            host_names: [task.private_dns_name(REGION)].into(),
            addresses: task.ip().parse().into_iter().collect(),
        }
    }

    fn shape(self) -> HostnameShape {
        if self.host == Host::DockerId { HostnameShape::Hex12 } else { HostnameShape::TaskIdNumber }
    }

    /// What stands behind the `@` of a task's worker, of which the operator knows the task by this id.
    pub fn host(self, task: &Task, id: &str, n: usize) -> String {
        match self.host {
            Host::TaskId => id.to_owned(),
            Host::DnsName => task.private_dns_name(REGION),
            Host::ShortDnsName => task.hostname(n, HostnameShape::Short, REGION),
            Host::RuntimeId | Host::DockerId => task.hostname(n, self.shape(), REGION),
            Host::Address => task.ip(),
        }
    }
}

/// What stands before the `@`; also what the worker's container is called.
fn first_name(n: usize) -> String {
    if n == 0 { "celery".to_owned() } else { format!("celery{}", n + 1) }
}

/// What a worker is called on the broker.
pub fn node_name(host: &str, n: usize, renamed: bool) -> NodeName {
    let first = first_name(n);
    if renamed { format!("renamed-{first}@{host}").into() } else { format!("{first}@{host}").into() }
}
