//! One ECS service of real Celery workers on a real broker, with all that it needs.

use std::{fs, future::ready, path::PathBuf, time::Duration};

use ecs_emulator::{
    Config, Emulator,
    model::{
        CircuitBreaker, ContainerDefinition, CreateService, DeploymentConfiguration, InstanceStatus, Knobs,
        RolloutState, Service, TaskId, Time, UpdateService, World,
    },
};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Map, Value};
use tempfile::TempDir;
use test_support::{Jobs, Record, Redis, SampleApp, wait_until};

use crate::{
    broker::{Broker, BrokerKind},
    containers::{Second, containers},
    tasks::TaskView,
};

/// The name of the service, and of its family of task definitions.
pub const SERVICE: &str = "transcoder";

/// A bound that only something stuck passes, with several stages on a small machine at once.
const BOUND: Duration = Duration::from_mins(2);

/// How a [`Stage`] is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The broker, and the way to the workers.
    pub broker: BrokerKind,
    /// Tasks of the service, one worker each.
    pub tasks: u32,
    /// Whether each has a second worker.
    pub second: Second,
    /// Jobs that a worker runs at once.
    pub concurrency: u32,
    /// Jobs that wait in a worker for each that it can run. 0: none; a worker takes a job only when it can run it, which
    /// Celery can do on Redis only.
    pub prefetch: u32,
    /// From SIGTERM to SIGKILL.
    pub stop_timeout: Duration,
    /// Whether the container passes SIGTERM on to the worker. One with a shell in front of it does not.
    pub passes_sigterm: bool,
    /// Whether ECS rolls back a deployment whose tasks fail.
    pub rolls_back: bool,
    /// Celery settings besides the sample app's own.
    pub settings: Value,
    /// What the manifest has under `spec.drain`.
    pub drain: &'static str,
}

impl Default for Setup {
    /// Two workers of two processes each, killed a quarter of a minute after they were asked to end: an idle worker ends
    /// well within that even on a machine that is busy with other tests.
    fn default() -> Self {
        Self {
            broker: BrokerKind::Redis,
            tasks: 2,
            second: Second::None,
            concurrency: 2,
            prefetch: 1,
            stop_timeout: Duration::from_secs(15),
            passes_sigterm: true,
            rolls_back: false,
            settings: Value::Null,
            drain: "{}",
        }
    }
}

/// A running service. All of it ends when this is dropped; if a test fails, it shows first what happened on it.
#[derive(Debug)]
pub struct Stage {
    setup: Setup,
    // In this order they end: the workers, their broker, the folder with what they wrote.
    emulator: Emulator,
    broker: Broker,
    app: SampleApp,
    folder: TempDir,
}

impl Stage {
    /// Starts everything, and waits until all workers are ready.
    pub async fn start(setup: Setup) -> Self {
        Self::start_with(setup, |_| {}).await
    }

    /// The same on an ECS of which something is changed before.
    pub async fn start_with(setup: Setup, change: impl FnOnce(&mut Knobs)) -> Self {
        let folder = tempfile::Builder::new().prefix("worker-drain-stage-").tempdir().expect("a temporary folder");
        let broker = Broker::start(setup.broker).await;
        let app = broker.app(&setup.settings);
        let mut config = Config::fast(folder.path().join("logs"));
        if setup.broker == BrokerKind::SqsByHttp {
            // Addresses that tasks can listen on, and that no other stage's tasks are likely to have.
            config.knobs.network = [127, rand::random_range(1..=254)];
        }
        change(&mut config.knobs);
        let emulator = Emulator::start(config).await.expect("the emulator starts");
        let stage = Self { setup, emulator, broker, app, folder };
        stage.create_service();
        stage.until_revision_is_up(1).await;
        stage.until_rolled_out().await;
        stage
    }

    fn create_service(&self) {
        let request = CreateService {
            cluster: String::new(),
            name: SERVICE.to_owned(),
            task_definition: self.register(containers(&self.setup, &self.app, &[])),
            desired: self.setup.tasks,
            configuration: DeploymentConfiguration {
                breaker: CircuitBreaker { enable: self.setup.rolls_back, rollback: self.setup.rolls_back },
                ..DeploymentConfiguration::default()
            },
            ..CreateService::default()
        };
        let now = self.emulator.now();
        self.emulator.with_world(|world| world.create_service(&request, now)).expect("the service can be made");
    }

    /// Makes a revision of the task definition; its name.
    fn register(&self, containers: Vec<ContainerDefinition>) -> String {
        let now = self.emulator.now();
        let made = self
            .emulator
            .with_world(|world| world.register_task_definition(SERVICE, containers, Map::new(), now))
            .expect("a task definition can be registered");
        made.name()
    }

