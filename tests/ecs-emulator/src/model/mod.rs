//! A pure model of the ECS service scheduler on a logical clock.
//!
//! [`World`] knows no I/O, no clock and no hash order; chance comes from its seed. So two worlds with the same seed,
//! knobs and calls go through the same history, and a simulation can run one on virtual time.
//!
//! How to drive it: call the API methods, [`World::advance`] to a time, carry out the [`Effect`]s, report what
//! containers do ([`World::container_started`], [`World::container_exited`]), and sleep until
//! [`World::next_event_at`]. After any call, [`World::advance`] may have effects at once.
//!
//! ```
//! use ecs_emulator::model::{ContainerDefinition, CreateService, Effect, Knobs, RolloutState, Time, World};
//!
//! let mut world = World::new(Knobs::simulation(), 42);
//! let mut now = Time(0);
//! let worker = vec![ContainerDefinition::new("worker", &["celery"])];
//! world.register_task_definition("worker", worker, serde_json::Map::new(), now)?;
//! let request = CreateService {
//!     name: "workers".into(),
//!     task_definition: "worker:1".into(),
//!     desired: 2,
//!     ..CreateService::default()
//! };
//! world.create_service(&request, now)?;
//! while let Some(next) = world.next_event_at() {
//!     now = next;
//!     for effect in world.advance(now) {
//!         match effect {
//!             Effect::Start { task, container } => world.container_started(task, container, now),
//!             Effect::Terminate { task, container } => world.container_exited(task, container, 0, now),
//!             Effect::Kill { task, container } => world.container_exited(task, container, 137, now),
//!         }
//!     }
//! }
//! let service = world.service("default", "workers").expect("just made");
//! assert_eq!(service.primary().expect("in use").rollout, RolloutState::Completed);
//! # Ok::<(), ecs_emulator::model::ApiError>(())
//! ```
//!
//! Rules and texts are those of the AWS documentation and of captured events; where AWS is silent there is a
//! [knob](Knobs).

mod definition;
mod error;
mod faults;
mod history;
mod ids;
mod instances;
mod knobs;
mod lifecycle;
mod moves;
mod operation;
mod pause;
mod protection;
mod rng;
mod rollout;
mod scheduler;
mod service;
mod services;
mod tags;
mod task;
mod tasks;
mod throttle;
pub(crate) mod time;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    sync::Arc,
};

pub use self::{
    definition::{ContainerDefinition, TaskDefinition},
    error::{ApiError, Failure},
    faults::{CallFault, Faults},
    history::{Entry, Transition},
    ids::{DeploymentId, InstanceId, NotATaskId, ServiceId, TaskId},
    instances::{ContainerInstance, InstanceStatus},
    knobs::{
        BlockedRenewal, BlockedRule, DeleteForceProtected, DeploymentStatusSet, DrainingProtected, EarlySuccess,
        HostnameShape, Knobs, ReplaceTerminated, RollbackId, Span,
    },
    operation::Operation,
    pause::{Pause, PauseEnd, PauseStage},
    protection::{ProtectedTask, Protection, ProtectionAnswer},
    rng::Rng,
    service::{
        CircuitBreaker, ConfigurationChange, Deployment, DeploymentConfiguration, DeploymentStatus, RolloutState,
        Service, ServiceEvent, ServiceStatus, Strategy,
    },
    services::{Counts, CreateService, DescribedServices, UpdateService},
    task::{ContainerState, DesiredStatus, Health, LastStatus, Stop, StopCause, Task},
    tasks::{DescribedTasks, Interruption, ListTasks, TaskPage},
    time::Time,
};
use self::{history::History, throttle::Buckets};

/// What the runner of containers has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Start a container; answer with [`World::container_started`] or [`World::container_failed_to_start`].
    Start {
        /// Of this task.
        task: TaskId,
        /// By its place in the task definition.
        container: usize,
    },
    /// Send SIGTERM to its main process.
    Terminate {
        /// Of this task.
        task: TaskId,
        /// By its place in the task definition.
        container: usize,
    },
    /// Send SIGKILL to all of it.
    Kill {
        /// Of this task.
        task: TaskId,
        /// By its place in the task definition.
        container: usize,
    },
}

