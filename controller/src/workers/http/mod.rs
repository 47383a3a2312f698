//! Workers that answer for themselves over HTTP, each at its own task's private address. The contract is
//! docs/http-worker.md; [`contract`] reads and writes it, and nothing else does.
//!
//! Whose worker answers needs no guess: a task is asked at its own address. Addresses are given to other tasks later, so
//! a worker may say which task it is of, and an order names the instance that it is meant for: one that was decided on
//! the answer of another worker is refused there. A worker that does not answer is missing from the result, and never
//! idle.

mod call;
mod contract;
mod error;
mod settings;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{FutureExt, StreamExt, stream};
use jiff::Timestamp;
use worker_drain_plan::{
    NodeName, Outcome, QueueName, TaskId,
    observation::{Answer, Failure, FailureKind, Mapping, Queue, Strength, WorkersView},
};

use self::{
    call::{Caller, Place},
    contract::Order,
};
pub use self::{
    contract::State,
    error::CallError,
    settings::{HttpSettings, Scheme, SettingsError},
};
use super::Workers;
use crate::{clock::Clock, identity::Expected};

/// So many workers are asked at once. Enough for a fleet's silent workers to cost one reply bound together, and far below
/// what a process may have open.
const AT_ONCE: usize = 256;

/// The workers of a fleet that answer over HTTP.
pub struct Http {
    caller: Caller,
    clock: Arc<dyn Clock>,
    /// Who answered in the last observation, and where: orders go to nobody else.
    known: Mutex<BTreeMap<NodeName, Known>>,
}

#[derive(Clone)]
struct Known {
    address: IpAddr,
    instance: String,
}

/// What one task's worker answered, or why it did not.
struct Polled<'a> {
    task: &'a TaskId,
    answer: Result<(Known, Answer), CallError>,
}

impl Http {
    /// Checks the settings. Nothing is connected to before the first observation.
    pub fn open(settings: &HttpSettings, clock: Arc<dyn Clock>) -> Result<Self, SettingsError> {
        Ok(Self { caller: Caller::new(settings)?, clock, known: Mutex::default() })
    }

    async fn poll<'a>(&self, task: &'a TaskId, expected: &Expected) -> Polled<'a> {
        let answer = match address(&expected.identity.addresses) {
            Some(address) => self.ask(task, address).await,
            None => Err(CallError::NoAddress),
        };
        Polled { task, answer }
    }

    async fn ask(&self, task: &TaskId, address: IpAddr) -> Result<(Known, Answer), CallError> {
        let asked_at = self.clock.now();
        let said = self.caller.get(address).await?;
        let answered_at = self.clock.now();
        let place = || self.caller.url(address, Place::State);
        let state = State::parse(&said).map_err(|why| CallError::Invalid { url: place(), why })?;
        match &state.task {
            Some(named) if !is_of(named, task) => Err(CallError::OtherTask { url: place(), task: named.clone() }),
            _ => {
                let known = Known { address, instance: state.instance.clone() };
                Ok((known, answer(state, asked_at, answered_at)))
            }
        }
    }

    async fn order(&self, place: Place, node: &NodeName, queues: Vec<&QueueName>) -> Outcome {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(node).cloned();
        let Some(Known { address, instance }) = known else {
            let message = format!("{node} did not answer in the last observation, so it is sent nothing");
            return Outcome::Failed(Failure::new(FailureKind::Unreachable, message));
        };
        let order = Order { instance: &instance, queues };
        match self.caller.post(address, place, &order).await {
            Ok(()) => Outcome::Done,
            Err(CallError::Refused { why, .. }) => Outcome::Refused { reason: why },
            Err(error) => Outcome::Failed(Failure::new(error.kind(), error.to_string())),
        }
    }
}

impl Workers for Http {
    async fn observe(&self, tasks: &BTreeMap<TaskId, Expected>) -> Result<WorkersView, Failure> {
        let mut polls = Vec::new();
        for (task, expected) in tasks {
            // One that starts does not listen yet, and one that stops may have lost its address to another task.
            if expected.running {
                polls.push(self.poll(task, expected).boxed());
            }
        }
        let polled: Vec<Polled<'_>> = stream::iter(polls).buffer_unordered(AT_ONCE).collect().await;
        if let Some(failure) = refused_by_all(&polled) {
            return Err(failure);
        }
        let (view, known) = join(tasks, polled);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(view)
    }