    fn update(&self, request: UpdateService) {
        let request = UpdateService { service: SERVICE.to_owned(), ..request };
        let now = self.emulator.now();
        self.emulator.with_world(|world| world.update_service(&request, now)).expect("the service can be updated");
    }

    /// Deploys a new revision of the same worker.
    pub fn deploy(&self) {
        let task_definition = Some(self.register(containers(&self.setup, &self.app, &[])));
        self.update(UpdateService { task_definition, ..UpdateService::default() });
    }

    /// Deploys a revision of which only so many tasks come up as workers. The others sit there until
    /// [`Stage::let_it_crash`], and end then, as do those that take their place: a revision that comes to nothing.
    ///
    /// None of its tasks counts as healthy for ECS before that, so that it ends no old one for it.
    pub fn deploy_a_bad_one(&self, good: u32) {
        self.emulator.change_knobs(|knobs| knobs.healthy_after = Duration::from_hours(1));
        let places = self.folder.path().join("places");
        fs::create_dir_all(&places).expect("the stage's folder can be written to");
        let script = format!(
            "for place in $(seq {good}); do mkdir {0}/$place 2>/dev/null && exec \"$@\"; done
             while [ ! -e {0}/crash ]; do sleep 0.1; done; echo 'this revision is broken'; exit 1",
            places.display()
        );
        let wrapper = ["sh", "-c", &script, "sh"].map(str::to_owned);
        let task_definition = Some(self.register(containers(&self.setup, &self.app, &wrapper)));
        self.update(UpdateService { task_definition, ..UpdateService::default() });
    }

    /// Has the bad revision's remaining tasks fail.
    pub fn let_it_crash(&self) {
        self.emulator.change_knobs(|knobs| knobs.healthy_after = Duration::from_secs(1));
        fs::write(self.folder.path().join("places/crash"), "").expect("the stage's folder can be written to");
    }

    /// Changes how many tasks are wanted.
    pub fn scale(&self, desired: u32) {
        self.update(UpdateService { desired: Some(desired), ..UpdateService::default() });
    }

    /// Has ECS balance the service across zones from now on.
    pub fn rebalance(&self) {
        self.update(UpdateService { rebalances: Some(true), ..UpdateService::default() });
    }

    /// Registers two container instances, and has the service's tasks replaced by ones on these: the instances' ids.
    pub async fn onto_two_instances(&self) -> [String; 2] {
        let now = self.emulator.now();
        let register = |world: &mut World| {
            [0, 1].map(|zone| world.register_container_instance("default", zone, now).map(|instance| instance.id))
        };
        let instances = self.emulator.with_world(register).map(|made| made.expect("there is a cluster").to_string());
        self.deploy();
        self.until_revision_is_up(2).await;
        self.until_rolled_out().await;
        instances
    }

    /// Sets a container instance to this state.
    pub fn set_instance(&self, instance: &str, status: InstanceStatus) {
        let now = self.emulator.now();
        let set = |world: &mut World| world.update_container_instances_state("default", &[instance], status, now);
        self.emulator.with_world(set).expect("the instance is registered");
    }

    /// The container instance that a task runs on.
    pub fn instance_of(&self, task: &TaskView) -> Option<String> {
        self.emulator.with_world(|world| Some(world.task(task.id)?.instance?.to_string()))
    }

    /// Freezes a task's worker, with all its processes: its connections stay open, and nothing answers.
    pub fn freeze(&self, task: &TaskView) {
        self.signal(task, Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self, task: &TaskView) {
        self.signal(task, Signal::CONT);
    }

    fn signal(&self, task: &TaskView, signal: Signal) {
        let group = self.emulator.process_id(task.id, 0).and_then(Pid::from_raw).expect("the worker runs");
        kill_process_group(group, signal).expect("the worker runs");
    }

    /// Submits jobs; their ids.
    pub async fn submit(&self, jobs: Jobs) -> Vec<String> {
        self.app.submit(jobs).await
    }

    /// Submits as many jobs as the workers can run and hold, which end when they are told to. Waits until every worker
    /// runs all that it can.
    pub async fn fill(&self, prefix: &str) -> Vec<String> {
        let at_once = self.setup.tasks * self.setup.concurrency;
        let held = at_once * self.setup.prefetch;
        let jobs = self.submit(Jobs::new((at_once + held) as usize).prefix(prefix).until_told()).await;
        self.app.journal().wait_started(&jobs, at_once as usize).await;
        jobs
    }

    /// Those of these jobs that run on this task now.
    pub fn running_on(&self, task: &TaskView, jobs: &[String]) -> Vec<String> {
        let records = self.app.journal().records();
        let runs = |record: &Record| record.node == task.node() && record.starts.len() > record.ends.len();
        jobs.iter().filter(|id| records.get(*id).is_some_and(runs)).cloned().collect()
    }

    /// What the manifest has under `spec.drain`.
    pub fn drain_rules(&self) -> &'static str {
        self.setup.drain
    }

