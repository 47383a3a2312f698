//! Ends the tasks' process groups when the emulator is gone, however it went.

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, Command, Stdio},
};

use rustix::process::Pid;

use super::RunnerError;

/// Reads `+ GROUP` and `- GROUP`; at the end of input, which is the end of the emulator, kills what is left.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
groups=' '
while read -r op group; do
  case $op in
    +) groups="$groups$group " ;;
    -) case $groups in
         *" $group "*) groups="${groups%%" $group "*} ${groups#*" $group "}" ;;
       esac ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
"#;

/// A process that waits for our end.
#[derive(Debug)]
pub(super) struct Watchdog {
    process: Child,
    orders: Option<ChildStdin>,
}

impl Watchdog {
    pub fn start() -> Result<Self, RunnerError> {
        let mut process = Command::new("sh")
            .args(["-c", SCRIPT])
            .process_group(0) // A ctrl-C at the terminal is not for it.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(RunnerError::Watchdog)?;
        let orders = process.stdin.take();
        Ok(Self { process, orders })
    }

    pub fn watch(&mut self, group: Pid) {
        self.tell('+', group);
    }

    pub fn forget(&mut self, group: Pid) {
        self.tell('-', group);
    }

    fn tell(&mut self, op: char, group: Pid) {
        if let Some(orders) = &mut self.orders
            && let Err(error) = writeln!(orders, "{op} {}", group.as_raw_nonzero())
        {
            tracing::warn!(%error, "the watchdog is gone");
            self.orders = None;
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.orders = None;
        if let Err(error) = self.process.wait() {
            tracing::warn!(%error, "the watchdog did not end");
        }
    }
}
