//! Health and metrics over HTTP: `/livez`, `/readyz`, `/metrics`.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use kube::runtime::reflector::{Lookup, Store};
use tokio::{net::TcpListener, sync::watch};

use super::{error::OperatorError, lease::Leadership, metrics::Metrics};

/// What is known of this process's own state. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    leadership: Leadership,
    /// The Lease has been read.
    read: watch::Receiver<bool>,
    /// Caches that are not filled yet; none was made yet if `usize::MAX`.
    unfilled: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl Health {
    /// Of a process that has just begun.
    pub fn new(leadership: Leadership, read: watch::Receiver<bool>, metrics: Arc<Metrics>) -> Self {
        Self { leadership, read, unfilled: Arc::new(AtomicUsize::new(0)), metrics }
    }

    /// Is not ready before this cache is filled. Counted from the call on, not from the first poll.
    pub fn wait_for<K>(&self, cache: Store<K>) -> impl Future<Output = ()> + use<K>
    where
        K: 'static + Lookup + Clone + Send + Sync,
        K::DynamicType: Eq + std::hash::Hash + Clone + Send + Sync,
    {
        let unfilled = Arc::clone(&self.unfilled);
        unfilled.fetch_add(1, Ordering::AcqRel);
        async move {
            if cache.wait_until_ready().await.is_ok() {
                unfilled.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// What it waits for before it is ready, if for anything.
    fn waits_for(&self) -> Option<&'static str> {
        if self.unfilled.load(Ordering::Acquire) > 0 {
            Some(
                "the list of WorkerDrains was not read yet: is the API server reachable, and is the operator permitted to list them?",
            )
        } else if !*self.read.borrow() {
            Some(
                "the Lease was not read yet: is the API server reachable, and is the operator permitted to read and write it?",
            )
        } else {
            None
        }
    }
}

/// Listens. `[::]` stands for IPv4 too; where there is no IPv6, IPv4 alone.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, OperatorError> {
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(_) if address.is_ipv6() && address.ip().is_unspecified() => {
            let address = SocketAddr::from(([0, 0, 0, 0], address.port()));
            TcpListener::bind(address).await.map_err(|source| OperatorError::Listen { address, source })
        }
        Err(source) => Err(OperatorError::Listen { address, source }),
    }
}

/// The server's pages.
pub fn app(health: Health) -> Router {
    Router::new()
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn readyz(State(health): State<Health>) -> Response {
    match health.waits_for() {
        Some(what) => (StatusCode::SERVICE_UNAVAILABLE, format!("{what}\n")).into_response(),
        None if health.leadership.is_current() => "ready: leader\n".into_response(),
        None => "ready: standby\n".into_response(),
    }
}

async fn metrics(State(health): State<Health>) -> Response {
    match health.metrics.tell(health.leadership.is_current()) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
