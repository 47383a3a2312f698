//! A small world for the planner: a fleet, its workers, and a scheduler that follows the rules of a rolling deployment.
//! Scenarios tell it what happens, sentence by sentence; histories drive it at random. Every pass in it is judged by
//! every rule.
#![allow(
    clippy::unwrap_used,
    dead_code,
    missing_docs,
    unused_imports,
    unused_macros,
    unused_must_use,
    reason = "a test helper; each test file uses a part of it"
)]

mod reconcile;
mod scheduler;
mod seen;
mod story;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use jiff::{SignedDuration, Timestamp};
use worker_drain_plan::{
    Memory, Outcome, Policy, TaskId,
    actions::Step,
    observation::{Displaced, FailureKind, Job, Life, Mapping, Queue, Remembered, Revision, Unplaced},
    policy::{DrainPolicy, Gate, HoldMode, HoldPolicy, Mode, Scheduled},
};

/// Compares the story with the one that is kept under the test's name.
macro_rules! told {
    ($world:expr) => {
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!($world.story);
        });
    };
}
pub(crate) use told;

pub const HOUR: SignedDuration = SignedDuration::from_hours(1);
pub const SECOND: SignedDuration = SignedDuration::from_secs(1);

/// The policy that a user gets who says nothing.
pub fn policy() -> Policy {
    Policy {
        hold: HoldPolicy { mode: HoldMode::Standing, expires_in: HOUR * 2 },
        drain: DrainPolicy {
            min_consuming: None,
            idle_for: SECOND,
            scheduled: Scheduled::Ignore,
            deadline: None,
            workers_per_task: None,
            start_timeout: None,
            scale_in: true,
            gate: None,
        },
        mode: Mode::Enforce,
        paused: false,
        withdrawn: false,
    }
}

#[derive(Clone, Debug, Default)]
pub struct Node {
    pub queues: BTreeSet<String>,
    /// Queues that were added while it ran: these are what it forgets when it reconnects.
    pub added: BTreeSet<String>,
    pub active: Vec<Job>,
    pub reserved: Vec<Job>,
    pub scheduled: Vec<Job>,
    pub frozen: bool,
    pub restarted: bool,
    /// How often it has restarted.
    pub restarts: u32,
    /// Which jobs it may hold for any length of time without telling of them.
    pub unseen: Option<String>,
    /// It accounts for every job that it holds.
    pub accounts: bool,
}

#[derive(Clone, Debug)]
pub struct Member {
    pub revision: usize,
    pub life: Life,
    pub started_at: Option<Timestamp>,
    pub held_until: Option<Timestamp>,
    /// Its hold was released by a permit on the ground that it was drained, and it has been old ever since.
    pub permitted: bool,
    pub nodes: BTreeMap<String, Node>,
    pub unmapped: Option<Mapping>,
    pub displaced: Displaced,
    pub zone: Option<String>,
    /// Its parts that run one program.
    pub alike: Vec<String>,
}

/// What a broker tells of its queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// All.
    All,
    /// What waits, and how many take from it.
    Ready,
    /// Nothing.
    Fails(FailureKind),
}

#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of a test")]
pub struct World {
    pub now: Timestamp,
    pub policy: Policy,
    pub memory: Memory,
    pub desired: u32,
    pub minimum_percent: u32,
    pub maximum_percent: u32,
    pub revisions: Vec<(Revision, String)>,
    pub current: usize,
    pub tasks: BTreeMap<String, Member>,
    pub fleet_down: Option<FailureKind>,
    /// The scheduler has not brought the current revision into place.
    pub is_rolling_out: bool,
    pub broker_down: Option<FailureKind>,
    /// Messages that wait in the queue `video`, and those that are delivered and not acknowledged.
    pub queued: (u64, u64),
    /// The broker cannot count, or tells no more than what waits.
    pub counting: Counting,
    /// What the scheduler answers to a hold of a task that it does not hold yet.
    pub refuse_holds: Option<String>,
    /// The scheduler counts so many running tasks more than it shows.
    pub counts_more: u32,
    /// Tasks that the scheduler lists and that cannot be placed.
    pub unplaced: BTreeMap<TaskId, Unplaced>,
    /// The scheduler moves tasks between zones.
    pub balances_zones: bool,
    /// The parts that a new task has of one program.
    pub alike: Vec<String>,
    /// What is written down beside the fleet.
    pub remembered: Remembered,
    /// Nothing can be written down there, and this is why.
    pub refuses_to_remember: Option<Outcome>,
    /// What becomes of every action of a kind, without effect.
    pub set_back: BTreeMap<Step, Outcome>,
    /// A new worker comes up by itself as soon as its task runs.
    pub workers_come_up: bool,
    /// The scheduler goes on showing tasks that have ended, though nobody asks for them.
    pub shows_ended: bool,
    pub story: String,
    made: usize,
    jobs: usize,
}