    async fn cancel(&self, cancels: &[(NodeName, Vec<QueueName>)]) -> Vec<Outcome> {
        let mut orders = Vec::new();
        for (node, queues) in cancels {
            orders.push(self.order(Place::Cancel, node, queues.iter().collect()).boxed());
        }
        stream::iter(orders).buffered(AT_ONCE).collect().await
    }

    async fn give_back(&self, undos: &[(NodeName, Vec<Queue>)]) -> Vec<Outcome> {
        let mut orders = Vec::new();
        for (node, queues) in undos {
            let names = queues.iter().map(|queue| &queue.name).collect();
            orders.push(self.order(Place::Resume, node, names).boxed());
        }
        stream::iter(orders).buffered(AT_ONCE).collect().await
    }
}

/// How a task's worker is called: by its task, so that no address that is given to another task later can mix two up.
fn node_name(task: &TaskId) -> NodeName {
    NodeName::from(format!("http@{}", task.short()))
}

/// The one that is asked: with awsvpc a task has one interface, and IPv4 where it has both.
fn address(addresses: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    // IpAddr orders V4 before V6.
    addresses.first().copied()
}

/// A worker names its task by its id or its ARN.
fn is_of(named: &str, task: &TaskId) -> bool {
    TaskId::from(named).short() == task.short()
}

fn answer(state: State, asked_at: Timestamp, answered_at: Timestamp) -> Answer {
    let State { instance, task: _, queues, active, reserved, scheduled } = state;
    Answer {
        instance: Some(instance),
        queues: queues.map(|queues| queues.into_iter().map(Queue::named).collect()),
        reserved: Some(reserved),
        active: Some(active),
        scheduled: Some(scheduled),
        // The contract asks for every job (docs/http-worker.md).
        strength: Strength::Account,
        ..Answer::new(asked_at, answered_at)
    }
}

/// The failure to ask any worker: all that were reached refused, in the same way, and none answered as it should. What a
/// person must fix is then the same for all. Workers that cannot be connected to may only be starting, and say nothing.
fn refused_by_all(polled: &[Polled<'_>]) -> Option<Failure> {
    let mut refusals: Vec<&CallError> = Vec::new();
    for Polled { answer, .. } in polled {
        match answer {
            Ok(_) => return None,
            Err(error) if error.is_telling() => refusals.push(error),
            Err(_) => {}
        }
    }
    let first = refusals.first()?;
    let kind = first.kind();
    let all = refusals.iter().all(|error| error.kind() == kind) && kind != FailureKind::Unreachable;
    all.then(|| Failure::new(kind, format!("no worker of {} can be asked; the first: {first}", polled.len())))
}

/// What the observations come to, and whom orders may go to.
fn join(tasks: &BTreeMap<TaskId, Expected>, polled: Vec<Polled<'_>>) -> (WorkersView, BTreeMap<NodeName, Known>) {
    let mut view = WorkersView::default();
    let mut known = BTreeMap::new();
    for (task, Expected { nodes, .. }) in tasks.iter().filter(|(_, expected)| !expected.running) {
        let idle = || Mapping::NotFound { hint: "it does not run".into() };
        let mapping = if nodes.is_empty() { idle() } else { Mapping::Nodes(nodes.clone()) };
        view.tasks.insert(task.clone(), mapping);
    }
    for Polled { task, answer } in polled {
        let node = node_name(task);
        let mapping = match answer {
            Ok((who, answer)) => {
                known.insert(node.clone(), who);
                view.nodes.insert(node.clone(), answer);
                Mapping::Nodes([node].into())
            }
            Err(error @ CallError::OtherTask { .. }) => Mapping::Ambiguous { why: error.to_string() },
            Err(error) => {
                tracing::debug!(%task, %error, "no answer");
                view.silences.insert(node.clone(), error.to_string());
                let was_known = tasks.get(task).is_some_and(|expected| expected.nodes.contains(&node));
                if was_known { Mapping::Nodes([node].into()) } else { Mapping::NotFound { hint: error.to_string() } }
            }
        };
        view.tasks.insert(task.clone(), mapping);
    }
    (view, known)
}
