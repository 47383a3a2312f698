//! Containers as local processes.
//!
//! Each container is a process group whose leader stands for the container's main process: it gets SIGTERM, and when
//! it ends, whatever else is left of the group is killed, as when process 1 of a container ends.
//!
//! Nothing outlives the emulator, even if that is killed: the leaders ask the kernel to be killed with the thread
//! that started them (`setpriv --pdeathsig`, where it is installed), and a [watchdog](watchdog) kills the groups when
//! the pipe to it breaks.

mod launch;
mod process;
mod uts;
mod watchdog;

pub(crate) use self::{
    launch::{Launch, Surroundings, log_path},
    process::{Processes, Report},
    uts::probe as probe_uts,
};

/// A container: a task and a place in its definition.
pub(crate) type Key = (crate::model::TaskId, usize);

/// A task's process could not be started, watched or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The watchdog is a small shell script.
    #[error("could not start the watchdog, a `sh` script that ends tasks should the emulator be killed")]
    Watchdog(#[source] std::io::Error),
    /// Threads are needed to start and to await processes.
    #[error("could not start a thread for the tasks' processes")]
    Thread(#[source] std::io::Error),
    /// A UTS namespace needs root, or user namespaces.
    #[error("tasks cannot have host names of their own here: {0}")]
    Uts(String),
}
