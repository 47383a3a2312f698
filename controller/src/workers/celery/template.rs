//! The template for the names of a task's nodes.

use std::{collections::BTreeSet, fmt, str::FromStr};

use strsim::jaro_winkler;
use thiserror::Error;
use worker_drain_plan::{NodeName, TaskId};

use super::host::{DOCKER_HOST_LENGTH, first_label};
use crate::identity::Identity;

/// How nodes are named, such as `worker@{taskId}`.
///
/// With one, a task's nodes are known by name and nothing is guessed. Variables: `{taskId}` (the end of the task's ARN),
/// `{privateDnsName}`, `{hostName}` (its first label: Celery's `%n`), `{privateIp}`, and, standing for one node for each container,
/// `{runtimeId}`, `{containerId}` (its first twelve digits: Docker's host name) and `{containerName}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(Variable),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    TaskId,
    PrivateDnsName,
    HostName,
    PrivateIp,
    RuntimeId,
    ContainerId,
    ContainerName,
}

const VARIABLES: [(&str, Variable); 7] = [
    ("taskId", Variable::TaskId),
    ("privateDnsName", Variable::PrivateDnsName),
    ("hostName", Variable::HostName),
    ("privateIp", Variable::PrivateIp),
    ("runtimeId", Variable::RuntimeId),
    ("containerId", Variable::ContainerId),
    ("containerName", Variable::ContainerName),
];

