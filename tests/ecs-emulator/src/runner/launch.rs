//! What a container's process is started with: the command, the environment that ECS sets, and where output goes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::model::{HostnameShape, Knobs, Task};

/// Everything a process needs.
#[derive(Debug)]
pub(crate) struct Launch {
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub directory: Option<PathBuf>,
    pub log: PathBuf,
    pub hostname: String,
}

/// What all containers of an emulator share.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub endpoint: String,
    pub logs: PathBuf,
    /// Variables of the emulator's own environment that tasks get, too.
    pub inherited: BTreeMap<String, String>,
}

impl Launch {
    /// The process of a container; none if the container has no command, in which case it is only pretended.
    pub fn of(task: &Task, container: usize, knobs: &Knobs, surroundings: &Surroundings) -> Option<Self> {
        let definition = &task.definition.containers[container];
        let words = definition.entry_point.iter().chain(&definition.command);
        let variables = Variables::of(task, container, knobs);
        let command: Vec<String> = words.map(|word| variables.put_into(word)).collect();
        if command.is_empty() {
            return None;
        }
        let mut environment = surroundings.inherited.clone();
        environment.extend(ecs_environment(task, container, knobs, &surroundings.endpoint));
        environment.insert("HOSTNAME".to_owned(), variables.hostname().to_owned());
        let own = definition.environment.iter().map(|(name, value)| (name.clone(), variables.put_into(value)));
        environment.extend(own);
        Some(Self {
            command,
            environment,
            directory: definition.working_directory.as_deref().map(PathBuf::from).filter(|path| path.is_dir()),
            log: log_path(&surroundings.logs, task, container),
            hostname: variables.hostname().to_owned(),
        })
    }
}

/// Where a container's output goes.
pub(crate) fn log_path(logs: &Path, task: &Task, container: usize) -> PathBuf {
    let service = task.service_name.as_deref().unwrap_or("standalone");
    logs.join(format!("{service}-{}-{}.log", task.id, task.definition.containers[container].name))
}

/// AWS: "Amazon ECS task metadata endpoint version 4" and "Amazon ECS task scale-in protection endpoint". As on
/// Fargate, the last part of the path begins with the task's id.
fn ecs_environment(task: &Task, container: usize, knobs: &Knobs, endpoint: &str) -> Vec<(String, String)> {
    let runtime = task.runtime_id(container, HostnameShape::TaskIdNumber);
    let pairs = [
        ("AWS_REGION", knobs.region.clone()),
        ("AWS_DEFAULT_REGION", knobs.region.clone()),
        ("AWS_EXECUTION_ENV", "AWS_ECS_FARGATE".to_owned()),
        ("ECS_CONTAINER_METADATA_URI", format!("{endpoint}/v3/{runtime}")),
        ("ECS_CONTAINER_METADATA_URI_V4", format!("{endpoint}/v4/{runtime}")),
        ("ECS_AGENT_URI", format!("{endpoint}/api/{runtime}")),
    ];
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// What `${NAME}` stands for in commands and environment values of a task definition.
///
/// They are for what an entrypoint script would find out from the metadata endpoint. Other names are left as they
/// are, for a shell to see to.
#[derive(Debug)]
struct Variables(Vec<(&'static str, String)>);

impl Variables {
    fn of(task: &Task, container: usize, knobs: &Knobs) -> Self {
        Self(vec![
            ("${ECS_HOSTNAME}", task.hostname(container, knobs.hostname_shape, &knobs.region)),
            ("${ECS_TASK_ID}", task.id.to_string()),
            ("${ECS_PRIVATE_IP}", task.ip()),
            ("${ECS_TASK_ARN}", knobs.task_arn(&task.cluster, task.id)),
            ("${ECS_CLUSTER}", task.cluster.clone()),
            ("${ECS_SERVICE}", task.service_name.as_deref().unwrap_or_default().to_owned()),
            ("${ECS_CONTAINER}", task.definition.containers[container].name.clone()),
            ("${ECS_REVISION}", task.definition.revision.to_string()),
        ])
    }

    fn hostname(&self) -> &str {
        &self.0[0].1
    }

    fn put_into(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}
