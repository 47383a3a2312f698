//! The sample Celery app (`tests/celery`): its workers and its jobs.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::{
    journal::Journal,
    process::{Process, Signal},
    wait::wait_until,
};

/// The top folder of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("tests/support is two below the top").to_owned()
}

/// The Python that has Celery: the environment variable `WORKER_DRAIN_PYTHON`, or what `make setup` makes.
pub fn python() -> PathBuf {
    installed(std::env::var_os("WORKER_DRAIN_PYTHON").map(PathBuf::from), "venv")
}

/// A Python that has this version of Celery, `5.3` to `5.7`: `WORKER_DRAIN_PYTHON_5_3` and so on, or what `make setup`
/// makes. 5.7 is [`python`].
pub fn python_with_celery(version: &str) -> PathBuf {
    if version == "5.7" {
        return python();
    }
    let variable = format!("WORKER_DRAIN_PYTHON_{}", version.replace('.', "_"));
    installed(std::env::var_os(variable).map(PathBuf::from), &format!("celery-{version}"))
}

/// A Python that has Celery with what it needs for Amazon SQS, and moto: `WORKER_DRAIN_PYTHON_SQS`, or what `make setup`
/// makes.
pub fn python_with_sqs() -> PathBuf {
    installed(std::env::var_os("WORKER_DRAIN_PYTHON_SQS").map(PathBuf::from), "venv-sqs")
}

fn installed(given: Option<PathBuf>, folder: &str) -> PathBuf {
    let python = given.unwrap_or_else(|| repository().join(".cache").join(folder).join("bin/python"));
    assert!(python.is_file(), "there is no Python with Celery at {}: run `make setup`", python.display());
    python
}

/// The sample app on a broker: starts its workers, submits its jobs, and has their journal.
#[derive(Clone, Debug)]
pub struct SampleApp {
    broker: String,
    settings: Value,
    python: PathBuf,
    variables: Vec<(String, String)>,
    journal: Journal,
    folder: Arc<TempDir>,
}

impl SampleApp {
    /// The app on this broker, with a journal in a new temporary folder.
    pub fn new(broker: impl Into<String>) -> Self {
        let folder = tempfile::Builder::new().prefix("worker-drain-jobs-").tempdir().expect("a temporary folder");
        let journal = Journal::at(folder.path().join("journal"));
        for part in ["journal", "told", "tmp"] {
            std::fs::create_dir(folder.path().join(part)).expect("a temporary folder can be written to");
        }
        Self {
            broker: broker.into(),
            settings: Value::Null,
            python: python(),
            variables: Vec::new(),
            journal,
            folder: Arc::new(folder),
        }
    }

    /// With these Celery settings besides its own, a JSON object such as `{"task_acks_late": true}`.
    #[must_use]
    pub fn settings(mut self, settings: Value) -> Self {
        self.settings = settings;
        self
    }

    /// With another Python, such as [`python_with_celery`].
    #[must_use]
    pub fn python(mut self, python: PathBuf) -> Self {
        self.python = python;
        self
    }

    /// With this in the environment of its workers, too.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// The URL of its broker.
    pub fn broker(&self) -> &str {
        &self.broker
    }

    /// The journal of its jobs.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What its processes need in their environment. For those who start workers by other means, such as the emulator.
    pub fn environment(&self) -> Vec<(String, String)> {
        let settings = if self.settings.is_null() { String::new() } else { self.settings.to_string() };
        let own = [
            ("CELERY_BROKER_URL".into(), self.broker.clone()),
            ("SAMPLE_SETTINGS".into(), settings),
            ("SAMPLE_JOURNAL".into(), self.journal.folder().display().to_string()),
            ("SAMPLE_TOLD".into(), self.told().display().to_string()),
            // A worker that is killed leaves temporary folders behind. They go with ours.
            ("TMPDIR".into(), self.folder.path().join("tmp").display().to_string()),
        ];
        own.into_iter().chain(self.variables.iter().cloned()).collect()
    }

    /// The command that starts a worker as a container would: append the worker's own arguments.
    pub fn worker_command(&self) -> Vec<String> {
        let script = repository().join("tests/celery/worker.py");
        vec![self.python.display().to_string(), script.display().to_string()]
    }

