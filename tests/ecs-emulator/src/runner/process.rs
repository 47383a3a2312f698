//! Starting, signalling and awaiting the processes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    io,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};
use tokio::sync::mpsc::UnboundedSender;

use super::{Key, Launch, RunnerError, uts, watchdog::Watchdog};

/// What became of a container.
#[derive(Debug)]
pub(crate) enum Report {
    /// Its process runs.
    Started(Key),
    /// It has none, and why.
    NotStarted(Key, String),
    /// Its process has ended: exit code, or 128 + n for signal n.
    Exited(Key, i32),
}

/// All processes of an emulator. Dropping this ends them.
#[derive(Debug)]
pub(crate) struct Processes {
    orders: Option<mpsc::Sender<(Key, Launch)>>,
    spawner: Option<thread::JoinHandle<()>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    running: Mutex<BTreeMap<Key, Pid>>,
    /// Containers without a command.
    pretended: Mutex<BTreeSet<Key>>,
    watchdog: Mutex<Watchdog>,
    unshare: Option<uts::Unshare>,
    setpriv: bool,
    /// Last, so that the channel closes only when the watchdog has ended.
    reports: UnboundedSender<Report>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Processes {
    pub fn start(reports: UnboundedSender<Report>, unshare: Option<uts::Unshare>) -> Result<Self, RunnerError> {
        let shared = Arc::new(Shared {
            running: Mutex::default(),
            pretended: Mutex::default(),
            watchdog: Mutex::new(Watchdog::start()?),
            unshare,
            setpriv: Command::new("setpriv").arg("--version").stdout(Stdio::null()).status().is_ok(),
            reports,
        });
        let (orders, inbox) = mpsc::channel();
        let spawner = thread::Builder::new()
            .name("ecs-spawner".to_owned())
            .spawn({
                let shared = shared.clone();
                // This thread is the parent that the processes' death signal refers to, so it lives as long as they
                // may: until every order was taken and the sender is gone.
                move || inbox.into_iter().for_each(|(key, launch)| shared.spawn(key, &launch))
            })
            .map_err(RunnerError::Thread)?;
        Ok(Self { orders: Some(orders), spawner: Some(spawner), shared })
    }

    /// Starts a container's process; a report follows.
    pub fn launch(&self, key: Key, launch: Option<Launch>) {
        let Some(launch) = launch else {
            locked(&self.shared.pretended).insert(key);
            self.shared.report(Report::Started(key));
            return;
        };
        if let Some(orders) = &self.orders {
            let _ = orders.send((key, launch)); // The other end lives as long as this one.
        }
    }

    /// SIGTERM to the main process.
    pub fn terminate(&self, key: Key) {
        if locked(&self.shared.pretended).remove(&key) {
            self.shared.report(Report::Exited(key, 0));
        }
        if let Some(&pid) = locked(&self.shared.running).get(&key) {
            let _ = kill_process(pid, Signal::TERM); // It may have ended meanwhile.
        }
    }

    /// SIGKILL to the whole group.
    pub fn kill(&self, key: Key) {
        if let Some(&pid) = locked(&self.shared.running).get(&key) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// Process ids of the containers that run.
    pub fn ids(&self) -> BTreeMap<Key, i32> {
        locked(&self.shared.running).iter().map(|(&key, pid)| (key, pid.as_raw_nonzero().get())).collect()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.orders = None;
        // First no more starts, then no more processes.
        let stopped = self.spawner.take().map(thread::JoinHandle::join);
        if let Some(Err(_)) = stopped {
            tracing::error!("the thread that starts processes has panicked");
        }
        for &pid in locked(&self.shared.running).values() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Shared {
    fn report(&self, report: Report) {
        let _ = self.reports.send(report); // Nobody listens any more once the emulator stops.
    }

    fn spawn(self: &Arc<Self>, key: Key, launch: &Launch) {
        match self.try_spawn(key, launch) {
            Ok(child) => self.watch(key, child),
            Err(error) => {
                let program = launch.command.first().map_or("", String::as_str);
                let reason = format!("CannotStartContainerError: {program}: {error}");
                self.report(Report::NotStarted(key, reason));
            }
        }
    }

    fn try_spawn(&self, key: Key, launch: &Launch) -> io::Result<Child> {
        if let Some(folder) = launch.log.parent() {
            std::fs::create_dir_all(folder)?;
        }
        find(launch)?;
        let log: File = OpenOptions::new().create(true).append(true).open(&launch.log)?;
        let words = self.wrapped(launch);
        let child = Command::new(&words[0])
            .args(&words[1..])
            .env_clear()
            .envs(&launch.environment)
            .current_dir(launch.directory.as_deref().unwrap_or_else(|| Path::new(".")))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let pid = Pid::from_child(&child);
        locked(&self.watchdog).watch(pid);
        locked(&self.running).insert(key, pid);
        Ok(child)
    }

    /// The command behind the programs that set up its surroundings; each becomes the next, so the process id stays.
    fn wrapped(&self, launch: &Launch) -> Vec<String> {
        let mut words = launch.command.clone();
        if let Some(unshare) = self.unshare {
            words = uts::wrap(unshare, &launch.hostname, words);
        }
        if self.setpriv {
            let prefix = ["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned);
            words = prefix.into_iter().chain(words).collect();
        }
        words
    }

    /// Awaits the end on a thread of its own.
    fn watch(self: &Arc<Self>, key: Key, child: Child) {
        self.report(Report::Started(key));
        let shared = self.clone();
        let waiter = thread::Builder::new().name("ecs-waiter".to_owned()).spawn(move || shared.wait(key, child));
        if let Err(error) = waiter {
            tracing::error!(%error, task = %key.0, "no thread to await a process");
        }
    }

    fn wait(&self, key: Key, mut child: Child) {
        let pid = Pid::from_child(&child);
        // Look, but leave the dead process be: as long as it is there, its number and its group's are not reused.
        while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        {
        }
        let _ = kill_process_group(pid, Signal::KILL);
        locked(&self.running).remove(&key);
        locked(&self.watchdog).forget(pid);
        let code = match child.wait() {
            Ok(status) => status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255),
            Err(error) => {
                tracing::error!(%error, task = %key.0, "a process could not be awaited");
                255
            }
        };
        self.report(Report::Exited(key, code));
    }
}

/// Fails if there is no such program; the programs in front of it would only exit with a code.
fn find(launch: &Launch) -> io::Result<()> {
    let program = launch.command.first().map_or("", String::as_str);
    let path = launch.environment.get("PATH").map_or("/usr/bin:/bin", String::as_str);
    let found = if program.contains('/') {
        launch.directory.as_deref().unwrap_or_else(|| Path::new(".")).join(program).is_file()
    } else {
        std::env::split_paths(path).any(|folder| folder.join(program).is_file())
    };
    if found { Ok(()) } else { Err(io::Error::new(io::ErrorKind::NotFound, "executable file not found")) }
}
