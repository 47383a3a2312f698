//! The world outside: the model of ECS, the workers in its tasks, the broker with its jobs, and the record. All of it is
//! one event queue on virtual time, brought up to date whenever somebody looks.

mod broker;
mod calls;
mod calm;
mod deaths;
mod happen;
mod instances;
mod jobs;
mod node;
mod pidbox;
mod protect;
mod rest;
mod view;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
};

use ecs_emulator::model::{
    self as ecs, ContainerDefinition, CreateService, DeploymentId, Effect, ServiceStatus, Time, World as Ecs,
};
use worker_drain::identity::Identity;
use worker_drain_plan::{Memory, Policy, RevisionId, TaskId};

pub use self::{
    calls::Allowance,
    jobs::{Job, JobState},
    node::{JobId, Node, NodeState},
    pidbox::queue_names,
    protect::{Change, GOOD_FOR, Track},
    view::Snap,
};
use crate::{
    chance::Chance,
    fault::Fault,
    judge::Judge,
    operator::Gate,
    script::Outage,
    setup::{SECOND, Setup},
    tally::Tally,
    tap::Tap,
};

/// The name of the one cluster.
pub const CLUSTER: &str = "default";
/// The name of the one service.
pub const SERVICE: &str = "transcoder";
/// How many operators there may be at once.
pub const OPERATORS: usize = 2;

/// What happens by itself at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// The next beat of the script.
    Beat(usize),
    /// A job arrives at the broker.
    JobArrives,
    /// A job reaches a worker: member, node, epoch, job.
    Deliver(usize, usize, u32, JobId),
    /// A job has run for its time.
    JobEnds(usize, usize, u32, JobId),
    /// A job's start time has come.
    EtaDue(usize, usize, u32, JobId),
    /// The rate limit of a worker lets a job begin.
    Token(usize, usize, u32),
    /// The pool of a worker begins a job that its worker does not tell of.
    Kept(usize, usize, u32),
    /// A worker begins what waits in it.
    Next(usize, usize, u32),
    /// A worker has come up, thawed, or found the broker again.
    NodeReady(usize, usize, u32),
    /// Requests reach a worker: member, node, epoch, batch, the first of them and how many.
    Asked(usize, usize, u32, usize, usize, usize),
    /// Replies reach a client.
    Posted(usize),
    /// An operator's connection to the broker is lost.
    LinkLost(usize, u64),
    /// A cancel that was answered takes effect.
    CancelDeed(usize, usize, u32, u8),
    /// A container exits by itself.
    Exit(usize),
    /// A worker gets its right name back.
    NameBack(usize, usize),
    /// A call to ECS takes effect though its caller gave up: a release, or a hold of so many minutes.
    LateRelease(usize),
    /// See `LateRelease`.
    LateHold(usize, u32),
    /// Something outside is in order again.
    OutageOver(Outage),
    /// An instance takes tasks again.
    InstanceBack(ecs::InstanceId),
    /// The policy is as it was before it was paused or put into mode Plan.
    PolicyBack,
    /// The drain that was withdrawn is made again.
    Remake,
}

/// One task, as seen from outside.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its id in the model.
    pub ecs: ecs::TaskId,
    /// The same as the API takes it.
    pub hex: String,
    /// What the operator calls it.
    pub id: TaskId,
    /// Its workers; none before its container was started.
    pub nodes: Vec<Node>,
    /// A worker of it had another name once.
    pub renamed: bool,
    /// What ECS tells of it once its containers run.
    pub identity: Identity,
    /// The hosts of its workers.
    pub hosts: Vec<String>,
    /// Until when other processes answer under the names of its workers.
    pub twin_until: u64,
    /// Until when ECS tells of it what is another task's too, and of which.
    pub double: Option<(u64, usize)>,
    /// ECS told such a thing of it once.
    pub confused: bool,
    /// What became of its hold.
    pub track: Track,
}

/// What one operator sees of the drain's resource.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// What was last written.
    pub memory: Memory,
    /// Rises with each write.
    pub version: u64,
}