/// What can be observed through the API, so what a stale read shows an old state of.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Names of clusters.
    pub clusters: BTreeSet<String>,
    /// Every task definition ever registered.
    pub definitions: BTreeMap<(String, u32), Arc<TaskDefinition>>,
    /// Every service ever made, in that order, deleted ones too.
    pub services: Vec<Service>,
    /// Every task that is still visible.
    pub tasks: BTreeMap<TaskId, Task>,
    /// Every container instance ever registered.
    pub instances: BTreeMap<InstanceId, ContainerInstance>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Tick(ServiceId),
    Task(TaskId, TaskTimer),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TaskTimer {
    Provisioned,
    Start,
    Healthy,
    Deactivated,
    Interrupted,
    Signal,
    Kill(usize),
    Deprovisioned,
    Purge,
    ProtectionEnds,
    MayStop,
}

/// An account and Region of ECS.
#[derive(Debug, Clone)]
pub struct World {
    knobs: Knobs,
    faults: Faults,
    /// For the scheduler's choices.
    rng: Rng,
    /// For reads, so that looking does not change what happens.
    read_rng: Rng,
    now: Time,
    state: State,
    queue: BinaryHeap<Reverse<(Time, u64, Timer)>>,
    sequence: u64,
    addresses: u16,
    effects: Vec<Effect>,
    history: History,
    outbox: VecDeque<(Time, Task)>,
    buckets: Buckets,
    calls: BTreeMap<Operation, u64>,
    interruptions: BTreeMap<TaskId, Interruption>,
    snapshots: VecDeque<(Time, State)>,
}

impl World {
    /// An empty account at time zero, with a cluster `default`.
    pub fn new(knobs: Knobs, seed: u64) -> Self {
        let mut state = State::default();
        state.clusters.insert("default".to_owned());
        Self {
            knobs,
            faults: Faults::default(),
            rng: Rng::new(seed),
            read_rng: Rng::new(!seed),
            now: Time::default(),
            state,
            queue: BinaryHeap::new(),
            sequence: 0,
            addresses: 0,
            effects: Vec::new(),
            history: History::default(),
            outbox: VecDeque::new(),
            buckets: Buckets::default(),
            calls: BTreeMap::new(),
            interruptions: BTreeMap::new(),
            snapshots: VecDeque::new(),
        }
    }

    /// Lets time pass until `now` and returns what the runner has to do, in order.
    ///
    /// Time never goes back: an earlier `now` is taken as the latest one seen.
    pub fn advance(&mut self, now: Time) -> Vec<Effect> {
        self.catch_up(now);
        std::mem::take(&mut self.effects)
    }

    /// When something will happen by itself; a virtual clock may jump there.
    pub fn next_event_at(&self) -> Option<Time> {
        self.queue.peek().map(|Reverse((at, ..))| *at)
    }

    /// The latest time seen.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The settings.
    pub fn knobs(&self) -> &Knobs {
        &self.knobs
    }

    /// Changes settings. Delays that have begun keep their length.
    pub fn set_knobs(&mut self, knobs: Knobs) {
        self.knobs = knobs;
        self.poke_all();
    }

