//! The face to the network: the API of ECS, what tasks find at their metadata and agent endpoints, and handles for
//! tests.

mod admin;
mod agent;
mod api;
mod definitions;
mod render;
mod requests;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    routing::{get, post},
};
use tokio::net::TcpListener;

use crate::emulator::Shared;

/// How long calls that are under way may take once the emulator is to end.
const PATIENCE: Duration = Duration::from_secs(1);

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
    let cancel = &shared.cancel;
    let server = axum::serve(listener, router).with_graceful_shutdown(cancel.clone().cancelled_owned());
    // Answers that are delayed on purpose must not keep the emulator alive.
    let impatience = async {
        cancel.cancelled().await;
        tokio::time::sleep(PATIENCE).await;
    };
    tokio::select! {
        end = server => {
            if let Err(error) = end {
                tracing::error!(%error, "the API has stopped");
            }
        }
        () = impatience => {}
    }
}