/// Everything outside the operators.
#[derive(Debug)]
pub struct World {
    /// What the seed stands for.
    pub setup: Setup,
    /// Now, in milliseconds from the beginning.
    pub now: u64,
    /// ECS.
    pub ecs: Ecs,
    /// Every task that ever was, in the order in which it was met.
    pub members: Vec<Member>,
    by_task: BTreeMap<u128, usize>,
    /// The service's tag: how many workers a task of each revision has.
    pub remembered: BTreeMap<RevisionId, u32>,
    broker: broker::Broker,
    revisions: BTreeMap<u64, RevisionId>,
    /// Every job that ever was.
    pub jobs: Vec<Job>,
    /// From one job's beginning to the next in each worker, by the rate limit that there is now; zero: there is none.
    pub limit: u64,
    queued: Vec<VecDeque<JobId>>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    sequence: u64,
    outages: [u64; Outage::COUNT],
    definitions: u32,
    bad: Vec<u32>,
    /// The policy in force, if the drain exists.
    pub policy: Option<Policy>,
    /// The resource's status.
    pub stored: Stored,
    /// What it was before the last write.
    pub stored_before: Stored,
    /// By operator.
    pub gates: [Gate; OPERATORS],
    /// By operator.
    pub taps: [Tap; OPERATORS],
    /// By operator: what it may still call.
    pub allowances: [Allowance; OPERATORS],
    /// By operator: how wrong its clock is, in milliseconds.
    pub skew: [i64; OPERATORS],
    skew_at_first: [i64; OPERATORS],
    /// By operator: when it last went on after a pause.
    pub paused_at: [u64; OPERATORS],
    /// Every deployment that was ever primary.
    primaries: Vec<DeploymentId>,
    /// One that had been primary before is so again, or was for a while.
    pub turned_back: bool,
    /// Until when the second operator is at work.
    pub second_until: u64,
    /// When something outside last changed that excuses a count: tasks, the desired count, the policy.
    pub disturbed_at: u64,
    /// Old states of the fleet, for stale reads.
    pub past: VecDeque<Snap>,
    /// Faults are over.
    pub calm: bool,
    /// The service was deleted.
    pub deleted: bool,
    /// Rules, and what they found.
    pub judge: Judge,
    /// What occurred how often.
    pub tally: Tally,
    work_chance: Chance,
    deliver_chance: Chance,
    /// For what goes wrong with calls, call by call; one stream for each kind.
    call_chance: BTreeMap<Fault, Chance>,
    /// For delays that are no fault.
    pub delay_chance: Chance,
}

