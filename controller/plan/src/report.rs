//! What a person is told. Status, conditions, events, columns and the text of `plan` all render this one report; nobody
//! works out a reason twice.

use std::{collections::BTreeMap, fmt};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    names::{NodeName, RevisionId, TaskId},
    observation::{HoldState, Job},
};

/// What a person is told of one reconciliation.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How people call the fleet, such as `media/transcoder`. Empty if it was never seen.
    pub fleet: String,
    /// What is going on as a whole.
    pub phase: Phase,
    /// Are the fleet and its workers reachable, and is every task mapped?
    pub ready: Verdict,
    /// Is no old task left?
    pub drained: Verdict,
    /// Is something in the way that only a person can fix?
    pub stalled: Verdict,
    /// Is nothing known to be lost in the rollout that goes on, or else in the last one? `None`: the fleet cannot be seen now.
    #[serde(default)]
    pub clean: Option<Verdict>,
    /// The fleet and its workers were both seen.
    #[serde(default)]
    pub is_whole: bool,
    /// Is the queue gate open? `None`: there is none, or nothing waits for it.
    #[serde(default)]
    pub gate: Option<Verdict>,
    /// Nothing is left to do: no task leaves, none gets queues back, and everything could be seen and adds up.
    pub settled: bool,
    /// The same as far as rollouts go: tasks that leave for another reason than a rollout are not waited for.
    #[serde(default)]
    pub rollout_settled: bool,
    /// Tasks of the fleet with which nothing can be done. `None`: every task that the scheduler counts was seen and placed.
    #[serde(default)]
    pub unaccounted: Option<Unaccounted>,
    /// Somebody deleted the fleet in front of us. `None`: nobody did, or nothing of it is remembered.
    #[serde(default)]
    pub deleted: Option<Deleted>,
    /// What withdrawing the drain lets go of, and what it could not give back yet. `None`: the drain is not withdrawn.
    #[serde(default)]
    pub withdrawal: Option<Withdrawal>,
    /// The revision that is current, as far as it is believed. `None`: the fleet was never seen, or cannot be seen now.
    #[serde(default)]
    pub current: Option<CurrentRevision>,
    /// The youngest revision of which it was seen that no task of another one is left.
    #[serde(default)]
    pub drained_to: Option<DrainedTo>,
    /// The rollout that is going on.
    pub rollout: Option<RolloutReport>,
    /// Rollouts that ended, the youngest first.
    pub past: Vec<PastRollout>,
    /// What deadlines with `PermitStop` have cut, ever, in rollouts and scale-ins.
    pub cut: Cut,
    /// What was killed though it was permitted to stop because it was drained, ever, in rollouts and scale-ins.
    pub killed: Killed,
    /// How many tasks are where.
    pub counts: Counts,
    /// Every task, the most interesting first: leaving before staying, with problems before without.
    pub tasks: Vec<TaskReport>,
    /// What holds the drain up, in a few words for a column. Empty if nothing does.
    pub blocked_by: String,
    /// Nodes that answered and belong to no task of this fleet.
    pub unmatched_workers: Vec<NodeName>,
    /// Advice that is neither a failure nor a reason to wait.
    pub notes: Vec<String>,
}

/// Tasks of the fleet that could not be placed, or that its scheduler counts and does not show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unaccounted {
    /// Those that are shown and cannot be placed.
    pub tasks: Vec<TaskId>,
    /// How many tasks run or are about to and were placed.
    pub placed: u32,
    /// How many the scheduler counts that run or are about to, if it tells.
    pub counted: Option<u32>,
    /// It is no answer from the past.
    pub certain: bool,
    /// Nothing is left to do with the tasks that were placed.
    pub rest_settled: bool,
    /// All of it for a person, with what would help.
    pub message: String,
}

/// A fleet that was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// Tasks that ran and ended with it, and that we had not permitted to stop.
    pub unpermitted: Vec<TaskId>,
    /// All of it for a person, with what would help.
    pub message: String,
}

/// A drain that is withdrawn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawal {
    /// What nobody keeps the scheduler from stopping any more.
    pub exposed: Exposed,
    /// What was not given back or released yet, for a person.
    pub left: String,
}

/// Tasks that the scheduler may stop in the middle of their jobs, because nothing holds them any more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposed {
    /// Old tasks that may have jobs, and how many run or wait in each; `None`: it does not answer.
    pub old: BTreeMap<TaskId, Option<u32>>,
    /// How many more tasks of the current revision there are than wanted, if one of them may have jobs.
    pub surplus: u32,
}

/// What is going on as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The fleet or its workers were never seen, or cannot be seen now.
    Unknown,
    /// One revision, and as many tasks as wanted.
    Steady,
    /// Old tasks are being drained.
    Draining,
    /// The fleet went back to a revision of which tasks were still there: those get their queues back, and those of the
    /// failed revision are drained.
    RollingBack,
    /// Tasks of the current revision are being drained because fewer are wanted than there were.
    ScalingIn,
    /// Tasks of the current revision are being drained because the scheduler replaces them: it empties their machine, finds
    /// them unhealthy, or moves tasks to another zone.
    Replacing,
    /// The user paused the drain.
    Paused,
    /// Queues are being given back and holds released, because the drain is withdrawn.
    Withdrawing,
    /// They have been: nothing of ours is left.
    Withdrawn,
}