    /// A worker with this node name, such as `worker@one`. Start it with [`WorkerOptions::start`].
    pub fn worker(&self, node: impl Into<String>) -> WorkerOptions {
        WorkerOptions {
            app: self.clone(),
            node: node.into(),
            queues: vec!["celery".into()],
            concurrency: 1,
            prefetch: 1,
            pool: "prefork".into(),
        }
    }

    /// Tells jobs that work [until they are told](Jobs::until_told) to come to their end.
    pub fn tell<'a>(&self, jobs: impl IntoIterator<Item = &'a String>) {
        for id in jobs {
            std::fs::write(self.told().join(id), "").expect("the folder for what jobs are told can be written to");
        }
    }

    fn told(&self) -> PathBuf {
        self.folder.path().join("told")
    }

    /// Submits jobs, and returns their ids.
    pub async fn submit(&self, jobs: Jobs) -> Vec<String> {
        let told = self.run("submit.py", &jobs.arguments).await;
        told.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok()?["id"].as_str().map(String::from))
            .collect()
    }

    /// What these nodes answer to a remote-control command, by Celery's own client.
    pub async fn ask(&self, command: &str, nodes: &[String], arguments: Value) -> Map<String, Value> {
        let arguments = ["--arguments".to_owned(), arguments.to_string()];
        let told = self.run("ask.py", [&[command.to_owned()], nodes, &arguments].concat().as_slice()).await;
        serde_json::from_str(&told).expect("ask.py prints an object")
    }

    async fn run(&self, script: &str, arguments: &[String]) -> String {
        let mut command = tokio::process::Command::new(&self.python);
        command.arg(script).args(arguments).current_dir(repository().join("tests/celery"));
        command.envs(self.environment()).stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.expect("Python can be run");
        assert!(output.status.success(), "{script} failed:\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Jobs to be submitted.
#[derive(Clone, Debug)]
pub struct Jobs {
    arguments: Vec<String>,
}

impl Jobs {
    /// So many, of one second each, to the queue `celery`. Ids are made from prefix, seed and number.
    pub fn new(count: usize) -> Self {
        Self { arguments: vec!["--count".into(), count.to_string()] }
    }

    /// With these very ids.
    pub fn with_ids<I: AsRef<str>>(ids: impl IntoIterator<Item = I>) -> Self {
        let ids: Vec<String> = ids.into_iter().map(|id| id.as_ref().to_owned()).collect();
        Self { arguments: vec!["--ids".into(), ids.join(",")] }
    }

    /// These ids, each to a queue of its own.
    pub fn to_queues(jobs: impl IntoIterator<Item = (String, String)>) -> Self {
        let (ids, queues): (Vec<String>, Vec<String>) = jobs.into_iter().unzip();
        Self::with_ids(ids).with("--queue", queues.join(","))
    }

    /// Each takes a time between these, in seconds, as the seed decides.
    #[must_use]
    pub fn seconds(self, shortest: f64, longest: f64) -> Self {
        self.with("--seconds", format!("{shortest}..{longest}"))
    }

    /// Each takes as long as it is not told to end: see [`SampleApp::tell`]. So nothing hangs on how fast a machine is.
    #[must_use]
    pub fn until_told(mut self) -> Self {
        self.arguments.push("--until-told".into());
        self
    }

    /// What durations and ids are made from. The same seed gives the same jobs.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        self.with("--seed", seed.to_string())
    }

    /// What ids begin with.
    #[must_use]
    pub fn prefix(self, prefix: &str) -> Self {
        self.with("--prefix", prefix.to_owned())
    }

    /// To this queue.
    #[must_use]
    pub fn queue(self, queue: &str) -> Self {
        self.with("--queue", queue.to_owned())
    }

    /// To this exchange of this type, with this routing key, instead of to a queue.
    #[must_use]
    pub fn exchange(self, name: &str, kind: &str, routing_key: &str) -> Self {
        let given = self.with("--exchange", name.to_owned()).with("--exchange-type", kind.to_owned());
        given.with("--routing-key", routing_key.to_owned())
    }

    /// As urgent as this, as the broker takes it: 0 to 9.
    #[must_use]
    pub fn priority(self, priority: u8) -> Self {
        self.with("--priority", priority.to_string())
    }

    /// To be run only so many seconds from now: a worker takes them at once, and holds them.
    #[must_use]
    pub fn countdown(self, seconds: f64) -> Self {
        self.with("--countdown", seconds.to_string())
    }

    /// With an argument that JSON cannot hold, in a message that is pickled.
    #[must_use]
    pub fn pickled(mut self) -> Self {
        self.arguments.push("--pickled".into());
        self
    }

    /// Under ids that Celery makes up; the ids that are returned are arguments of the jobs, and name them in the journal.
    #[must_use]
    pub fn unnamed(mut self) -> Self {
        self.arguments.push("--unnamed".into());
        self
    }

    /// Of this task instead of `sample.work`.
    #[must_use]
    pub fn task(self, name: &str) -> Self {
        self.with("--task", name.to_owned())
    }

    fn with(mut self, option: &str, value: String) -> Self {
        self.arguments.extend([option.into(), value]);
        self
    }
}

/// A worker that is to be started.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    app: SampleApp,
    node: String,
    queues: Vec<String>,
    concurrency: u32,
    prefetch: u32,
    pool: String,
}

