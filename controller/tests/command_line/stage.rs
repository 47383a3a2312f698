//! An emulated ECS with one service, and the binary that is called on it.

use std::{
    collections::BTreeMap,
    fs,
    process::{Output, Stdio},
    time::Duration,
};

use ecs_emulator::{
    Config, Emulator,
    model::{
        CallFault, ContainerDefinition, CreateService, DeploymentConfiguration, Faults, LastStatus, Protection, Task,
        Time, UpdateService, World,
    },
};
use serde_json::Map;
use tempfile::TempDir;
use test_support::{SampleApp, free_port, wait_until};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// A bound for what should take seconds; a busy machine may need much longer.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// An emulated ECS with one service, whose tasks are only pretended, unless it is told otherwise: no worker runs in them.
pub struct Stage {
    pub emulator: Emulator,
    folder: TempDir,
    pub environment: BTreeMap<String, String>,
    /// What the manifest has under `spec.drain`.
    pub drain: &'static str,
}

impl Stage {
    pub async fn start() -> Self {
        Self::with(1).await
    }

    /// With so many tasks.
    pub async fn with(desired: u32) -> Self {
        Self::in_account("123456789012", desired).await
    }

    /// In this account.
    pub async fn in_account(account: &str, desired: u32) -> Self {
        Self::start_with(account, desired, ContainerDefinition::new("worker", &[]), 100).await
    }

    /// With so many workers of this app, each of which takes one job at a time and is killed this long after it was asked to end.
    pub async fn with_workers(app: &SampleApp, desired: u32, healthy_percent: u32, killed_after: Duration) -> Self {
        let mut command = app.worker_command();
        command.extend(["--concurrency=1", "--disable-prefetch"].map(str::to_owned));
        let container = ContainerDefinition {
            command,
            environment: app.environment().into_iter().collect(),
            stop_timeout: Some(killed_after),
            ..ContainerDefinition::new("worker", &[])
        };
        Self::start_with("123456789012", desired, container, healthy_percent).await
    }

