//! What is remembered of one task and of its nodes.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    foreign::{HeldAgain, ReadBack, TakenUp, pause},
    idle::IdleRun,
};
use crate::{
    actions::{Ground, Step},
    names::{NodeName, QueueName},
    observation::{FailureKind, Queue},
    report::{TaskPhase, Why},
    skip::is_zero,
};

/// What is remembered of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskMemory {
    /// Every node that was ever seen to be this task's. One that no longer answers is Unknown, not absent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<NodeName, NodeMemory>,
    /// Why and since when it will leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaving: Option<Leaving>,
    /// The unbroken run of observations in which it was idle with its cancel read back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<IdleRun>,
    /// Its stop was permitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permitted: Option<Permitted>,
    /// Its stop was about to be permitted, and it is not known whether that took effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permitting: Option<Permitted>,
    /// Its stop was permitted before it was wanted again, and since then it was neither seen held nor given work: the
    /// scheduler may have decided to stop it meanwhile, and if it ends now, it ends by that permit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub released: Option<Permitted>,
    /// What was last tried with it, and not done.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub retries: BTreeMap<Step, Retry>,
    /// Where it was in the last report, and since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<PhaseSince>,
    /// We hold it, or were about to.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// It was seen to be held, and that is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_held: Option<SeenHeld>,
    /// How often somebody else released its hold.
    #[serde(skip_serializing_if = "is_zero")]
    pub released_by_others: u32,
    /// It was let go, and somebody else held it again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_again: Option<HeldAgain>,
    /// Since when its scheduler knows it no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_since: Option<Timestamp>,
    /// It was seen to end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
    /// It was permitted to stop because it was drained, and ended by SIGKILL.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub killed: bool,
}

impl TaskMemory {
    /// A worker of it was found before.
    pub fn has_worker(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// The permit by which it ended, now that it has: one of which nobody heard that it took effect is as good as one that did.
    pub fn let_go(&self) -> Option<&Permitted> {
        self.permitted.as_ref().or(self.permitting.as_ref()).or(self.released.as_ref())
    }

    /// It was let go because it was drained.
    pub fn let_go_by_proof(&self) -> bool {
        self.let_go().is_some_and(|permitted| !permitted.by_deadline())
    }

    /// The task will not leave any more: all that was proven or permitted for its leaving is void. That its hold was
    /// released is a fact all the same, until it is held again.
    pub fn stay(&mut self) {
        self.leaving = None;
        self.idle = None;
        self.held_again = None;
        for node in self.nodes.values_mut() {
            (node.read_back, node.taken_up) = (None, None);
        }
        let permitting = self.permitting.take();
        self.released = self.permitted.take().or(permitting).or_else(|| self.released.take());
    }

    /// It may be let go now, as far as others are concerned: if somebody else has held it again since it was, then after a pause.
    pub fn may_be_let_go(&self, now: Timestamp) -> bool {
        self.permitted.is_none() || self.held_again.is_none_or(|again| again.may_be_let_go(now))
    }

    /// Its hold was refused, or cannot be set.
    pub fn refused(&self) -> Option<&Retry> {
        self.retries.get(&Step::Hold).filter(|retry| retry.is_lasting())
    }
}

/// A hold, as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenHeld {
    /// Since when it was read at every observation.
    pub since: Timestamp,
    /// When it would end by itself.
    pub until: Timestamp,
}

/// What is remembered of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeMemory {
    /// Queues that we took from it or are about to, as it reported them before. An undo gives exactly these back. They
    /// stay here afterwards, because some workers forget what was added when they reconnect (celery#10352).
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub taken: BTreeSet<Queue>,
    /// Which start of it answered last, if it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Queues that this start was seen to take jobs from first, or says it was started with: only these are given back. Others it
    /// may have taken up by itself (celery#10348: until 5.6.3 a worker without `-Q` takes jobs after a reconnect from queues that it
    /// only publishes to). Empty: it was never seen to take jobs.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub own: BTreeSet<QueueName>,
    /// Queues that it took jobs from when it last told: while it is silent, it may take jobs from them still. None of one that hears
    /// nothing of what it is told meanwhile.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub consumed: BTreeSet<Queue>,
    /// It may be silent for as long as a job runs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub between_jobs: bool,
    /// That it takes jobs from no queue any more was read back, and this start of it has not taken up any since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_back: Option<ReadBack>,
    /// When queues were last given back to it, or were about to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given_back: Option<Timestamp>,
    /// It took jobs again though we had told it not to, and that was read back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken_up: Option<TakenUp>,
}

impl NodeMemory {
    /// Somebody has it take jobs again and again: when it is told to stop again, if not at once.
    pub fn waits_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.taken_up.as_ref()?.waits_until(now)
    }

    /// Queues that it took jobs from when it last told, or until we told it not to: it may hold jobs from them.
    pub fn may_hold_from(&self) -> impl Iterator<Item = &Queue> {
        self.taken.iter().chain(&self.consumed)
    }

    /// This queue is its own, as far as that is known.
    pub fn owns(&self, queue: &QueueName) -> bool {
        self.own.is_empty() || self.own.contains(queue)
    }
}

/// Why a task will leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// Why.
    pub why: Why,
    /// When that was first seen.
    pub since: Timestamp,
}

/// A permit that was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permitted {
    /// When.
    pub at: Timestamp,
    /// On what ground.
    pub ground: Ground,
}

impl Permitted {
    /// The user's deadline had passed.
    pub fn by_deadline(&self) -> bool {
        matches!(self.ground, Ground::Deadline { .. })
    }
}

/// Something was tried with a task, and was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Why, in the outside's own words.
    pub reason: String,
    /// How it failed. `None`: the outside answered, and refused it for this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<FailureKind>,
    /// When it was first tried so.
    pub since: Timestamp,
    /// When it was last tried.
    pub at: Timestamp,
    /// How often, one after another.
    pub times: u32,
}

impl Retry {
    /// It is no accident: it was refused, or is not allowed, or failed more than once.
    pub fn is_lasting(&self) -> bool {
        self.times > 1 || !self.is_passing()
    }

    /// It has failed so often that a person should know.
    pub fn is_stubborn(&self) -> bool {
        self.times > 2
    }

    /// When a hold that failed so is asked for again: after 15 s, then twice as long each time, up to 4 minutes.
    pub fn next_try(&self) -> Timestamp {
        self.at.saturating_add(pause(self.times)).unwrap_or(Timestamp::MAX)
    }

    /// It may pass by itself: the outside could not be asked.
    pub fn is_passing(&self) -> bool {
        matches!(self.kind, Some(FailureKind::Unreachable | FailureKind::Throttled))
    }
}

/// Where a task is, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseSince {
    /// Where.
    pub phase: TaskPhase,
    /// Since when.
    pub since: Timestamp,
}