    /// The faults in force.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Replaces all faults.
    pub fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        self.buckets = Buckets::default();
        self.snapshot();
        self.poke_all();
    }

    /// How long the next call of this operation shall be delayed by whoever makes it, see [`CallFault::delay`].
    pub fn call_delay(&mut self, operation: Operation) -> std::time::Duration {
        self.faults.delay(operation)
    }

    /// The truth, whatever stale reads say.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// A task, as it is now.
    pub fn task(&self, id: TaskId) -> Option<&Task> {
        self.state.tasks.get(&id)
    }

    /// The newest service of that name, as it is now.
    pub fn service(&self, cluster: &str, name: &str) -> Option<&Service> {
        self.state.service(cluster, name)
    }

    /// How often each operation was called, failed and throttled calls included.
    pub fn calls(&self) -> &BTreeMap<Operation, u64> {
        &self.calls
    }

    /// What happened, oldest first, as far as [`Knobs::history_limit`] keeps it.
    pub fn history(&self) -> &VecDeque<Entry> {
        self.history.entries()
    }

    /// Takes the task state changes since the last time: what `EventBridge` would be told, each once and in order.
    pub fn take_task_events(&mut self) -> Vec<(Time, Task)> {
        self.outbox.drain(..).collect()
    }

    pub(crate) fn catch_up(&mut self, now: Time) {
        let mut any = false;
        while self.queue.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Some(Reverse((at, _, timer))) = self.queue.pop() else { break };
            self.now = self.now.max(at);
            any = true;
            match timer {
                Timer::Tick(service) => self.tick(service, at),
                Timer::Task(task, timer) => self.task_timer(task, timer),
            }
            self.snapshot();
        }
        self.now = self.now.max(now);
        if any {
            self.forget_snapshots();
        }
    }

    fn at(&mut self, at: Time, timer: Timer) {
        self.sequence += 1;
        self.queue.push(Reverse((at, self.sequence, timer)));
    }

    fn task_at(&mut self, at: Time, task: TaskId, timer: TaskTimer) {
        self.at(at, Timer::Task(task, timer));
    }

    /// Makes the scheduler look at a service at its next turn.
    fn poke(&mut self, id: ServiceId) {
        let tick = u64::try_from(self.knobs.tick.as_millis()).unwrap_or(u64::MAX).max(1);
        let service = &mut self.state.services[id.0];
        // The next point of the service's own grid, strictly later than now.
        let phase = service.tick_phase % tick;
        let next = Time((self.now.0.saturating_sub(phase) / tick + 1) * tick + phase);
        if service.tick_at.is_none_or(|at| at > next) {
            service.tick_at = Some(next);
            self.at(next, Timer::Tick(id));
        }
    }

    fn poke_all(&mut self) {
        for id in 0..self.state.services.len() {
            if self.state.services[id].status != ServiceStatus::Inactive {
                self.poke(ServiceId(id));
            }
        }
    }

    fn record(&mut self, service: Option<ServiceId>, what: Transition) {
        if self.knobs.history_limit == 0 {
            return;
        }
        let service = service.map(|id| self.state.services[id.0].name.to_string());
        self.history.push(self.knobs.history_limit, Entry { at: self.now, service, what });
    }

    fn say(&mut self, id: ServiceId, message: String) {
        let event = self.rng.next_u128();
        if self.knobs.history_limit > 0 {
            self.record(Some(id), Transition::Event { message: message.clone() });
        }
        self.state.services[id.0].say(event, self.now, message);
    }

    /// Everything that every API call has in common: time, counting, throttling, faults.
    fn call<T>(
        &mut self,
        operation: Operation,
        now: Time,
        act: impl FnOnce(&mut Self) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        self.catch_up(now);
        *self.calls.entry(operation).or_default() += 1;
        let limited = self.knobs.throttling || self.faults.throttle.is_some();
        if limited && !self.buckets.take(operation, self.faults.throttle, self.now) {
            return Err(ApiError::throttled());
        }
        let fault = self.faults.take(operation);
        match fault {
            Some(CallFault { error: Some(code), message, after_effect: false, .. }) => {
                Err(ApiError::new(code, message))
            }
            Some(CallFault { error: Some(code), message, .. }) => {
                act(self)?;
                self.snapshot();
                Err(ApiError::new(code, message))
            }
            _ => {
                let answer = act(self);
                self.snapshot();
                answer
            }
        }
    }

    /// What a read sees, and from when that is.
    fn view(&mut self) -> (Time, &State) {
        let stale = self.faults.stale_reads;
        if stale.is_zero() {
            return (self.now, &self.state);
        }
        let at = self.now - self.read_rng.between(std::time::Duration::ZERO, stale);
        let seen = self.snapshots.iter().rev().find(|(since, _)| *since <= at).or_else(|| self.snapshots.front());
        seen.map_or((self.now, &self.state), |(_, state)| (at, state))
    }

    fn snapshot(&mut self) {
        if self.faults.stale_reads.is_zero() {
            self.snapshots.clear();
        } else {
            self.snapshots.push_back((self.now, self.state.clone()));
            self.forget_snapshots();
        }
    }

    fn forget_snapshots(&mut self) {
        let horizon = self.now - self.faults.stale_reads;
        // The last one before the horizon is still what a read at the horizon sees.
        while self.snapshots.get(1).is_some_and(|(since, _)| *since <= horizon) {
            self.snapshots.pop_front();
        }
    }
}

impl State {
    /// The newest service of that name.
    pub fn service(&self, cluster: &str, name: &str) -> Option<&Service> {
        self.services.iter().rev().find(|service| service.cluster == cluster && *service.name == *name)
    }
}
