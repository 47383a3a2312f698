//! A task, as ECS has it.

use std::net::Ipv4Addr;

use ecs_emulator::model::{ContainerState, DesiredStatus, LastStatus, Stop, Task, TaskId};

/// What matters of a task.
#[derive(Clone, Debug)]
pub struct TaskView {
    /// Its id.
    pub id: TaskId,
    /// The revision of the task definition that it runs.
    pub revision: u32,
    /// What ECS wants of it.
    pub desired: DesiredStatus,
    /// Where it is in its life.
    pub last: LastStatus,
    /// It counts as healthy.
    pub is_healthy: bool,
    /// It is protected from scale-in.
    pub is_held: bool,
    /// How its worker ended; 137 is SIGKILL.
    pub exit: Option<i32>,
    /// Why it was stopped.
    pub stop: Option<Stop>,
    /// Its private address.
    pub address: Ipv4Addr,
}

impl TaskView {
    pub(crate) fn of(task: &Task) -> Self {
        Self {
            id: task.id,
            revision: task.definition.revision,
            desired: task.desired,
            last: task.last,
            is_healthy: task.healthy,
            is_held: task.protected_until.is_some(),
            exit: task.containers.iter().find_map(|container| match container {
                ContainerState::Exited(code) => *code,
                _ => None,
            }),
            stop: task.stop.clone(),
            address: task.address,
        }
    }

    /// ECS wants it to run.
    pub fn is_live(&self) -> bool {
        self.desired == DesiredStatus::Running
    }

    /// It has ended.
    pub fn is_over(&self) -> bool {
        self.last == LastStatus::Stopped
    }

    /// The name of its Celery node.
    pub fn node(&self) -> String {
        format!("worker@{}", self.id)
    }
}
