//! Handles for tests, under `/_emulator`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use super::render;
use crate::{
    emulator::Shared,
    model::{Faults, Health, Interruption, Knobs, Operation, TaskId},
    runner,
};

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/knobs", get(knobs).post(set_knobs))
        .route("/faults", get(faults).post(set_faults))
        .route("/calls", get(calls))
        .route("/history", get(history))
        .route("/events", get(events))
        .route("/tasks", get(tasks))
        .route("/tasks/{id}/health", post(set_health))
        .route("/tasks/{id}/interrupt", post(interrupt))
        .route("/shutdown", post(shutdown))
}

fn bad(error: impl std::fmt::Display) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({"error": error.to_string()}))).into_response()
}

/// A document with some members replaced, if the result still is what it was.
fn merged<T: serde::Serialize + DeserializeOwned>(old: &T, change: Map<String, Value>) -> serde_json::Result<T> {
    let mut document = serde_json::to_value(old)?;
    if let Some(members) = document.as_object_mut() {
        members.extend(change);
    }
    serde_json::from_value(document)
}

async fn knobs(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(shared.with_world(|world, _| json!(world.knobs())))
}

/// Replaces the knobs that are named.
async fn set_knobs(State(shared): State<Arc<Shared>>, Json(change): Json<Map<String, Value>>) -> Response {
    shared.with_world(|world, _| match merged::<Knobs>(world.knobs(), change) {
        Ok(knobs) => {
            world.set_knobs(knobs.clone());
            Json(knobs).into_response()
        }
        Err(error) => bad(error),
    })
}

async fn faults(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(shared.with_world(|world, _| json!(world.faults())))
}

/// Replaces all faults; `{}` ends them.
async fn set_faults(State(shared): State<Arc<Shared>>, Json(faults): Json<Value>) -> Response {
    let faults: Faults = match serde_json::from_value(faults) {
        Ok(faults) => faults,
        Err(error) => return bad(error),
    };
    if let Some(name) = faults.fail.keys().find(|name| !is_operation(name)) {
        return bad(format!("{name} is not an operation that is modelled"));
    }
    Json(shared.with_world(|world, _| {
        world.set_faults(faults);
        json!(world.faults())
    }))
    .into_response()
}

fn is_operation(name: &str) -> bool {
    name == "*" || Operation::parse(name).is_some()
}

async fn calls(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let counts = shared.with_world(|world, _| world.calls().clone());
    Json(counts.iter().map(|(operation, count)| (operation.as_str().to_owned(), json!(count))).collect())
}

#[derive(Debug, Deserialize)]
struct Since {
    /// Milliseconds since the epoch; entries from then on.
    #[serde(default)]
    since: u64,
}

async fn history(State(shared): State<Arc<Shared>>, Query(Since { since }): Query<Since>) -> Json<Value> {
    Json(shared.with_world(|world, _| {
        let entries: Vec<_> = world.history().iter().filter(|entry| entry.at.0 >= since).collect();
        json!({"history": entries})
    }))
}

/// Takes the task state changes since the last call: `detail` as in `ECS Task State Change`, timestamps as numbers.
async fn events(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(shared.with_world(|world, _| {
        let taken = world.take_task_events();
        let events: Vec<Value> = taken
            .iter()
            .map(|(at, task)| {
                json!({
                    "detail-type": "ECS Task State Change",
                    "source": "aws.ecs",
                    "time": at.epoch_seconds(),
                    "resources": [world.knobs().task_arn(&task.cluster, task.id)],
                    "detail": render::task(world.knobs(), task),
                })
            })
            .collect();
        json!({"events": events})
    }))
}

/// Every visible task: its processes, its log files, its protection.
async fn tasks(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let ids = shared.process_ids();
    Json(shared.with_world(|world, _| {
        let tasks: Vec<Value> = world
            .state()
            .tasks
            .values()
            .map(|task| {
                let containers: Vec<Value> = (0..task.containers.len())
                    .map(|place| {
                        json!({
                            "name": task.definition.containers[place].name,
                            "state": task.containers[place],
                            "pid": ids.get(&(task.id, place)),
                            "log": runner::log_path(&shared.surroundings.logs, task, place),
                            "hostname": task.hostname(place, world.knobs().hostname_shape, &world.knobs().region),
                        })
                    })
                    .collect();
                json!({
                    "task": task.id,
                    "service": task.service_name.as_deref(),
                    "deployment": task.deployment,
                    "definition": task.definition.name(),
                    "last": task.last,
                    "desired": task.desired,
                    "healthy": task.healthy,
                    "protected_until": task.protected_until,
                    "containers": containers,
                })
            })
            .collect();
        json!({"tasks": tasks})
    }))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum HealthWord {
    Healthy,
    Unhealthy,
    Unknown,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetHealth {
    status: HealthWord,
}

async fn set_health(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Json(request): Json<SetHealth>,
) -> Response {
    let health = match request.status {
        HealthWord::Healthy => Health::Healthy,
        HealthWord::Unhealthy => Health::Unhealthy,
        HealthWord::Unknown => Health::Unknown,
    };
    match id.parse::<TaskId>() {
        Ok(id) => {
            shared.with_world(|world, now| world.set_health(id, health, now));
            Json(json!({})).into_response()
        }
        Err(error) => bad(error),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Interrupt {
    kind: Interruption,
    #[serde(default)]
    notice_seconds: f64,
}

async fn interrupt(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    Json(request): Json<Interrupt>,
) -> Response {
    let notice = match Duration::try_from_secs_f64(request.notice_seconds) {
        Ok(notice) => notice,
        Err(error) => return bad(error),
    };
    match id.parse::<TaskId>() {
        Ok(id) => {
            shared.with_world(|world, now| world.interrupt(id, request.kind, notice, now));
            Json(json!({})).into_response()
        }
        Err(error) => bad(error),
    }
}

async fn shutdown(State(shared): State<Arc<Shared>>) -> Json<Value> {
    // Calls that are under way, such as this one, are still answered.
    shared.cancel.cancel();
    Json(json!({}))
}
