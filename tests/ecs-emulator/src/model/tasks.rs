//! The API for tasks.

use super::{ApiError, DesiredStatus, Failure, Operation, ServiceId, StopCause, Task, TaskId, TaskTimer, Time, World};

/// `DescribeTasks` takes, and a page of `ListTasks` has, at most so many tasks.
const MAX_TASKS: usize = 100;

/// What `ListTasks` asks for.
#[derive(Debug, Clone, Default)]
pub struct ListTasks {
    /// Name or ARN of the cluster; empty for `default`.
    pub cluster: String,
    /// Only this service's tasks.
    pub service: Option<String>,
    /// Only tasks of this task definition family.
    pub family: Option<String>,
    /// Only tasks with this `startedBy`.
    pub started_by: Option<String>,
    /// `RUNNING` if absent. `PENDING` is allowed and finds nothing.
    pub desired_status: Option<String>,
    /// Page size, 1 to 100; 100 if absent.
    pub max_results: Option<u32>,
    /// Where the last page ended.
    pub next_token: Option<String>,
}

/// A page of `ListTasks`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskPage {
    /// Their ids.
    pub tasks: Vec<TaskId>,
    /// For the next page, if there is one.
    pub next_token: Option<String>,
}

/// The answer of `DescribeTasks`.
#[derive(Debug, Clone, Default)]
pub struct DescribedTasks {
    /// The tasks that are visible.
    pub tasks: Vec<Task>,
    /// The others, as `MISSING`.
    pub failures: Vec<Failure>,
}

/// What ends a task from below, protected or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interruption {
    /// A Spot interruption.
    Spot,
    /// Retirement of a Fargate host.
    Maintenance,
}

impl World {
    /// `ListTasks`.
    pub fn list_tasks(&mut self, request: &ListTasks, now: Time) -> Result<TaskPage, ApiError> {
        self.call(Operation::ListTasks, now, |world| {
            let cluster = world.state.cluster_name(&request.cluster)?;
            let limit = match request.max_results {
                None => MAX_TASKS,
                Some(limit) if (1..=100).contains(&limit) => limit as usize,
                Some(_) => return Err(ApiError::invalid("maxResults should be between 1 and 100.")),
            };
            let after = match &request.next_token {
                None => None,
                Some(token) => Some(token.parse::<TaskId>().map_err(|_| ApiError::invalid("Invalid token."))?),
            };
            let wanted = match request.desired_status.as_deref() {
                None | Some("RUNNING") => Some(DesiredStatus::Running),
                Some("STOPPED") => Some(DesiredStatus::Stopped),
                Some("PENDING") => None,
                Some(_) => return Err(ApiError::invalid("desiredStatus must be one of RUNNING, PENDING, STOPPED.")),
            };
            let (_, state) = world.view();
            let service = match &request.service {
                None => None,
                Some(name) => {
                    let name = name.rsplit('/').next().unwrap_or(name);
                    Some(state.service(&cluster, name).ok_or_else(ApiError::service_not_found)?.id)
                }
            };
            let fits = |task: &Task| {
                task.cluster == cluster
                    && Some(task.desired) == wanted
                    && (service.is_none() || task.service == service)
                    && request.family.as_ref().is_none_or(|family| task.definition.family == *family)
                    && request
                        .started_by
                        .as_ref()
                        .is_none_or(|by| task.deployment.is_some_and(|deployment| deployment.to_string() == *by))
            };
            let mut page = TaskPage::default();
            let first = after.map_or(0, |after| after.0.saturating_add(1));
            for (id, task) in state.tasks.range(TaskId(first)..) {
                if !fits(task) {
                    continue;
                }
                if page.tasks.len() == limit {
                    page.next_token = page.tasks.last().map(ToString::to_string);
                    break;
                }
                page.tasks.push(*id);
            }
            Ok(page)
        })
    }

