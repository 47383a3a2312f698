//! A world with one service, and containers that do as they are told.

use std::{collections::BTreeSet, time::Duration};

use ecs_emulator::model::{
    ApiError, CircuitBreaker, ConfigurationChange, ContainerDefinition, CreateService, Deployment,
    DeploymentConfiguration, Effect, Knobs, LastStatus, Protection, ProtectionAnswer, RolloutState, Service,
    ServiceEvent, Task, TaskId, Time, UpdateService, World,
};
use serde_json::Map;

pub(crate) const CLUSTER: &str = "default";
pub(crate) const SERVICE: &str = "workers";

/// Long enough for any rollout here that nothing holds up.
const A_LONG_TIME: Duration = Duration::from_hours(1);

pub(crate) struct Lab {
    pub world: World,
    pub now: Time,
    /// These ignore SIGTERM.
    pub stubborn: BTreeSet<TaskId>,
}

/// Everything at the pace of ECS, and every call allowed.
pub(crate) fn knobs() -> Knobs {
    Knobs { throttling: false, ..Knobs::default() }
}

pub(crate) fn percent(minimum_healthy_percent: u32, maximum_percent: u32) -> DeploymentConfiguration {
    DeploymentConfiguration { minimum_healthy_percent, maximum_percent, ..DeploymentConfiguration::default() }
}

pub(crate) fn breaker(rollback: bool) -> DeploymentConfiguration {
    DeploymentConfiguration { breaker: CircuitBreaker { enable: true, rollback }, ..DeploymentConfiguration::default() }
}

impl Lab {
    /// A service that has just been made, with revision 1 of three registered.
    pub fn new(knobs: Knobs, seed: u64, desired: u32, configuration: DeploymentConfiguration) -> Self {
        let now = Time(1_000_000);
        let mut world = World::new(knobs, seed);
        for _ in 0..3 {
            let containers = vec![ContainerDefinition::new("worker", &["celery"])];
            world.register_task_definition("worker", containers, Map::new(), now).unwrap();
        }
        let request = CreateService {
            cluster: CLUSTER.to_owned(),
            name: SERVICE.to_owned(),
            task_definition: "worker:1".to_owned(),
            desired,
            configuration,
            ..CreateService::default()
        };
        world.create_service(&request, now).unwrap();
        Self { world, now, stubborn: BTreeSet::new() }
    }

    /// The same, settled.
    pub fn settled(knobs: Knobs, desired: u32, configuration: DeploymentConfiguration) -> Self {
        let mut lab = Self::new(knobs, 7, desired, configuration);
        lab.until("the service has settled", |lab| lab.primary().rollout == RolloutState::Completed);
        lab
    }

    /// Lets one thing happen; false if none is due before `end`.
    pub fn step(&mut self, end: Time) -> bool {
        let Some(at) = self.world.next_event_at().filter(|at| *at <= end) else {
            self.now = self.now.max(end);
            self.act(self.now);
            return false;
        };
        self.now = self.now.max(at);
        self.act(self.now);
        true
    }

    fn act(&mut self, now: Time) {
        for effect in self.world.advance(now) {
            match effect {
                Effect::Start { task, container } => self.world.container_started(task, container, now),
                Effect::Terminate { task, container } => {
                    if !self.stubborn.contains(&task) {
                        self.world.container_exited(task, container, 0, now);
                    }
                }
                Effect::Kill { task, container } => self.world.container_exited(task, container, 137, now),
            }
        }
    }

    pub fn run(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while self.step(end) {}
    }

    /// Runs until something is so.
    pub fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = self.now + A_LONG_TIME;
        while !is_so(self) {
            assert!(self.step(end) || is_so(self), "never: {what}\n{}", self.story());
        }
    }

    pub fn until_completed(&mut self) {
        self.until("the rollout is complete", |lab| lab.primary().rollout == RolloutState::Completed);
    }

    pub fn story(&self) -> String {
        let lines = self.world.history().iter().map(|entry| format!("{} {:?}", entry.at, entry.what));
        lines.collect::<Vec<_>>().join("\n")
    }

    pub fn service(&self) -> &Service {
        self.world.service(CLUSTER, SERVICE).unwrap()
    }

    pub fn primary(&self) -> &Deployment {
        self.service().primary().unwrap()
    }

    pub fn update(&mut self, change: impl FnOnce(&mut UpdateService)) -> Result<Service, ApiError> {
        let mut request = UpdateService { service: SERVICE.to_owned(), ..UpdateService::default() };
        change(&mut request);
        let answer = self.world.update_service(&request, self.now);
        self.act(self.now);
        answer
    }

    pub fn deploy(&mut self, revision: u32) {
        self.update(|request| request.task_definition = Some(format!("worker:{revision}"))).unwrap();
    }

    pub fn scale(&mut self, desired: u32) {
        self.update(|request| request.desired = Some(desired)).unwrap();
    }

    pub fn configure(&mut self, configuration: DeploymentConfiguration) {
        let change = ConfigurationChange {
            minimum_healthy_percent: Some(configuration.minimum_healthy_percent),
            maximum_percent: Some(configuration.maximum_percent),
            breaker: Some(configuration.breaker),
        };
        self.update(|request| request.configuration = change).unwrap();
    }

    pub fn protect(&mut self, tasks: &[TaskId], protection: Protection) -> ProtectionAnswer {
        let names: Vec<String> = tasks.iter().map(ToString::to_string).collect();
        let mut all = ProtectionAnswer::default();
        for names in names.chunks(10) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let answer = self.world.update_task_protection(CLUSTER, &names, protection, self.now).unwrap();
            all.tasks.extend(answer.tasks);
            all.failures.extend(answer.failures);
        }
        self.act(self.now);
        all
    }

    pub fn stop_task(&mut self, task: TaskId) {
        self.world.stop_task(CLUSTER, &task.to_string(), "", self.now).unwrap();
        self.act(self.now);
    }

    /// The process of a task ends by itself.
    pub fn exit(&mut self, task: TaskId, code: i32) {
        self.world.container_exited(task, 0, code, self.now);
        self.act(self.now);
    }

    pub fn task(&self, id: TaskId) -> &Task {
        self.world.task(id).unwrap()
    }

    /// Live tasks of a revision.
    pub fn live(&self, revision: u32) -> Vec<TaskId> {
        let tasks = self.world.tasks_of(self.service().id);
        tasks.filter(|task| task.is_live() && task.definition.revision == revision).map(|task| task.id).collect()
    }

    /// Of these, the ones that run.
    pub fn running(&self, revision: u32) -> Vec<TaskId> {
        self.live(revision).into_iter().filter(|id| self.task(*id).last == LastStatus::Running).collect()
    }

    pub fn healthy(&self) -> usize {
        self.world.tasks_of(self.service().id).filter(|task| task.healthy).count()
    }

    pub fn all_live(&self) -> usize {
        self.world.tasks_of(self.service().id).filter(|task| task.is_live()).count()
    }

    pub fn said(&self, part: &str) -> bool {
        self.service().events.iter().any(|event: &ServiceEvent| event.message.contains(part))
    }
}
