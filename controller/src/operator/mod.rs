//! The operator: the loop of [`reconcile`](crate::reconcile), driven by Kubernetes.
//!
//! It watches the metadata of `WorkerDrain`s and nothing else; each reconciliation reads its resource again, so that no cache is ever
//! believed. Reconciliations of different drains run side by side with a bound, and one that fails, hangs or panics
//! affects its own drain alone. Of several replicas the one that holds the Lease acts ([`lease`]); the others watch and wait.
//!
//! A signal (a change of the resource, a new claim to act, a worker whose last job has ended) only says
//! "observe now"; without one, the next reconciliation follows after the plan's own `wake_after`.

pub mod admin;
pub mod events;
pub mod lease;
pub mod metrics;

mod adapters;
mod conflict;
mod context;
mod error;
mod failure_status;
mod fencing;
mod finalizer;
mod fleet_changed;
mod leftovers;
mod ownership;
mod publish;
mod queue;
mod reconcile;
mod secrets;
mod subject;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use kube::{Client, Config};
use tokio::{
    sync::{Semaphore, broadcast, mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{
    admin::Health,
    context::{Context, Entries},
    lease::{Election, Leader, Leadership, LeaseSettings},
    metrics::Metrics,
    ownership::Ownership,
};
use crate::fleet::ecs::Limiters;

pub use self::{
    error::OperatorError,
    finalizer::{ABANDON, FINALIZER},
};

/// So many reconciliations may be under way. They wait for others nearly all the time; the bound keeps memory and connections in
/// bounds, and is far above what a cluster has in drains that hang.
const RECONCILIATIONS_AT_ONCE: usize = 256;

/// So many events may wait to be published.
const EVENTS_WAITING: usize = 1024;

/// So many drains may wait to be reconciled because of a signal. One that is lost costs a poll interval.
const WAKES_WAITING: usize = 1024;

/// What is under way at the end may take so long, all in all: less than Kubernetes waits (30 s by default).
const GOODBYE_BOUND: Duration = Duration::from_secs(20);

/// How the operator runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Only these namespaces; none: all.
    pub namespaces: Vec<String>,
    /// The Lease that replicas share; `None`: there is only this one.
    pub lease: Option<LeaseRef>,
    /// Who we are, such as the Pod's name.
    pub identity: String,
    /// Where health and metrics are served.
    pub admin: SocketAddr,
}

/// Which Lease replicas share.
#[derive(Clone, Debug)]
pub struct LeaseRef {
    /// Its namespace; `None`: the one that we run in.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// Runs until `stop`, then ends in order: begins nothing more, lets the Lease go, finishes what is under way.
pub async fn run(settings: Settings, stop: CancellationToken) -> Result<(), OperatorError> {
    let client = client().await?;
    let metrics = Arc::<Metrics>::default();
    let (events, waiting) = mpsc::channel(EVENTS_WAITING);
    let mut parts = JoinSet::new();
    let (leadership, read, leader) = elect(&settings, &client, &stop, &mut parts);
    let context = Arc::new(Context {
        client: client.clone(),
        namespaces: settings.namespaces.clone(),
        leadership: leadership.clone(),
        limiters: Limiters::default(),
        metrics: Arc::clone(&metrics),
        slots: Semaphore::new(RECONCILIATIONS_AT_ONCE),
        events,
        wakes: broadcast::channel(WAKES_WAITING).0,
        entries: Entries::default(),
        ownership: Ownership::default(),
    });
    let health = Health::new(leadership, read, Arc::clone(&metrics));
    let listener = admin::listen(settings.admin).await?;
    let admin = parts.spawn({
        let app = admin::app(health.clone());
        async move {
            let _ = axum::serve(listener, app).await;
            "the server for health and metrics"
        }
    });
    parts.spawn(publish::run(client.clone(), settings.identity.clone(), waiting, metrics));
    for api in queue::apis(&client, &settings.namespaces) {
        parts.spawn(queue::run(api, Arc::clone(&context), health.clone(), stop.clone()));
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), namespaces = ?settings.namespaces, identity = settings.identity,
        admin = %settings.admin, "worker-drain runs"
    );
    tokio::select! {
        // When stopped, parts end at once; that is no bug then, whichever is noticed first.
        biased;
        () = stop.cancelled() => {}
        ended = parts.join_next() => return Err(OperatorError::Ended(ended.map_or("everything", name_of))),
    }
    tracing::info!("stopping: nothing more is begun");
    let goodbye = async {
        if let Some(leader) = leader {
            leader.resign().await;
        }
        let entries = context.entries.all();
        // When nothing uses the context any more, the publisher has seen the last event.
        drop(context);
        admin.abort();
        while parts.join_next().await.is_some() {}
        for entry in entries {
            entry.lock().await.adapters.close().await;
        }
    };
    if timeout(GOODBYE_BOUND, goodbye).await.is_err() {
        tracing::warn!("a reconciliation is cut off; the next one continues where it was");
    }
    Ok(())
}

fn name_of(ended: Result<&'static str, tokio::task::JoinError>) -> &'static str {
    ended.unwrap_or("a part that panicked")
}

async fn client() -> Result<Client, OperatorError> {
    let mut config = Config::infer().await.map_err(OperatorError::Config)?;
    // Its retries last for minutes. Ours are the next reconciliation, and every call has its own bound.
    config.default_retry = false;
    Client::try_from(config).map_err(OperatorError::Client)
}

/// Takes part in the election, if there is one. The [`Leader`] is there if there is none.
fn elect(
    settings: &Settings,
    client: &Client,
    stop: &CancellationToken,
    parts: &mut JoinSet<&'static str>,
) -> (Leadership, watch::Receiver<bool>, Option<Leader>) {
    let Some(LeaseRef { namespace, name }) = settings.lease.clone() else {
        let (leadership, leader) = Leadership::always();
        return (leadership, watch::channel(true).1, Some(leader));
    };
    let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    // A process that was restarted under the same name is not the one that holds the Lease.
    let identity = format!("{}_{}", settings.identity, Uuid::new_v4());
    let (leadership, election, read) = Election::new(client.clone(), LeaseSettings { namespace, name, identity });
    let stop = stop.clone();
    parts.spawn(async move {
        Box::pin(election.run(stop)).await;
        "the election of a leader"
    });
    (leadership, read, None)
}
