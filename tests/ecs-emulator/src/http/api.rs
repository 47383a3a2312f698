//! The API of ECS: AWS JSON 1.1. Any signature will do.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{definitions, render, requests};
use crate::{
    emulator::Shared,
    model::{
        ApiError, CreateService, Failure, InstanceStatus, ListTasks, Operation, Protection, Service, Strategy, Time,
        UpdateService, World,
    },
};

const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
const TARGET_PREFIX: &str = "AmazonEC2ContainerServiceV20141113.";
/// `ListServices` answers 10 a page unless told otherwise.
const SERVICES_PER_PAGE: u32 = 10;

/// One call.
pub(super) async fn handle(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some(operation) = target.strip_prefix(TARGET_PREFIX).and_then(Operation::parse) else {
        tracing::warn!(target, "an operation that is not modelled");
        return refusal(&ApiError::new("UnknownOperationException", format!("{target} is not modelled")));
    };
    let body = if body.is_empty() { Ok(json!({})) } else { serde_json::from_slice(&body) };
    let Ok(body) = body else {
        return refusal(&ApiError::new("SerializationException", "the body is not JSON"));
    };
    let delay = shared.with_world(|world, _| world.call_delay(operation));
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    match shared.with_world(|world, now| answer(world, operation, &body, now)) {
        Ok(answer) => respond(StatusCode::OK, &answer),
        Err(error) => {
            tracing::debug!(operation = operation.as_str(), %error, "refused");
            refusal(&error)
        }
    }
}

fn respond(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, CONTENT_TYPE)], body.to_string()).into_response()
}

