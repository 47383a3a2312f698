//! Calls of kubectl and helm.

use std::{
    path::Path,
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use tokio::{io::AsyncWriteExt, time::timeout};

use crate::process::{Process, program};

/// A call of kubectl or helm that is to be made.
#[derive(Debug)]
#[must_use = "nothing is called before `ok`, `refused`, `output` or `start`"]
pub struct Call {
    pub(super) name: String,
    pub(super) command: Command,
    pub(super) stdin: Option<String>,
    pub(super) bound: Duration,
}

/// What a call came to.
#[derive(Clone, Debug)]
pub struct CallOutput {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed on standard output.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
}

impl Call {
    /// Given this on standard input, such as a manifest for `kubectl apply -f -`.
    pub fn stdin(mut self, text: impl Into<String>) -> Self {
        self.stdin = Some(text.into());
        self
    }

    /// With another identity than the administrator's: see [`ControlPlane::service_account_kubeconfig`].
    pub fn kubeconfig(mut self, file: &Path) -> Self {
        self.command.env("KUBECONFIG", file);
        self
    }

    /// With another bound than three minutes, for a `kubectl wait` that waits for long jobs.
    pub fn bound(mut self, bound: Duration) -> Self {
        self.bound = bound;
        self
    }

    /// Makes the call and returns what it printed. Panics, with what it complained of, if it failed.
    pub async fn ok(self) -> String {
        let what = self.to_string();
        let CallOutput { status, stdout, stderr } = self.output().await;
        assert!(status.success(), "{what} failed ({status}):\n{stdout}\n{stderr}");
        stdout
    }

    /// Makes the call and returns what it complained of. Panics if it succeeded.
    pub async fn refused(self) -> String {
        let what = self.to_string();
        let CallOutput { status, stdout, stderr } = self.output().await;
        assert!(!status.success(), "{what} should have failed:\n{stdout}\n{stderr}");
        stderr
    }

    /// Makes the call. Panics when it has not ended within the bound.
    pub async fn output(self) -> CallOutput {
        let what = self.to_string();
        let mut command = tokio::process::Command::from(guarded(&self.command));
        command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("could not start {what}: {error}"));
        let input = child.stdin.take().zip(self.stdin);
        let feed = async {
            if let Some((mut pipe, text)) = input {
                // It may end without reading: what it then says tells why.
                let _ = pipe.write_all(text.as_bytes()).await;
            }
        };
        let both = async { tokio::join!(feed, child.wait_with_output()).1 };
        let output =
            timeout(self.bound, both).await.unwrap_or_else(|_| panic!("{what} took more than {:?}", self.bound));
        let output = output.unwrap_or_else(|error| panic!("{what} could not be followed: {error}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        CallOutput { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Starts it and leaves it running, as for `kubectl get --watch`: [`Process::log`] has what it printed.
    pub fn start(self) -> Process {
        assert!(self.stdin.is_none(), "a process that is left running gets no standard input");
        Process::start(self.to_string(), &self.command)
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        self.command.get_args().try_for_each(|argument| write!(f, " {}", argument.to_string_lossy()))
    }
}

/// The same command, ended when the thread that starts it ends.
fn guarded(command: &Command) -> Command {
    let mut guarded = Command::new(program("setpriv", "util-linux"));
    guarded.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    guarded.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    guarded
}