impl World {
    /// The world of a setup, at its beginning.
    pub fn new(setup: Setup, telling: bool) -> Self {
        let seed = setup.seed;
        let mut knobs = setup.knobs.clone();
        knobs.history_limit = if telling { 100_000 } else { 0 };
        let queues = usize::from(setup.work.queues);
        let mut world = Self {
            now: 0,
            ecs: Ecs::new(knobs, seed),
            members: Vec::new(),
            by_task: BTreeMap::new(),
            remembered: BTreeMap::new(),
            broker: broker::Broker::default(),
            revisions: BTreeMap::new(),
            jobs: Vec::new(),
            limit: setup.work.limit,
            queued: vec![VecDeque::new(); queues],
            events: BinaryHeap::new(),
            sequence: 0,
            outages: [0; Outage::COUNT],
            definitions: 0,
            bad: Vec::new(),
            policy: Some(setup.policy.clone()),
            stored: Stored::default(),
            stored_before: Stored::default(),
            gates: Default::default(),
            taps: Default::default(),
            allowances: Default::default(),
            skew: [0; OPERATORS],
            skew_at_first: [0; OPERATORS],
            paused_at: [0; OPERATORS],
            primaries: Vec::new(),
            turned_back: false,
            second_until: 0,
            disturbed_at: 0,
            past: VecDeque::new(),
            calm: false,
            deleted: false,
            judge: Judge::new(telling),
            tally: Tally::default(),
            work_chance: Chance::new(seed, "jobs"),
            deliver_chance: Chance::new(seed, "deliveries"),
            call_chance: setup.faults.iter().map(|fault| (fault, Chance::new(!seed, fault.name()))).collect(),
            delay_chance: Chance::new(seed, "delays"),
            setup,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        // These are in the way the world is made, and happen for as long as it lasts.
        for fault in [Fault::ShortHolds, Fault::SlowBoot, Fault::PermitStopDeadline] {
            if self.setup.faults.has(fault) {
                self.tally.fault(fault);
            }
        }
        let mut skews = Chance::new(self.setup.seed, "skew");
        if self.setup.faults.has(Fault::ClockSkew) {
            self.tally.fault(Fault::ClockSkew);
            self.skew = [0, 1].map(|_| i64::try_from(skews.below(8 * SECOND)).unwrap_or(0) - 4_000);
            self.skew_at_first = self.skew;
        }
        if self.setup.faults.has(Fault::InstanceDrains) {
            self.register_instances();
        }
        let definition = self.register();
        let request = CreateService {
            name: SERVICE.to_owned(),
            task_definition: definition,
            desired: self.setup.desired,
            configuration: self.setup.configuration,
            ..CreateService::default()
        };
        self.ecs.create_service(&request, Time(0)).expect("the first service can be made");
        for index in 0..self.setup.script.len() {
            let beat = self.setup.script[index];
            if !beat.cut {
                self.at(beat.at, Event::Beat(index));
            }
        }
        self.at(0, Event::JobArrives);
    }

    /// A new revision of the task definition; its name.
    pub fn register(&mut self) -> String {
        let container = ContainerDefinition::new("worker", &["celery"]);
        let definition = self
            .ecs
            .register_task_definition("app", vec![container], serde_json_map(), Time(self.now))
            .expect("a task definition can be registered");
        self.definitions = definition.revision;
        definition.name()
    }

    /// Something will happen by itself.
    pub fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    /// Lets time pass.
    pub fn advance(&mut self, now: u64) {
        loop {
            let own = self.events.peek().map(|Reverse((at, ..))| *at);
            let ecs = self.ecs.next_event_at().map(|at| at.0);
            let Some(at) = own.into_iter().chain(ecs).min().filter(|at| *at <= now) else { break };
            self.now = self.now.max(at);
            let mut is_message = false;
            if own == Some(at) {
                if let Some(Reverse((_, _, event))) = self.events.pop() {
                    is_message = matches!(event, Event::Asked(..) | Event::Posted(_) | Event::LinkLost(..));
                    self.happens(event);
                }
            } else {
                self.settle();
            }
            if !is_message && self.setup.faults.has(Fault::StaleReads) {
                self.remember();
            }
        }
        self.now = self.now.max(now);
    }

    /// Carries out what ECS wants done now.
    pub fn settle(&mut self) {
        for effect in self.ecs.advance(Time(self.now)) {
            match effect {
                Effect::Start { task, .. } => self.start_container(task),
                Effect::Terminate { task, .. } => self.terminate(task),
                Effect::Kill { task, .. } => self.kill(task),
            }
        }
        self.judge.hear(self.now, self.ecs.history());
        if let Some(primary) = self.service().primary().map(|primary| primary.id)
            && self.primaries.last() != Some(&primary)
        {
            self.turned_back |= self.primaries.contains(&primary);
            self.primaries.push(primary);
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Beat(index) => self.beat(index),
            Event::JobArrives => self.job_arrives(),
            Event::Deliver(member, node, epoch, job) => self.delivered(member, node, epoch, job),
            Event::JobEnds(member, node, epoch, job) => self.job_ends(member, node, epoch, job),
            Event::EtaDue(member, node, epoch, job) => self.eta_due(member, node, epoch, job),
            Event::Token(member, node, epoch) => self.token(member, node, epoch),
            Event::Kept(member, node, epoch) => self.kept(member, node, epoch),
            Event::Next(member, node, epoch) => self.next(member, node, epoch),
            Event::NodeReady(member, node, epoch) => self.node_ready(member, node, epoch),
            Event::Asked(member, node, epoch, batch, first, count) => {
                self.asked(member, node, epoch, batch, (first, count));
                return;
            }
            Event::Posted(place) => return self.posted(place),
            Event::LinkLost(who, number) => return self.link_lost(who, number),
            Event::CancelDeed(member, node, epoch, queues) => self.cancel_deed(member, node, epoch, queues),
            Event::Exit(member) => self.exit(member),
            Event::NameBack(member, node) => self.restart(member, node, false),
            Event::LateRelease(member) => drop(self.release(member)),
            Event::LateHold(member, minutes) => drop(self.hold(member, minutes, true)),
            Event::OutageOver(outage) => self.outage_over(outage),
            Event::InstanceBack(instance) => self.set_instance(instance, ecs::InstanceStatus::Active),
            Event::PolicyBack => self.policy_back(),
            Event::Remake => self.remake(),
        }
        self.settle();
    }

    /// The member that stands for a task of the model.
    pub fn member_of(&mut self, task: ecs::TaskId) -> usize {
        if let Some(index) = self.by_task.get(&task.0) {
            return *index;
        }
        let index = self.members.len();
        self.members.push(Member {
            ecs: task,
            hex: task.to_string(),
            id: format!("t{}", index + 1).into(),
            nodes: Vec::new(),
            renamed: false,
            identity: Identity::default(),
            hosts: Vec::new(),
            twin_until: 0,
            double: None,
            confused: false,
            track: Track::default(),
        });
        self.by_task.insert(task.0, index);
        index
    }

    /// The member that the operator calls so.
    pub fn member_named(&self, id: &TaskId) -> Option<usize> {
        let number: usize = id.as_str().strip_prefix('t')?.parse().ok()?;
        number.checked_sub(1).filter(|index| *index < self.members.len())
    }

    /// What ECS tells of these tasks' containers and network interfaces.
    pub fn identities<'a>(&self, tasks: impl Iterator<Item = &'a TaskId>) -> BTreeMap<TaskId, Identity> {
        let known = tasks.filter_map(|id| self.member_named(id).map(|m| (id, &self.members[m])));
        known.map(|(id, member)| (id.clone(), self.identity(member))).collect()
    }

