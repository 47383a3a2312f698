//! The little that cannot be observed later. It is written down before it is needed, and none of it is ever believed
//! against what is seen.

mod idle;

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::idle::{Counters, IdleRun};
pub use crate::report::Why;
use crate::{
    actions::{Ground, Step},
    names::{NodeName, QueueName, RevisionId, TaskId},
    observation::{FailureKind, FleetView, Queue},
    policy::{Gate, Policy},
    report::{Cut, PastRollout, TaskPhase},
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
    /// The queue gate, while a rollout goes on or somebody waits for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateMemory>,
    /// What deadlines with `PermitStop` have cut, ever.
    pub cut: Cut,
    /// Tasks that were permitted to stop because they were drained, and ended by SIGKILL, ever.
    #[serde(skip_serializing_if = "is_none")]
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
    #[serde(default, skip_serializing_if = "is_none")]
    pub unseen: u32,
}

/// Whether there are none of these.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn is_none(count: &u32) -> bool {
    *count == 0
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
    #[serde(skip_serializing_if = "is_none")]
    pub released_by_others: u32,
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
        let permitting = self.permitting.take();
        self.released = self.permitted.take().or(permitting).or_else(|| self.released.take());
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
    /// It was read for so long that no answer shows what was before it.
    pub is_certain: bool,
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
    /// Queues that it took jobs from when it last told: while it is silent, it may take jobs from them still.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub consumed: BTreeSet<Queue>,
    /// It may be silent for as long as a job runs.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub between_jobs: bool,
}

impl NodeMemory {
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
        let wait = SignedDuration::from_secs(15 << self.times.saturating_sub(1).min(4));
        self.at.saturating_add(wait).unwrap_or(Timestamp::MAX)
    }

    /// It may pass by itself: the outside could not be asked.
    pub fn is_passing(&self) -> bool {
        matches!(self.kind, Some(FailureKind::Unreachable | FailureKind::Throttled))
    }
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

/// Where a task is, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseSince {
    /// Where.
    pub phase: TaskPhase,
    /// Since when.
    pub since: Timestamp,
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
