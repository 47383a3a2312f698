//! The model on real time, with an API and processes.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    task::JoinSet,
    time::{Duration, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock, http,
    model::{Effect, Faults, Knobs, TaskId, Time, World},
    runner::{self, Key, Launch, Processes, Report, RunnerError, Surroundings},
};

/// How long to sleep when nothing is due; any call wakes up earlier.
const LONG_PAUSE: Duration = Duration::from_hours(1);

/// How long killed processes may take to be gone; only one that waits for a device takes any time.
const LAST_PATIENCE: Duration = Duration::from_secs(30);

/// How an emulator is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// See [`Knobs`].
    pub knobs: Knobs,
    /// Of all the scheduler's choices.
    pub seed: u64,
    /// Where the API listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// The folder for what tasks write: `<service>-<task id>-<container>.log`.
    pub logs: PathBuf,
    /// Variables of this process's environment that tasks get, too. The rest is kept from them.
    pub inherit: Vec<String>,
    /// Whether each container gets a UTS namespace, so that `gethostname()` says what
    /// [`Knobs::hostname_shape`] asks for. Needs root or user namespaces.
    pub own_hostnames: bool,
}

impl Config {
    /// Realistic delays, on a free port of `127.0.0.1`.
    pub fn new(logs: impl AsRef<Path>) -> Self {
        Self {
            knobs: Knobs::default(),
            seed: 1,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            logs: logs.as_ref().to_owned(),
            inherit: ["HOME", "LANG", "LC_ALL", "PATH", "TMPDIR"].map(str::to_owned).to_vec(),
            own_hostnames: false,
        }
    }

    /// The same with the short delays of [`Knobs::fast`].
    pub fn fast(logs: impl AsRef<Path>) -> Self {
        Self { knobs: Knobs::fast(), ..Self::new(logs) }
    }
}

/// An emulator could not be started.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// The address is taken, or not ours.
    #[error("could not listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Tasks could not be run here.
    #[error("could not get ready to run tasks")]
    Runner(#[source] RunnerError),
}

/// What the parts of a running emulator share.
#[derive(Debug)]
pub(crate) struct Shared {
    world: Mutex<World>,
    wake: Notify,
    processes: Mutex<Option<Processes>>,
    pub surroundings: Surroundings,
    pub cancel: CancellationToken,
}

impl Shared {
    /// Works on the world at the present time, then has effects carried out.
    pub fn with_world<T>(&self, work: impl FnOnce(&mut World, Time) -> T) -> T {
        let answer = work(&mut self.locked(), clock::now());
        self.wake.notify_one();
        answer
    }

    fn locked(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_processes<T>(&self, work: impl FnOnce(&Processes) -> T) -> Option<T> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(work)
    }

    /// Process ids of containers that run.
    pub fn process_ids(&self) -> BTreeMap<Key, i32> {
        self.with_processes(Processes::ids).unwrap_or_default()
    }
}

/// A running emulator. Dropping it ends it and its tasks at once; [`Emulator::stop`] also waits for that.
#[derive(Debug)]
pub struct Emulator {
    shared: Arc<Shared>,
    parts: JoinSet<()>,
}

