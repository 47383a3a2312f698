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

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use jiff::{SignedDuration, Timestamp};
use worker_drain_plan::{
    Action, Ground, Memory, NodeName, Observation, Outcome, Plan, Policy, QueueName, TaskId, absorb, age,
    invariants::{self, Judged},
    observation::{
        Answer, Delivered, Failure, FailureKind, FleetView, HoldState, Job, Life, Mapping, Queue, QueueCount, Revision,
        Seen, Task, WorkersView,
    },
    plan,
    policy::{DrainPolicy, Gate, HoldMode, HoldPolicy, Mode, Scheduled},
    to_count,
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
            min_consuming_percent: None,
            idle_for: SECOND,
            scheduled: Scheduled::Ignore,
            deadline: None,
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
    pub broker_down: Option<FailureKind>,
    /// Messages that wait in the queue `video`, and those that are delivered and not acknowledged.
    pub queued: (u64, u64),
    /// The broker cannot count, or tells no more than what waits.
    pub counting: Counting,
    /// What the scheduler answers to a hold of a task that it does not hold yet.
    pub refuse_holds: Option<String>,
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
            broker_down: None,
            queued: (0, 0),
            counting: Counting::All,
            refuse_holds: None,
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
            self.pass();
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

    /// One step of the scheduler: it stops what it may, and starts what it can.
    pub fn schedule(&mut self) -> &mut Self {
        self.stop_some();
        self.start_some();
        self
    }

    fn start_some(&mut self) {
        let ceiling = self.desired * self.maximum_percent / 100;
        while self.live().count() < ceiling as usize
            && self.live().filter(|(_, member)| member.revision == self.current).count() < self.desired as usize
        {
            self.start(self.current);
        }
    }

    pub fn start(&mut self, revision: usize) -> String {
        self.made += 1;
        let name = format!("t{}", self.made);
        let mut member = Member {
            revision,
            life: Life::Running,
            started_at: Some(self.now),
            held_until: None,
            permitted: false,
            nodes: BTreeMap::new(),
            unmapped: None,
        };
        if self.workers_come_up {
            member.nodes.insert(format!("celery@{name}"), consuming());
        }
        self.tasks.insert(name.clone(), member);
        name
    }

    /// New tasks start, and nothing is stopped yet.
    pub fn start_all(&mut self) -> &mut Self {
        self.start_some();
        self
    }

    /// The worker of a task comes up.
    pub fn come_up(&mut self, task: &str) -> &mut Self {
        let node = format!("celery@{task}");
        self.task(task).nodes.insert(node, consuming());
        self
    }

    fn stop_some(&mut self) {
        let lower = (self.desired * self.minimum_percent).div_ceil(100) as usize;
        let names: Vec<String> = self.tasks.keys().cloned().collect();
        for name in names {
            let healthy = self.live().filter(|(_, member)| member.life == Life::Running).count();
            let current = self.live().filter(|(_, member)| member.revision == self.current).count();
            let member = &self.tasks[&name];
            let live = matches!(member.life, Life::Running | Life::Starting);
            let surplus = member.revision != self.current || current > self.desired as usize;
            if live && surplus && member.held_until.is_none() && healthy > lower {
                self.stop(&name);
            }
        }
    }

    /// The scheduler stops a task. The main rule, seen from outside: no job dies by our permit.
    pub fn stop(&mut self, name: &str) {
        let member = self.tasks.get_mut(name).unwrap();
        let jobs: usize = member.nodes.values().filter(|node| !node.restarted).map(|node| node.active.len()).sum();
        assert!(!member.permitted || jobs == 0, "{name} was permitted to stop and had {jobs} job(s)\n{}", self.story);
        member.life = Life::Stopped { reason: "Scaling activity initiated by deployment".into(), exit_code: Some(0) };
        member.nodes.clear();
        member.held_until = None;
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
        *self.node(task) = Node { restarted: true, ..consuming() };
        self
    }

    pub fn observe(&self) -> Observation {
        let fleet = match self.fleet_down {
            Some(kind) => Seen::Err { failure: Failure::new(kind, "ECS could not be reached"), at: self.now },
            None => Seen::Ok { value: self.fleet(), at: self.now },
        };
        let workers = match self.broker_down {
            Some(kind) => {
                Seen::Err { failure: Failure::new(kind, "redis at 10.0.0.7:6379 refused the connection"), at: self.now }
            }
            None => Seen::Ok { value: self.workers(), at: self.now },
        };
        let to_count = fleet.ok().and_then(|fleet| to_count(&self.policy, fleet, &self.memory));
        let queues = to_count.map(|names| names.iter().map(|name| (name.clone(), self.count())).collect());
        Observation { fleet, workers, queues }
    }

    fn count(&self) -> Seen<QueueCount> {
        let failed = |kind| Seen::Err { failure: Failure::new(kind, "it could not be counted"), at: self.now };
        let (ready, unacknowledged) = self.queued;
        let delivered = match self.counting {
            _ if self.broker_down.is_some() => return failed(FailureKind::Unreachable),
            Counting::Fails(kind) => return failed(kind),
            Counting::All => Delivered::Counted(unacknowledged),
            Counting::Ready => {
                let takers = || {
                    let nodes = self.live().flat_map(|(_, member)| &member.nodes);
                    nodes.filter(|(_, node)| node.queues.contains("video"))
                };
                let answer = |(name, node): (&String, &Node)| (name.as_str().into(), self.answer(node));
                Delivered::Told {
                    consumers: takers().count() as u64,
                    nodes: takers().filter(|(_, node)| !node.frozen).map(answer).collect(),
                }
            }
        };
        let settles_in = SignedDuration::ZERO;
        let value = QueueCount { counted_at: self.now, ready, delivered, known: true, settles_in };
        Seen::Ok { value, at: self.now }
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

    fn fleet(&self) -> FleetView {
        FleetView {
            name: "media/transcoder".into(),
            desired: self.desired,
            minimum_healthy_percent: self.minimum_percent,
            maximum_percent: self.maximum_percent,
            current: self.revisions[self.current].1.as_str().into(),
            revisions: self.revisions.iter().map(|(known, id)| (id.as_str().into(), known.clone())).collect(),
            tasks: self.shown().map(|(name, member)| (name.as_str().into(), self.seen(member))).collect(),
            longest_hold: HOUR * 48,
        }
    }

    /// Tasks that ended are shown to those who ask for them by name, and to those who never read them.
    fn shown(&self) -> impl Iterator<Item = (&String, &Member)> {
        let tracked = self.memory.tracked();
        self.tasks.iter().filter(move |(name, member)| {
            !matches!(member.life, Life::Stopped { .. }) || self.shows_ended || tracked.contains(&task_id(name))
        })
    }

    fn seen(&self, member: &Member) -> Task {
        Task {
            revision: self.revisions[member.revision].1.as_str().into(),
            life: member.life.clone(),
            started_at: member.started_at,
            hold: member.held_until.map_or(HoldState::Free, HoldState::Until),
        }
    }

    fn workers(&self) -> WorkersView {
        let mut view = WorkersView::default();
        for (name, member) in self.live().filter(|(_, member)| member.life == Life::Running) {
            let nodes: BTreeSet<NodeName> = member.nodes.keys().map(|node| node.as_str().into()).collect();
            let mapping = match &member.unmapped {
                Some(mapping) => mapping.clone(),
                None if nodes.is_empty() => Mapping::NotFound { hint: format!("no node is called celery@{name}") },
                None => Mapping::Nodes(nodes),
            };
            view.tasks.insert(name.as_str().into(), mapping);
            for (node, state) in member.nodes.iter().filter(|(_, state)| !state.frozen) {
                view.nodes.insert(node.as_str().into(), self.answer(state));
            }
        }
        view
    }

    fn answer(&self, node: &Node) -> Answer {
        Answer {
            asked_at: self.now,
            answered_at: self.now,
            instance: None,
            queues: Some(node.queues.iter().map(|name| queue(name)).collect()),
            reserved: Some(node.reserved.clone()),
            active: Some(node.active.clone()),
            scheduled: Some(node.scheduled.clone()),
        }
    }

    /// One pass, with everything that it decides done, judged, and told.
    pub fn pass(&mut self) -> Plan {
        let plan = self.plan();
        self.tell(&plan);
        self.memory = plan.memory.clone();
        if !plan.dry {
            let outcomes: Vec<(Action, Outcome)> =
                plan.actions.iter().map(|action| (action.clone(), self.apply(action))).collect();
            absorb(&mut self.memory, &outcomes, self.now);
        }
        plan
    }

    /// Plans, and judges the plan by every rule.
    pub fn plan(&self) -> Plan {
        let observation = self.observe();
        let plan = plan(&self.policy, &observation, &self.memory, self.now);
        let judged = Judged {
            policy: &self.policy,
            observation: &observation,
            before: &self.memory,
            plan: &plan,
            now: self.now,
        };
        if let Err(violation) = invariants::check(judged) {
            panic!("rule {} does not hold: {}\n{}", violation.rule, violation.what, self.story);
        }
        plan
    }

    /// Does one action, as the outside would.
    pub fn apply(&mut self, action: &Action) -> Outcome {
        let task = action.task().as_str().to_owned();
        match action {
            Action::Hold { lasting, .. } => return self.hold(&task, *lasting),
            Action::Permit { ground, .. } => {
                self.task(&task).held_until = None;
                self.task(&task).permitted = *ground == Ground::Drained;
            }
            Action::Release { .. } => self.task(&task).held_until = None,
            Action::Cancel { node, queues, .. } => {
                self.reach(&task, node, |node| {
                    node.queues.retain(|name| !queues.contains(&QueueName::from(name.as_str())));
                });
            }
            Action::GiveBack { node, queues, .. } => {
                self.reach(&task, node, |node| {
                    node.added.extend(queues.iter().map(|queue| queue.name.to_string()));
                    node.queues.extend(node.added.iter().cloned());
                });
            }
        }
        Outcome::Done
    }

    fn reach(&mut self, task: &str, node: &NodeName, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.task(task).nodes.get_mut(node.as_str()).filter(|node| !node.frozen) {
            change(node);
        }
    }

    fn hold(&mut self, task: &str, lasting: SignedDuration) -> Outcome {
        let end = self.now.saturating_add(lasting).unwrap();
        if let Some(reason) = self.refuse_holds.clone() {
            return Outcome::Refused { reason };
        }
        let held = self.live().filter(|(_, member)| member.held_until.is_some()).count();
        let member = self.tasks.get_mut(task).unwrap();
        if member.held_until.is_none() && held >= self.desired as usize {
            return Outcome::Refused { reason: "DEPLOYMENT_BLOCKED".into() };
        }
        if matches!(member.life, Life::Running) {
            member.held_until = Some(end);
        }
        Outcome::Done
    }

    /// Passes, the scheduler, and time, until nothing changes for a while or the bound is reached.
    pub fn run(&mut self, passes: usize) -> &mut Self {
        for _ in 0..passes {
            let plan = self.pass();
            self.schedule();
            self.later(plan.wake_after);
        }
        self
    }

    /// Writes one pass into the story as a person would read it.
    fn tell(&mut self, plan: &Plan) {
        let report = &plan.report;
        let clock = age(self.now.duration_since("2026-01-01T00:10:00Z".parse().unwrap()));
        let told = &mut self.story;
        writeln!(
            told,
            "\n[{clock}] {:?}, drained: {} ({})",
            report.phase, report.drained.message, report.drained.reason
        )
        .unwrap();
        if report.ready.answer != Some(true) {
            writeln!(told, "  not ready: {} ({})", report.ready.message, report.ready.reason).unwrap();
        }
        for task in &report.tasks {
            let hold = match task.hold {
                HoldState::Until(end) => format!("held for {}", age(end.duration_since(self.now))),
                HoldState::Free => "free".into(),
                HoldState::Unread => "?".into(),
            };
            let line = format!(
                "  {:<4} {:<6} {:<11} {:<16} {}",
                task.task.as_str(),
                task.revision,
                task.phase.to_string(),
                hold,
                task.waiting_for
            );
            writeln!(told, "{}", line.trim_end()).unwrap();
        }
        for action in &plan.actions {
            writeln!(told, "  → {action}").unwrap();
        }
        if let Some(gate) = report.gate.as_ref().filter(|gate| gate.message != report.drained.message) {
            writeln!(told, "  gate: {} ({})", gate.message, gate.reason).unwrap();
        }
        for note in &report.notes {
            writeln!(told, "  note: {note}").unwrap();
        }
        writeln!(told, "  next look in {:#}", plan.wake_after).unwrap();
    }
}

fn consuming() -> Node {
    Node { queues: BTreeSet::from(["video".to_owned()]), ..Node::default() }
}

pub fn queue(name: &str) -> Queue {
    Queue { name: name.into(), binding: None }
}

pub fn task_id(name: &str) -> TaskId {
    name.into()
}
