//! Memory in a file, for `worker-drain run`.
//!
//! The memory is what an undo needs: which queues were taken from which worker. So a file that cannot be read as this
//! drain's memory is an error with advice, and never an empty memory. The report is not kept: each reconciliation makes it again.
//!
//! The file is replaced as a whole (a temporary file beside it, written through to the disk, then renamed), so a process
//! that dies at any instruction leaves the old memory or the new one. A second file, with `.lock` at its end, is locked
//! for as long as a [`FileRecord`] lives; it is left behind on purpose, because removing it would let two processes lock
//! two different files of the same name. The lock itself ends with the process.

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use worker_drain_plan::{
    Memory, Report,
    observation::{Failure, FailureKind},
};

use super::{Record, Remembered};
use crate::identity::FleetId;

/// The version of the file's shape. A newer program reads older versions; an older program refuses newer ones.
const VERSION: u32 = 1;
/// Only the user may read it: it names queues and hosts.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Which drain a memory belongs to. All of it must be equal: memory of another service names tasks that mean nothing
/// here, and an undo with it would go to the wrong workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainId {
    /// The manifest's `metadata.namespace`.
    pub namespace: String,
    /// The manifest's `metadata.name`.
    pub name: String,
    /// The fleet's cluster, as the manifest names it.
    pub cluster: String,
    /// The fleet's service, as the manifest names it.
    pub service: String,
    /// The Region that was found.
    pub region: String,
}

impl fmt::Display for DrainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, name, cluster, service, region } = self;
        write!(f, "{namespace}/{name} (ECS service {cluster}/{service} in {region})")
    }
}

impl DrainId {
    /// Where the memory of this drain is kept if nobody says otherwise:
    /// `<state>/worker-drain/<namespace>-<name>-<hash of all of it>.json`, with `<state>` being `$XDG_STATE_HOME` or
    /// `~/.local/state` (XDG Base Directory Specification; a relative path there counts as unset).
    ///
    /// `None`: neither folder is known.
    pub fn default_path(&self, xdg_state_home: Option<&Path>, home: Option<&Path>) -> Option<PathBuf> {
        let state = xdg_state_home
            .filter(|path| path.is_absolute())
            .map(Path::to_path_buf)
            .or_else(|| home.filter(|path| path.is_absolute()).map(|home| home.join(".local/state")))?;
        let plain = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_', "-");
        let hash = fnv1a(&[&self.cluster, &self.service, &self.region, &self.namespace, &self.name]);
        let file = format!("{}-{}-{hash:016x}.json", plain(&self.namespace), plain(&self.name));
        Some(state.join("worker-drain").join(file))
    }
}

/// FNV-1a: the same in every version of this program and of Rust, which `std`'s hashers do not promise. It only keeps
/// names apart; nothing rests on it being hard to invert.
fn fnv1a(parts: &[&str]) -> u64 {
    // A zero byte ends each part, so that `a`, `bc` is not `ab`, `c`.
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// What is in the file.
#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    drain: &'a DrainId,
    #[serde(flatten)]
    remembered: &'a Remembered,
}

/// The part of the file that every version has, read first.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

#[derive(Deserialize)]
struct Body {
    drain: DrainId,
    #[serde(default)]
    fleet: Option<String>,
    memory: Memory,
}

/// The memory of one drain in one file, which no other process uses meanwhile.
#[derive(Clone, Debug)]
pub struct FileRecord(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    drain: DrainId,
    fleet: FleetId,
    /// What the file holds, as far as this process has read or written it. `None`: there was no file.
    known: Mutex<Option<Remembered>>,
    /// Held, not used: the lock ends when it is closed.
    _lock: File,
}

impl FileRecord {
    /// Takes the file for this process, makes its folder if need be, and reads what it holds.
    ///
    /// Errors: another process has it; it is another drain's, of a newer version, or damaged; or it cannot be used at all.
    pub fn open(path: impl Into<PathBuf>, drain: DrainId) -> Result<Self, Failure> {
        let path = path.into();
        let folder = folder_of(&path);
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(folder)
            .map_err(|error| io_failure("the folder of the state file cannot be created", folder, &error))?;
        let lock = lock(&path)?;
        let known = read(&path, &drain)?;
        let fleet = FleetId::known(known.as_ref().and_then(|known| known.fleet.clone()));
        Ok(Self(Arc::new(Inner { path, drain, fleet, known: Mutex::new(known), _lock: lock })))
    }

    /// Reads a drain's memory without taking the file, to show what it holds while another process may be using it.
    /// Empty if there is no file. Errors: as in [`FileRecord::open`], but for the other process.
    pub fn peek(path: &Path, drain: &DrainId) -> Result<Remembered, Failure> {
        Ok(read(path, drain)?.unwrap_or_default())
    }

