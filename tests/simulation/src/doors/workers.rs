//! The workers: modelled Celery nodes behind requests and replies that get lost, are slow, or come twice.

use std::collections::{BTreeMap, BTreeSet};

use worker_drain::{identity::Expected, workers::Workers};
use worker_drain_plan::{
    NodeName, Observation, Outcome, QueueName, TaskId,
    observation::{Answer, Failure, FailureKind, Job, Mapping, Queue, Seen, WorkersView},
};

use super::{clock, judge_begin};
use crate::{
    fault::Fault,
    script::Outage,
    setup::SECOND,
    sim::{PATIENCE, Sim},
    tap::stamp,
    world::{Event, NodeState, World},
};

/// What the queues are called; a bit each.
const QUEUES: [&str; 2] = ["video", "audio"];

/// The broker, as one operator reaches it.
#[derive(Clone, Copy, Debug)]
pub struct SimWorkers<'a> {
    /// The world.
    pub sim: &'a Sim,
    /// Whose.
    pub who: usize,
}

/// A question to every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Queues,
    Reserved,
    Active,
}

type Answers = BTreeMap<NodeName, Answer>;

impl Workers for SimWorkers<'_> {
    async fn observe(&self, tasks: &BTreeMap<TaskId, Expected>) -> Result<WorkersView, Failure> {
        let asked = {
            let mut world = self.sim.world();
            let (now, ms) = (clock(&world, self.who), world.now);
            world.taps[self.who].asked_ms = ms;
            now
        };
        let result = self.look(tasks).await;
        let mut world = self.sim.world();
        let now = clock(&world, self.who);
        let tap = &mut world.taps[self.who];
        let workers = match &result {
            Ok(value) => Seen::Ok { value: value.clone(), at: asked },
            Err(failure) => Seen::Err { failure: failure.clone(), at: now },
        };
        tap.observation = tap.fleet.take().map(|fleet| Observation { fleet, workers });
        result
    }

    async fn cancel(&self, cancels: &[(NodeName, Vec<QueueName>)]) -> Vec<Outcome> {
        let requests: Vec<_> = cancels.iter().map(|(node, queues)| (node, bits(queues.iter()))).collect();
        self.send(&requests, false).await
    }

    async fn give_back(&self, undos: &[(NodeName, Vec<Queue>)]) -> Vec<Outcome> {
        let names = |queues: &[Queue]| bits(queues.iter().map(|queue| &queue.name));
        let requests: Vec<_> = undos.iter().map(|(node, queues)| (node, names(queues))).collect();
        self.send(&requests, true).await
    }
}

impl SimWorkers<'_> {
    async fn connect(&self) -> Result<(), Failure> {
        self.sim.point(self.who).await;
        let fail = |kind, why: &str| Err(Failure::new(kind, why));
        let (down, denied, invalid) = {
            let world = self.sim.world();
            (world.is_out(Outage::BrokerDown), world.is_out(Outage::BrokerDenied), world.is_out(Outage::BrokerInvalid))
        };
        if down {
            self.sim.sleep(PATIENCE).await;
            return fail(FailureKind::Unreachable, "the broker does not answer");
        }
        match (denied, invalid) {
            (true, _) => fail(FailureKind::Denied, "WRONGPASS"),
            (_, true) => fail(FailureKind::Invalid, "no remote control on this broker"),
            _ => Ok(()),
        }
    }

    async fn look(&self, tasks: &BTreeMap<TaskId, Expected>) -> Result<WorkersView, Failure> {
        self.connect().await?;
        let mut answers = Answers::new();
        for question in [Question::Queues, Question::Reserved, Question::Active] {
            let takes = self.ask(question, &mut answers);
            self.sim.point(self.who).await;
            self.sim.sleep(takes).await;
        }
        let world = self.sim.world();
        Ok(view(&world, tasks, answers))
    }

    /// Asks every node one question; how long it takes until the last answer is there.
    fn ask(&self, question: Question, answers: &mut Answers) -> u64 {
        let mut world = self.sim.world();
        let now = clock(&world, self.who);
        let mut takes = world.delay_chance.between(2, 60);
        if world.is_out(Outage::BrokerDown) {
            return PATIENCE;
        }
        for m in 0..world.members.len() {
            for n in 0..world.members[m].nodes.len() {
                if !matches!(world.members[m].nodes[n].state, NodeState::Up | NodeState::Ending) {
                    continue;
                }
                if world.befalls(Fault::ReplyLost, 60) {
                    takes = takes.max(SECOND);
                    continue;
                }
                let mut answered = takes;
                if world.befalls(Fault::ReplySlow, 60) {
                    answered = world.span_of(Fault::ReplySlow, 100, 3 * SECOND);
                    takes = takes.max(answered);
                }
                let name = world.members[m].nodes[n].name.clone();
                let answer = answers.entry(name).or_insert_with(|| Answer {
                    asked_at: now,
                    answered_at: now,
                    instance: None,
                    queues: None,
                    reserved: None,
                    active: None,
                    scheduled: None,
                });
                let later = jiff::SignedDuration::from_millis(i64::try_from(answered).unwrap_or(0));
                answer.answered_at = answer.answered_at.max(now.saturating_add(later).unwrap_or(now));
                fill(&world, m, n, question, answer);
            }
        }
        takes
    }

    async fn send(&self, requests: &[(&NodeName, u8)], add: bool) -> Vec<Outcome> {
        {
            let mut world = self.sim.world();
            judge_begin(&mut world, self.who, false);
            if world.now > world.taps[self.who].planned_ms + 12 * SECOND {
                world.disturbed_at = world.now;
            }
        }
        if let Err(failure) = self.connect().await {
            return vec![Outcome::Failed(failure); requests.len()];
        }
        {
            let mut world = self.sim.world();
            for (node, queues) in requests {
                request(&mut world, node, *queues, add);
            }
        }
        self.sim.point(self.who).await;
        vec![Outcome::Done; requests.len()]
    }
}

