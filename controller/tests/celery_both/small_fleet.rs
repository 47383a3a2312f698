//! A fleet of a few tasks that are only written down, for tests of the whole loop on real workers and a real broker.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
};

use jiff::SignedDuration;
use worker_drain::{
    clock::{Clock, SystemClock},
    fleet::{Fleet, FleetObservation},
    reconcile::Drain,
    record::Record,
    workers::Workers,
};
use worker_drain_plan::{
    Memory, Outcome, Policy, Report, RevisionId, TaskId,
    observation::{Displaced, Failure, FleetView, HoldState, Life, Revision, Task},
    policy::{DrainPolicy, HoldMode, HoldPolicy, Mode, Scheduled},
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding it")
}

/// Tasks that run, by id, each with its revision; "new" is the current one. All are held until they are released.
#[derive(Debug)]
pub struct SmallFleet {
    tasks: Vec<(String, &'static str)>,
    released: Mutex<BTreeSet<TaskId>>,
}

impl SmallFleet {
    pub fn of(tasks: &[(&str, &'static str)]) -> Self {
        let tasks = tasks.iter().map(|(id, revision)| ((*id).to_owned(), *revision)).collect();
        Self { tasks, released: Mutex::default() }
    }

    /// Tasks whose hold was released.
    pub fn released(&self) -> Vec<String> {
        lock(&self.released).iter().map(ToString::to_string).collect()
    }

    fn task(&self, id: &str, revision: &str) -> Task {
        let now = SystemClock.now();
        let hold = if lock(&self.released).contains(&TaskId::from(id)) {
            HoldState::Free
        } else {
            HoldState::Until(now + SignedDuration::from_hours(40))
        };
        Task {
            revision: revision.into(),
            life: Life::Running,
            started_at: Some(now),
            hold,
            displaced: Displaced::No,
            zone: None,
            alike: Vec::new(),
        }
    }
}

impl Fleet for SmallFleet {
    async fn observe(&self, _: &BTreeSet<TaskId>) -> Result<FleetObservation, Failure> {
        let revision = |name: &str| (name.into(), Revision { label: format!("app:{name}"), created_at: None });
        let tasks =
            self.tasks.iter().map(|(id, revision)| (TaskId::from(id.as_str()), self.task(id, revision))).collect();
        let view = FleetView {
            is_rolling_out: false,
            is_deleted: false,
            name: "media/transcoder".into(),
            desired: 1,
            minimum_healthy_percent: 100,
            maximum_percent: 200,
            current: "new".into(),
            revisions: ["old", "new"].map(revision).into(),
            tasks,
            made_at: None,
            longest_hold: SignedDuration::from_hours(48),
            unplaced: BTreeMap::new(),
            counted: None,
            balances_zones: false,
            unread: Vec::new(),
            remembered: None,
        };
        Ok(FleetObservation { view, identities: BTreeMap::new() })
    }

    async fn hold(&self, holds: &[(TaskId, SignedDuration)]) -> Vec<Outcome> {
        vec![Outcome::Done; holds.len()]
    }

    async fn remember(&self, _: &BTreeMap<RevisionId, u32>, _: &FleetView) -> Outcome {
        Outcome::Done
    }

    async fn release(&self, tasks: &[TaskId]) -> Vec<Outcome> {
        lock(&self.released).extend(tasks.iter().cloned());
        vec![Outcome::Done; tasks.len()]
    }
}

/// A memory that goes with the test.
#[derive(Debug, Default)]
pub struct InMemory(Mutex<Memory>);

impl Record for InMemory {
    async fn load(&self) -> Result<Memory, Failure> {
        Ok(lock(&self.0).clone())
    }

    async fn save(&self, memory: &Memory, _: &Report) -> Result<(), Failure> {
        lock(&self.0).clone_from(memory);
        Ok(())
    }
}

/// A drain of this fleet with the policy that a user gets who says nothing, and this memory.
pub fn drain<W: Workers>(fleet: SmallFleet, workers: W, memory: Memory) -> Drain<SmallFleet, W, InMemory, SystemClock> {
    let policy = Policy {
        hold: HoldPolicy { mode: HoldMode::Standing, expires_in: SignedDuration::from_hours(48) },
        drain: DrainPolicy {
            min_consuming: None,
            idle_for: SignedDuration::from_secs(1),
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
    };
    Drain { policy, fleet, workers, record: InMemory(Mutex::new(memory)), clock: SystemClock }
}