fn refusal(error: &ApiError) -> Response {
    let status = StatusCode::from_u16(error.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
    respond(status, &json!({"__type": error.code, "message": error.message}))
}

/// The request of an operation, or what AWS says to one that does not fit the model.
pub(super) fn read<T: DeserializeOwned>(body: &Value) -> Result<T, ApiError> {
    T::deserialize(body).map_err(|error| ApiError::new("SerializationException", error.to_string()))
}

fn answer(world: &mut World, operation: Operation, body: &Value, now: Time) -> Result<Value, ApiError> {
    match operation {
        Operation::CreateCluster => {
            let request: requests::Cluster = read(body)?;
            let name = world.create_cluster(&request.cluster_name, now)?;
            Ok(json!({"cluster": cluster(world, &name)}))
        }
        Operation::DescribeClusters => {
            let request: requests::Cluster = read(body)?;
            let (found, failures) = world.describe_clusters(&words(&request.clusters), now)?;
            let clusters: Vec<Value> = found.iter().map(|name| cluster(world, name)).collect();
            Ok(json!({"clusters": clusters, "failures": render::failures(&failures)}))
        }
        Operation::RegisterTaskDefinition => {
            let mut new = definitions::parse(body)?;
            new.document.insert("registeredAt".to_owned(), json!(now.epoch_seconds()));
            let definition = world.register_task_definition(&new.family, new.containers, new.document, now)?;
            Ok(json!({"taskDefinition": definitions::render(world.knobs(), &definition), "tags": []}))
        }
        Operation::DescribeTaskDefinition => {
            let request: requests::OneTask = read(body)?;
            let definition = world.describe_task_definition(&request.task_definition, now)?;
            Ok(json!({"taskDefinition": definitions::render(world.knobs(), &definition), "tags": []}))
        }
        Operation::CreateService | Operation::UpdateService | Operation::DeleteService => {
            let service = change_service(world, operation, read(body)?, now)?;
            let (service, counts, of_deployments) = world.state().with_counts(&service);
            Ok(json!({"service": render::service(world.knobs(), &service, counts, &of_deployments)}))
        }
        Operation::DescribeServices => {
            let request: requests::Services = read(body)?;
            let answer = world.describe_services(&request.cluster, &words(&request.services), now)?;
            let services: Vec<Value> = answer
                .services
                .iter()
                .map(|(service, counts, of)| {
                    let mut shown = render::service(world.knobs(), service, *counts, of);
                    if request.include.iter().any(|field| field == "TAGS") {
                        shown["tags"] = render::tags(service);
                    }
                    shown
                })
                .collect();
            Ok(json!({"services": services, "failures": render::failures(&answer.failures)}))
        }
        Operation::TagResource => {
            let request: requests::Tagging = read(body)?;
            let tags: Vec<_> = request.tags.into_iter().map(|tag| (tag.key, tag.value)).collect();
            world.tag_resource(&request.resource_arn, &tags, now).map(|()| json!({}))
        }
        Operation::UntagResource => {
            let request: requests::Tagging = read(body)?;
            world.untag_resource(&request.resource_arn, &request.tag_keys, now).map(|()| json!({}))
        }
        Operation::ListServices => list_services(world, &read(body)?, now),
        Operation::ListTasks => list_tasks(world, read(body)?, now),
        _ => answer_about_tasks(world, operation, body, now),
    }
}

fn answer_about_tasks(world: &mut World, operation: Operation, body: &Value, now: Time) -> Result<Value, ApiError> {
    match operation {
        Operation::DescribeTasks => {
            let request: requests::Tasks = read(body)?;
            let answer = world.describe_tasks(&request.cluster, &words(&request.tasks), now)?;
            let tasks: Vec<Value> = answer.tasks.iter().map(|task| render::task(world.knobs(), task)).collect();
            Ok(json!({"tasks": tasks, "failures": render::failures(&answer.failures)}))
        }
        Operation::RegisterContainerInstance
        | Operation::UpdateContainerInstancesState
        | Operation::DescribeContainerInstances => answer_about_instances(world, operation, &read(body)?, now),
        Operation::StopTask => {
            let request: requests::OneTask = read(body)?;
            let task = world.stop_task(&request.cluster, &request.task, &request.reason, now)?;
            Ok(json!({"task": render::task(world.knobs(), &task)}))
        }
        Operation::RunTask => {
            let request: requests::OneTask = read(body)?;
            let task = world.run_task(&request.cluster, &request.task_definition, now)?;
            Ok(json!({"tasks": [render::task(world.knobs(), &task)], "failures": render::failures(&[] as &[Failure])}))
        }
        Operation::UpdateTaskProtection => {
            let request: requests::Tasks = read(body)?;
            let protection = protection_of(&request)?;
            let answer = world.update_task_protection(&request.cluster, &words(&request.tasks), protection, now)?;
            Ok(render::protection(world.knobs(), cluster_part(&request.cluster), &answer))
        }
        Operation::GetTaskProtection => {
            let request: requests::Tasks = read(body)?;
            let answer = world.get_task_protection(&request.cluster, &words(&request.tasks), now)?;
            Ok(render::protection(world.knobs(), cluster_part(&request.cluster), &answer))
        }
        _ => Err(ApiError::new("UnknownOperationException", "not about tasks")),
    }
}

fn answer_about_instances(
    world: &mut World,
    operation: Operation,
    request: &requests::Instances,
    now: Time,
) -> Result<Value, ApiError> {
    let (cluster, instances) = (&request.cluster, words(&request.container_instances));
    let (found, failures) = match operation {
        Operation::RegisterContainerInstance => {
            let zone = request.attributes.iter().find(|attribute| attribute.name == "ecs.availability-zone");
            let letter = zone.and_then(|zone| zone.value.bytes().last()).unwrap_or(b'a');
            let instance = world.register_container_instance(cluster, letter.wrapping_sub(b'a') % 26, now)?;
            return Ok(json!({"containerInstance": render::instance(world, &instance)}));
        }
        Operation::UpdateContainerInstancesState => {
            let known = [InstanceStatus::Active, InstanceStatus::Draining];
            let Some(status) = known.into_iter().find(|status| status.as_str() == request.status) else {
                return Err(ApiError::invalid("Status must be one of ACTIVE, DRAINING."));
            };
            world.update_container_instances_state(cluster, &instances, status, now)?
        }
        _ => world.describe_container_instances(cluster, &instances, now)?,
    };
    let instances: Vec<Value> = found.iter().map(|instance| render::instance(world, instance)).collect();
    Ok(json!({"containerInstances": instances, "failures": render::failures(&failures)}))
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

fn cluster_part(given: &str) -> &str {
    given.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("default")
}

fn protection_of(request: &requests::Tasks) -> Result<Protection, ApiError> {
    let Some(enabled) = request.protection_enabled else {
        return Err(ApiError::invalid("protectionEnabled cannot be null."));
    };
    // Whatever does not fit is out of range; the model says so.
    let minutes = request.expires_in_minutes.map(|minutes| u32::try_from(minutes).unwrap_or(0));
    Ok(if enabled { Protection::On(minutes) } else { Protection::Off })
}

fn cluster(world: &World, name: &str) -> Value {
    let mut answer = render::cluster(world.knobs(), name);
    let (mut running, mut pending, mut active) = (0, 0, 0);
    for service in world.state().services.iter().filter(|service| service.cluster == name) {
        let counts = world.state().counts(service, None);
        running += counts.running;
        pending += counts.pending;
        active += u32::from(service.status == crate::model::ServiceStatus::Active);
    }
    answer["runningTasksCount"] = json!(running);
    answer["pendingTasksCount"] = json!(pending);
    answer["activeServicesCount"] = json!(active);
    answer
}

fn change_service(
    world: &mut World,
    operation: Operation,
    request: requests::Service,
    now: Time,
) -> Result<Service, ApiError> {
    if let Some(controller) = request.deployment_controller.filter(|controller| controller.kind != "ECS") {
        return Err(ApiError::new("UnsupportedFeatureException", format!("{} is not modelled", controller.kind)));
    }
    let configuration = request.deployment_configuration.change();
    let strategy = match &request.deployment_configuration.strategy {
        None => None,
        Some(given) => Some(Strategy::parse(given).ok_or_else(|| ApiError::invalid("Invalid deployment strategy."))?),
    };
    let bake_minutes = request.deployment_configuration.bake_time_in_minutes;
    let rebalances = request.availability_zone_rebalancing.as_ref().map(|word| word == "ENABLED");
    match operation {
        Operation::CreateService => {
            let request = CreateService {
                cluster: request.cluster,
                name: request.service_name,
                task_definition: request.task_definition.unwrap_or_default(),
                desired: request.desired_count.unwrap_or(0),
                configuration: configuration.applied_to(crate::model::DeploymentConfiguration::default()),
                strategy: strategy.unwrap_or_default(),
                bake_minutes: bake_minutes.unwrap_or_default(),
                rebalances: rebalances.unwrap_or_default(),
            };
            world.create_service(&request, now)
        }
        Operation::DeleteService => world.delete_service(&request.cluster, &request.service, request.force, now),
        _ => {
            let request = UpdateService {
                cluster: request.cluster,
                service: request.service,
                desired: request.desired_count,
                task_definition: request.task_definition,
                force_new_deployment: request.force_new_deployment,
                configuration,
                strategy,
                bake_minutes,
                rebalances,
            };
            world.update_service(&request, now)
        }
    }
}

fn list_services(world: &mut World, request: &requests::Services, now: Time) -> Result<Value, ApiError> {
    let names = world.list_services(&request.cluster, now)?;
    let first: usize = match &request.next_token {
        None => 0,
        Some(token) => token.parse().map_err(|_| ApiError::invalid("Invalid token."))?,
    };
    let limit = request.max_results.unwrap_or(SERVICES_PER_PAGE).clamp(1, 100) as usize;
    let cluster = cluster_part(&request.cluster);
    let page: Vec<String> =
        names.iter().skip(first).take(limit).map(|name| world.knobs().service_arn(cluster, name)).collect();
    let mut answer = json!({"serviceArns": page});
    if first + limit < names.len() {
        answer["nextToken"] = json!((first + limit).to_string());
    }
    Ok(answer)
}

fn list_tasks(world: &mut World, request: requests::ListTasks, now: Time) -> Result<Value, ApiError> {
    let cluster = cluster_part(&request.cluster).to_owned();
    let request = ListTasks {
        cluster: request.cluster,
        service: request.service_name,
        family: request.family,
        started_by: request.started_by,
        desired_status: request.desired_status,
        max_results: request.max_results,
        next_token: request.next_token,
    };
    let page = world.list_tasks(&request, now)?;
    let arns: Vec<String> = page.tasks.iter().map(|id| world.knobs().task_arn(&cluster, *id)).collect();
    let mut answer = json!({"taskArns": arns});
    if let Some(token) = page.next_token {
        answer["nextToken"] = json!(token);
    }
    Ok(answer)
}
