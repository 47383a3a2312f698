//! Task definitions: what the scheduler needs of them, beside the document as it was registered.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value};

/// One revision of a task definition.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskDefinition {
    /// The family's name.
    pub family: String,
    /// Counts from one within the family.
    pub revision: u32,
    /// At least one.
    pub containers: Vec<ContainerDefinition>,
    /// The request that registered it; answers echo it. The model never reads it.
    pub document: Map<String, Value>,
}

impl TaskDefinition {
    /// `family:revision`.
    pub fn name(&self) -> String {
        format!("{}:{}", self.family, self.revision)
    }
}

/// One container of a task definition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerDefinition {
    /// Unique in the task definition.
    pub name: String,
    /// Echoed, never pulled.
    pub image: String,
    /// Whether the task ends when this container does.
    pub essential: bool,
    /// What is run, before `command`.
    pub entry_point: Vec<String>,
    /// What is run, or its arguments.
    pub command: Vec<String>,
    /// Variables for the process.
    pub environment: BTreeMap<String, String>,
    /// Where the process starts, if that exists on this machine.
    pub working_directory: Option<String>,
    /// From SIGTERM to SIGKILL; the model's default if absent.
    pub stop_timeout: Option<Duration>,
    /// Whether health is reported from outside instead of by [`Knobs::healthy_after`](super::Knobs::healthy_after).
    pub health_check: bool,
}

impl ContainerDefinition {
    /// An essential container that runs `command`.
    pub fn new(name: &str, command: &[&str]) -> Self {
        Self {
            name: name.to_owned(),
            image: "local".to_owned(),
            essential: true,
            command: command.iter().map(|&word| word.to_owned()).collect(),
            ..Self::default()
        }
    }
}