    async fn start_with(account: &str, desired: u32, container: ContainerDefinition, healthy_percent: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::fast(folder.path().join("logs"));
        account.clone_into(&mut config.knobs.account);
        let emulator = Emulator::start(config).await.unwrap();
        let now = emulator.now();
        emulator.with_world(|world| {
            world.create_cluster("media", now).unwrap();
            world.register_task_definition("worker", vec![container], Map::new(), now).unwrap();
            let request = CreateService {
                cluster: "media".to_owned(),
                name: "transcoder".to_owned(),
                task_definition: "worker".to_owned(),
                desired,
                configuration: DeploymentConfiguration {
                    minimum_healthy_percent: healthy_percent,
                    ..DeploymentConfiguration::default()
                },
                ..CreateService::default()
            };
            world.create_service(&request, now).unwrap();
        });
        let environment = [
            ("AWS_ENDPOINT_URL_ECS", emulator.endpoint()),
            ("AWS_ACCESS_KEY_ID", "emulated"),
            ("AWS_SECRET_ACCESS_KEY", "emulated"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/nonexistent"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { emulator, folder, environment, drain: "{}" }
    }

    /// Runs the command on this cluster, service and broker.
    pub async fn call(&self, command: &[&str], cluster: &str, service: &str, broker: &str) -> Output {
        let child = self.begin(command, cluster, service, broker);
        timeout(PATIENCE, child.wait_with_output()).await.expect("it ends in time").unwrap()
    }

    /// The same, without waiting for the end.
    pub fn begin(&self, command: &[&str], cluster: &str, service: &str, broker: &str) -> Child {
        let celery = "{broker: {urlFrom: {secretKeyRef: {name: broker, key: url}}}}";
        self.begin_with(command, cluster, service, celery, broker)
    }

    /// The same with this `spec.workers.celery`, in which the Secret `broker` has the URL as `url`.
    pub fn begin_with(&self, command: &[&str], cluster: &str, service: &str, celery: &str, broker: &str) -> Child {
        let mut call = self.command(command, cluster, service, &format!("{{celery: {celery}}}"));
        call.args(["--secret", "broker/url=env:BROKER_URL"]).env("BROKER_URL", broker).spawn().unwrap()
    }

    /// The same with workers that answer over HTTP, which those of this service do not.
    pub fn begin_with_http(&self, command: &[&str]) -> Child {
        let workers = format!("{{http: {{port: {}}}}}", free_port());
        self.command(command, "media", "transcoder", &workers).spawn().unwrap()
    }

    /// The command with this `spec.workers`.
    pub fn command(&self, command: &[&str], cluster: &str, service: &str, workers: &str) -> Command {
        let manifest = format!(
            "apiVersion: workerdrain.io/v1alpha1
kind: WorkerDrain
metadata: {{name: transcoder}}
spec:
  fleet:
    ecs: {{cluster: {cluster}, service: {service}, region: us-east-1}}
  workers: {workers}
  drain: {}
",
            self.drain
        );
        let file = self.folder.path().join("drain.yaml");
        fs::write(&file, manifest).unwrap();
        let mut call = Command::new(env!("CARGO_BIN_EXE_worker-drain"));
        call.args(command)
            .arg("-f")
            .arg(file)
            .arg("--state")
            .arg(self.folder.path().join("state/"))
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        call
    }

    /// Has ECS refuse every call.
    pub fn refuse(&self, error: &str) {
        let fault = CallFault {
            error: Some(error.to_owned()),
            message: "for a test".to_owned(),
            times: None,
            after_effect: false,
            delay: Duration::ZERO,
        };
        self.emulator.set_faults(Faults { fail: [("*".to_owned(), fault)].into(), ..Faults::default() });
    }

    /// A new deployment of the same task definition.
    pub fn deploy(&self) {
        let request = UpdateService {
            cluster: "media".to_owned(),
            service: "transcoder".to_owned(),
            force_new_deployment: true,
            ..UpdateService::default()
        };
        let now = self.emulator.now();
        self.emulator.with_world(|world| world.update_service(&request, now).unwrap());
    }

    /// The id of the deployment that is current.
    pub fn deployment(&self) -> String {
        let primary =
            |world: &mut World| world.service("media", "transcoder").unwrap().primary().unwrap().id.to_string();
        self.emulator.with_world(primary)
    }

    /// Somebody deletes the service by force.
    pub fn delete_service(&self) {
        let now = self.emulator.now();
        self.emulator.with_world(|world| world.delete_service("media", "transcoder", true, now).unwrap());
    }

    /// Has so many tasks held, by a run that is killed then.
    pub async fn until_held(&self, broker: &str, tasks: usize) {
        let mut child = self.begin(&["run", "--watch"], "media", "transcoder", broker);
        wait_until("all tasks are held", PATIENCE, || std::future::ready(self.held() == tasks)).await;
        child.kill().await.unwrap();
    }

    /// Waits until so many tasks run.
    pub async fn until_running(&self, tasks: usize) {
        let running = || {
            let is_running = |task: &&Task| task.last == LastStatus::Running;
            self.emulator.with_world(|world| world.state().tasks.values().filter(is_running).count())
        };
        wait_until("the tasks run", PATIENCE, || std::future::ready(running() == tasks)).await;
    }

    /// How many tasks are held.
    pub fn held(&self) -> usize {
        self.held_for(Duration::ZERO)
    }

    /// How many tasks are held for so long at least.
    pub fn held_for(&self, lasting: Duration) -> usize {
        self.emulator.with_world(|world| {
            let then = world.now() + lasting;
            held(world, then).len()
        })
    }

    /// Somebody else releases the holds of all tasks, as an application may that protects itself.
    pub fn release_holds(&self) {
        let now = self.emulator.now();
        self.emulator.with_world(|world| {
            for task in held(world, now) {
                world.update_task_protection("media", &[&task], Protection::Off, now).unwrap();
            }
        });
    }

    /// Somebody stops all tasks that are held, by hand.
    pub fn stop_held_tasks(&self) {
        let now = self.emulator.now();
        self.emulator.with_world(|world| {
            for task in held(world, now) {
                world.stop_task("media", &task, "", now).unwrap();
            }
        });
    }
}

/// The ids of the tasks that are held then.
fn held(world: &World, then: Time) -> Vec<String> {
    let held = world.state().tasks.values().filter(|task| task.is_protected(then));
    held.map(|task| task.id.to_string()).collect()
}
