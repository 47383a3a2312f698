//! What stands between a reconciliation and the adapters: nothing is done without a claim to act, and failures are counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::SignedDuration;
use worker_drain_plan::{
    Awaited, NodeName, Outcome, QueueName, RevisionId, TaskId,
    observation::{Failure, FleetView, Queue, QueueCount, Seen, WorkersView},
};

use super::{
    lease::{Acting, Leadership},
    metrics::{Metrics, System},
};
use crate::{
    clock::{Clock, SystemClock},
    fleet::{Fleet, FleetObservation, ecs::ObserveSlot},
    identity::Expected,
    workers::{Workers, uncounted},
};

/// So many actions are begun on one check of the claim: ten requests to ECS.
const BATCH: usize = 100;

/// A fleet or workers; or why there are none, which every observation and every action then fails with. A reconciliation
/// needs both: holds are renewed though the broker's Secret is gone.
#[derive(Clone, Debug)]
pub enum OrFailure<T> {
    /// There it is.
    There(T),
    /// Why it is not.
    Failure(Failure),
}

impl<T> OrFailure<T> {
    /// The same of something else.
    pub fn map<U>(self, with: impl FnOnce(T) -> U) -> OrFailure<U> {
        match self {
            Self::There(inner) => OrFailure::There(with(inner)),
            Self::Failure(failure) => OrFailure::Failure(failure),
        }
    }
}

/// A fleet or workers behind the claim to act.
#[derive(Debug)]
pub struct Fenced<T> {
    /// The permission to observe; it is another's as soon as the observation has ended.
    slot: Mutex<Option<ObserveSlot>>,
    inner: OrFailure<T>,
    leadership: Leadership,
    metrics: Arc<Metrics>,
}

impl<T> Fenced<T> {
    /// Behind this claim.
    pub fn new(inner: OrFailure<T>, leadership: Leadership, metrics: Arc<Metrics>) -> Self {
        Self { slot: Mutex::default(), inner, leadership, metrics }
    }

    /// With the permission to observe once.
    #[must_use]
    pub fn with_slot(self, slot: Option<ObserveSlot>) -> Self {
        Self { slot: Mutex::new(slot), ..self }
    }

    fn inner(&self) -> Result<&T, Failure> {
        match &self.inner {
            OrFailure::There(inner) => Ok(inner),
            OrFailure::Failure(failure) => Err(failure.clone()),
        }
    }

    fn seen<V>(&self, system: System, seen: Result<V, Failure>) -> Result<V, Failure> {
        if let Err(failure) = &seen {
            self.metrics.failed(system, failure.kind);
        }
        seen
    }

    /// Whom to ask for one batch of actions, and the claim to do so; or what becomes of the batch instead.
    async fn for_batch(&self, of: usize) -> Result<(&T, Acting), Vec<Outcome>> {
        match (self.inner(), self.leadership.act().await) {
            (_, None) => Err(vec![Outcome::Stale; of]),
            (Err(failure), _) => Err(vec![Outcome::Failed(failure); of]),
            (Ok(inner), Some(acting)) => Ok((inner, acting)),
        }
    }
}

/// Takes actions in batches, each only while the claim is good.
macro_rules! take_in_batches {
    ($self:ident, $actions:ident, $take:ident) => {{
        let mut outcomes = Vec::with_capacity($actions.len());
        for batch in $actions.chunks(BATCH) {
            outcomes.extend(match $self.for_batch(batch.len()).await {
                Ok((inner, _acting)) => inner.$take(batch).await,
                Err(instead) => instead,
            });
        }
        outcomes
    }};
}

impl<F: Fleet> Fleet for Fenced<F> {
    async fn observe(&self, tracked: &BTreeSet<TaskId>) -> Result<FleetObservation, Failure> {
        let _slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        let seen = match self.inner() {
            Ok(fleet) => fleet.observe(tracked).await,
            Err(failure) => Err(failure),
        };
        self.seen(System::Ecs, seen)
    }

    async fn hold(&self, holds: &[(TaskId, SignedDuration)]) -> Vec<Outcome> {
        take_in_batches!(self, holds, hold)
    }

    async fn release(&self, tasks: &[TaskId]) -> Vec<Outcome> {
        take_in_batches!(self, tasks, release)
    }

    async fn remember(&self, workers_per_task: &BTreeMap<RevisionId, u32>, seen: &FleetView) -> Outcome {
        match self.for_batch(1).await {
            Ok((inner, _acting)) => inner.remember(workers_per_task, seen).await,
            Err(instead) => instead.into_iter().next().unwrap_or(Outcome::Stale),
        }
    }
}

impl<W: Workers> Workers for Fenced<Arc<W>> {
    async fn observe(&self, tasks: &BTreeMap<TaskId, Expected>) -> Result<WorkersView, Failure> {
        let seen = match self.inner() {
            Ok(workers) => workers.observe(tasks).await,
            Err(failure) => Err(failure),
        };
        self.seen(System::Broker, seen)
    }

    async fn cancel(&self, cancels: &[(NodeName, Vec<QueueName>)]) -> Vec<Outcome> {
        take_in_batches!(self, cancels, cancel)
    }

    async fn give_back(&self, undos: &[(NodeName, Vec<Queue>)]) -> Vec<Outcome> {
        take_in_batches!(self, undos, give_back)
    }

    async fn count(&self, queues: &BTreeSet<QueueName>) -> BTreeMap<QueueName, Seen<QueueCount>> {
        let counts = match self.inner() {
            Ok(workers) => workers.count(queues).await,
            Err(failure) => uncounted(queues, &failure, SystemClock.now()),
        };
        if let Some(Seen::Err { failure, .. }) = counts.values().find(|count| count.ok().is_none()) {
            self.metrics.failed(System::Broker, failure.kind);
        }
        counts
    }

    async fn listen(&self, awaited: &Awaited) {
        // It may switch on events of nodes, so this too is acting.
        if let Ok((inner, _acting)) = self.for_batch(0).await {
            inner.listen(awaited).await;
        }
    }

    async fn heard(&self) {
        match self.inner() {
            Ok(inner) => inner.heard().await,
            Err(_) => std::future::pending().await,
        }
    }

    fn note(&self) -> Option<String> {
        self.inner().ok()?.note()
    }
}
