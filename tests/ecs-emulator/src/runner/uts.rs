//! Host names of one's own, where the machine allows: a UTS namespace for each container.

use std::process::{Command, Stdio};

use super::RunnerError;

/// Sets the name from inside the namespace, then becomes the container's command.
const SET_NAME: &str = r#"printf %s "$1" > /proc/sys/kernel/hostname && shift && exec "$@""#;

/// How `unshare` is called on this machine.
pub(crate) type Unshare = &'static [&'static str];

/// Finds out how to make a UTS namespace here: as root, or through a user namespace.
pub(crate) fn probe() -> Result<Unshare, RunnerError> {
    const WAYS: [Unshare; 2] = [&["unshare", "--uts"], &["unshare", "--map-root-user", "--uts"]];
    let mut why = String::new();
    for way in WAYS {
        let mut words = wrap(way, "probe", vec!["true".to_owned()]).into_iter();
        let program = words.next().unwrap_or_default();
        match Command::new(program).args(words).stdin(Stdio::null()).output() {
            Ok(output) if output.status.success() => return Ok(way),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().clone_into(&mut why),
            Err(error) => why = error.to_string(),
        }
    }
    Err(RunnerError::Uts(format!("`unshare --uts` failed ({why}); run as root, or allow user namespaces")))
}

/// `command`, in a UTS namespace with that host name.
pub(super) fn wrap(unshare: Unshare, hostname: &str, command: Vec<String>) -> Vec<String> {
    let prefix = unshare.iter().copied().chain(["sh", "-c", SET_NAME, "sh", hostname]).map(str::to_owned);
    prefix.chain(command).collect()
}