    /// The sample app: its jobs and their journal.
    pub fn app(&self) -> &SampleApp {
        &self.app
    }

    /// The broker, which must be Redis.
    pub fn redis(&mut self) -> &mut Redis {
        match &mut self.broker {
            Broker::Redis(redis) => redis,
            _ => panic!("this stage's broker is no Redis"),
        }
    }

    /// The port at which each task's worker answers, if they do.
    pub fn http_port(&self) -> Option<u16> {
        match self.broker {
            Broker::Sqs(_, port) => Some(port),
            _ => None,
        }
    }

    /// Ends the broker, as an administrator would. It must be this stage's own.
    pub async fn stop_broker(&mut self) {
        self.broker.stop().await;
    }

    /// Starts the broker again, with its data.
    pub async fn restart_broker(&mut self) {
        self.broker.restart().await;
    }

    /// Jobs in the queue that no worker has taken. On Redis only.
    pub fn queue_length(&self) -> u64 {
        match &self.broker {
            Broker::Redis(redis) => redis.cli(&["LLEN", "celery"]).parse().unwrap_or(0),
            _ => panic!("this stage's broker is no Redis"),
        }
    }

    /// ECS.
    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// A folder for whatever belongs to this stage.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The present on the clock of ECS.
    pub fn now(&self) -> Time {
        self.emulator.now()
    }

    /// Every task that ECS still tells of, the oldest revision first.
    pub fn tasks(&self) -> Vec<TaskView> {
        let mut tasks: Vec<TaskView> =
            self.emulator.with_world(|world| world.state().tasks.values().map(TaskView::of).collect());
        tasks.sort_by_key(|task| (task.revision, task.id));
        tasks
    }

    /// Tasks of this revision.
    pub fn tasks_of(&self, revision: u32) -> Vec<TaskView> {
        self.tasks().into_iter().filter(|task| task.revision == revision).collect()
    }

    /// This task as it is now.
    pub fn task(&self, id: TaskId) -> TaskView {
        self.emulator.with_world(|world| world.task(id).map(TaskView::of)).expect("ECS still tells of the task")
    }

    /// The service as it is now.
    pub fn service(&self) -> Service {
        self.emulator
            .with_world(|world| world.service("default", SERVICE).cloned())
            .expect("the service was made at the start")
    }

    /// The id of the deployment that is current.
    pub fn deployment(&self) -> String {
        self.service().primary().expect("the service is in use").id.to_string()
    }

    /// What a task's worker has written.
    pub fn worker_log(&self, id: TaskId) -> String {
        let path = self.emulator.log_path(id, 0);
        path.and_then(|path| fs::read(path).ok())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Waits until this holds, with a bound.
    pub async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        wait_until(what, BOUND, || ready(holds(self))).await;
    }

    /// Waits until as many workers of this revision as are wanted have said that they are ready.
    pub async fn until_revision_is_up(&self, revision: u32) {
        let what = format!("the workers of revision {revision} are ready");
        self.until(&what, |stage| {
            let up = |task: &TaskView| task.is_live() && stage.worker_log(task.id).contains(" ready.");
            stage.tasks_of(revision).iter().filter(|task| up(task)).count() >= stage.service().desired as usize
        })
        .await;
    }

    /// Waits until this revision is the one that ECS rolls out.
    pub async fn until_current(&self, revision: u32) {
        self.until("the revision is the current one", |stage| {
            stage.service().primary().is_some_and(|primary| primary.definition.revision == revision)
        })
        .await;
    }

    /// Waits until ECS says that the deployment is complete: no old task is left.
    pub async fn until_rolled_out(&self) {
        self.until("ECS has completed the deployment", |stage| {
            let service = stage.service();
            service.deployments.len() == 1
                && service.primary().is_some_and(|primary| primary.rollout == RolloutState::Completed)
        })
        .await;
    }

    /// Waits until ECS keeps its hands off these tasks.
    pub async fn until_held(&self, tasks: &[TaskView]) {
        self.until("the tasks are held", |stage| tasks.iter().all(|task| stage.task(task.id).is_held)).await;
    }

    /// Waits until these tasks have ended.
    pub async fn until_stopped(&self, tasks: &[TaskView]) {
        self.until("the tasks have ended", |stage| tasks.iter().all(|task| stage.task(task.id).is_over())).await;
    }

    /// Waits until ECS by itself would have killed every old task: the new revision is healthy, and since then the
    /// stop timeout has passed, and as much again.
    pub async fn until_ecs_alone_would_have_killed(&self, new_revision: u32) {
        self.until("the new revision is healthy", |stage| {
            stage.tasks_of(new_revision).iter().filter(|task| task.is_healthy).count() >= stage.setup.tasks as usize
        })
        .await;
        tokio::time::sleep(self.setup.stop_timeout * 2).await;
    }
}
