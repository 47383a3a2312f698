//! Celery's remote control over AMQP 0-9-1, which is RabbitMQ.
//!
//! A request is published to a fanout exchange that every node has a queue on; a node sends its reply through a direct
//! exchange to the queue that the client has made. Both ends' queues go when their connections do.

mod address;
mod count;
mod error;
mod events;
mod link;
mod message;
mod reactor;
mod socket;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};
use worker_drain_plan::{
    NodeName, QueueName,
    observation::{Failure, FailureKind},
};

use self::{address::Address, link::Link};
use super::{
    pidbox::Request,
    settings::{CelerySettings, SettingsError},
    transport::{Count, Events, Sent, Transport},
};

/// On how many channels at once queues are asked for.
const CHANNELS: usize = 16;
/// The first pause before connecting again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// A RabbitMQ broker, or several that stand in for one another. Connects when it is first used, and again whenever it
/// must; when nothing is asked, it does nothing but keep its reply queue.
pub struct Amqp {
    /// At least one.
    addresses: Vec<Arc<Address>>,
    control_exchange: String,
    event_exchange: String,
    bound: Duration,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    link: Option<Arc<Link>>,
    /// The address that was good last.
    good: usize,
}

impl Amqp {
    /// The broker of the settings. Does not connect.
    pub fn new(settings: &CelerySettings) -> Result<Self, SettingsError> {
        let addresses: Vec<_> = Address::parse_all(settings)?.into_iter().map(Arc::new).collect();
        if addresses.is_empty() {
            return Err(SettingsError::NoUrl);
        }
        Ok(Self {
            addresses,
            control_exchange: settings.control_exchange.clone(),
            event_exchange: settings.event_exchange.clone(),
            bound: settings.operation_bound,
            slot: Mutex::default(),
        })
    }

    /// The connection that there is, or a new one. The flag says whether it is new.
    async fn link(&self) -> Result<(Arc<Link>, bool), Failure> {
        let mut slot = self.slot.lock().await;
        if let Some(link) = slot.link.as_ref().filter(|link| link.is_alive()) {
            return Ok((link.clone(), false));
        }
        slot.link = None;
        let (link, good) = self.connect(slot.good).await?;
        let link = Arc::new(link);
        *slot = Slot { link: Some(link.clone()), good };
        Ok((link, true))
    }

    /// Tries each address, beginning with the one that was good last; all of them again, for as long as one operation may
    /// take, if that may help: a server that is just starting is worth a moment.
    async fn connect(&self, first: usize) -> Result<(Link, usize), Failure> {
        let deadline = Instant::now() + self.bound;
        let mut pause = FIRST_PAUSE;
        loop {
            let mut failures = Vec::new();
            for number in 0..self.addresses.len() {
                let index = (first + number) % self.addresses.len();
                let address = &self.addresses[index];
                match Link::connect(address.clone(), &self.control_exchange, self.bound).await {
                    Ok(link) => return Ok((link, index)),
                    Err(problem) => failures.push(problem.failure(address)),
                }
            }
            let may_pass = failures.iter().any(|failure| failure.kind == FailureKind::Unreachable);
            if !may_pass || Instant::now() + pause >= deadline {
                return Err(as_one(failures));
            }
            sleep(pause).await;
            pause *= 2;
        }
    }

    async fn count_one(&self, queue: &QueueName) -> Result<Count, Failure> {
        let (link, is_new) = self.link().await?;
        match link.count(queue).await {
            Ok(count) => Ok(count),
            Err(problem) if problem.is_lost_connection() && !is_new => {
                self.drop_link(&link).await;
                let (link, _) = self.link().await?;
                link.count(queue).await.map_err(|problem| problem.failure(&link.address))
            }
            Err(problem) => Err(problem.failure(&link.address)),
        }
    }

    /// Forgets a connection that is of no more use, unless another has already taken its place.
    async fn drop_link(&self, link: &Arc<Link>) {
        let mut slot = self.slot.lock().await;
        if slot.link.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
            slot.link = None;
        }
    }
}

/// What a person must do comes before what may recover by itself, and everything is reported.
fn as_one(mut failures: Vec<Failure>) -> Failure {
    failures.sort_by_key(|failure| failure.kind == FailureKind::Unreachable);
    let kind = failures.first().map_or(FailureKind::Unreachable, |failure| failure.kind);
    let messages: Vec<String> = failures.into_iter().map(|failure| failure.message).collect();
    Failure::new(kind, messages.join("; and "))
}

impl Transport for Amqp {
    async fn publish(&self, requests: &[Request]) -> Result<Sent, Failure> {
        let (link, is_new) = self.link().await?;
        let problem = match link.publish(requests).await {
            Ok(sent) => return Ok(sent),
            Err(problem) => problem,
        };
        if !problem.is_lost_connection() {
            return Err(problem.failure(&link.address));
        }
        self.drop_link(&link).await;
        if is_new {
            return Err(problem.failure(&link.address));
        }
        // It had been lost while nobody used it. Asking twice does no harm.
        let (link, _) = self.link().await?;
        link.publish(requests).await.map_err(|problem| problem.failure(&link.address))
    }

    async fn count(&self, queues: &[QueueName]) -> Vec<Result<Count, Failure>> {
        let mut counts = Vec::with_capacity(queues.len());
        for queue in queues {
            counts.push(match counts.last() {
                // What does not answer is not asked again for each queue.
                Some(Err(Failure { kind: FailureKind::Unreachable, message })) => {
                    Err(Failure::new(FailureKind::Unreachable, message.clone()))
                }
                _ => self.count_one(queue).await,
            });
        }
        counts
    }

    /// Before 5.7 Celery's queues for requests are not exclusive, so that two workers of one name share one.
    async fn shared(&self, nodes: &BTreeSet<NodeName>) -> Result<BTreeSet<NodeName>, Failure> {
        let (link, _) = self.link().await?;
        let counts = stream::iter(nodes.iter().cloned()).map(|node| {
            let link = link.clone();
            async move { (link.listeners(&node, &self.control_exchange).await, node) }
        });
        let counts: Vec<_> = counts.buffer_unordered(CHANNELS).collect().await;
        let mut shared = BTreeSet::new();
        for (listeners, node) in counts {
            if listeners.map_err(|problem| problem.failure(&link.address))? > 1 {
                shared.insert(node);
            }
        }
        Ok(shared)
    }

    async fn close(&self) {
        let link = self.slot.lock().await.link.take();
        // Somebody who is just publishing has it too; then it goes with them.
        if let Some(link) = link.and_then(Arc::into_inner) {
            link.withdraw().await;
        }
    }

    async fn events(&self) -> Result<Events, Failure> {
        let good = self.slot.lock().await.good;
        let mut failures = Vec::new();
        for number in 0..self.addresses.len() {
            let address = &self.addresses[(good + number) % self.addresses.len()];
            match events::events(address, &self.event_exchange, self.bound).await {
                Ok(events) => return Ok(events),
                Err(problem) => failures.push(problem.failure(address)),
            }
        }
        Err(as_one(failures))
    }
}

impl Drop for Amqp {
    /// As far as possible: where the runtime is ending too, the socket is closed, and the broker removes what was ours.
    fn drop(&mut self) {
        let link = self.slot.get_mut().link.take().and_then(Arc::into_inner);
        if let (Some(link), Ok(runtime)) = (link, tokio::runtime::Handle::try_current()) {
            // Owned by nobody, because its owner is just going; it ends by itself within an operation's bound.
            drop(runtime.spawn(link.withdraw()));
        }
    }
}
