//! Celery's remote control over Redis.
//!
//! A request is published on a channel that every node of the broker listens on; a node puts its reply into the list that
//! the client has announced. Nothing is kept by Redis: a node that does not listen at that moment never sees the request.

mod address;
mod count;
mod envelope;
mod error;
mod events;
mod link;
mod names;
mod replies;
mod sentinel;
mod target;
mod tls;

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};
use worker_drain_plan::{QueueName, observation::Failure};

use self::{address::Address, error::Problem, link::Link, names::Names};
use super::{
    pidbox::Request,
    settings::{CelerySettings, SettingsError},
    transport::{Count, Events, Sent, Transport},
};
use crate::clock::Clock;

/// The first pause before connecting again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// A Redis broker. Connects when it is first used, and again whenever it must; when nothing is asked, it does nothing but
/// keep its reply queue.
pub struct Redis {
    address: Arc<Address>,
    names: Arc<Names>,
    clock: Arc<dyn Clock>,
    bound: Duration,
    link: Mutex<Option<Arc<Link>>>,
}

impl Redis {
    /// The broker of the settings. Does not connect.
    pub fn new(settings: &CelerySettings, clock: Arc<dyn Clock>) -> Result<Self, SettingsError> {
        let address = Arc::new(Address::parse(settings)?);
        let names = Arc::new(Names::new(settings, address.database));
        Ok(Self { address, names, clock, bound: settings.operation_bound, link: Mutex::new(None) })
    }

    /// The connection that there is, or a new one. The flag says whether it is new.
    async fn link(&self) -> Result<(Arc<Link>, bool), Problem> {
        let mut slot = self.link.lock().await;
        if let Some(link) = slot.as_ref().filter(|link| link.is_alive()) {
            return Ok((link.clone(), false));
        }
        *slot = None;
        let link = Arc::new(self.connect().await?);
        *slot = Some(link.clone());
        Ok((link, true))
    }

    /// Tries for as long as one operation may take: a server that is just starting again is worth a moment.
    async fn connect(&self) -> Result<Link, Problem> {
        let deadline = Instant::now() + self.bound;
        let mut pause = FIRST_PAUSE;
        loop {
            let connecting = Link::connect(self.address.clone(), self.names.clone(), self.clock.clone(), self.bound);
            // Boxed: a reconciliation's future would be nested more deeply than the compiler follows.
            let problem = match connecting.boxed().await {
                Ok(link) => return Ok(link),
                Err(problem) => problem,
            };
            if !problem.may_pass() || Instant::now() + pause >= deadline {
                return Err(problem);
            }
            sleep(pause).await;
            pause *= 2;
        }
    }

    /// Forgets a connection that is of no more use, unless another has already taken its place.
    async fn drop_link(&self, link: &Arc<Link>) {
        let mut slot = self.link.lock().await;
        if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, link)) {
            *slot = None;
        }
    }

    async fn try_publish(&self, requests: &[Request]) -> Result<Sent, Problem> {
        let (link, is_new) = self.link().await?;
        let problem = match link.publish(requests).await {
            Ok(sent) => return Ok(sent),
            Err(problem) => problem,
        };
        if !problem.is_lost_connection() {
            return Err(problem);
        }
        self.drop_link(&link).await;
        if is_new {
            return Err(problem);
        }
        // It had been lost while nobody used it. Asking twice does no harm.
        let (link, _) = self.link().await?;
        link.publish(requests).await
    }

    async fn try_count(&self, queues: &[QueueName]) -> Result<Vec<Count>, Problem> {
        let (link, is_new) = self.link().await?;
        match count::count(&link, &self.names, queues).await {
            Err(problem) if problem.is_lost_connection() => {
                self.drop_link(&link).await;
                if is_new {
                    return Err(problem);
                }
                let (link, _) = self.link().await?;
                count::count(&link, &self.names, queues).await
            }
            result => result,
        }
    }
}

impl Transport for Redis {
    async fn publish(&self, requests: &[Request]) -> Result<Sent, Failure> {
        self.try_publish(requests).await.map_err(|problem| self.address.failure(&problem))
    }

    async fn count(&self, queues: &[QueueName]) -> Vec<Result<Count, Failure>> {
        // Many single operations, each of them bounded: all of them together are, too.
        let bound = self.bound * 2;
        let counting = timeout(bound, self.try_count(queues)).await;
        match counting.unwrap_or(Err(Problem::Silence(bound))) {
            Ok(counts) => counts.into_iter().map(Ok).collect(),
            Err(problem) => vec![Err(self.address.failure(&problem)); queues.len()],
        }
    }

    async fn close(&self) {
        let link = self.link.lock().await.take();
        // Somebody who is just publishing has it too; then it goes with them, and what is left is cleaned up later.
        if let Some(link) = link.and_then(Arc::into_inner) {
            link.withdraw().await;
        }
    }

    async fn events(&self) -> Result<Events, Failure> {
        let listening = events::events(&self.address, &self.names, self.bound).await;
        listening.map_err(|problem| self.address.failure(&problem))
    }
}

impl Drop for Redis {
    /// As far as possible: where the runtime is ending too, another client of ours cleans up later.
    fn drop(&mut self) {
        let link = self.link.get_mut().take().and_then(Arc::into_inner);
        if let (Some(link), Ok(runtime)) = (link, tokio::runtime::Handle::try_current()) {
            // Owned by nobody, because its owner is just going; it ends by itself within an operation's bound.
            drop(runtime.spawn(link.withdraw()));
        }
    }
}
