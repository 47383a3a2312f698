//! The little that cannot be observed later. It is written down before it is needed, and none of it is ever believed
//! against what is seen.

mod foreign;
mod idle;
mod task;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::{
    foreign::{HeldAgain, ReadBack, TakenUp},
    idle::{Counters, IdleRun},
    task::{Leaving, NodeMemory, Permitted, PhaseSince, Retry, SeenHeld, TaskMemory},
};
pub use crate::report::Why;
use crate::{
    actions::Ground,
    names::{QueueName, RevisionId, TaskId},
    observation::FleetView,
    policy::{Gate, Policy},
    report::{Cut, DrainedTo, PastRollout},
    skip::is_zero,
};

/// What is remembered from one reconciliation to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Which revision is current, as far as it is believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<Current>,
    /// The rollout that is going on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Rollouts that ended, the youngest first; at most [`Memory::PAST_ROLLOUTS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<PastRollout>,
    /// The youngest revision to which the fleet was drained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drained_to: Option<DrainedTo>,
    /// The queue gate, while a rollout goes on or somebody waits for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateMemory>,
    /// What deadlines with `PermitStop` have cut, ever.
    pub cut: Cut,
    /// Tasks that were permitted to stop because they were drained, and ended by SIGKILL, ever.
    #[serde(skip_serializing_if = "is_zero")]
    pub killed: u32,
    /// By task. A task is forgotten when it has been seen gone, and nothing counts it any more.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tasks: BTreeMap<TaskId, TaskMemory>,
    /// How many workers of one task were ever seen to answer together, by revision; where it is more than one.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub workers_per_task: BTreeMap<RevisionId, u32>,
    /// The longest that was seen to pass from a task's start to the first answer of its workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slowest_start: Option<SignedDuration>,
    /// These numbers could not be written down beside the fleet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remembering: Option<Retry>,
    /// Since when the fleet cannot be observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fleet_error: Option<ObserveError>,
    /// Since when the workers cannot be observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers_error: Option<ObserveError>,
    /// Since when fewer tasks than the floor asks for are seen consuming.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub short_since: Option<Timestamp>,
    /// How many tasks were wanted: what tells a scale-in from a surplus that has another reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Wanted>,
    /// What the scheduler counts and what it shows cannot both be true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub miscount: Option<Miscount>,
}

impl Memory {
    /// How many rollouts that ended are remembered.
    pub const PAST_ROLLOUTS: usize = 5;

    /// Every task that must be looked for by name, because the fleet's own list may no longer show it.
    pub fn tracked(&self) -> BTreeSet<TaskId> {
        self.tasks.iter().filter(|(_, task)| !task.gone).map(|(id, _)| id.clone()).collect()
    }

    /// The fleet shows an older revision as current, and that is not believed yet.
    pub fn is_turning(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.turning.is_some())
    }

    /// A rollout goes on that is no rollback.
    pub fn is_rolling_forward(&self) -> bool {
        self.rollout.as_ref().is_some_and(|rollout| !rollout.back)
    }

    /// This gate was seen open.
    pub fn has_opened(&self, gate: &Gate) -> bool {
        self.gate.as_ref().is_some_and(|known| known.opened.is_some() && known.queues == gate.queues_empty)
    }

    /// Old tasks keep their queues and stay held. A rollback has no gate: what failed must go at once.
    pub fn is_gate_shut(&self, policy: &Policy) -> bool {
        self.is_rolling_forward() && policy.gate().is_some_and(|gate| !self.has_opened(gate))
    }

    /// How many workers a task of each revision has, as far as the next one to drain the fleet cannot know it otherwise: what the user
    /// says is said to that one too. Nothing of revisions whose tasks have all ended, and nothing when the drain is withdrawn.
    pub fn to_remember(&self, policy: &Policy, fleet: &FleetView) -> BTreeMap<RevisionId, u32> {
        if policy.withdrawn || policy.drain.workers_per_task.is_some() {
            return BTreeMap::new();
        }
        let goes_on = |revision: &RevisionId| {
            let mut of_it = fleet.tasks.values().filter(|task| task.revision == *revision);
            *revision == fleet.current || of_it.any(|task| !task.life.has_ended())
        };
        let known = self.workers_per_task.iter().filter(|(revision, _)| goes_on(revision));
        known.map(|(revision, number)| (revision.clone(), *number)).collect()
    }

    /// Counts what a permit cuts.
    pub fn count_cut(&mut self, ground: &Ground) {
        let Ground::Deadline { jobs } = ground else { return };
        let jobs = jobs.unwrap_or(0);
        self.cut.tasks = self.cut.tasks.saturating_add(1);
        self.cut.jobs = self.cut.jobs.saturating_add(jobs);
        if let Some(rollout) = &mut self.rollout {
            rollout.jobs_cut = rollout.jobs_cut.saturating_add(jobs);
        }
    }
}

