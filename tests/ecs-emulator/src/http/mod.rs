//! The face to the network: the API of ECS, what tasks find at their metadata and agent endpoints, and handles for
//! tests.

mod admin;
mod agent;
mod api;
mod definitions;
mod render;
mod requests;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};
use tokio::net::TcpListener;

use crate::emulator::Shared;

/// Serves until the emulator ends.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let router = Router::new()
        .route("/", post(api::handle))
        .route("/v3/{container}", get(agent::container))
        .route("/v3/{container}/task", get(agent::task))
        .route("/v4/{container}", get(agent::container))
        .route("/v4/{container}/task", get(agent::task))
        .route("/api/{container}/task-protection/v1/state", get(agent::protection).put(agent::protect))
        .nest("/_emulator", admin::routes())
        .with_state(shared.clone());
    let cancelled = shared.cancel.clone();
    tokio::select! {
        served = axum::serve(listener, router) => {
            if let Err(error) = served {
                tracing::error!(%error, "the API has stopped");
            }
        }
        // Connections that clients keep open must not keep the emulator alive.
        () = cancelled.cancelled() => {}
    }
}
