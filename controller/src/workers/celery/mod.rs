//! Celery workers, asked through their broker by Celery's own remote control.
//!
//! [`pidbox`] has the messages, the same on every broker; a [`transport`](Transport) carries them; [`match_nodes`] says
//! which node is which task's. What an answer proves is policy, and not decided here: a node that does not answer is
//! missing from the result, and never idle.

mod account;
mod amqp;
mod broker;
mod count;
mod deaf;
mod events;
mod host;
mod known;
mod look;
pub mod match_nodes;
pub mod pidbox;
mod poll;
mod profile;
mod redis;
mod remote;
mod settings;
mod template;
mod transport;
mod waiting;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tracing::{debug, info};
use worker_drain_plan::{
    Awaited, NodeName, Outcome, QueueName, TaskId,
    observation::{Failure, Mapping, Queue, QueueCount, Seen, WorkersView},
};

pub use self::{
    amqp::Amqp,
    broker::Broker,
    redis::Redis,
    settings::{BrokerUrl, CelerySettings, FanoutPrefix, Listening, SentinelSettings, SettingsError, TransportOptions},
    template::{Template, TemplateError},
    transport::{Count, Delivered, Events, Replies, Reply, ReplySink, Sent, Transport},
    waiting::Waiting,
};
use self::{
    deaf::Deaf,
    events::{Listener, Switches},
    known::Known,
    look::Look,
    match_nodes::Naming,
    pidbox::{Method, Request, parse_reply},
    remote::{Remote, next},
};
use super::Workers;
use crate::{clock::Clock, identity::Expected};

/// The Celery workers of a fleet.
///
/// Several observations and orders may be under way at once; they share one connection.
pub struct Celery<T = Broker> {
    remote: Remote<T>,
    naming: Naming,
    known: Known,
    deaf: Deaf,
    listening: Listening,
    listener: Listener<T>,
    switches: Switches,
}

impl Celery<Broker> {
    /// Checks the settings, all that can be checked without connecting. Nothing is connected to before the first observation.
    pub fn open(settings: &CelerySettings, clock: Arc<dyn Clock>) -> Result<Self, SettingsError> {
        Self::over(Broker::open(settings, clock.clone())?, settings, clock)
    }
}

impl<T: Transport + 'static> Celery<T> {
    /// Over a given transport, such as a simulation's. The URL in the settings is not used.
    pub fn over(transport: T, settings: &CelerySettings, clock: Arc<dyn Clock>) -> Result<Self, SettingsError> {
        settings.check()?;
        let transport = Arc::new(transport);
        Ok(Self {
            listener: Listener::new(transport.clone()),
            remote: Remote { transport, clock, bound: settings.reply_bound },
            naming: settings.naming()?,
            known: Known::default(),
            deaf: Deaf::default(),
            listening: settings.listening,
            switches: Switches::default(),
        })
    }

    /// Leaves nothing of ours on the broker. It may still be used: it then connects again.
    pub async fn close(&self) {
        self.listener.stop();
        self.remote.transport.close().await;
    }

    /// Sends orders, a set for each node, and waits for what the nodes say to them.
    async fn order(&self, orders: Vec<(NodeName, Vec<Method>)>) -> Vec<Outcome> {
        let expires = self.remote.expires(self.remote.clock.now());
        let mut outcomes = vec![Outcome::Done; orders.len()];
        let mut requests = Vec::new();
        let mut orderer = BTreeMap::new();
        for (index, (node, methods)) in orders.into_iter().enumerate() {
            for method in methods {
                let request = Request::new(method, node.clone().into(), expires);
                orderer.insert(request.ticket.clone(), index);
                requests.push(request);
            }
        }
        if requests.is_empty() {
            return outcomes;
        }
        if let Err(failure) = self.carry_out(&requests, &orderer, &mut outcomes).await {
            for index in orderer.into_values() {
                outcomes[index] = Outcome::Failed(failure.clone());
            }
        }
        outcomes
    }

    async fn carry_out(
        &self,
        requests: &[Request],
        orderer: &BTreeMap<String, usize>,
        outcomes: &mut [Outcome],
    ) -> Result<(), Failure> {
        let mut sent = self.remote.transport.publish(requests).await?;
        let mut silent: BTreeSet<&String> = orderer.keys().collect();
        let deadline = self.remote.deadline();
        while !silent.is_empty() {
            // A node that says nothing may have done it all the same: the next observation shows.
            let Some(reply) = next(&mut sent.replies, deadline).await? else { break };
            let Some(said) = parse_reply(&reply.body) else { continue };
            silent.remove(&reply.ticket);
            if let (Some(index), Err(reason)) = (orderer.get(&reply.ticket), said.answer) {
                outcomes[*index] = Outcome::Refused { reason: reason.to_string() };
            }
        }
        Ok(())
    }

    /// A node is silent, or not found, and not because it answers between jobs only.
    fn is_anyone_missed(&self, tasks: &BTreeMap<TaskId, Expected>, view: &WorkersView) -> bool {
        let answers_later = |node: &NodeName| self.known.profile(node).is_some_and(|profile| profile.between_jobs);
        let is_missed = |node: &NodeName| !view.nodes.contains_key(node) && !answers_later(node);
        let mut running = tasks.iter().filter(|(_, expected)| expected.running);
        running.any(|(task, _)| match view.tasks.get(task) {
            Some(Mapping::Nodes(nodes)) => nodes.iter().any(is_missed),
            Some(Mapping::NotFound { .. }) => true,
            Some(Mapping::Ambiguous { .. }) | None => false,
        })
    }

    /// Has nodes that jobs are awaited of send events, and those that leave no longer send none, if it was our doing.
    async fn turn_events(&self, awaited: &Awaited) {
        let (on, off) = (self.switches.to_turn_on(awaited), self.switches.to_turn_off());
        let orders = [(on, Method::EnableEvents), (off, Method::DisableEvents)];
        let expires = self.remote.expires(self.remote.clock.now());
        let requests: Vec<Request> = orders
            .into_iter()
            .flat_map(|(nodes, method)| nodes.into_iter().map(move |node| (node, method.clone())))
            .map(|(node, method)| Request::new(method, node.into(), expires))
            .collect();
        if requests.is_empty() {
            return;
        }
        if let Err(failure) = self.hear_of_switches(&requests).await {
            debug!(why = failure.message, "events could not be turned on or off");
        }
    }

    async fn hear_of_switches(&self, requests: &[Request]) -> Result<(), Failure> {
        let mut sent = self.remote.transport.publish(requests).await?;
        let mut silent: BTreeMap<&String, &Method> =
            requests.iter().map(|request| (&request.ticket, &request.method)).collect();
        let deadline = self.remote.deadline();
        while !silent.is_empty() {
            let Some(reply) = next(&mut sent.replies, deadline).await? else { break };
            let method = silent.remove(&reply.ticket);
            let (Some(method), Some(said)) = (method, parse_reply(&reply.body)) else { continue };
            let Ok(answer) = said.answer else { continue };
            // "task events enabled", or "task events already enabled".
            let already = answer.get().contains("already");
            info!(node = %said.node, method = method.name(), already, "switched events of a node");
            if *method == Method::EnableEvents {
                self.switches.is_on(said.node, already);
            }
        }
        Ok(())
    }
}