/// The revision that is believed to be current.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    /// Which.
    pub revision: RevisionId,
    /// When it was made, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_at: Option<Timestamp>,
    /// An older one is shown as current, and not believed yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turning: Option<Turning>,
}

/// A fleet may have turned back to an older revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turning {
    /// Which.
    pub to: RevisionId,
    /// Since when it is shown.
    pub since: Timestamp,
}

/// A rollout: the time in which tasks of more than one revision exist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The revision that is being rolled out.
    pub to: RevisionId,
    /// When it was first seen.
    pub since: Timestamp,
    /// Whether it goes back to a revision of which tasks were still there.
    #[serde(default)]
    pub back: bool,
    /// Every old task that was seen in it.
    pub old: BTreeSet<TaskId>,
    /// Those of them that were seen to end.
    #[serde(default)]
    pub ended: BTreeSet<TaskId>,
    /// Jobs that were cut because a deadline had passed.
    #[serde(default)]
    pub jobs_cut: u32,
    /// Tasks that ended without our permit (stopped by a person, failed, lost with their machine).
    #[serde(default)]
    pub ended_unpermitted: BTreeSet<TaskId>,
    /// Tasks that were permitted to stop because they were drained, and ended by SIGKILL all the same.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub killed: BTreeSet<TaskId>,
    /// How many old tasks fewer than were wanted the very first observation of the fleet saw: they had ended before that, and
    /// nobody knows how.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unseen: u32,
}

impl Rollout {
    /// One to this revision, first seen now.
    pub fn to(to: RevisionId, now: Timestamp) -> Self {
        Self {
            to,
            since: now,
            back: false,
            old: BTreeSet::new(),
            ended: BTreeSet::new(),
            jobs_cut: 0,
            ended_unpermitted: BTreeSet::new(),
            killed: BTreeSet::new(),
            unseen: 0,
        }
    }
}

/// What is remembered of the queue gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateMemory {
    /// Its queues. A gate of others is another gate.
    pub queues: BTreeSet<QueueName>,
    /// Since when it has been watched.
    pub since: Timestamp,
    /// The unbroken run of observations in which every queue was empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty: Option<IdleRun>,
    /// How far apart the first and the last observation of that run must be.
    #[serde(default)]
    pub apart: SignedDuration,
    /// When it opened. It does not shut again in the same rollout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened: Option<Timestamp>,
}

/// How many tasks of the current revision were wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Which revision was current.
    pub revision: RevisionId,
    /// The most that were wanted since there was last no surplus. Tasks up to this number are too many because fewer are
    /// wanted now; tasks beyond it were started by the scheduler for another reason.
    pub most: u32,
    /// Since when no more tasks live than are wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calm_since: Option<Timestamp>,
}

/// An unbroken run of observations in which what the scheduler counted and what it showed could not both be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Miscount {
    /// When the first of them began.
    pub since: Timestamp,
    /// When the last of them began.
    pub last: Timestamp,
}

impl Miscount {
    /// How long it has been so, as far as it was seen.
    pub fn lasts(&self) -> SignedDuration {
        self.last.duration_since(self.since)
    }
}

/// An outside system cannot be observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObserveError {
    /// When the first attempt failed.
    pub since: Timestamp,
    /// When the last attempt failed.
    pub last: Timestamp,
    /// How many attempts failed, one after another.
    pub times: u32,
}
