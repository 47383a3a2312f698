//! What the answers of a task's nodes prove, and what they do not. Nowhere else is an answer judged.
//!
//! Silence is [`Work::Unknown`] and [`Intake::Unknown`], never idle: a frozen worker, a dead one, one that reconnects
//! and one behind a broken network all look the same. One node that is unknown makes its task unknown, unless another
//! node proves work or intake: those need one witness, idleness needs all.

pub mod queues;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::{
    memory::{Counters, Memory, NodeMemory, TaskMemory},
    names::{NodeName, TaskId},
    observation::{Answer, FleetView, Job, Mapping, Queue, Task, WorkersView},
    policy::{DrainPolicy, Scheduled},
    report::JobCounts,
};

/// An answer older than this proves nothing about now. Longer than any observation may take, far shorter than the time in
/// which a person would expect a decision to be stale.
pub const FRESH_FOR: SignedDuration = SignedDuration::from_secs(15);

/// The scheduler's answers are no older than this: its API is eventually consistent (Amazon ECS API Reference), so an answer
/// may tell what was true some seconds ago. Longer than any answer was seen to lag; short beside the time in which new tasks
/// of a rollback come up.
pub const MAX_ANSWER_LAG: SignedDuration = SignedDuration::from_secs(10);

/// So much may our clock and the scheduler's be apart. A hold that is longer than it should be by less was not set by somebody else, and
/// one that would have ended by itself within this time may have done so.
pub const CLOCKS_APART: SignedDuration = SignedDuration::from_mins(5);

/// Does the task take jobs?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// At least one node takes jobs from at least one queue.
    Consuming,
    /// Every node answered that it takes jobs from no queue.
    Cancelled,
    /// It is not known.
    Unknown,
}

/// Has the task jobs?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// At least one node runs or holds a job.
    Busy,
    /// Every node answered every question, and has none that it tells of.
    Idle,
    /// It is not known.
    Unknown,
}

/// Which nodes are the task's own?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// It is known.
    Yes,
    /// None was ever found. The text says what was looked for.
    No(String),
    /// It is not known which. The text says who claims what.
    Ambiguous(String),
}

/// What is proven of one task by one observation.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// Does it take jobs?
    pub intake: Intake,
    /// Has it jobs?
    pub work: Work,
    /// Are its nodes known?
    pub mapped: Mapped,
    /// Its nodes, with what each of them answered, if it did and the answer is fresh.
    pub nodes: BTreeMap<NodeName, Option<&'a Answer>>,
    /// When the first question to any of its nodes was sent, and when the last answer came; `None` if nothing came.
    pub span: Option<(Timestamp, Timestamp)>,
    /// How many of its workers are not known yet.
    pub unknown_workers: u32,
    /// Why nodes of it are silent, where more is known than that.
    pub silences: BTreeMap<NodeName, &'a str>,
}

impl<'a> Evidence<'a> {
    /// Judges what the nodes of `task` answered, of which there are `expected` or more. `workers` is `None` if nobody could be
    /// asked.
    pub fn of(
        task: &TaskId,
        memory: &TaskMemory,
        workers: Option<&'a WorkersView>,
        (expected, scheduled): (u32, Scheduled),
        now: Timestamp,
    ) -> Self {
        let mapping = workers.and_then(|workers| workers.tasks.get(task));
        // A node that was this task's once is still waited for: that it is silent now does not make it absent.
        let mut names: Vec<&NodeName> = memory.nodes.keys().collect();
        if let Some(Mapping::Nodes(found)) = mapping {
            names.extend(found);
        }
        let nodes: BTreeMap<NodeName, Option<&Answer>> = names
            .into_iter()
            .map(|name| (name.clone(), workers.and_then(|workers| workers.nodes.get(name)).filter(|a| fresh(a, now))))
            .collect();
        let mapped = match mapping {
            Some(Mapping::Ambiguous { why }) => Mapped::Ambiguous(why.clone()),
            Some(Mapping::NotFound { hint }) if nodes.is_empty() => Mapped::No(hint.clone()),
            None if nodes.is_empty() => Mapped::No(String::from("it was not asked for")),
            _ => Mapped::Yes,
        };
        let unknown_workers = expected.saturating_sub(number(nodes.len()));
        let (intake, work) = match mapped {
            Mapped::Yes => match (intake(&nodes), work(&nodes, scheduled)) {
                (Intake::Cancelled, Work::Busy) if unknown_workers > 0 => (Intake::Unknown, Work::Busy),
                (Intake::Cancelled, _) if unknown_workers > 0 => (Intake::Unknown, Work::Unknown),
                (intake, Work::Idle) if unknown_workers > 0 => (intake, Work::Unknown),
                judged => judged,
            },
            Mapped::No(_) | Mapped::Ambiguous(_) => (Intake::Unknown, Work::Unknown),
        };
        let span = nodes.values().flatten().map(|answer| (answer.asked_at, answer.answered_at)).reduce(widest);
        let silences = nodes
            .iter()
            .filter(|(_, answer)| answer.is_none_or(|answer| !answer.is_whole()))
            .filter_map(|(name, _)| Some((name.clone(), workers?.silences.get(name)?.as_str())))
            .collect();
        Self { intake, work, mapped, nodes, span, unknown_workers, silences }
    }