impl<T: Transport + 'static> Workers for Celery<T> {
    async fn observe(&self, tasks: &BTreeMap<TaskId, Expected>) -> Result<WorkersView, Failure> {
        self.listener.wakeup().observation_begins();
        if let Some(view) = self.deaf.seen(tasks) {
            self.listener.go_on();
            return Ok(view);
        }
        let look = Look::new(&self.remote, &self.known);
        let (view, is_deaf) = look.observe(&self.naming, tasks, &self.listener.lives()).await?;
        self.deaf.asked(tasks, &view, is_deaf);
        if self.listening != Listening::Ignore && self.is_anyone_missed(tasks, &view) {
            self.listener.go_on();
        }
        self.switches.observed(&view.nodes, &tasks.values().flat_map(|expected| &expected.nodes).collect());
        Ok(view)
    }

    async fn cancel(&self, cancels: &[(NodeName, Vec<QueueName>)]) -> Vec<Outcome> {
        let order = |queue: &QueueName| Method::CancelConsumer(queue.clone());
        self.order(cancels.iter().map(|(node, queues)| (node.clone(), queues.iter().map(order).collect())).collect())
            .await
    }

    async fn give_back(&self, undos: &[(NodeName, Vec<Queue>)]) -> Vec<Outcome> {
        let order = |queue: &Queue| Method::AddConsumer(queue.clone());
        self.order(undos.iter().map(|(node, queues)| (node.clone(), queues.iter().map(order).collect())).collect())
            .await
    }

    async fn count(&self, queues: &BTreeSet<QueueName>) -> BTreeMap<QueueName, Seen<QueueCount>> {
        count::count(&self.remote, &self.known, queues).await
    }

    async fn listen(&self, awaited: &Awaited) {
        if self.listening != Listening::Ignore {
            self.listener.listen(awaited);
        }
        if self.listening == Listening::Enable {
            self.turn_events(awaited).await;
        }
    }

    async fn heard(&self) {
        let node = self.listener.wakeup().wait().await;
        info!(%node, "it may have ended its last job: observing now");
    }

    fn note(&self) -> Option<String> {
        let failure = self.listener.refused()?;
        Some(format!(
            "the ends of jobs are seen by polling only, up to 10s late, because Celery's events cannot be received: {} \
             (docs/brokers.md has the permissions; with spec.workers.celery.events: Ignore this is not tried)",
            failure.message
        ))
    }
}

#[cfg(test)]
mod tests;
