//! What will be done, and what became of it.

use std::{collections::BTreeSet, fmt};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::{
    names::{NodeName, QueueName, TaskId},
    observation::{Failure, Queue},
};

/// One step. Whoever takes it makes no choices, and taking it twice does no harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Keep the scheduler from stopping this task, for this long from now.
    Hold {
        /// Which.
        task: TaskId,
        /// How long from now; whole minutes.
        lasting: SignedDuration,
    },
    /// Tell a node to stop taking jobs from these queues.
    Cancel {
        /// Whose node.
        task: TaskId,
        /// Which.
        node: NodeName,
        /// From what.
        queues: Vec<QueueName>,
    },
    /// Undo: tell a node to take jobs from these queues again.
    GiveBack {
        /// Whose node.
        task: TaskId,
        /// Which.
        node: NodeName,
        /// From what, with what is needed to consume from it as before.
        queues: Vec<Queue>,
    },
    /// Permit the stop of a task that is drained, or whose deadline has passed: release its hold.
    Permit {
        /// Which.
        task: TaskId,
        /// On what ground.
        ground: Ground,
    },
    /// Hand a task that stays back to its scheduler: release a hold that the specification no longer wants.
    Release {
        /// Which.
        task: TaskId,
    },
}

/// What is done with a task, whatever the particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Step {
    /// See [`Action::Hold`].
    Hold,
    /// See [`Action::Cancel`].
    Cancel,
    /// See [`Action::GiveBack`].
    GiveBack,
    /// See [`Action::Permit`].
    Permit,
    /// See [`Action::Release`].
    Release,
}

/// What will be done with which task, in the same reconciliation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps(BTreeSet<(Step, TaskId)>);

impl Steps {
    /// Of these actions.
    pub fn of(actions: &[Action]) -> Self {
        Self(actions.iter().map(|action| (action.step(), action.task().clone())).collect())
    }

    /// This will be done with that task.
    pub fn contains(&self, step: Step, task: &TaskId) -> bool {
        self.0.contains(&(step, task.clone()))
    }
}

/// On what ground a stop is permitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ground {
    /// Every node was read back as cancelled and was seen idle, twice and far enough apart.
    Drained,
    /// The deadline that the user set has passed, and the user said `PermitStop`.
    Deadline {
        /// Jobs that were last seen running or waiting in the task, and will be cut. `None`: the task did not answer.
        jobs: Option<u32>,
    },
}

impl Action {
    /// What it does.
    pub fn step(&self) -> Step {
        match self {
            Self::Hold { .. } => Step::Hold,
            Self::Cancel { .. } => Step::Cancel,
            Self::GiveBack { .. } => Step::GiveBack,
            Self::Permit { .. } => Step::Permit,
            Self::Release { .. } => Step::Release,
        }
    }

    /// The task that it is about.
    pub fn task(&self) -> &TaskId {
        match self {
            Self::Hold { task, .. }
            | Self::Cancel { task, .. }
            | Self::GiveBack { task, .. }
            | Self::Permit { task, .. }
            | Self::Release { task } => task,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hold { task, lasting } => write!(f, "hold task {} for {lasting:#}", task.short()),
            Self::Cancel { node, queues, .. } => write!(f, "cancel {} on {node}", list(queues.iter())),
            Self::GiveBack { node, queues, .. } => {
                write!(f, "give {} back to {node}", list(queues.iter().map(|queue| &queue.name)))
            }
            Self::Permit { task, ground: Ground::Drained } => {
                write!(f, "permit task {} to stop: drained", task.short())
            }
            Self::Permit { task, ground: Ground::Deadline { jobs: Some(jobs) } } => {
                write!(
                    f,
                    "permit task {} to stop: deadline passed, {jobs} {} cut",
                    task.short(),
                    if *jobs == 1 { "job" } else { "jobs" }
                )
            }
            Self::Permit { task, ground: Ground::Deadline { jobs: None } } => {
                write!(f, "permit task {} to stop: deadline passed, jobs unknown", task.short())
            }
            Self::Release { task } => write!(f, "release the hold of task {}", task.short()),
        }
    }
}

fn list<T: fmt::Display>(items: impl Iterator<Item = T>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// What became of one action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was accepted. Whether it took effect is for the next observation to tell.
    Done,
    /// The outside answered, and refused this one (ECS: an entry in `failures` of a 200, or no entry at all).
    Refused {
        /// The outside's own word, such as `DEPLOYMENT_BLOCKED`.
        reason: String,
    },
    /// It could not be asked, or failed as a whole. It may have taken effect all the same.
    Failed(Failure),
    /// It was not tried, because the plan had grown too old to act on.
    Stale,
}