impl WorkerOptions {
    /// Takes jobs from these queues. Default: `celery`.
    #[must_use]
    pub fn queues<Q: Into<String>>(mut self, queues: impl IntoIterator<Item = Q>) -> Self {
        self.queues = queues.into_iter().map(Into::into).collect();
        self
    }

    /// Runs so many jobs at once. Default: 1.
    #[must_use]
    pub fn concurrency(mut self, jobs: u32) -> Self {
        self.concurrency = jobs;
        self
    }

    /// Holds so many jobs for each that it can run. Default: 1.
    #[must_use]
    pub fn prefetch(mut self, multiplier: u32) -> Self {
        self.prefetch = multiplier;
        self
    }

    /// The pool: `prefork` (default), `threads`, `gevent`, `solo`.
    #[must_use]
    pub fn pool(mut self, pool: &str) -> Self {
        pool.clone_into(&mut self.pool);
        self
    }

    /// Starts it, and waits until it says that it is ready.
    pub async fn start(self) -> CeleryWorker {
        let worker = self.spawn();
        worker.ready().await
    }

    /// Starts it without waiting: see [`CeleryWorker::ready`].
    pub fn spawn(self) -> CeleryWorker {
        let command_line = self.app.worker_command();
        let mut command = Command::new(&command_line[0]);
        command.args(&command_line[1..]).envs(self.app.environment()).env("WORKER_NODE_NAME", &self.node);
        command.args(["--queues", &self.queues.join(","), "--pool", &self.pool, "--loglevel", "INFO"]);
        command.args(["--concurrency", &self.concurrency.to_string()]);
        command.args(["--prefetch-multiplier", &self.prefetch.to_string()]);
        CeleryWorker { process: Process::start(format!("Celery worker {}", self.node), &command), node: self.node }
    }
}

/// How long a worker may take to start. Alone it needs a second; forty may start on one small machine.
const START_BOUND: Duration = Duration::from_mins(3);

/// A running Celery worker. It is killed, with its pool, when this is dropped.
#[derive(Debug)]
pub struct CeleryWorker {
    node: String,
    process: Process,
}

impl CeleryWorker {
    /// Its node name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until it says that it is ready, and returns it. Panics with the end of its log if it ends, or never is.
    pub async fn ready(mut self) -> Self {
        let what = format!("{} is ready", self.node);
        wait_until(&what, START_BOUND, || {
            assert!(self.process.is_running(), "{} ended at once", self.node);
            std::future::ready(self.process.log().contains(" ready."))
        })
        .await;
        self
    }

    /// Freezes it with its pool: its connections stay open, and nothing answers.
    pub fn freeze(&mut self) {
        self.process.signal_group(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&mut self) {
        self.process.signal_group(Signal::CONT);
    }

    /// Kills it and its pool, as a scheduler does when its patience ends.
    pub fn kill(&mut self) {
        self.process.kill();
    }
}
