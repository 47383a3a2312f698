//! What was seen in one observation. Every part is a value or a failure, with its time: a failure is an observation too.

mod queue;
mod workers;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::{
    queue::{Binding, Queue},
    workers::{Answer, Delivered, Job, Mapping, QueueCount, Strength, WorkersView},
};
use crate::names::{QueueName, RevisionId, TaskId};

/// All that one observation saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The fleet, from its scheduler.
    pub fleet: Seen<FleetView>,
    /// The workers, from themselves.
    pub workers: Seen<WorkersView>,
    /// The queues of a gate that is shut, each counted before the workers were asked. `None`: there was no need to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<BTreeMap<QueueName, Seen<QueueCount>>>,
}

/// A value that was seen, or the failure to see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seen<T> {
    /// It was seen.
    Ok {
        /// What was seen.
        value: T,
        /// When the observation began: what happened later may be missing from it.
        at: Timestamp,
    },
    /// It could not be seen.
    Err {
        /// Why not.
        failure: Failure,
        /// When the attempt ended.
        at: Timestamp,
    },
}

impl<T> Seen<T> {
    /// The value, if it was seen.
    pub fn ok(&self) -> Option<&T> {
        match self {
            Self::Ok { value, .. } => Some(value),
            Self::Err { .. } => None,
        }
    }

    /// When.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Ok { at, .. } | Self::Err { at, .. } => *at,
        }
    }
}

/// Why something outside could not be asked, or refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What sort of failure; it decides reason and back-off.
    pub kind: FailureKind,
    /// For a person: what was tried, what came back, what would be right. Never a secret.
    pub message: String,
}

impl Failure {
    /// A failure of this kind, told in these words.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// What sort of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FailureKind {
    /// No answer, or the connection failed: waiting may help.
    Unreachable,
    /// We asked too often.
    Throttled,
    /// We are not allowed to: a person must grant it.
    Denied,
    /// The thing that the specification names does not exist: a person must create it, or fix the name.
    NotFound,
    /// The specification cannot be carried out as it is: a person must fix it.
    Invalid,
}

/// The fleet, as its scheduler tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetView {
    /// How people call it, such as `media/transcoder`.
    pub name: String,
    /// When it was made, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_at: Option<Timestamp>,
    /// How many tasks there should be.
    pub desired: u32,
    /// The scheduler's own floor in a rollout, in percent of `desired`.
    pub minimum_healthy_percent: u32,
    /// The scheduler's own ceiling in a rollout, in percent of `desired`.
    pub maximum_percent: u32,
    /// The revision that is being rolled out or is in place. Tasks of every other revision are old.
    pub current: RevisionId,
    /// Every revision that the fleet or one of its tasks names.
    pub revisions: BTreeMap<RevisionId, Revision>,
    /// All tasks that the scheduler tells of, and all that it was asked for by name.
    pub tasks: BTreeMap<TaskId, Task>,
    /// The longest hold that the scheduler grants (ECS: 48 h).
    pub longest_hold: SignedDuration,
    /// Tasks that the scheduler lists for this fleet and that cannot be placed: it is not known which revision they are of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unplaced: BTreeMap<TaskId, Unplaced>,
    /// The scheduler moves tasks from zones with many to zones with few: it starts one there, and then stops one here.
    #[serde(default)]
    pub balances_zones: bool,
    /// What could not be read this time and is not needed to keep jobs safe, with what would help, for a person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
    /// What the scheduler itself counts. `None`: it does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<Counted>,
    /// The scheduler has not brought the current revision into place yet, and may still give it up and go back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_rolling_out: bool,
    /// The scheduler knows the fleet no more: somebody deleted it. Then none of its tasks lives, nothing is `desired`, and `current`
    /// says nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_deleted: bool,
    /// What was written down beside the fleet by whoever drained it last, for those who come with an empty memory. `None`: nothing can
    /// be written there, or it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remembered: Option<Remembered>,
}

/// What is written down beside a fleet, where the next one to drain it finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// How many workers a task has, by revision; where it is more than one.
    pub workers_per_task: BTreeMap<RevisionId, u32>,
    /// It says more than that, such as the number of a revision that is gone.
    pub is_outdated: bool,
    /// All of it as it is written, which the fleet alone reads. `None`: nothing is.
    pub written: Option<String>,
}

impl Remembered {
    /// It says these numbers and no more.
    pub fn says(&self, workers_per_task: &BTreeMap<RevisionId, u32>) -> bool {
        !self.is_outdated && self.workers_per_task == *workers_per_task
    }
}

/// A task of the fleet that cannot be placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unplaced {
    /// Where in its life it is.
    pub life: Life,
    /// Why it cannot be placed and what would help, for a person.
    pub why: String,
}

/// How many tasks of a fleet its scheduler counts, apart from those that it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// They run.
    pub running: u32,
    /// They do not run yet.
    pub starting: u32,
    /// They are being stopped and are not shown otherwise. Whether `running` has them too is not known, so this is looked for
    /// only where more tasks are counted than shown.
    #[serde(default)]
    pub stopping: u32,
}

