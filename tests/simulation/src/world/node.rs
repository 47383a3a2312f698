//! One Celery worker process, as far as it matters here: what it takes jobs from, what it holds and runs, and whether it
//! answers.

use std::{collections::VecDeque, mem::Discriminant};

use worker_drain_plan::NodeName;

use super::pidbox::Order;

/// A job's place in the world's list.
pub type JobId = usize;

/// Whether a worker process works and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It is coming up.
    Booting,
    /// It works and answers.
    Up,
    /// It does neither, until then.
    Frozen(u64),
    /// It works, and has lost the broker for a moment.
    Reconnecting,
    /// It was told to end: it finishes what runs.
    Ending,
    /// It has ended.
    Gone,
}

/// One worker process.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a thing that is so or not, apart from the others")]
pub struct Node {
    /// Its name on the broker.
    pub name: NodeName,
    /// See [`NodeState`].
    pub state: NodeState,
    /// Rises when the process is replaced: what was meant for the old one does not reach the new one.
    pub epoch: u32,
    /// When the last request that was sent to it arrives.
    pub last_request: u64,
    /// What it cannot answer, and until when.
    pub garbled: Option<(Discriminant<Order>, u64)>,
    /// When it went on after it was frozen.
    pub thawed_at: u64,
    /// SIGTERM came while it was frozen.
    pub told_to_end: bool,
    /// When the process was started.
    pub started_at: u64,
    /// How many jobs it has begun.
    pub begun: u64,
    /// Queues that it takes jobs from, a bit each.
    pub consuming: u8,
    /// Those of them that were added while it ran.
    pub added: u8,
    /// Jobs on their way to it.
    pub in_flight: Vec<JobId>,
    /// Jobs that it holds and has not begun.
    pub reserved: VecDeque<JobId>,
    /// Jobs that wait for the rate limit.
    pub limited: VecDeque<JobId>,
    /// Jobs that its pool has and that it does not tell of.
    pub kept: VecDeque<JobId>,
    /// Jobs that it tells of as running, and that have ended.
    pub ghosts: Vec<JobId>,
    /// Queues that it told to take jobs from when it first told, a bit each.
    pub told: Option<u8>,
    /// When the next of those that wait for the rate limit may begin.
    pub next_token: u64,
    /// From one of them to the next: those that wait when the limit is changed go on waiting by the old one.
    pub pace: u64,
    /// Jobs that it holds until a later time.
    pub scheduled: Vec<JobId>,
    /// Jobs that run.
    pub active: Vec<JobId>,
    /// When it last took jobs again that it had been told not to take, and not because of us.
    pub came_back_at: u64,
    /// When a job last reached it, or began.
    pub worked_at: u64,
    /// It is in the drain's memory, so that it is waited for.
    pub heard: bool,
    /// What was added to it was added by a drain that is gone: nobody adds it again.
    pub orphaned: bool,
    /// It forgot that when it reconnected.
    pub excused: bool,
}

impl Node {
    /// A process that is coming up.
    pub fn booting(name: NodeName, epoch: u32) -> Self {
        Self {
            name,
            state: NodeState::Booting,
            epoch,
            last_request: 0,
            garbled: None,
            thawed_at: 0,
            told_to_end: false,
            started_at: 0,
            begun: 0,
            consuming: 0,
            added: 0,
            in_flight: Vec::new(),
            reserved: VecDeque::new(),
            limited: VecDeque::new(),
            kept: VecDeque::new(),
            ghosts: Vec::new(),
            told: None,
            next_token: 0,
            pace: 0,
            scheduled: Vec::new(),
            active: Vec::new(),
            came_back_at: 0,
            worked_at: 0,
            heard: false,
            orphaned: false,
            excused: false,
        }
    }

    /// Jobs that count against its prefetch limit.
    pub fn load(&self) -> usize {
        self.in_flight.len() + self.waiting().count() + self.active.len()
    }

    /// Jobs that it has received, that are due, and that it has not begun.
    pub fn waiting(&self) -> impl Iterator<Item = &JobId> {
        self.limited.iter().chain(&self.reserved).chain(&self.kept)
    }

    /// Jobs that it has or will have, and has not begun.
    pub fn held(&self) -> impl Iterator<Item = &JobId> {
        self.in_flight.iter().chain(self.waiting()).chain(&self.scheduled)
    }

    /// It takes jobs, or would if it could.
    pub fn takes_jobs(&self) -> bool {
        self.consuming != 0 && !matches!(self.state, NodeState::Gone | NodeState::Ending | NodeState::Booting)
    }

    /// Takes a job out of wherever it is.
    pub fn forget(&mut self, job: JobId) -> bool {
        let before = self.load() + self.scheduled.len();
        self.in_flight.retain(|other| *other != job);
        self.reserved.retain(|other| *other != job);
        self.limited.retain(|other| *other != job);
        self.kept.retain(|other| *other != job);
        self.scheduled.retain(|other| *other != job);
        self.active.retain(|other| *other != job);
        before != self.load() + self.scheduled.len()
    }
}
