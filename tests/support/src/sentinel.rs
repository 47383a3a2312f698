//! Redis servers that stand in for one another, and the Sentinels that say which of them is the master.

use std::{fmt::Write as _, fs, process::Command};

use tempfile::TempDir;

use crate::{
    certificates::Certificates,
    process::{Process, program},
    redis::{Redis, RedisOptions},
    wait::{LONG, free_port, wait_until},
};

/// What the Sentinels call what they watch.
pub const MASTER_NAME: &str = "main";

/// How [`RedisSentinels`] are started.
#[derive(Clone, Debug)]
pub struct SentinelOptions {
    /// How many Sentinels.
    pub sentinels: usize,
    /// The password of the Redis servers.
    pub password: Option<String>,
    /// The password of the Sentinels.
    pub sentinel_password: Option<String>,
}

impl Default for SentinelOptions {
    fn default() -> Self {
        Self { sentinels: 1, password: None, sentinel_password: None }
    }
}

/// A master, a replica, and Sentinels that make the replica the master when the master is gone for 3 seconds.
#[derive(Debug)]
pub struct RedisSentinels {
    options: SentinelOptions,
    sentinels: Vec<Sentinel>,
    servers: [Redis; 2],
}

#[derive(Debug)]
struct Sentinel {
    port: u16,
    process: Process,
    _folder: TempDir,
}

impl RedisSentinels {
    /// Starts them, and waits until each Sentinel knows the replica and the other Sentinels.
    pub async fn start(options: SentinelOptions) -> Self {
        let server = |arguments: Vec<String>| RedisOptions {
            password: options.password.clone(),
            arguments: arguments
                .into_iter()
                .chain(options.password.iter().flat_map(|password| ["--masterauth".into(), password.clone()]))
                .collect(),
            ..RedisOptions::default()
        };
        let master = Redis::start_with(server(vec![])).await;
        let of = ["--replicaof".into(), "127.0.0.1".into(), master.port().to_string()];
        let replica = Redis::start_with(server(of.into())).await;
        let mut sentinels = Vec::new();
        for _ in 0..options.sentinels {
            sentinels.push(Sentinel::start(&options, master.port(), None).await);
        }
        let group = Self { options, sentinels, servers: [master, replica] };
        group.wait_until_known().await;
        group
    }

    /// A master and one Sentinel that speak TLS, to each other too, and want certificates of their clients. The master has
    /// no replica.
    pub async fn start_with_tls(certificates: &Certificates) -> Self {
        let options = SentinelOptions::default();
        let tls_port = free_port();
        let arguments = certificates.redis_arguments(tls_port, true);
        let master = Redis::start_with(RedisOptions { arguments, ..RedisOptions::default() }).await;
        let sentinel = Sentinel::start(&options, tls_port, Some(certificates)).await;
        // A replica is none of its business here.
        let other = Redis::start().await;
        Self { options, sentinels: vec![sentinel], servers: [master, other] }
    }

    /// The URL of database 0, with the servers' password if there is one, as Celery takes it.
    pub fn url(&self) -> String {
        let user = self.options.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        let urls: Vec<String> =
            self.sentinels.iter().map(|sentinel| format!("sentinel://{user}127.0.0.1:{}/0", sentinel.port)).collect();
        urls.join(";")
    }

    /// The server that was the master at first, and the one that was its replica.
    pub fn servers(&mut self) -> &mut [Redis; 2] {
        &mut self.servers
    }