/// A request goes on its way to a worker.
fn request(world: &mut World, node: &NodeName, queues: u8, add: bool) {
    let Some((m, n)) = world.node_named(node) else { return };
    if world.members[m].nodes[n].name != *node || world.befalls(Fault::RequestLost, 120) {
        return;
    }
    let epoch = world.members[m].nodes[n].epoch;
    let mut at = world.now + world.delay_chance.between(1, 50);
    if world.befalls(Fault::RequestLate, 120) {
        at += world.span_of(Fault::RequestLate, 500, 10 * SECOND);
    }
    world.at(at, Event::Control(m, n, epoch, add, queues));
    if world.befalls(Fault::RequestDoubled, 120) {
        let again = at + world.span_of(Fault::RequestDoubled, 500, 10 * SECOND);
        world.at(again, Event::Control(m, n, epoch, add, queues));
    }
}

/// Writes down what a node answers to one question now.
fn fill(world: &World, m: usize, n: usize, question: Question, answer: &mut Answer) {
    let node = &world.members[m].nodes[n];
    let jobs = |ids: &mut dyn Iterator<Item = usize>, run: bool| -> Vec<Job> {
        ids.map(|id| Job {
            id: world.jobs[id].id.clone(),
            name: "app.transcode".into(),
            started_at: run.then(|| stamp(world.jobs[id].started_at)),
        })
        .collect()
    };
    match question {
        Question::Queues => answer.queues = Some(named(node.consuming)),
        Question::Reserved => answer.reserved = Some(jobs(&mut node.reserved.iter().copied(), false)),
        Question::Active => {
            answer.active = Some(jobs(&mut node.active.iter().copied(), true));
            answer.scheduled = Some(jobs(&mut node.scheduled.iter().copied(), false));
        }
    }
}

/// Which nodes are whose.
fn view(world: &World, tasks: &BTreeMap<TaskId, Expected>, answers: Answers) -> WorkersView {
    let mut strangers: BTreeSet<NodeName> = answers.keys().cloned().collect();
    let mut mapped = BTreeMap::new();
    for (id, expected) in tasks {
        let own = format!("@{id}");
        let mut nodes: BTreeSet<NodeName> =
            answers.keys().filter(|name| name.as_str().ends_with(&own)).cloned().collect();
        for node in &nodes {
            strangers.remove(node);
        }
        if !expected.running {
            continue;
        }
        if world.setup.work.maps_silent {
            nodes.extend(expected.nodes.iter().cloned());
        }
        let ambiguous = world.member_named(id).is_some_and(|m| world.members[m].ambiguous_until > world.now);
        let mapping = if ambiguous {
            Mapping::Ambiguous { why: format!("two tasks claim celery@{id}") }
        } else if nodes.is_empty() {
            Mapping::NotFound { hint: format!("no node is called celery@{id}") }
        } else {
            Mapping::Nodes(nodes)
        };
        mapped.insert(id.clone(), mapping);
    }
    WorkersView { tasks: mapped, nodes: answers, strangers, silences: BTreeMap::new() }
}

fn bits<'a>(queues: impl Iterator<Item = &'a QueueName>) -> u8 {
    queues
        .filter_map(|queue| QUEUES.iter().position(|name| *name == queue.as_str()))
        .fold(0, |bits, place| bits | 1 << place)
}

fn named(bits: u8) -> Vec<Queue> {
    let taken = QUEUES.iter().enumerate().filter(|(place, _)| bits >> place & 1 == 1);
    taken.map(|(_, name)| Queue { name: (*name).into(), binding: None }).collect()
}
