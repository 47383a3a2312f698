//! What a task finds at `ECS_CONTAINER_METADATA_URI_V4` and `ECS_AGENT_URI` (AWS: "Amazon ECS task metadata endpoint
//! version 4", "Amazon ECS task scale-in protection endpoint").

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    emulator::Shared,
    model::{ApiError, Failure, HostnameShape, Knobs, Protection, ProtectionAnswer, Task, Time, World},
};

/// The task and container behind the last part of such an address.
fn find<'a>(world: &'a World, address: &str) -> Option<(&'a Task, usize)> {
    let task = world.task(address.split('-').next()?.parse().ok()?)?;
    let fits = |place: &usize| task.runtime_id(*place, HostnameShape::TaskIdNumber) == address;
    Some((task, (0..task.containers.len()).find(fits)?))
}

fn timestamp(at: Time) -> Value {
    json!(at.timestamp().to_string())
}

pub(super) async fn container(State(shared): State<Arc<Shared>>, Path(address): Path<String>) -> Response {
    let answer = shared.with_world(|world, _| {
        find(world, &address).map(|(task, place)| container_document(world.knobs(), task, place))
    });
    answer.map_or_else(not_found, |answer| Json(answer).into_response())
}

pub(super) async fn task(State(shared): State<Arc<Shared>>, Path(address): Path<String>) -> Response {
    let answer =
        shared.with_world(|world, _| find(world, &address).map(|(task, _)| task_document(world.knobs(), task)));
    answer.map_or_else(not_found, |answer| Json(answer).into_response())
}

fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "V4 metadata handler: unable to find the container\n").into_response()
}

fn container_document(knobs: &Knobs, task: &Task, place: usize) -> Value {
    let definition = &task.definition.containers[place];
    json!({
        "DockerId": task.runtime_id(place, knobs.hostname_shape),
        "Name": definition.name,
        "DockerName": definition.name,
        "Image": definition.image,
        "Labels": {
            "com.amazonaws.ecs.cluster": knobs.cluster_arn(&task.cluster),
            "com.amazonaws.ecs.container-name": definition.name,
            "com.amazonaws.ecs.task-arn": knobs.task_arn(&task.cluster, task.id),
            "com.amazonaws.ecs.task-definition-family": task.definition.family,
            "com.amazonaws.ecs.task-definition-version": task.definition.revision.to_string(),
        },
        "DesiredStatus": task.desired.as_str(),
        "KnownStatus": task.last.as_str(),
        "CreatedAt": timestamp(task.created_at),
        "Type": "NORMAL",
        "Networks": [{
            "NetworkMode": "awsvpc",
            "IPv4Addresses": [task.ip()],
            "PrivateDNSName": task.private_dns_name(&knobs.region),
        }],
    })
}

fn task_document(knobs: &Knobs, task: &Task) -> Value {
    let containers: Vec<Value> =
        (0..task.containers.len()).map(|place| container_document(knobs, task, place)).collect();
    json!({
        "Cluster": knobs.cluster_arn(&task.cluster),
        "TaskARN": knobs.task_arn(&task.cluster, task.id),
        "Family": task.definition.family,
        "Revision": task.definition.revision.to_string(),
        "ServiceName": task.service_name.as_deref(),
        "DesiredStatus": task.desired.as_str(),
        "KnownStatus": task.last.as_str(),
        "AvailabilityZone": format!("{}{}", knobs.region, char::from(b'a' + task.zone % 26)),
        "LaunchType": "FARGATE",
        "Containers": containers,
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Protect {
    protection_enabled: bool,
    expires_in_minutes: Option<i64>,
}

pub(super) async fn protection(State(shared): State<Arc<Shared>>, Path(address): Path<String>) -> Response {
    about_protection(&shared, &address, |world, cluster, id, now| world.get_task_protection(cluster, &[id], now))
}

pub(super) async fn protect(State(shared): State<Arc<Shared>>, Path(address): Path<String>, body: Bytes) -> Response {
    let request: Result<Protect, _> = serde_json::from_slice(&body);
    about_protection(&shared, &address, |world, cluster, id, now| {
        let request = request.map_err(|error| ApiError::invalid(format!("UpdateTaskProtection: {error}")))?;
        let minutes = request.expires_in_minutes.map(|minutes| u32::try_from(minutes).unwrap_or(0));
        let protection = if request.protection_enabled { Protection::On(minutes) } else { Protection::Off };
        world.update_task_protection(cluster, &[id], protection, now)
    })
}

fn about_protection(
    shared: &Shared,
    address: &str,
    call: impl FnOnce(&mut World, &str, &str, Time) -> Result<ProtectionAnswer, ApiError>,
) -> Response {
    shared.with_world(|world, now| {
        let Some((task, _)) = find(world, address) else { return not_found() };
        let (cluster, id) = (task.cluster.clone(), task.id);
        let arn = world.knobs().task_arn(&cluster, id);
        let (status, body) = match call(world, &cluster, &id.to_string(), now) {
            Ok(answer) => (StatusCode::OK, render(&answer, &arn)),
            Err(error) => {
                let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
                let details = json!({"Arn": arn, "Code": error.code, "Message": error.message});
                (status, json!({"requestID": id, "error": details}))
            }
        };
        (status, Json(body)).into_response()
    })
}

/// The agent passes on a per-task failure as a success with another member.
fn render(answer: &ProtectionAnswer, arn: &str) -> Value {
    if let Some(Failure { arn, reason, detail }) = answer.failures.first() {
        return json!({"failure": {"Arn": arn, "Reason": reason, "Detail": detail}});
    }
    let until = answer.tasks.first().and_then(|task| task.until);
    json!({"protection": {
        "ProtectionEnabled": until.is_some(),
        "ExpirationDate": until.map(timestamp),
        "TaskArn": arn,
    }})
}
