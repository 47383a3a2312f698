//! A process that ends with the value that stands for it.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, OnceLock, mpsc},
    time::Duration,
};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process, kill_process_group};
use tempfile::TempDir;

use crate::wait::wait_until;

/// A running process in a process group of its own.
///
/// Its group is killed when this is dropped, and the process itself when the test process ends in any other way. What it
/// prints goes to a file, whose end is shown when the test fails.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pid: Pid,
    ended: Option<ExitStatus>,
    killed: bool,
    log: PathBuf,
    _folder: TempDir,
}

impl Process {
    /// Starts a command. `name` is for people. Panics if the program cannot be started.
    pub fn start(name: impl Into<String>, command: &Command) -> Self {
        let name = name.into();
        let folder = tempfile::Builder::new().prefix("worker-drain-test-").tempdir().expect("a temporary folder");
        let log = folder.path().join("log");
        let out = File::create(&log).expect("a log file");
        let err = out.try_clone().expect("a second handle to the log file");

        // setpriv takes itself out of the way: the process id is the program's own.
        let mut guarded = Command::new("setpriv");
        guarded.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => guarded.env(key, value),
                None => guarded.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            guarded.current_dir(folder);
        }
        guarded.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);

        let child = spawn(guarded).unwrap_or_else(|error| {
            panic!("could not start {name}: {error} (setpriv is in the package util-linux: run `make setup`)")
        });
        let pid = Pid::from_child(&child);
        Self { name, child, pid, ended: None, killed: false, log, _folder: folder }
    }

    /// Its process id, which is also its group's.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process alone, as a scheduler does. Nothing happens if it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Sends a signal to it and all its children: `Signal::STOP` freezes them, `Signal::CONT` lets them go on.
    pub fn signal_group(&mut self, signal: Signal) {
        if self.is_running() {
            let _ = kill_process_group(self.pid, signal);
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("our own child can be waited for");
        }
        self.ended.is_none()
    }

    /// Waits until it has ended. Panics when it does not within `bound`.
    pub async fn ended(&mut self, bound: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        wait_until(&what, bound, || std::future::ready(!self.is_running())).await;
        self.ended.expect("it has ended")
    }

    /// Kills it and all its children at once, and waits until it is gone.
    pub fn kill(&mut self) {
        // Once only: when all of it is gone, its number may become somebody else's.
        if std::mem::replace(&mut self.killed, true) {
            return;
        }
        // The group outlives its leader: children of a process that has ended are killed too.
        let _ = kill_process_group(self.pid, Signal::KILL);
        if self.is_running() {
            self.ended = Some(self.child.wait().unwrap_or_else(|_| ExitStatus::from_raw(9)));
        }
    }

    /// All that it has printed so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines of what it has printed so far.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of what {} printed ---\n{}\n---", self.name, self.log_tail(30));
        }
        self.kill();
    }
}

/// The path of a program on `PATH`, or a panic that says which package has it.
pub(crate) fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| is_file(file))
        .unwrap_or_else(|| panic!("{name} is not installed (Debian: the package {package}): run `make setup`"))
}

fn is_file(path: &Path) -> bool {
    path.file_name() != Some(OsStr::new("")) && path.is_file()
}

type Order = (Command, mpsc::SyncSender<std::io::Result<Child>>);

/// Starts it from a thread that lives as long as this process. "Dies with its parent" means the parent *thread*
/// (`PR_SET_PDEATHSIG` in prctl(2)), and the threads of an async runtime come and go.
fn spawn(command: Command) -> std::io::Result<Child> {
    static ORDERS: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in receiver {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (sender, receiver) = mpsc::sync_channel(1);
    orders.lock().expect("nothing panics with it").send((command, sender)).expect("the thread never ends");
    receiver.recv().expect("the thread answers")
}