/// `celery worker -n abc` is the node `celery@abc`: what has no `@` is the host (`celery/utils/nodenames.py`; seen on 5.3, 5.6 and 5.7).
const CELERYS_NAME: &str = "celery@";

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// A variable that there is not.
    #[error(
        "nodeName {template:?}: there is no variable {{{variable}}}; did you mean {{{nearest}}}? \
         (all: {{taskId}}, {{privateDnsName}}, {{hostName}}, {{privateIp}}, {{runtimeId}}, {{containerId}}, {{containerName}})"
    )]
    UnknownVariable {
        /// The template.
        template: String,
        /// What stands between the braces.
        variable: String,
        /// The variable that is written most like it.
        nearest: &'static str,
    },
    /// A brace that is not closed, or closed without having been opened.
    #[error("nodeName {template:?}: every {{ needs a }} after it, as in worker@{{taskId}}")]
    Braces {
        /// The template.
        template: String,
    },
    /// It would name the same node for every task.
    #[error("nodeName {template:?} names the same node for every task: use a variable, as in worker@{{taskId}}")]
    NoVariable {
        /// The template.
        template: String,
    },
    /// It holds Celery's own variables.
    #[error(
        "nodeName {template:?}: %h, %n and %d are Celery's, and replaced inside the container; \
         write what they become, such as {{privateDnsName}} for %h and {{hostName}} for %n"
    )]
    CelerysOwn {
        /// The template.
        template: String,
    },
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(template: &str) -> Result<Self, TemplateError> {
        let text = || template.to_owned();
        if template.contains('%') {
            return Err(TemplateError::CelerysOwn { template: text() });
        }
        let mut parts = split(template)?;
        if !template.contains('@') {
            parts.insert(0, Part::Text(CELERYS_NAME.to_owned()));
        }
        if !parts.iter().any(|part| matches!(part, Part::Variable(_))) {
            return Err(TemplateError::NoVariable { template: text() });
        }
        Ok(Self { text: text(), parts })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Template {
    /// The names that this task's nodes may have: one, or one for each container, address or host name that it has.
    /// None, when the task has not (yet) what a variable stands for.
    pub fn names(&self, task: &TaskId, identity: &Identity) -> BTreeSet<NodeName> {
        // All variables of a container must be the same container's.
        if [Variable::RuntimeId, Variable::ContainerId, Variable::ContainerName].iter().any(|of| self.has(*of)) {
            let containers = identity.containers.iter();
            return containers
                .flat_map(|container| {
                    self.expand(task, identity, Some((&container.name, container.runtime_id.as_deref())))
                })
                .collect();
        }
        self.expand(task, identity, None)
    }

    fn has(&self, variable: Variable) -> bool {
        self.parts.contains(&Part::Variable(variable))
    }

    fn expand(
        &self,
        task: &TaskId,
        identity: &Identity,
        container: Option<(&String, Option<&str>)>,
    ) -> BTreeSet<NodeName> {
        let mut names = vec![String::new()];
        for part in &self.parts {
            let values: Vec<String> = match part {
                Part::Text(text) => vec![text.clone()],
                Part::Variable(Variable::TaskId) => vec![task.short().to_owned()],
                Part::Variable(Variable::PrivateDnsName) => identity.host_names.iter().cloned().collect(),
                Part::Variable(Variable::HostName) => {
                    identity.host_names.iter().map(|name| first_label(name).to_owned()).collect()
                }
                Part::Variable(Variable::PrivateIp) => identity.addresses.iter().map(ToString::to_string).collect(),
                Part::Variable(Variable::RuntimeId) => {
                    container.and_then(|(_, runtime_id)| runtime_id).map(String::from).into_iter().collect()
                }
                Part::Variable(Variable::ContainerId) => {
                    let id = container.and_then(|(_, runtime_id)| runtime_id?.get(..DOCKER_HOST_LENGTH));
                    id.map(String::from).into_iter().collect()
                }
                Part::Variable(Variable::ContainerName) => {
                    container.map(|(name, _)| name.clone()).into_iter().collect()
                }
            };
            names = names.iter().flat_map(|name| values.iter().map(move |value| format!("{name}{value}"))).collect();
        }
        names.into_iter().map(NodeName::from).collect()
    }
}

fn split(template: &str) -> Result<Vec<Part>, TemplateError> {
    let braces = || TemplateError::Braces { template: template.to_owned() };
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once('{') {
        let (variable, after) = after.split_once('}').ok_or_else(braces)?;
        if text.contains('}') || variable.contains('{') {
            return Err(braces());
        }
        parts.push(Part::Text(text.to_owned()));
        parts.push(Part::Variable(find(template, variable)?));
        rest = after;
    }
    if rest.contains('}') {
        return Err(braces());
    }
    parts.push(Part::Text(rest.to_owned()));
    Ok(parts)
}

fn find(template: &str, variable: &str) -> Result<Variable, TemplateError> {
    if let Some((_, found)) = VARIABLES.iter().find(|(name, _)| *name == variable) {
        return Ok(*found);
    }
    let like = |name: &str| jaro_winkler(&name.to_lowercase(), &variable.to_lowercase());
    let names = VARIABLES.iter().map(|(name, _)| *name);
    let nearest = names.max_by(|one, other| like(one).total_cmp(&like(other))).expect("there are five");
    Err(TemplateError::UnknownVariable { template: template.to_owned(), variable: variable.to_owned(), nearest })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use worker_drain_plan::{NodeName, TaskId};

    use super::Template;
    use crate::identity::{Container, Identity};

    fn identity() -> Identity {
        let container =
            |name: &str, runtime_id: &str| Container { name: name.into(), runtime_id: Some(runtime_id.into()) };
        Identity {
            containers: vec![container("worker", "0af3-1"), container("beat", "0af3-2")],
            host_names: ["ip-10-0-4-168.ec2.internal".into()].into(),
            addresses: ["10.0.4.168".parse().unwrap()].into(),
        }
    }

    #[rstest]
    #[case("worker@{taskId}", &["worker@0af3"])]
    #[case("w-{taskId}@{privateDnsName}", &["w-0af3@ip-10-0-4-168.ec2.internal"])]
    #[case("w-{taskId}", &["celery@w-0af3"])]
    #[case("w@{hostName}", &["w@ip-10-0-4-168"])]
    #[case("celery@{privateIp}", &["celery@10.0.4.168"])]
    #[case("celery@{runtimeId}", &["celery@0af3-1", "celery@0af3-2"])]
    #[case("{containerName}@{runtimeId}", &["beat@0af3-2", "worker@0af3-1"])]
    fn names_are_exact(#[case] template: Template, #[case] expected: &[&str]) {
        let names = template.names(&TaskId::from("arn:aws:ecs:eu-west-1:1:task/media/0af3"), &identity());
        assert_eq!(names.iter().map(NodeName::as_str).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_task_that_has_not_what_is_asked_for_has_no_name() {
        let template: Template = "celery@{privateIp}".parse().unwrap();
        assert!(template.names(&TaskId::from("0af3"), &Identity::default()).is_empty());
    }

    #[test]
    fn the_id_of_a_container_is_what_docker_makes_its_host_name() {
        let container = |name: &str, id: String| Container { name: name.into(), runtime_id: Some(id) };
        let containers = vec![container("a", "4f5c01234567".repeat(5)), container("b", "too-short".into())];
        let identity = Identity { containers, ..Identity::default() };
        let template: Template = "{containerName}@{containerId}".parse().unwrap();
        assert_eq!(template.names(&"t".into(), &identity), ["a@4f5c01234567".into()].into());
    }

    #[rstest]
    #[case("worker@{taskid}", "no variable {taskid}; did you mean {taskId}?")]
    #[case("worker@{privateDNS}", "no variable {privateDNS}; did you mean {privateDnsName}?")]
    #[case("worker@{taskId", "every { needs a } after it")]
    #[case("worker@taskId}", "every { needs a } after it")]
    #[case("worker@host", "names the same node for every task")]
    #[case("worker@%h", "are Celery's")]
    fn what_is_wrong_is_said(#[case] template: &str, #[case] expected: &str) {
        let error = template.parse::<Template>().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
