//! What workers tell of themselves, and what a broker tells of their queues.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::queue::Queue;
use crate::{
    names::{NodeName, QueueName, TaskId},
    skip::is_zero,
};

/// The workers, as they tell of themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkersView {
    /// For every task that was asked about: which nodes are its own.
    pub tasks: BTreeMap<TaskId, Mapping>,
    /// What each node answered. A node of a task that is not here did not answer at all.
    pub nodes: BTreeMap<NodeName, Answer>,
    /// Nodes that answered and belong to no task of this fleet: other fleets on the same broker, or a naming mistake.
    pub unmatched_workers: BTreeSet<NodeName>,
    /// Why a node did not answer, for a person, where more is known than silence.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub silences: BTreeMap<NodeName, String>,
}

/// Which nodes are a task's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mapping {
    /// These; never none.
    Nodes(BTreeSet<NodeName>),
    /// No node that answered can be told to be this task's.
    NotFound {
        /// What was looked for, and the nearest names, for a person.
        hint: String,
    },
    /// It is not known which, or one node could be several tasks'.
    Ambiguous {
        /// Who claims what, for a person.
        why: String,
    },
}

/// What one node answered in one observation. Each part is `None` if that question was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// When the first question was sent.
    pub asked_at: Timestamp,
    /// When the last answer came.
    pub answered_at: Timestamp,
    /// Which start of the worker answered: another text after every restart. `None`: it did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The queues that it was started with, if it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_queues: Option<BTreeSet<QueueName>>,
    /// The queues that it takes jobs from. Asked first: what is active or reserved is then at least as young.
    pub queues: Option<Vec<Queue>>,
    /// Jobs that it has received and not started. Asked before `active`, because jobs move only from here to there.
    pub reserved: Option<Vec<Job>>,
    /// Jobs that run.
    pub active: Option<Vec<Job>>,
    /// Jobs that it holds until a later time.
    pub scheduled: Option<Vec<Job>>,
    /// Jobs that it holds, by its own count, and that are in none of these lists.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unlisted: u32,
    /// How many jobs it has begun since it started, if it says. As long as this stays the same none began, not even one that no
    /// list showed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<u64>,
    /// For how long it had been running when it answered, by its own clock and in whole seconds, if it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_for: Option<SignedDuration>,
    /// For how long its lists must be empty, and no job may begin, before that proves that it holds none: a job that waits
    /// unseen begins within this time.
    #[serde(default, skip_serializing_if = "SignedDuration::is_zero")]
    pub settles_in: SignedDuration,
    /// Which jobs it may hold for any length of time without telling of them, and what would help; for a person. `None`: there
    /// are none such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<String>,
    /// How much its word is worth.
    #[serde(default)]
    pub strength: Strength,
    /// It may be silent for as long as a job runs (Celery: the solo pool, and greenlets that compute without waiting).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub between_jobs: bool,
    /// What it is told while it is silent waits for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hears_later: bool,
}

impl Answer {
    /// Nothing was said yet.
    pub fn new(asked_at: Timestamp, answered_at: Timestamp) -> Self {
        Self {
            asked_at,
            answered_at,
            instance: None,
            own_queues: None,
            queues: None,
            reserved: None,
            active: None,
            scheduled: None,
            unlisted: 0,
            begun: None,
            up_for: None,
            settles_in: SignedDuration::ZERO,
            unseen: None,
            strength: Strength::Lists,
            between_jobs: false,
            hears_later: false,
        }
    }

    /// Every question was answered.
    pub fn is_whole(&self) -> bool {
        self.queues.is_some() && self.active.is_some() && self.reserved.is_some() && self.scheduled.is_some()
    }
}

/// How much the word of a node is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Strength {
    /// It lists jobs, and may hold others.
    #[default]
    Lists,
    /// It accounts for every job that it holds, wherever it keeps it.
    Account,
}

/// What there is of one queue's messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueCount {
    /// When the last of these numbers came.
    pub counted_at: Timestamp,
    /// Messages that wait to be delivered, those that wait for a later time included.
    pub ready: u64,
    /// Messages that were delivered and not acknowledged.
    pub delivered: Delivered,
    /// The broker knows a queue of this name. False: it cannot tell an empty queue from one that never was.
    pub known: bool,
    /// How long it takes until such numbers can be relied on: two observations must be this far apart.
    pub settles_in: SignedDuration,
}

/// What is known of messages that were delivered and not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delivered {
    /// So many, or more than none: the broker counts them.
    Counted(u64),
    /// The broker does not tell. Who takes jobs from the queue may.
    Told {
        /// How many consumers the broker knows.
        consumers: u64,
        /// What the nodes answered that take jobs from it, of this fleet or not; asked after the queue was counted.
        nodes: BTreeMap<NodeName, Answer>,
    },
}

/// A job, without its arguments: those may hold personal data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The job's id.
    pub id: String,
    /// The kind of job (Celery: the task's name).
    pub name: String,
    /// When it began to run.
    pub started_at: Option<Timestamp>,
}
