//! A Redis server of one's own.

use std::{path::PathBuf, process::Command, time::Duration};

use tempfile::TempDir;

use crate::{
    process::{Process, Signal, program},
    wait::{LONG, free_port, wait_until},
};

/// How a [`Redis`] is started.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// The password that it asks for.
    pub password: Option<String>,
    /// Whether it listens on a unix socket besides its port.
    pub unix_socket: bool,
    /// Further arguments of redis-server, such as `["--tls-port", "0"]`.
    pub arguments: Vec<String>,
}

/// A running Redis server, with its data in a folder of its own that a restart keeps.
#[derive(Debug)]
pub struct Redis {
    options: RedisOptions,
    port: u16,
    // Before the folder: it ends first, or it would write into a folder that is being removed.
    process: Option<Process>,
    folder: TempDir,
}

impl Redis {
    /// Starts one without a password, and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(RedisOptions::default()).await
    }

    /// Starts one with these options, and waits until it answers.
    pub async fn start_with(options: RedisOptions) -> Self {
        let folder = tempfile::Builder::new().prefix("worker-drain-redis-").tempdir().expect("a temporary folder");
        let mut redis = Self { options, port: 0, process: None, folder };
        // Somebody may take the port between our look and its bind.
        for _ in 0..5 {
            redis.port = free_port();
            if redis.try_start().await {
                return redis;
            }
        }
        let log = redis.process.as_ref().map(|process| process.log_tail(20)).unwrap_or_default();
        panic!("redis-server ended at once, five times:\n{log}");
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of database 0, with the password if there is one.
    pub fn url(&self) -> String {
        self.url_of(0)
    }

    /// The URL of a database, with the password if there is one.
    pub fn url_of(&self, database: u32) -> String {
        let user = self.options.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        format!("redis://{user}127.0.0.1:{}/{database}", self.port)
    }

    /// The path of the unix socket, if it listens on one.
    pub fn unix_socket(&self) -> Option<PathBuf> {
        self.options.unix_socket.then(|| self.folder.path().join("socket"))
    }

    /// Ends it as an administrator would, its data written to disk.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM);
            process.ended(LONG).await;
        }
    }

    /// Kills it. What it had on disk stays (`appendfsync always`: all that it ever acknowledged).
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again on the same port, with its data. Stops it first if it runs.
    pub async fn restart(&mut self) {
        self.stop().await;
        // The port may be in use for a moment by somebody's short-lived connection.
        for _ in 0..20 {
            if self.try_start().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("redis-server did not start again on port {}", self.port);
    }

    /// Freezes it: connections stay open and nothing answers.
    pub fn pause(&mut self) {
        self.process.as_mut().expect("Redis runs").signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&mut self) {
        self.process.as_mut().expect("Redis runs").signal(Signal::CONT);
    }

    /// Runs redis-cli on database 0 and returns what it prints, such as `cli(&["KEYS", "*"])`.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(program("redis-cli", "redis-tools"));
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]).args(arguments);
        if let Some(password) = &self.options.password {
            command.env("REDISCLI_AUTH", password);
        }
        let output = command.output().expect("redis-cli can be run");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Ends every client's connections.
    pub fn cut_connections(&self) {
        for kind in ["pubsub", "normal"] {
            self.cli(&["CLIENT", "KILL", "TYPE", kind]);
        }
    }

    /// Starts it, and tells whether it came up; false if it ended, as when its port is taken.
    async fn try_start(&mut self) -> bool {
        let mut command = Command::new(program("redis-server", "redis-server"));
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        command.arg("--dir").arg(self.folder.path());
        if let Some(socket) = self.unix_socket() {
            command.arg("--unixsocket").arg(socket);
        }
        if let Some(password) = &self.options.password {
            command.args(["--requirepass", password]);
        }
        command.args(&self.options.arguments);

        let mut process = Process::start("redis-server", &command);
        let mut up = false;
        wait_until("redis-server answers", LONG, || {
            up = process.is_running() && process.log().contains("Ready to accept connections");
            std::future::ready(up || !process.is_running())
        })
        .await;
        self.process = Some(process);
        up
    }
}
