//! Requests of the API, as far as they are read. Members that are not named here are accepted and ignored.

#![expect(clippy::struct_field_names, reason = "the names are those of the API")]

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::model::{CircuitBreaker, ConfigurationChange};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Cluster {
    pub cluster_name: String,
    pub clusters: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RegisterTaskDefinition {
    pub family: String,
    pub container_definitions: Vec<Container>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Container {
    pub name: String,
    #[serde(default)]
    pub image: String,
    pub essential: Option<bool>,
    #[serde(default)]
    pub entry_point: Vec<String>,
    #[serde(default)]
    pub command: Vec<String>,
    #[serde(default)]
    pub environment: Vec<KeyValue>,
    pub working_directory: Option<String>,
    pub stop_timeout: Option<u32>,
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct KeyValue {
    pub name: String,
    #[serde(default)]
    pub value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Service {
    pub cluster: String,
    pub service_name: String,
    pub service: String,
    pub task_definition: Option<String>,
    pub desired_count: Option<u32>,
    pub force_new_deployment: bool,
    pub deployment_configuration: Configuration,
    pub deployment_controller: Option<Controller>,
    pub force: bool,
    pub availability_zone_rebalancing: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Controller {
    #[serde(rename = "type")]
    pub kind: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Configuration {
    pub minimum_healthy_percent: Option<u32>,
    pub maximum_percent: Option<u32>,
    pub deployment_circuit_breaker: Option<Breaker>,
    pub strategy: Option<String>,
    pub bake_time_in_minutes: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Breaker {
    pub enable: bool,
    pub rollback: bool,
}

impl Configuration {
    pub fn change(&self) -> ConfigurationChange {
        ConfigurationChange {
            minimum_healthy_percent: self.minimum_healthy_percent,
            maximum_percent: self.maximum_percent,
            breaker: self
                .deployment_circuit_breaker
                .as_ref()
                .map(|breaker| CircuitBreaker { enable: breaker.enable, rollback: breaker.rollback }),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Services {
    pub cluster: String,
    pub services: Vec<String>,
    pub include: Vec<String>,
    pub max_results: Option<u32>,
    pub next_token: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Tagging {
    pub resource_arn: String,
    pub tags: Vec<Tag>,
    pub tag_keys: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Tag {
    pub key: String,
    pub value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Tasks {
    pub cluster: String,
    pub tasks: Vec<String>,
    pub protection_enabled: Option<bool>,
    pub expires_in_minutes: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Instances {
    pub cluster: String,
    pub container_instances: Vec<String>,
    pub status: String,
    pub attributes: Vec<KeyValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListTasks {
    pub cluster: String,
    pub service_name: Option<String>,
    pub family: Option<String>,
    pub started_by: Option<String>,
    pub desired_status: Option<String>,
    pub max_results: Option<u32>,
    pub next_token: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct OneTask {
    pub cluster: String,
    pub task: String,
    pub task_definition: String,
    pub reason: String,
}