    /// The port of the master, as this Sentinel has it.
    pub fn master_port(&self, sentinel: usize) -> Option<u16> {
        self.ask(sentinel, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME]).lines().nth(1)?.trim().parse().ok()
    }

    /// Kills a Sentinel.
    pub fn kill_sentinel(&mut self, sentinel: usize) {
        self.sentinels[sentinel].process.kill();
    }

    /// Waits until all Sentinels that run name this server, and it says itself that it is the master.
    pub async fn wait_until_master(&mut self, server: usize) {
        let port = self.servers[server].port();
        wait_until("the other server is the master", LONG, async || {
            let agree = (0..self.sentinels.len()).all(|sentinel| {
                !self.sentinels[sentinel].process.is_running() || self.master_port(sentinel) == Some(port)
            });
            agree && self.servers[server].cli(&["ROLE"]).starts_with("master")
        })
        .await;
    }

    async fn wait_until_known(&self) {
        let others = self.sentinels.len() - 1;
        for sentinel in 0..self.sentinels.len() {
            wait_until("a Sentinel knows all of them", LONG, async || {
                let said = self.ask(sentinel, &["SENTINEL", "MASTER", MASTER_NAME]);
                let lines: Vec<&str> = said.lines().map(str::trim).collect();
                let is = |key: &str, value: &str| lines.windows(2).any(|pair| pair == [key, value]);
                let replica = self.ask(sentinel, &["SENTINEL", "REPLICAS", MASTER_NAME]);
                is("num-slaves", "1")
                    && is("num-other-sentinels", &others.to_string())
                    && replica.contains("master-link-status\nok")
            })
            .await;
        }
    }

    /// Runs redis-cli on a Sentinel and returns what it prints.
    pub fn ask(&self, sentinel: usize, arguments: &[&str]) -> String {
        let mut command = Command::new(program("redis-cli", "redis-tools"));
        command.args(["-h", "127.0.0.1", "-p", &self.sentinels[sentinel].port.to_string()]).args(arguments);
        if let Some(password) = &self.options.sentinel_password {
            command.env("REDISCLI_AUTH", password);
        }
        let output = command.output().expect("redis-cli can be run");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

impl Sentinel {
    async fn start(options: &SentinelOptions, master: u16, tls: Option<&Certificates>) -> Self {
        // Somebody may take the port between our look and its bind.
        for _ in 0..5 {
            let folder = tempfile::Builder::new().prefix("worker-drain-sentinel-").tempdir().expect("a folder");
            let port = free_port();
            let file = folder.path().join("sentinel.conf");
            fs::write(&file, configuration(options, port, master, tls)).expect("a temporary folder can be written to");
            let mut command = Command::new(program("redis-server", "redis-server"));
            command.arg(&file).args(["--sentinel", "--dir"]).arg(folder.path());
            let mut process = Process::start("redis-sentinel", &command);
            let mut up = false;
            wait_until("a Sentinel watches", LONG, || {
                up = process.is_running() && process.log().contains("+monitor master");
                std::future::ready(up || !process.is_running())
            })
            .await;
            if up {
                return Self { port, process, _folder: folder };
            }
        }
        panic!("redis-server --sentinel ended at once, five times");
    }
}

fn configuration(options: &SentinelOptions, port: u16, master: u16, tls: Option<&Certificates>) -> String {
    // More than half of them must agree: so none of them alone makes a second master.
    let quorum = options.sentinels / 2 + 1;
    let mut lines = format!(
        "bind 127.0.0.1\nport {}\nsentinel monitor {MASTER_NAME} 127.0.0.1 {master} {quorum}\n\
         sentinel down-after-milliseconds {MASTER_NAME} 3000\nsentinel failover-timeout {MASTER_NAME} 10000\n",
        if tls.is_some() { 0 } else { port }
    );
    if let Some(certificates) = tls {
        let arguments = certificates.redis_arguments(port, true);
        for pair in arguments.chunks(2) {
            writeln!(lines, "{} {}", pair[0].trim_start_matches('-'), pair[1]).expect("a String takes all");
        }
        lines.push_str("tls-replication yes\n");
    }
    if let Some(password) = &options.password {
        writeln!(lines, "sentinel auth-pass {MASTER_NAME} {password}").expect("a String takes all");
    }
    if let Some(password) = &options.sentinel_password {
        // They also ask one another with it.
        writeln!(lines, "requirepass {password}\nsentinel sentinel-pass {password}").expect("a String takes all");
    }
    lines
}
