//! The ECS fleet against the emulator's API: what is seen, what is held, and what is said when something is in the way.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod belonging;
mod deleted;
mod environment;
mod failures;
mod holds;
mod moves;
mod observations;
mod tags;
mod unplaced;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use ecs_emulator::{
    Config, Emulator,
    model::{BlockedRenewal, CallFault, ContainerDefinition, CreateService, Faults, Knobs, Strategy, UpdateService},
};
use jiff::SignedDuration;
use serde_json::Map;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use worker_drain::{
    clock::SystemClock,
    fleet::{
        Fleet, FleetObservation,
        ecs::{EcsFleet, EcsSettings, Limiters},
    },
};
use worker_drain_plan::{
    Outcome, TaskId,
    observation::{Failure, HoldState, Life},
};

/// A bound for what should take seconds; a busy machine may need much longer.
const PATIENCE: Duration = Duration::from_mins(2);
const TWO_HOURS: SignedDuration = SignedDuration::from_hours(2);

/// An emulator with one service, and the fleet that looks at it.
struct Stage {
    emulator: Emulator,
    fleet: EcsFleet,
    limiters: Limiters,
    _logs: TempDir,
}

fn settings() -> EcsSettings {
    EcsSettings { cluster: "media".to_owned(), service: "transcoder".to_owned(), ..EcsSettings::default() }
}

async fn connect(endpoint: &str, settings: EcsSettings, limiters: &Limiters) -> EcsFleet {
    connect_in("us-east-1", endpoint, settings, limiters).await
}

async fn connect_in(region: &'static str, endpoint: &str, settings: EcsSettings, limiters: &Limiters) -> EcsFleet {
    let config = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .endpoint_url(endpoint)
        .region(Region::from_static(region))
        .credentials_provider(Credentials::new("AKIDEXAMPLE", "secret", None, None, "test"))
        .load()
        .await;
    EcsFleet::with_config(settings, &config, limiters, Arc::new(SystemClock)).unwrap()
}

impl Stage {
    /// Changes how the emulator behaves.
    fn set(&self, change: impl FnOnce(&mut Knobs)) {
        self.emulator.with_world(|world| {
            let mut knobs = world.knobs().clone();
            change(&mut knobs);
            world.set_knobs(knobs);
        });
    }

    /// A service of `desired` tasks, whose containers are only pretended.
    async fn with(desired: u32) -> Self {
        Self::in_region("us-east-1", "123456789012", desired).await
    }

    /// The same in this Region of this account.
    async fn in_region(region: &'static str, account: &str, desired: u32) -> Self {
        let logs = tempfile::tempdir().unwrap();
        let mut config = Config::fast(logs.path());
        config.knobs.blocked_renewal = BlockedRenewal::Allow;
        (config.knobs.region, config.knobs.account) = (region.to_owned(), account.to_owned());
        let emulator = Emulator::start(config).await.unwrap();
        let now = emulator.now();
        emulator.with_world(|world| {
            world.create_cluster("media", now).unwrap();
            let containers = vec![ContainerDefinition::new("worker", &[])];
            world.register_task_definition("worker", containers, Map::new(), now).unwrap();
            let request = CreateService {
                cluster: "media".to_owned(),
                name: "transcoder".to_owned(),
                task_definition: "worker".to_owned(),
                desired,
                ..CreateService::default()
            };
            world.create_service(&request, now).unwrap();
        });
        let limiters = Limiters::default();
        let fleet = connect_in(region, emulator.endpoint(), settings(), &limiters).await;
        Self { emulator, fleet, limiters, _logs: logs }
    }

    /// A new deployment of the same task definition.
    fn deploy(&self) {
        let request = UpdateService {
            cluster: "media".to_owned(),
            service: "transcoder".to_owned(),
            force_new_deployment: true,
            ..UpdateService::default()
        };
        let now = self.emulator.now();
        self.emulator.with_world(|world| world.update_service(&request, now).unwrap());
    }

    /// Changes how the service is deployed.
    fn set_strategy(&self, strategy: Strategy) {
        let request = UpdateService {
            cluster: "media".to_owned(),
            service: "transcoder".to_owned(),
            strategy: Some(strategy),
            ..UpdateService::default()
        };
        let now = self.emulator.now();
        self.emulator.with_world(|world| world.update_service(&request, now).unwrap());
    }

    fn fail(&self, operation: &str, error: &str, times: Option<u32>) {
        let fault = CallFault {
            error: Some(error.to_owned()),
            message: "for a test".to_owned(),
            times,
            after_effect: false,
            delay: Duration::ZERO,
        };
        self.emulator.set_faults(Faults { fail: [(operation.to_owned(), fault)].into(), ..Faults::default() });
    }

    /// Ends a task as a person might.
    fn stop_task(&self, task: &TaskId) {
        let now = self.emulator.now();
        self.emulator.with_world(|world| world.stop_task("media", task.as_str(), "", now).unwrap());
    }

    /// A task of the same cluster that no service owns.
    fn standalone(&self) -> TaskId {
        let now = self.emulator.now();
        self.emulator.with_world(|world| {
            let task = world.run_task("media", "worker", now).unwrap();
            TaskId::from(world.knobs().task_arn("media", task.id))
        })
    }

    async fn look(&self) -> FleetObservation {
        self.fleet.observe(&BTreeSet::new()).await.unwrap()
    }

    async fn failure(&self) -> Failure {
        self.fleet.observe(&BTreeSet::new()).await.unwrap_err()
    }

    /// Looks until what is seen fits.
    async fn look_until(
        &self,
        what: &str,
        tracked: &BTreeSet<TaskId>,
        fits: impl Fn(&FleetObservation) -> bool,
    ) -> FleetObservation {
        let found = timeout(PATIENCE, async {
            loop {
                let look = self.fleet.observe(tracked).await.unwrap();
                if fits(&look) {
                    return look;
                }
                sleep(Duration::from_millis(100)).await;
            }
        });
        found.await.unwrap_or_else(|_| panic!("never: {what}"))
    }

    /// All of the service's tasks, once so many run.
    async fn running(&self, count: usize) -> Vec<TaskId> {
        let all_run = |look: &FleetObservation| {
            look.view.tasks.len() == count && look.view.tasks.values().all(|task| task.life == Life::Running)
        };
        let look = self.look_until("the tasks run", &BTreeSet::new(), all_run).await;
        look.view.tasks.into_keys().collect()
    }

    async fn hold(&self, tasks: &[TaskId]) -> Vec<Outcome> {
        let holds: Vec<_> = tasks.iter().map(|task| (task.clone(), TWO_HOURS)).collect();
        self.fleet.hold(&holds).await
    }
}

fn is_held(look: &FleetObservation, task: &TaskId) -> bool {
    matches!(look.view.tasks.get(task).map(|task| task.hold), Some(HoldState::Until(_)))
}