    fn identity(&self, member: &Member) -> Identity {
        let mut identity = member.identity.clone();
        if let Some((_, other)) = member.double.filter(|(until, _)| *until > self.now) {
            let Identity { containers, host_names, addresses } = self.members[other].identity.clone();
            identity.containers.extend(containers);
            identity.host_names.extend(host_names);
            identity.addresses.extend(addresses);
        }
        identity
    }

    /// What the operator calls a deployment.
    pub fn revision_of(&mut self, deployment: DeploymentId) -> RevisionId {
        let next = self.revisions.len() + 1;
        self.revisions.entry(deployment.0).or_insert_with(|| RevisionId::from(format!("r{next}"))).clone()
    }

    /// The service as it is.
    pub fn service(&self) -> &ecs::Service {
        self.ecs.service(CLUSTER, SERVICE).expect("the service was made at the beginning")
    }

    /// Whether this is out of order now.
    pub fn is_out(&self, outage: Outage) -> bool {
        self.outages[outage as usize] > self.now
    }

    /// A fault that is drawn call by call befalls this call, so many times in a thousand.
    pub fn befalls(&mut self, fault: Fault, permille: u64) -> bool {
        if self.calm {
            return false;
        }
        let befalls = self.call_chance.get_mut(&fault).is_some_and(|chance| chance.permille(permille));
        if befalls {
            self.tally.fault(fault);
        }
        befalls
    }

    /// A span drawn for a fault that befell a call.
    pub fn span_of(&mut self, fault: Fault, low: u64, high: u64) -> u64 {
        self.call_chance.get_mut(&fault).map_or(low, |chance| chance.between(low, high))
    }

    /// Writes a line into the story, if there is one.
    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        self.judge.tell(self.now, line);
    }

    /// A rule does not hold.
    pub fn broken(&mut self, rule: &'static str, what: impl FnOnce() -> String) {
        self.judge.broken(self.now, rule, what);
    }

    /// Everything outside is as it should be, and nothing goes on: then history may end.
    pub fn is_at_rest(&self) -> bool {
        let service = self.service();
        if self.deleted {
            return service.status == ServiceStatus::Inactive;
        }
        let primary = service.primary().map(|primary| primary.id);
        let of_primary = |task: &ecs::TaskId| self.ecs.task(*task).is_some_and(|task| task.deployment == primary);
        service.tasks.iter().all(of_primary)
    }
}

fn serde_json_map() -> serde_json::Map<String, serde_json::Value> {
    serde_json::Map::new()
}