    /// It takes no jobs and has none, and every node of it said so.
    pub fn is_drained(&self) -> bool {
        self.intake == Intake::Cancelled && self.work == Work::Idle
    }

    /// It takes jobs, or has some.
    pub fn is_at_work(&self) -> bool {
        self.intake == Intake::Consuming || self.work == Work::Busy
    }

    /// Nodes that are silent, and took jobs when they last told.
    pub fn quiet<'b>(&'b self, memory: &'b TaskMemory) -> impl Iterator<Item = (&'b NodeName, &'b NodeMemory)> {
        let silent = self.nodes.keys().filter(|node| self.mapped == Mapped::Yes && self.queues(node).is_none());
        let known = silent.filter_map(|node| Some((node, memory.nodes.get(node)?)));
        known.filter(|(_, node)| !node.consumed.is_empty())
    }

    /// It takes jobs: that is seen, or its worker is silent because it runs one, and took jobs when it last told.
    pub fn takes_jobs(&self, memory: &TaskMemory) -> bool {
        self.intake == Intake::Consuming || self.quiet(memory).any(|(_, node)| node.between_jobs)
    }

    /// Nodes that did not answer every question, in order.
    pub fn silent(&self) -> impl Iterator<Item = &NodeName> {
        self.nodes.iter().filter(|(_, answer)| answer.is_none_or(|answer| !answer.is_whole())).map(|(name, _)| name)
    }

    /// Which start of each of its nodes answered, as far as they said.
    pub fn instances(&self) -> BTreeMap<NodeName, String> {
        let answered = self.nodes.iter().filter_map(|(name, answer)| Some((name, (*answer)?)));
        answered.filter_map(|(name, answer)| Some((name.clone(), answer.instance.clone()?))).collect()
    }

    /// Another start of a node answered than the one that is remembered.
    pub fn restarted(&self, memory: &TaskMemory) -> bool {
        self.instances().iter().any(|(name, now)| {
            let before = memory.nodes.get(name).and_then(|node| node.instance.as_ref());
            before.is_some_and(|before| before != now)
        })
    }

    /// How many of its workers are known.
    pub fn known_workers(&self) -> u32 {
        number(self.nodes.len())
    }

    /// How many workers it has at least, known or not.
    pub fn expected_workers(&self) -> u32 {
        self.known_workers().saturating_add(self.unknown_workers)
    }

    /// What its nodes count.
    pub fn counters(&self) -> Counters {
        Counters::of(self.nodes.values().copied().flatten())
    }

    /// For how long it must be seen without jobs before that proves that it has none.
    pub fn settles_in(&self) -> SignedDuration {
        self.nodes.values().flatten().map(|answer| answer.settles_in).max().unwrap_or_default()
    }

    /// The first of its nodes that may hold jobs for any length of time without telling of them, and which.
    pub fn unseen(&self) -> Option<(&NodeName, &'a str)> {
        self.nodes.iter().find_map(|(name, answer)| Some((name, (*answer)?.unseen.as_deref()?)))
    }

    /// Jobs that were seen, or `None` if no node told of any.
    pub fn jobs(&self) -> Option<JobCounts> {
        let count =
            |jobs: &Option<Vec<Job>>| jobs.as_ref().map_or(0, |jobs| u32::try_from(jobs.len()).unwrap_or(u32::MAX));
        self.nodes.values().flatten().filter(|answer| answer.active.is_some() || answer.reserved.is_some()).fold(
            None,
            |sum: Option<JobCounts>, answer| {
                let sum = sum.unwrap_or_default();
                Some(JobCounts {
                    active: sum.active.saturating_add(count(&answer.active)),
                    reserved: sum.reserved.saturating_add(count(&answer.reserved)).saturating_add(answer.unlisted),
                    scheduled: sum.scheduled.saturating_add(count(&answer.scheduled)),
                })
            },
        )
    }

    /// How many jobs would be lost or pushed back if the task were stopped now, for ordering.
    pub fn load(&self) -> u32 {
        self.jobs().map_or(0, |jobs| jobs.active.saturating_add(jobs.reserved))
    }

    /// The running job that began first. Jobs without a start time come last, and equal ones in order of their ids.
    pub fn oldest_job(&self) -> Option<&'a Job> {
        self.nodes
            .values()
            .flatten()
            .filter_map(|answer| answer.active.as_ref())
            .flatten()
            .min_by_key(|job| (job.started_at.is_none(), job.started_at, job.id.clone()))
    }

    /// The queues that one of its nodes takes jobs from, if it answered.
    pub fn queues(&self, node: &NodeName) -> Option<&'a [Queue]> {
        self.nodes.get(node).copied().flatten().and_then(|answer| answer.queues.as_deref())
    }
}

