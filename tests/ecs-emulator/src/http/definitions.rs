//! Task definitions on their way in and out.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::requests::{Container, RegisterTaskDefinition};
use crate::model::{ApiError, ContainerDefinition, Knobs, TaskDefinition};

/// What is to be registered.
pub(super) struct New {
    pub family: String,
    pub containers: Vec<ContainerDefinition>,
    /// What answers will echo.
    pub document: Map<String, Value>,
}

/// Reads a request.
pub(super) fn parse(body: &Value) -> Result<New, ApiError> {
    let request: RegisterTaskDefinition = super::api::read(body)?;
    let containers: Result<Vec<_>, _> = request.container_definitions.into_iter().map(container).collect();
    let mut document = request.rest;
    let echoed = body.get("containerDefinitions").cloned().unwrap_or_default();
    document.insert("containerDefinitions".to_owned(), completed(echoed));
    Ok(New { family: request.family, containers: containers?, document })
}

fn container(given: Container) -> Result<ContainerDefinition, ApiError> {
    if given.name.is_empty() {
        return Err(ApiError::client("Container.name should not be null or empty."));
    }
    Ok(ContainerDefinition {
        name: given.name,
        image: given.image,
        essential: given.essential.unwrap_or(true),
        entry_point: given.entry_point,
        command: given.command,
        environment: given.environment.into_iter().map(|pair| (pair.name, pair.value)).collect(),
        working_directory: given.working_directory,
        stop_timeout: given.stop_timeout.map(|seconds| Duration::from_secs(u64::from(seconds))),
        health_check: given.rest.contains_key("healthCheck"),
    })
}

/// What ECS fills in.
fn completed(mut containers: Value) -> Value {
    for container in containers.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        container.entry("essential").or_insert(Value::Bool(true));
        container.entry("cpu").or_insert(json!(0));
        for list in ["environment", "mountPoints", "portMappings", "volumesFrom"] {
            container.entry(list).or_insert(json!([]));
        }
    }
    containers
}

/// `taskDefinition` in answers.
pub(super) fn render(knobs: &Knobs, definition: &TaskDefinition) -> Value {
    let mut document = definition.document.clone();
    document.remove("tags");
    if !document.contains_key("containerDefinitions") {
        // Registered through the library, without a document.
        let containers = definition.containers.iter().map(container_document).collect();
        document.insert("containerDefinitions".to_owned(), completed(Value::Array(containers)));
    }
    document.insert("taskDefinitionArn".to_owned(), json!(knobs.definition_arn(definition)));
    document.insert("family".to_owned(), json!(definition.family));
    document.insert("revision".to_owned(), json!(definition.revision));
    document.insert("status".to_owned(), json!("ACTIVE"));
    document.entry("compatibilities").or_insert(json!(["EC2", "FARGATE"]));
    for list in ["volumes", "placementConstraints", "requiresAttributes"] {
        document.entry(list).or_insert(json!([]));
    }
    Value::Object(document)
}

fn container_document(container: &ContainerDefinition) -> Value {
    let environment: Vec<Value> =
        container.environment.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    json!({
        "name": container.name,
        "image": container.image,
        "essential": container.essential,
        "entryPoint": container.entry_point,
        "command": container.command,
        "environment": environment,
    })
}