impl Emulator {
    /// Binds the address and begins to serve.
    pub async fn start(config: Config) -> Result<Self, EmulatorError> {
        let address = config.address;
        let listen = |source| EmulatorError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let unshare =
            if config.own_hostnames { Some(runner::probe_uts().map_err(EmulatorError::Runner)?) } else { None };
        let (sender, reports) = mpsc::unbounded_channel();
        let processes = Processes::start(sender, unshare).map_err(EmulatorError::Runner)?;
        let inherited =
            config.inherit.iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?))).collect();
        let shared = Arc::new(Shared {
            world: Mutex::new(World::new(config.knobs, config.seed)),
            wake: Notify::new(),
            processes: Mutex::new(Some(processes)),
            surroundings: Surroundings { endpoint: format!("http://{address}"), logs: config.logs, inherited },
            cancel: CancellationToken::new(),
        });
        let mut parts = JoinSet::new();
        parts.spawn(drive(shared.clone(), reports));
        parts.spawn(http::serve(shared.clone(), listener));
        Ok(Self { shared, parts })
    }

    /// `http://127.0.0.1:PORT`, for `--endpoint-url` and `AWS_ENDPOINT_URL`.
    pub fn endpoint(&self) -> &str {
        &self.shared.surroundings.endpoint
    }

    /// Looks at the model, or works on it, brought up to the present. Effects are carried out after that, so leave
    /// [`World::advance`] alone: it would take them away.
    pub fn with_world<T>(&self, work: impl FnOnce(&mut World) -> T) -> T {
        self.shared.with_world(|world, now| {
            world.catch_up(now);
            work(world)
        })
    }

    /// Replaces the faults in force.
    pub fn set_faults(&self, faults: Faults) {
        self.with_world(|world| world.set_faults(faults));
    }

    /// Changes knobs.
    pub fn change_knobs(&self, change: impl FnOnce(&mut Knobs)) {
        self.with_world(|world| {
            let mut knobs = world.knobs().clone();
            change(&mut knobs);
            world.set_knobs(knobs);
        });
    }

    /// The present on the model's clock, which is real time.
    pub fn now(&self) -> Time {
        clock::now()
    }

    /// Process id of a container's main process, while that runs.
    pub fn process_id(&self, task: TaskId, container: usize) -> Option<i32> {
        self.shared.process_ids().get(&(task, container)).copied()
    }

    /// Where a container's output goes; none if the task is unknown.
    pub fn log_path(&self, task: TaskId, container: usize) -> Option<PathBuf> {
        self.with_world(|world| {
            world.task(task).map(|task| runner::log_path(&self.shared.surroundings.logs, task, container))
        })
    }

    /// Waits until somebody asked for the end: `POST /_emulator/shutdown`.
    pub async fn ended(&self) {
        self.shared.cancel.cancelled().await;
    }

    /// Ends the API and kills all tasks, and returns when they are gone.
    pub async fn stop(mut self) {
        self.shared.cancel.cancel();
        while self.parts.join_next().await.is_some() {}
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shared.cancel.cancel();
        let processes = self.shared.processes.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(processes);
    }
}

/// Has the model's effects carried out and tells it what containers do, until the end.
async fn drive(shared: Arc<Shared>, mut reports: mpsc::UnboundedReceiver<Report>) {
    loop {
        let next = step(&shared);
        let pause = next.map_or(LONG_PAUSE, |next| next.since(clock::now()));
        tokio::select! {
            () = shared.cancel.cancelled() => break,
            () = shared.wake.notified() => {}
            () = sleep(pause) => {}
            Some(report) = reports.recv() => tell(&shared, report),
        }
    }
    let processes = shared.processes.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop(processes);
    // The channel closes when the last process has been seen dead and the watchdog has ended.
    let all_seen = async { while reports.recv().await.is_some() {} };
    if timeout(LAST_PATIENCE, all_seen).await.is_err() {
        tracing::error!("a killed process is still there; the kernel does not let go of it");
    }
}

/// Carries out what is due; when the next thing is.
fn step(shared: &Shared) -> Option<Time> {
    let mut world = shared.locked();
    for effect in world.advance(clock::now()) {
        match effect {
            Effect::Start { task: id, container } => {
                let Some(task) = world.task(id) else { continue };
                let launch = Launch::of(task, container, world.knobs(), &shared.surroundings);
                shared.with_processes(|processes| processes.launch((id, container), launch));
            }
            Effect::Terminate { task, container } => {
                shared.with_processes(|processes| processes.terminate((task, container)));
            }
            Effect::Kill { task, container } => {
                shared.with_processes(|processes| processes.kill((task, container)));
            }
        }
    }
    world.next_event_at()
}

fn tell(shared: &Shared, report: Report) {
    let mut world = shared.locked();
    let now = clock::now();
    match report {
        Report::Started((task, container)) => world.container_started(task, container, now),
        Report::NotStarted((task, container), reason) => {
            world.container_failed_to_start(task, container, &reason, now);
        }
        Report::Exited((task, container), code) => world.container_exited(task, container, code, now),
    }
}