/// An answer to one question, with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Yes, no, or it is not known.
    pub answer: Option<bool>,
    /// Why, as one documented word.
    pub reason: Reason,
    /// Why, for a person: who blocks, since when, what would unblock it. At most three names, then a count.
    pub message: String,
}

/// Why a [`Verdict`] is what it is. These words are API: they are documented in docs/conditions.md and do not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// All is well: everything is reachable and every task is mapped.
    AllSeen,
    /// The scheduler could not be reached.
    FleetUnreachable,
    /// The scheduler told us to slow down.
    FleetThrottled,
    /// The scheduler does not let us in.
    FleetDenied,
    /// The scheduler does not know the fleet.
    FleetNotFound,
    /// The fleet cannot be drained as the specification says, such as one that another system deploys.
    FleetInvalid,
    /// The broker, or whatever the workers are asked through, could not be reached.
    WorkersUnreachable,
    /// The broker does not let us in.
    WorkersDenied,
    /// What the workers are asked through cannot be used as the specification says.
    WorkersInvalid,
    /// What is tried with a task is refused again and again.
    ActionRefused,
    /// A task's node cannot be found, or one node could be several tasks'.
    Unmapped,
    /// The scheduler lists tasks that cannot be placed, or counts more or fewer than it shows.
    Unaccounted,
    /// A task that may be stopped at any moment could not be held.
    AtRisk,
    /// No old task is left.
    NoOldTasks,
    /// Nothing is known to be lost.
    NothingLost,
    /// A deadline has cut jobs.
    JobsCut,
    /// Old tasks ended without our permit.
    EndedUnpermitted,
    /// Old tasks were drained and permitted to stop, and ended by SIGKILL.
    Killed,
    /// Every old task runs jobs or waits for one to end.
    JobsRunning,
    /// A node of an old task does not answer.
    NodeSilent,
    /// Old tasks keep their queues until more tasks are seen consuming.
    WaitingForCapacity,
    /// The queues of the gate were seen empty, twice.
    QueuesEmpty,
    /// Old tasks keep their queues until those of the gate are empty.
    QueuesNotEmpty,
    /// A queue of the gate could not be counted: it is not known to be empty.
    QueuesUnknown,
    /// A queue of the gate cannot be counted before a person fixes something.
    QueuesInvalid,
    /// Old tasks are being told to stop taking jobs, or were permitted to stop and have not ended yet.
    InProgress,
    /// The deadline of a task has passed and it is still held.
    DeadlineExceeded,
    /// The user paused the drain.
    Paused,
    /// Nothing is done because the specification's mode is `Plan`.
    PlanOnly,
    /// Nothing is in the way that only a person can fix.
    NotStalled,
    /// The floor and the scheduler's own limits leave no step at all.
    NoRoom,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The revision that is current.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentRevision {
    /// Which.
    pub id: RevisionId,
    /// How people call it.
    pub label: String,
    /// When it was made, if that is known.
    pub since: Option<Timestamp>,
}

/// A revision to which the fleet was drained: no task of another one was left, and every task was accounted for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainedTo {
    /// Which.
    pub id: RevisionId,
    /// How people call it.
    pub label: String,
    /// When its rollout ended, or when it was first seen without one.
    pub at: Timestamp,
    /// How its rollout ended. `None`: no task of another revision was ever seen beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<RolloutOutcome>,
}

/// The rollout that is going on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutReport {
    /// The revision that is being rolled out.
    pub to: RevisionId,
    /// How people call it.
    pub label: String,
    /// When it was first seen.
    pub since: Timestamp,
    /// Old tasks that were seen in it.
    pub old: u32,
    /// Those of them that have ended.
    pub ended: u32,
    /// Jobs that were cut because a deadline had passed.
    pub jobs_cut: u32,
}

/// A rollout that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastRollout {
    /// The revision that was rolled out.
    pub to: RevisionId,
    /// How people call it.
    pub label: String,
    /// When it was first seen.
    pub since: Timestamp,
    /// When no old task was left.
    pub until: Timestamp,
    /// How many old tasks there were.
    pub tasks: u32,
    /// How it ended.
    pub outcome: RolloutOutcome,
    /// Jobs that were cut because a deadline had passed.
    pub jobs_cut: u32,
    /// Old tasks that ended without our permit, those included that had ended before the fleet was ever observed.
    pub ended_unpermitted: u32,
    /// Those of them that had ended before the fleet was ever observed.
    #[serde(default)]
    pub unseen: u32,
    /// Old tasks that were permitted to stop because they were drained, and ended by SIGKILL.
    #[serde(default)]
    pub killed: u32,
}

/// How a rollout ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RolloutOutcome {
    /// Every old task ended after its jobs did.
    Drained,
    /// The fleet went back, and every task of the failed revision ended after its jobs did.
    RolledBack,
    /// Jobs were cut because a deadline had passed.
    JobsCut,
    /// Every old task is gone, and one or more ended without our permit.
    EndedUnpermitted,
    /// Every old task is gone, and one or more ended by SIGKILL after they were permitted to stop because they were drained.
    Killed,
}

