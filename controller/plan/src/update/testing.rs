//! A fleet of a few tasks for the tests of single steps.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::view::View;
use crate::{
    evidence,
    memory::Memory,
    names::TaskId,
    observation::{
        Answer, Delivered, Displaced, FleetView, HoldState, Job, Life, Mapping, Observation, Queue, QueueCount, Seen,
        Task, WorkersView,
    },
    policy::{DrainPolicy, HoldMode, HoldPolicy, Mode, Policy, Scheduled},
};

/// So many seconds after the beginning.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

/// A node that takes no jobs and has none.
pub fn idle(at: Timestamp) -> Answer {
    Answer {
        queues: Some(Vec::new()),
        reserved: Some(Vec::new()),
        active: Some(Vec::new()),
        scheduled: Some(Vec::new()),
        hears_later: true,
        ..Answer::new(at, at)
    }
}

/// A node that takes no jobs and has one.
pub fn busy(at: Timestamp) -> Answer {
    Answer { active: Some(vec![Job { id: "j".into(), name: "work".into(), started_at: None }]), ..idle(at) }
}

/// A node that takes jobs.
pub fn consuming(at: Timestamp) -> Answer {
    Answer { queues: Some(vec![Queue::named("slow")]), ..idle(at) }
}

/// What a step reads and writes.
pub struct Stage {
    pub policy: Policy,
    pub fleet: FleetView,
    pub observation: Observation,
    pub memory: Memory,
}

impl Stage {
    /// One task of the revision `old`, which is current; of one task, that is wanted.
    pub fn with_task(id: &str, life: Life) -> Self {
        let drain = DrainPolicy {
            min_consuming: None,
            idle_for: SignedDuration::from_secs(1),
            scheduled: Scheduled::Ignore,
            deadline: None,
            workers_per_task: None,
            start_timeout: None,
            scale_in: true,
            gate: None,
        };
        let hold = HoldPolicy { mode: HoldMode::Standing, expires_in: SignedDuration::from_hours(2) };
        let fleet = FleetView {
            is_rolling_out: false,
            is_deleted: false,
            name: "media/transcoder".into(),
            made_at: None,
            desired: 1,
            minimum_healthy_percent: 100,
            maximum_percent: 200,
            current: "old".into(),
            revisions: BTreeMap::new(),
            tasks: BTreeMap::new(),
            longest_hold: SignedDuration::from_hours(48),
            unplaced: BTreeMap::new(),
            counted: None,
            balances_zones: false,
            unread: Vec::new(),
            remembered: None,
        };
        let mut stage = Self {
            policy: Policy { hold, drain, mode: Mode::Enforce, paused: false, withdrawn: false },
            observation: Observation {
                fleet: Seen::Ok { value: fleet.clone(), at: at(0) },
                workers: Seen::Ok { value: WorkersView::default(), at: at(0) },
                queues: None,
            },
            fleet,
            memory: Memory::default(),
        };
        stage.add_task(id, life);
        stage
    }

    /// One more task of the revision `old`.
    pub fn add_task(&mut self, id: &str, life: Life) {
        let task = Task {
            revision: "old".into(),
            life,
            started_at: None,
            hold: HoldState::Free,
            displaced: Displaced::No,
            zone: None,
            alike: Vec::new(),
        };
        self.fleet.tasks.insert(id.into(), task);
    }

    /// The task of this name, to be changed.
    pub fn task(&mut self, id: &str) -> &mut Task {
        self.fleet.tasks.get_mut(&id.into()).unwrap()
    }

    /// Its node answers this, and is remembered as its own.
    pub fn answers(&mut self, id: &str, node: &str, answer: Answer) {
        let id = TaskId::from(id);
        self.memory.tasks.entry(id.clone()).or_default().nodes.entry(node.into()).or_default();
        let Seen::Ok { value, .. } = &mut self.observation.workers else { unreachable!("they are seen") };
        value.tasks.insert(id, Mapping::Nodes([node.into()].into()));
        value.nodes.insert(node.into(), answer);
    }

    /// The broker counts so many messages in this queue.
    pub fn counts(&mut self, queue: &str, ready: u64, counted_at: Timestamp) {
        let delivered = Delivered::Counted(0);
        let count = QueueCount { counted_at, ready, delivered, known: true, settles_in: SignedDuration::ZERO };
        let seen = Seen::Ok { value: count, at: counted_at };
        self.observation.queues.get_or_insert_default().insert(queue.into(), seen);
    }

    /// All of it, as a step reads it at this time.
    pub fn view(&self, now: Timestamp) -> View<'_> {
        let Self { policy, fleet, observation, memory } = self;
        let evidence = evidence::of_all(fleet, memory, observation.workers.ok(), &policy.drain, now);
        View { policy, fleet, observation, before: memory, evidence, observed_at: now, now }
    }
}