    /// `DescribeTasks`, by ids or ARNs.
    pub fn describe_tasks(&mut self, cluster: &str, tasks: &[&str], now: Time) -> Result<DescribedTasks, ApiError> {
        self.call(Operation::DescribeTasks, now, |world| {
            let cluster = world.state.cluster_name(cluster)?;
            if tasks.is_empty() {
                return Err(ApiError::invalid("Tasks cannot be empty."));
            }
            if tasks.len() > MAX_TASKS {
                return Err(ApiError::invalid(format!("Tasks can have at most {MAX_TASKS} items.")));
            }
            let ids = parse(tasks)?;
            let mut answer = DescribedTasks::default();
            let (_, state) = world.view();
            let mut missing = Vec::new();
            for id in ids {
                match state.tasks.get(&id).filter(|task| task.cluster == cluster) {
                    Some(task) => answer.tasks.push(task.clone()),
                    None => missing.push(id),
                }
            }
            for id in missing {
                let arn = world.knobs.task_arn(&cluster, id);
                answer.failures.push(Failure { arn, reason: "MISSING".to_owned(), detail: None });
            }
            Ok(answer)
        })
    }

    /// `StopTask`, which protection does not hinder. A task that is ending already stays as it is.
    pub fn stop_task(&mut self, cluster: &str, task: &str, reason: &str, now: Time) -> Result<Task, ApiError> {
        self.call(Operation::StopTask, now, |world| {
            let cluster = world.state.cluster_name(cluster)?;
            let id = parse(&[task])?[0];
            let Some(task) = world.state.tasks.get(&id).filter(|task| task.cluster == cluster) else {
                return Err(ApiError::invalid("The referenced task was not found."));
            };
            if task.is_live() {
                let reason = if reason.is_empty() { "Task stopped by user" } else { reason };
                world.begin_stop(id, StopCause::User, reason.to_owned());
            }
            Ok(world.state.tasks[&id].clone())
        })
    }

    /// `RunTask`: one standalone task, which no service owns and which cannot be protected.
    pub fn run_task(&mut self, cluster: &str, task_definition: &str, now: Time) -> Result<Task, ApiError> {
        self.call(Operation::RunTask, now, |world| {
            let cluster = world.state.cluster_name(cluster)?;
            let definition = world.state.definition(task_definition)?.clone();
            let id = world.new_task(cluster, definition, 0);
            world.begin(id);
            Ok(world.state.tasks[&id].clone())
        })
    }

    /// Ends a task from below, `notice` from now.
    pub fn interrupt(&mut self, task: TaskId, kind: Interruption, notice: std::time::Duration, now: Time) {
        self.catch_up(now);
        if self.state.tasks.contains_key(&task) {
            self.interruptions.insert(task, kind);
            self.task_at(self.now + notice, task, TaskTimer::Interrupted);
        }
    }

    pub(super) fn interruption_is_due(&mut self, id: TaskId) {
        let Some(kind) = self.interruptions.remove(&id) else { return };
        if !self.state.tasks[&id].is_live() {
            return;
        }
        let (cause, reason) = match kind {
            Interruption::Spot => (StopCause::Spot, "Your Spot Task was interrupted."),
            Interruption::Maintenance => (
                StopCause::Maintenance,
                "ECS is performing maintenance on the underlying infrastructure hosting the task",
            ),
        };
        self.begin_stop(id, cause, reason.to_owned());
    }

    /// Tasks of a service that are not over, as they are now.
    pub fn tasks_of(&self, service: ServiceId) -> impl Iterator<Item = &Task> {
        let tasks = self.state.services.get(service.0).map(|service| service.tasks.iter());
        tasks.into_iter().flatten().filter_map(|id| self.state.tasks.get(id))
    }
}

fn parse(tasks: &[&str]) -> Result<Vec<TaskId>, ApiError> {
    tasks
        .iter()
        .map(|task| task.parse().map_err(|_| ApiError::invalid("taskId length should be one of [32,36]")))
        .collect()
}