/// What was cut because a deadline had passed and the user had said `PermitStop`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// Tasks that were permitted to stop so.
    pub tasks: u32,
    /// Jobs that were last seen in them; more, if one of them did not answer.
    pub jobs: u32,
}

/// Tasks that were permitted to stop because they were drained, and ended by SIGKILL (exit code 137) all the same: their
/// workers did not end when they were asked to, or had got work that outlasted the time that they had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Killed {
    /// How many, ever.
    pub total: u32,
    /// Those of them that are still remembered.
    pub tasks: Vec<TaskId>,
}

/// How many tasks are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Wanted by the scheduler.
    pub desired: u32,
    /// Starting or running, of every revision.
    pub live: u32,
    /// Of those, of an old revision.
    pub old: u32,
    /// Seen consuming.
    pub consuming: u32,
    /// The floor: how many must be seen consuming before another consumer is cancelled.
    pub floor: u32,
    /// Held, as read back.
    pub held: u32,
    /// Of the current revision, running, and not held though they should be: another deployment may stop them at once.
    pub unheld: u32,
    /// Leaving, with jobs.
    pub busy: u32,
    /// Running and without an answer, or unmapped.
    pub unknown: u32,
    /// Leaving, and permitted to stop.
    pub permitted: u32,
    /// Jobs that were seen running or reserved on leaving tasks.
    pub jobs: u32,
}

/// What a person is told of one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// Which.
    pub task: TaskId,
    /// How people call its revision.
    pub revision: String,
    /// Why it leaves, if it does.
    pub leaving: Option<Why>,
    /// Where it is.
    pub phase: TaskPhase,
    /// Since when.
    pub since: Timestamp,
    /// Its nodes, in order of their names.
    pub nodes: Vec<NodeReport>,
    /// Jobs that run in it, wait in it, and are scheduled in it. `None`: it did not answer.
    pub jobs: Option<JobCounts>,
    /// The running job that began first.
    pub oldest_job: Option<Job>,
    /// What keeps the scheduler from stopping it.
    pub hold: HoldState,
    /// Why its hold was refused, in the scheduler's own word, if it was.
    pub hold_refused: Option<String>,
    /// What it waits for and what would help, for a person; one sentence. Empty if for nothing.
    pub waiting_for: String,
}

/// What a person is told of one node of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Which.
    pub name: NodeName,
    /// What its word is worth. `None`: its task has ended, and nobody asks it any more.
    pub worth: Option<Worth>,
    /// What its word does not tell, and what would help, or why it says nothing; for a person. Empty if it tells all that it can.
    pub doubt: String,
}

/// What the word of a node is worth as a proof that it holds no job; the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Worth {
    /// It says nothing.
    None,
    /// It may hold jobs for any length of time without telling of them: it is never taken for idle.
    Incomplete,
    /// It lists jobs. Those that it may hold besides show when they begin, and that is waited for.
    Lists,
    /// It accounts for every job that it holds.
    Account,
}

impl fmt::Display for Worth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Incomplete => "incomplete",
            Self::Lists => "lists",
            Self::Account => "account",
        })
    }
}

/// How many jobs a task has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCounts {
    /// They run.
    pub active: u32,
    /// They were received and wait in the worker.
    pub reserved: u32,
    /// They are held until a later time.
    pub scheduled: u32,
}

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaskPhase {
    /// It may be stopped at any moment: it leaves, and its hold was refused.
    AtRisk,
    /// Nobody can tell which node is its own.
    Unmapped,
    /// A node of it does not answer, or not fully.
    Unknown,
    /// It will leave, and its deadline has passed; it is held.
    Overdue,
    /// It will leave, is held, and keeps its queues for now.
    Held,
    /// It is being told to stop taking jobs.
    Cancelling,
    /// It will leave, takes no jobs, and has some.
    Busy,
    /// It will leave, takes no jobs, and has none; proof is being gathered.
    Idle,
    /// Its hold is released; the scheduler may stop it.
    Permitted,
    /// It is being stopped.
    Stopping,
    /// It gets back queues that were taken from it.
    Restoring,
    /// It does not run yet, or its worker has just been started.
    Starting,
    /// It stays, and takes jobs.
    Serving,
    /// It has ended.
    Stopped,
}

impl fmt::Display for TaskPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::AtRisk => "at risk",
            Self::Unmapped => "unmapped",
            Self::Unknown => "unknown",
            Self::Overdue => "overdue",
            Self::Held => "held",
            Self::Cancelling => "cancelling",
            Self::Busy => "busy",
            Self::Idle => "idle",
            Self::Permitted => "permitted",
            Self::Stopping => "stopping",
            Self::Restoring => "restoring",
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Stopped => "stopped",
        })
    }
}

/// Why a task will leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// Its revision is old.
    Rollout,
    /// The fleet wants fewer tasks than it had, and this one was chosen.
    ScaleIn,
    /// Its scheduler replaces it by another task of the same revision.
    Replaced,
}