    /// Which fleet the drain belongs to, as the file says. If it does not, what the fleet learns by this is saved with the
    /// next memory.
    pub fn fleet(&self) -> &FleetId {
        &self.0.fleet
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

impl Record for FileRecord {
    async fn load(&self) -> Result<Memory, Failure> {
        let inner = Arc::clone(&self.0);
        off_thread(move || inner.load()).await
    }

    async fn save(&self, memory: &Memory, _report: &Report) -> Result<(), Failure> {
        let (inner, memory) = (Arc::clone(&self.0), memory.clone());
        off_thread(move || inner.save(memory)).await
    }
}

impl Inner {
    fn load(&self) -> Result<Memory, Failure> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let read = read(&self.path, &self.drain)?;
        if read.is_none() && known.is_some() {
            return Err(Failure::new(
                FailureKind::Invalid,
                format!(
                    "the state file {} was removed while it was in use; without it, queues that were taken from workers \
                     could not be given back. Put it back; or start again without it if nothing has to be undone",
                    self.path.display()
                ),
            ));
        }
        (*known).clone_from(&read);
        Ok(read.unwrap_or_default().memory)
    }

    fn save(&self, memory: Memory) -> Result<(), Failure> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = Remembered { memory, fleet: self.fleet.get().map(ToOwned::to_owned) };
        if known.as_ref() == Some(&remembered) || (known.is_none() && remembered == Remembered::default()) {
            return Ok(());
        }
        self.write(&remembered).map_err(|error| io_failure("the state file cannot be written", &self.path, &error))?;
        *known = Some(remembered);
        Ok(())
    }

    fn write(&self, remembered: &Remembered) -> io::Result<()> {
        let written = Written { version: VERSION, drain: &self.drain, remembered };
        let mut text = serde_json::to_vec_pretty(&written)?;
        text.push(b'\n');
        let temporary = with_suffix(&self.path, ".tmp");
        // What a process left behind that died here. The lock says that nobody is writing it now.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&temporary)?;
        // The umask may have taken bits away from the mode, the owner's own among them.
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        // The new name has to reach the disk too.
        File::open(folder_of(&self.path))?.sync_all()
    }
}

/// Locks the file beside `path`.
fn lock(path: &Path) -> Result<File, Failure> {
    let beside = with_suffix(path, ".lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(&beside)
        .map_err(|error| io_failure("the lock of the state file cannot be opened", &beside, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::new(
            FailureKind::Invalid,
            format!(
                "another process uses the state file {} (it holds a lock on {}). Two at once would undo each other's work: \
                 wait for the other one or end it, or give this one its own file with --state",
                path.display(),
                beside.display()
            ),
        )),
        Err(TryLockError::Error(error)) => Err(io_failure("the state file cannot be locked", &beside, &error)),
    }
}

/// Reads the file. `None`: there is none.
fn read(path: &Path, drain: &DrainId) -> Result<Option<Remembered>, Failure> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_failure("the state file cannot be read", path, &error)),
    };
    let shown = path.display();
    let head: Head = serde_json::from_slice(&text).map_err(|error| damaged(path, &error))?;
    if head.version > VERSION {
        return Err(Failure::new(
            FailureKind::Invalid,
            format!(
                "the state file {shown} was written by a newer worker-drain (version {} of the file; this one reads up to \
                 {VERSION}). Use the newer worker-drain until the rollout has ended",
                head.version
            ),
        ));
    }
    let body: Body = serde_json::from_slice(&text).map_err(|error| damaged(path, &error))?;
    if body.drain != *drain {
        return Err(Failure::new(
            FailureKind::Invalid,
            format!(
                "the state file {shown} is that of {}, not of {drain}. Give this drain its own file with --state",
                body.drain
            ),
        ));
    }
    Ok(Some(Remembered { fleet: body.fleet, memory: body.memory }))
}

fn damaged(path: &Path, error: &serde_json::Error) -> Failure {
    Failure::new(
        FailureKind::Invalid,
        format!(
            "the state file {} cannot be read as worker-drain's memory: {error}. It says which queues have to be given back \
             to which workers, so it is not ignored. Restore it; or, if nothing was being drained, move it away",
            path.display()
        ),
    )
}

fn io_failure(what: &str, path: &Path, error: &io::Error) -> Failure {
    use io::ErrorKind as Io;
    // What only a person can fix, and what may recover by itself, such as a full disk.
    let kind = match error.kind() {
        Io::PermissionDenied | Io::ReadOnlyFilesystem => FailureKind::Denied,
        Io::NotADirectory | Io::IsADirectory | Io::InvalidFilename | Io::NotFound => FailureKind::Invalid,
        _ => FailureKind::Unreachable,
    };
    Failure::new(kind, format!("{what}: {}: {error}. Another place can be given with --state", path.display()))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Waiting for a disk must not keep everything else waiting.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(end) if end.is_panic() => std::panic::resume_unwind(end.into_panic()),
        Err(_) => Err(Failure::new(FailureKind::Unreachable, "the state file was not used: the process is ending")),
    }
}

#[cfg(test)]
mod tests;