/// What a scheduler counts and what it shows cannot both be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discrepancy {
    /// So many tasks are counted: running, or about to.
    pub counted: u32,
    /// So many are shown, whether they can be placed or not.
    pub shown: u32,
}

impl FleetView {
    /// A fleet that somebody deleted. `tasks` are those of it that are remembered; none of them lives.
    pub fn deleted(
        name: String,
        revisions: BTreeMap<RevisionId, Revision>,
        tasks: BTreeMap<TaskId, Task>,
        longest_hold: SignedDuration,
    ) -> Self {
        Self {
            name,
            made_at: None,
            desired: 0,
            minimum_healthy_percent: 0,
            maximum_percent: 100,
            current: RevisionId::default(),
            revisions,
            tasks,
            longest_hold,
            unplaced: BTreeMap::new(),
            balances_zones: false,
            unread: Vec::new(),
            counted: None,
            is_rolling_out: false,
            is_deleted: true,
            remembered: None,
        }
    }

    /// The task is of another revision than the current one. Of a task that the scheduler knows no more it does not tell
    /// the revision, either: such a task is not said to be old.
    pub fn is_old(&self, task: &Task) -> bool {
        task.life != Life::Missing && task.revision != self.current
    }

    /// What the scheduler counts and what it shows, if the two cannot both be true.
    ///
    /// The two are asked for one after the other. So a task that is starting may be counted as running or not at all, and one
    /// that is being stopped may be counted still.
    pub fn discrepancy(&self) -> Option<Discrepancy> {
        let counted = self.counted?;
        let lives = || self.tasks.values().map(|task| &task.life).chain(self.unplaced.values().map(|task| &task.life));
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let running = number(lives().filter(|life| **life == Life::Running).count());
        let shown = number(lives().filter(|life| life.is_live()).count());
        let stopping = number(lives().filter(|life| **life == Life::Stopping).count()).saturating_add(counted.stopping);
        let all = counted.running.saturating_add(counted.starting);
        let adds_up = running <= all && all <= shown.saturating_add(stopping);
        (!adds_up).then_some(Discrepancy { counted: all, shown })
    }

    /// How people call a revision.
    pub fn label(&self, revision: &RevisionId) -> String {
        self.revisions.get(revision).map_or_else(|| revision.to_string(), |known| known.label.clone())
    }
}

/// One revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// How people call it (ECS: `transcoder:42`). Two revisions may share it.
    pub label: String,
    /// When it was deployed, if that is known.
    pub created_at: Option<Timestamp>,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// What it was started for. Empty if its scheduler knows it no more.
    pub revision: RevisionId,
    /// Where in its life it is.
    pub life: Life,
    /// When its containers ran, if they do.
    pub started_at: Option<Timestamp>,
    /// What keeps the scheduler from stopping it.
    pub hold: HoldState,
    /// Whether its scheduler wants another task in its place, whatever its revision.
    #[serde(default)]
    pub displaced: Displaced,
    /// Which of the places it is in among which its scheduler spreads the fleet, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Those of its parts that run one and the same program, by name, where there are several (ECS: containers of one image). If one
    /// of them is a worker, the others may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alike: Vec<String>,
}

/// Whether a task's scheduler wants another one in its place. Such a task may be ended whether it is held or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Displaced {
    /// Not as far as is known.
    #[default]
    No,
    /// It could not be read this time.
    Unread,
    /// The machine that it runs on is being emptied.
    MachineLeaves,
    /// Its scheduler finds it unhealthy.
    Unhealthy,
}

impl Displaced {
    /// It is known to be wanted gone.
    pub fn is_certain(self) -> bool {
        matches!(self, Self::MachineLeaves | Self::Unhealthy)
    }
}

/// Where in its life a task is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// It does not run yet.
    Starting,
    /// It runs.
    Running,
    /// The scheduler has decided to stop it (ECS: `desiredStatus` is `STOPPED`).
    Stopping,
    /// It has ended.
    Stopped {
        /// The scheduler's own words.
        reason: String,
        /// What the worker's container exited with, if it is known. 137 is SIGKILL.
        exit_code: Option<i32>,
    },
    /// The scheduler was asked for it by name and knows it no more.
    Missing,
}

impl Life {
    /// It runs or is about to.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Starting | Self::Running)
    }

    /// It has ended, as far as its scheduler tells.
    pub fn has_ended(&self) -> bool {
        matches!(self, Self::Stopped { .. } | Self::Missing)
    }
}

impl Task {
    /// It runs, and was read to be held by nothing.
    pub fn runs_unheld(&self) -> bool {
        self.life == Life::Running && self.hold == HoldState::Free
    }
}

/// What keeps the scheduler from stopping a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldState {
    /// It could not be read this time.
    Unread,
    /// Nothing.
    Free,
    /// A hold that ends by itself at this time.
    Until(Timestamp),
}
