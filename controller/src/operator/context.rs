//! What all reconciliations share, and what is kept of each drain between them. None of it matters: it may be lost at any
//! time, and costs an observation then.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, Resource, api::DynamicObject};
use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore, broadcast, mpsc},
    task::JoinSet,
};

use worker_drain_plan::report::Exposed;

use super::{
    adapters::Adapters,
    events::{DrainEvent, Reported},
    lease::Leadership,
    metrics::{Key, Metrics},
    ownership::Ownership,
};
use crate::{api::WorkerDrain, fleet::ecs::Limiters, record::pages::PageCache};

/// What all reconciliations share.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Only these namespaces are watched; none: all.
    pub namespaces: Vec<String>,
    /// Whether this process may act.
    pub leadership: Leadership,
    /// The token buckets of all accounts and Regions.
    pub limiters: Limiters,
    /// What Prometheus reads.
    pub metrics: Arc<Metrics>,
    /// Which drain acts on a service that several name.
    pub ownership: Ownership,
    /// How many reconciliations may be under way.
    pub slots: Semaphore,
    /// Where events go.
    pub events: mpsc::Sender<(ObjectReference, DrainEvent)>,
    /// Says which drains must be reconciled now.
    pub wakes: broadcast::Sender<Key>,
    /// What is kept of each drain.
    pub entries: Entries,
}

impl Context {
    /// Hands events over to the publisher. Never waits: an event that cannot be handed over is lost, and counted.
    pub fn publish(&self, drain: &DynamicObject, events_between: Vec<DrainEvent>) {
        let mut reference = drain.object_ref(&kube::api::ApiResource::erase::<WorkerDrain>(&()));
        // Events of one drain belong together, whatever its version is.
        reference.resource_version = None;
        for happening in events_between {
            tracing::info!(reason = happening.reason, warning = happening.warning, note = happening.note, "event");
            if self.events.try_send((reference.clone(), happening)).is_err() {
                self.metrics.event_lost();
            }
        }
    }

    /// From now on, a signal of this drain's workers causes a reconciliation.
    pub fn wait_for_signals(&self, key: &Key, entry: &mut Entry) {
        let (heard, wakes) = (entry.adapters.heard(), self.wakes.clone());
        let (key, metrics) = (key.clone(), Arc::clone(&self.metrics));
        entry.waiting = JoinSet::new();
        entry.waiting.spawn(async move {
            heard.await;
            metrics.woken();
            // Nobody listens any more only when the process is about to end.
            let _ = wakes.send(key);
        });
    }

    /// A drain is gone.
    pub async fn forget(&self, key: &Key) {
        self.metrics.drains().forget(key);
        self.ownership.forget(key);
        let entry = self.entries.lock().remove(key);
        if let Some(entry) = entry {
            entry.lock().await.adapters.close().await;
        }
    }
}

/// What is kept of each drain.
#[derive(Default)]
pub struct Entries(Mutex<BTreeMap<Key, Arc<AsyncMutex<Entry>>>>);

impl Entries {
    /// What is kept of this one.
    pub fn of(&self, key: &Key) -> Arc<AsyncMutex<Entry>> {
        Arc::clone(self.lock().entry(key.clone()).or_default())
    }

    /// All that there are.
    pub fn all(&self) -> Vec<Arc<AsyncMutex<Entry>>> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Arc<AsyncMutex<Entry>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is kept of one drain.
#[derive(Default)]
pub struct Entry {
    /// Its fleet and workers.
    pub adapters: Adapters,
    /// The pages of its memory that were read last.
    pub pages: PageCache,
    /// What was reported of it last.
    pub reported: Option<Reported>,
    /// The reason that was reported last for why nothing can be done; `None`: all was well since.
    pub failure_status: Option<&'static str>,
    /// What nobody keeps ECS from stopping since the drain was deleted.
    pub exposed: Exposed,
    /// Reconciliations that failed, one after another.
    pub failures: u32,
    /// Waits for a signal of its workers; ends with this entry.
    pub waiting: JoinSet<()>,
    uid: Option<String>,
    term: u64,
}

impl Entry {
    /// Forgets what was of another drain of the same name, or of a time after which somebody else may have led.
    pub async fn begin(&mut self, drain: &DynamicObject, term: u64) {
        if self.uid != drain.metadata.uid {
            self.adapters.close().await;
            *self = Self { uid: drain.metadata.uid.clone(), ..Self::default() };
        }
        if self.term != term {
            (self.reported, self.failure_status) = (None, None);
            self.term = term;
        }
    }
}