impl World {
    /// A service with this many tasks of its first revision, each with one worker that takes jobs from one queue, all
    /// held already.
    pub fn of(desired: u32) -> Self {
        let mut world = Self {
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            policy: policy(),
            memory: Memory::default(),
            desired,
            minimum_percent: 100,
            maximum_percent: 200,
            revisions: Vec::new(),
            current: 0,
            tasks: BTreeMap::new(),
            fleet_down: None,
            is_rolling_out: false,
            broker_down: None,
            queued: (0, 0),
            counting: Counting::All,
            refuse_holds: None,
            counts_more: 0,
            unplaced: BTreeMap::new(),
            balances_zones: false,
            alike: Vec::new(),
            remembered: Remembered::default(),
            refuses_to_remember: None,
            set_back: BTreeMap::new(),
            workers_come_up: true,
            shows_ended: false,
            story: String::new(),
            made: 0,
            jobs: 0,
        };
        world.revise("app:1");
        world.schedule();
        world.later(SignedDuration::from_mins(10));
        world
    }

    /// The first look, after which everything is held and known; it is not told.
    pub fn settled(mut self) -> Self {
        for _ in 0..3 {
            self.reconcile();
            self.later(SignedDuration::from_secs(15));
        }
        self.story.clear();
        self
    }

    fn revise(&mut self, label: &str) {
        let id = format!("ecs-svc/{}", self.revisions.len() + 1);
        self.revisions.push((Revision { label: label.into(), created_at: Some(self.now) }, id));
        self.current = self.revisions.len() - 1;
        for member in self.tasks.values_mut() {
            member.permitted = false;
        }
    }

    pub fn say(&mut self, what: &str) -> &mut Self {
        writeln!(self.story, "# {what}").unwrap();
        self
    }

    pub fn later(&mut self, span: SignedDuration) -> &mut Self {
        self.now = self.now.saturating_add(span).unwrap();
        for member in self.tasks.values_mut() {
            member.held_until = member.held_until.filter(|end| *end > self.now);
        }
        self
    }

    /// Somebody deploys.
    pub fn deploy(&mut self, label: &str) -> &mut Self {
        self.revise(label);
        self
    }

    /// The scheduler goes back to a revision, whose tasks are then current again.
    pub fn roll_back_to(&mut self, revision: usize) -> &mut Self {
        self.current = revision;
        for member in self.tasks.values_mut().filter(|member| member.revision == revision) {
            member.permitted = false;
        }
        self
    }

    /// The worker of a task comes up.
    pub fn come_up(&mut self, task: &str) -> &mut Self {
        let node = format!("celery@{task}");
        self.task(task).nodes.insert(node, consuming());
        self
    }

    fn live(&self) -> impl Iterator<Item = (&String, &Member)> {
        self.tasks.iter().filter(|(_, member)| matches!(member.life, Life::Running | Life::Starting))
    }

    pub fn task(&mut self, name: &str) -> &mut Member {
        self.tasks.get_mut(name).unwrap()
    }

    pub fn node(&mut self, task: &str) -> &mut Node {
        self.task(task).nodes.values_mut().next().unwrap()
    }

    /// A job runs in this task.
    pub fn job(&mut self, task: &str) -> &mut Self {
        let job = self.new_job();
        self.node(task).active.push(job);
        self
    }

    pub fn new_job(&mut self) -> Job {
        self.jobs += 1;
        Job { id: format!("job-{}", self.jobs), name: "transcode".into(), started_at: Some(self.now) }
    }

    /// Every job of this task ends.
    pub fn jobs_end(&mut self, task: &str) -> &mut Self {
        for node in self.task(task).nodes.values_mut() {
            node.active.clear();
            node.reserved.clear();
        }
        self
    }

    pub fn all_jobs_end(&mut self) -> &mut Self {
        let names: Vec<String> = self.tasks.keys().cloned().collect();
        for name in names {
            self.jobs_end(&name);
        }
        self
    }

    /// The worker restarts: its jobs are gone with it, and it takes jobs from all its queues again.
    pub fn restart(&mut self, task: &str) -> &mut Self {
        let restarts = self.node(task).restarts + 1;
        *self.node(task) = Node { restarted: true, restarts, ..consuming() };
        self
    }

    /// Somebody else has the worker take jobs from a queue.
    pub fn add_consumer(&mut self, task: &str, queue: &str) -> &mut Self {
        self.node(task).queues.insert(queue.to_owned());
        self
    }

    /// The scheduler grants another hold.
    pub fn has_room_for_a_hold(&self) -> bool {
        self.live().filter(|(_, member)| member.held_until.is_some()).count() < self.desired as usize
    }

    /// Somebody else holds a task.
    pub fn hold_by_hand(&mut self, task: &str, span: SignedDuration) -> &mut Self {
        self.task(task).held_until = Some(self.now.saturating_add(span).unwrap());
        self
    }

    /// Whoever takes jobs from the queue takes all that are in it.
    pub fn queue_drains(&mut self) -> &mut Self {
        let takes = |node: &Node| node.queues.contains("video") && !node.frozen;
        if self.live().any(|(_, member)| member.nodes.values().any(takes)) {
            self.queued = (0, 0);
        }
        self
    }

    /// A gate on the queue `video`.
    pub fn gate(&mut self) -> &mut Self {
        self.policy.drain.gate = Some(Gate { queues_empty: BTreeSet::from(["video".into()]), awaited: false });
        self
    }
}

fn consuming() -> Node {
    Node { queues: BTreeSet::from(["video".to_owned()]), ..Node::default() }
}

/// The broker deletes queues whose names begin with `passing` when nobody takes jobs from them.
pub fn queue(name: &str) -> Queue {
    Queue { auto_delete: name.starts_with("passing"), ..Queue::named(name) }
}

pub fn task_id(name: &str) -> TaskId {
    name.into()
}