/// What is proven of every task of the fleet that is remembered.
pub fn of_all<'a>(
    fleet: &FleetView,
    memory: &Memory,
    workers: Option<&'a WorkersView>,
    policy: &DrainPolicy,
    now: Timestamp,
) -> BTreeMap<TaskId, Evidence<'a>> {
    let known = fleet.tasks.iter().filter_map(|(id, task)| Some((id, task, memory.tasks.get(id)?)));
    let of = |(id, task, known): (&TaskId, &Task, &TaskMemory)| {
        (id.clone(), Evidence::of(id, known, workers, (expected(task, memory, policy), policy.scheduled), now))
    };
    known.map(of).collect()
}

/// How many workers a task has at least: as the user says; or else as many as one of its revision was seen to have, or as may be by
/// what it is made of.
fn expected(task: &Task, memory: &Memory, policy: &DrainPolicy) -> u32 {
    let alike = number(task.alike.len());
    let learnt = memory.workers_per_task.get(&task.revision).copied().unwrap_or(1);
    policy.workers_per_task.unwrap_or_else(|| learnt.max(alike))
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Whether it still proves anything about now.
pub(crate) fn fresh(answer: &Answer, now: Timestamp) -> bool {
    now.duration_since(answer.asked_at) <= FRESH_FOR
}

fn widest(a: (Timestamp, Timestamp), b: (Timestamp, Timestamp)) -> (Timestamp, Timestamp) {
    (a.0.min(b.0), a.1.max(b.1))
}

fn intake(nodes: &BTreeMap<NodeName, Option<&Answer>>) -> Intake {
    let queues = || nodes.values().map(|answer| answer.and_then(|answer| answer.queues.as_ref()));
    if queues().flatten().any(|queues| !queues.is_empty()) {
        Intake::Consuming
    } else if queues().all(|queues| queues.is_some()) {
        Intake::Cancelled
    } else {
        Intake::Unknown
    }
}

fn work(nodes: &BTreeMap<NodeName, Option<&Answer>>, scheduled: Scheduled) -> Work {
    let held = |answer: &Answer| held(answer, scheduled);
    let is_idle = |answer: &&Answer| held(answer) == Some(0) && answer.unseen.is_none();
    if nodes.values().flatten().any(|answer| has_work(answer, scheduled)) {
        Work::Busy
    } else if nodes.values().all(|answer| answer.as_ref().is_some_and(is_idle)) {
        Work::Idle
    } else {
        Work::Unknown
    }
}

/// How many jobs it tells of, or counts without naming them. `None`: it does not answer all.
pub(crate) fn held(answer: &Answer, scheduled: Scheduled) -> Option<u32> {
    let jobs = parts(answer, scheduled).map(|jobs| jobs.as_ref().map(|jobs| number(jobs.len())));
    jobs.chain([Some(answer.unlisted)]).try_fold(0_u32, |sum, count| Some(sum.saturating_add(count?)))
}

/// It tells of a job, whether or not it answers all.
fn has_work(answer: &Answer, scheduled: Scheduled) -> bool {
    answer.unlisted > 0 || parts(answer, scheduled).flatten().any(|jobs| !jobs.is_empty())
}

fn parts(answer: &Answer, scheduled: Scheduled) -> impl Iterator<Item = &Option<Vec<Job>>> {
    let later = (scheduled == Scheduled::Wait).then_some(&answer.scheduled);
    [&answer.reserved, &answer.active].into_iter().chain(later)
}
