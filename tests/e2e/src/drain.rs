//! The real `worker-drain`, run beside a stage.

use std::{
    fs,
    future::ready,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use test_support::{Process, Signal, wait_until};

use crate::{
    broker::TOKEN,
    stage::{SERVICE, Stage},
    tasks::TaskView,
};

const BOUND: Duration = Duration::from_mins(2);

/// The `worker-drain` that belongs to this build: Cargo puts it beside, or one folder above, whoever asks.
///
/// Cargo builds binaries only for the tests of their own package, so somebody has to have built it: `make` does.
pub fn binary() -> PathBuf {
    let here = std::env::current_exe().expect("a program knows where it is");
    let found = here.ancestors().skip(1).take(2).map(|folder| folder.join("worker-drain")).find(|file| file.is_file());
    found.unwrap_or_else(|| {
        let profile = here.ancestors().find(|folder| folder.join("deps").is_dir()).unwrap_or(&here);
        panic!("there is no worker-drain in {}: run `cargo build --workspace`, or use make", profile.display())
    })
}

/// A `worker-drain` that runs. It is killed when this is dropped.
#[derive(Debug)]
pub struct WorkerDrain {
    process: Process,
}

/// The environment that points AWS's clients to an ECS of ours.
pub fn aws_environment(endpoint: &str) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ENDPOINT_URL_ECS", endpoint.to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_DEFAULT_REGION", "us-east-1".to_owned()), // this is what the aws command line reads
        ("AWS_ACCESS_KEY_ID", "emulated".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "emulated".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ]
}

impl Stage {
    /// The manifest of a drain of this stage's service, as a user would write it.
    pub fn manifest(&self) -> PathBuf {
        self.manifest_with(self.app().broker(), "")
    }

    /// One with another URL of the broker, and further lines of `spec.workers.celery`. A URL with a password is read from
    /// the environment: see [`Stage::run_on`].
    fn manifest_with(&self, broker: &str, more: &str) -> PathBuf {
        let path = self.folder().join("drain.yaml");
        let text = format!(
            "apiVersion: workerdrain.io/v1alpha1
kind: WorkerDrain
metadata:
  name: {SERVICE}
spec:
  fleet:
    ecs: {{cluster: default, service: {SERVICE}, region: us-east-1}}
  workers:
{}  drain: {}
",
            self.workers(broker, more),
            self.drain_rules()
        );
        fs::write(&path, text).expect("the stage's folder can be written to");
        path
    }

    /// How the workers are asked, in a manifest.
    fn workers(&self, broker: &str, more: &str) -> String {
        if let Some(port) = self.http_port() {
            return format!("    http: {{port: {port}, tokenFrom: {{secretKeyRef: {{name: drain, key: token}}}}}}\n");
        }
        let broker = if broker.contains('@') {
            "{urlFrom: {secretKeyRef: {name: broker, key: url}}}".to_owned()
        } else {
            format!("{{url: \"{broker}\"}}")
        };
        format!("    celery:\n      broker: {broker}\n{more}")
    }

    /// The environment that points AWS's clients to this stage's ECS.
    pub fn aws_environment(&self) -> Vec<(&'static str, String)> {
        aws_environment(self.emulator().endpoint())
    }

    /// Starts `worker-drain run` on this stage's service with further arguments. Its memory is kept on the stage: a
    /// second one goes on where the first one ended.
    pub fn run(&self, arguments: &[&str]) -> WorkerDrain {
        self.run_on(self.app().broker(), "", arguments)
    }

    /// Takes the memory of all runs away, as if the next one were on another machine.
    pub fn forget(&self) {
        fs::remove_file(self.folder().join("state")).expect("there was a run");
    }

    /// The same, with this in `spec.workers.celery.events`.
    pub fn run_with_events(&self, events: &str, arguments: &[&str]) -> WorkerDrain {
        self.run_on(self.app().broker(), &format!("      events: {events}\n"), arguments)
    }

    /// The same, as another user of the broker.
    pub fn run_as(&self, user: &str, password: &str, arguments: &[&str]) -> WorkerDrain {
        let (scheme, rest) = self.app().broker().split_once("://").expect("the broker has a URL");
        let host = rest.rsplit('@').next().unwrap_or(rest);
        self.run_on(&format!("{scheme}://{user}:{password}@{host}"), "", arguments)
    }

    fn run_on(&self, broker: &str, more: &str, arguments: &[&str]) -> WorkerDrain {
        let mut command = Command::new(binary());
        command.arg("run").arg("-f").arg(self.manifest_with(broker, more)).arg("--state");
        command.arg(self.folder().join("state")).args(["-o", "json", "--secret", "broker/url=env:BROKER_URL"]);
        command.args(["--secret", "drain/token=env:TOKEN"]).env("TOKEN", TOKEN);
        command.args(arguments).envs(self.aws_environment()).env("BROKER_URL", broker);
        WorkerDrain { process: Process::start("worker-drain", &command) }
    }

    /// The same for [`Command`]s of one's own: `worker-drain` with this stage's ECS in its environment.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.envs(self.aws_environment());
        command
    }
}

impl WorkerDrain {
    /// What it said so far: one JSON object for each change.
    pub fn said(&self) -> Vec<Value> {
        self.process.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Whether it said that this task is in this phase.
    pub fn said_of(&self, task: &TaskView, phase: &str) -> bool {
        let is_it = |event: &Value| {
            let whose = event["task"].as_str().is_some_and(|arn| arn.ends_with(&task.id.to_string()));
            event["event"] == "task" && whose && event["phase"] == phase
        };
        self.said().iter().any(is_it)
    }

    /// What it said of the end of a rollout, or nothing yet.
    pub fn rollout_ended(&self) -> Option<Value> {
        self.said().into_iter().find(|event| event["event"] == "rollout" && event["state"] == "Ended")
    }

    /// Waits until it has said that this task is in this phase.
    pub async fn until_said_of(&self, task: &TaskView, phase: &str) {
        let what = format!("worker-drain says that {} is {phase}", task.node());
        wait_until(&what, BOUND, || ready(self.said_of(task, phase))).await;
    }

    /// Waits until it has said something for this reason, one of those in docs/conditions.md; the message.
    pub async fn until_said_why(&self, reason: &str) -> String {
        let mut message = None;
        wait_until(&format!("worker-drain says {reason}"), BOUND, || {
            message = self.said().into_iter().find(|event| event["reason"] == reason);
            ready(message.is_some())
        })
        .await;
        message.and_then(|event| Some(event["message"].as_str()?.to_owned())).unwrap_or_default()
    }

    /// Waits until it ends by itself; its exit code.
    pub async fn ended(&mut self) -> i32 {
        let status = self.process.ended(BOUND).await;
        status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal))
            .expect("a process that ended has one of them")
    }

    /// Asks it to end, as Ctrl-C does; its exit code.
    pub async fn interrupt(&mut self) -> i32 {
        self.process.signal(Signal::INT);
        self.ended().await
    }

    /// Kills it in whatever it is doing.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
