//! A RabbitMQ server of one's own.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::{
    process::{Process, Signal, program},
    wait::{LONG, free_port, wait_until},
};

/// Where Debian has the scripts. Those on `PATH` change to the user `rabbitmq` and its folder, which is not ours.
const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";
/// How long RabbitMQ may take to start or to end. Alone it needs five seconds; it is one program of many on the machine.
const VERY_LONG: Duration = Duration::from_mins(3);

/// How a [`RabbitMq`] is started.
#[derive(Clone, Debug, Default)]
pub struct RabbitMqOptions {
    /// Further lines of its configuration file, such as `listeners.ssl.1 = 127.0.0.1:5671`.
    pub configuration: Vec<String>,
}

/// A running RabbitMQ server, with a folder, an Erlang node, and an epmd of its own. Nothing outside of its folder is
/// read or written, and a restart keeps its data.
///
/// It takes some seconds to start: see [`RabbitMq::shared`].
#[derive(Debug)]
pub struct RabbitMq {
    options: RabbitMqOptions,
    port: u16,
    distribution_port: u16,
    epmd_port: u16,
    // In this order: a server that lives would write into a folder that is being removed, and needs its epmd to end.
    process: Option<Process>,
    epmd: Option<Process>,
    folder: TempDir,
}

/// A virtual host of the shared [`RabbitMq`]: a broker as good as one's own, as long as nobody stops it.
#[derive(Clone, Debug)]
pub struct VirtualHost {
    rabbit: &'static RabbitMq,
    name: String,
}

impl RabbitMq {
    /// Starts one, and waits until it answers. User and password are `guest`.
    pub async fn start() -> Self {
        Self::start_with(RabbitMqOptions::default()).await
    }

    /// Starts one with these options, and waits until it answers.
    pub async fn start_with(options: RabbitMqOptions) -> Self {
        assert!(
            Path::new(SCRIPTS).join("rabbitmq-server").is_file(),
            "RabbitMQ is not installed (there is no {SCRIPTS}/rabbitmq-server; Debian: the package rabbitmq-server): \
             run `make setup`"
        );
        let folder = tempfile::Builder::new().prefix("worker-drain-rabbitmq-").tempdir().expect("a temporary folder");
        let mut rabbit =
            Self { options, port: 0, distribution_port: 0, epmd_port: 0, process: None, epmd: None, folder };
        // Somebody may take a port between our look and its bind.
        for _ in 0..5 {
            rabbit.port = free_port();
            rabbit.distribution_port = free_port();
            rabbit.epmd_port = free_port();
            if rabbit.try_start().await {
                return rabbit;
            }
        }
        let log = rabbit.process.as_ref().map(|process| process.log_tail(20)).unwrap_or_default();
        panic!("rabbitmq-server ended at once, five times:\n{log}");
    }

    /// A virtual host of its own on the one server that all tests of this process share, started when it is first wanted.
    ///
    /// That server ends with the process, and a helper then removes its folder.
    pub async fn shared() -> VirtualHost {
        static SHARED: OnceCell<RabbitMq> = OnceCell::const_new();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let start = || async {
            let rabbit = Self::start().await;
            remove_when_we_end(rabbit.folder.path());
            rabbit
        };
        let rabbit = SHARED.get_or_init(start).await;
        let name = format!("test-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        rabbit.add_vhost(&name).await;
        VirtualHost { rabbit, name }
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of the virtual host `/`, for the user `guest`.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}//", self.port)
    }

    /// Adds a virtual host, in which `guest` may do everything.
    pub async fn add_vhost(&self, name: &str) {
        self.eval(&format!(
            "rabbit_vhost:add(<<\"{name}\">>, <<\"test\">>), rabbit_auth_backend_internal:set_permissions(\
             <<\"guest\">>, <<\"{name}\">>, <<\".*\">>, <<\".*\">>, <<\".*\">>, <<\"test\">>)."
        ))
        .await;
    }

    /// Runs rabbitmqctl and returns what it prints, such as `ctl(&["list_queues", "-q"])`. Panics if it fails. It takes a
    /// second or two: it is an Erlang node too.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let mut command = tokio::process::Command::from(self.command("rabbitmqctl"));
        // Its time-out is for what it asks; connecting to the server has one of its own.
        command.args(["--timeout", "120"]).args(arguments);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.expect("rabbitmqctl can be run");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        let (said, complained) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "rabbitmqctl {arguments:?} failed:\n{said}\n{complained}");
        said
    }

    /// Evaluates Erlang on the server, ending with a full stop, and returns what it gives.
    pub async fn eval(&self, erlang: &str) -> String {
        self.ctl(&["eval", erlang]).await
    }

    /// Closes every client's connection.
    pub async fn close_all_connections(&self) {
        self.ctl(&["close_all_connections", "a test wants it"]).await;
    }

    /// Ends it as an administrator would. Its data stays.
    pub async fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM);
            process.ended(VERY_LONG).await;
        }
        self.epmd = None;
    }

    /// Kills it. What it had on disk stays.
    pub fn kill(&mut self) {
        self.process = None;
        self.epmd = None;
    }

    /// Starts it again on the same ports, with its data. Stops it first if it runs.
    pub async fn restart(&mut self) {
        self.stop().await;
        // A port may be in use for a moment by somebody's short-lived connection.
        for _ in 0..5 {
            if self.try_start().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let log = self.process.as_ref().map(|process| process.log_tail(20)).unwrap_or_default();
        panic!("rabbitmq-server did not start again on port {}:\n{log}", self.port);
    }

    /// Freezes it: connections stay open and nothing answers.
    pub fn pause(&mut self) {
        self.process.as_mut().expect("RabbitMQ runs").signal_group(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&mut self) {
        self.process.as_mut().expect("RabbitMQ runs").signal_group(Signal::CONT);
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Starts it, and tells whether it came up; false if it ended, as when a port is taken.
    async fn try_start(&mut self) -> bool {
        // Its own epmd, started first and in the foreground: RabbitMQ would start one that outlives it.
        let mut epmd = Command::new(program("epmd", "erlang-base"));
        epmd.args(["-address", "127.0.0.1", "-port", &self.epmd_port.to_string()]);
        let mut epmd = Process::start("epmd", &epmd);
        let epmd_port = self.epmd_port;
        wait_until("epmd listens", LONG, async || {
            !epmd.is_running() || tokio::net::TcpStream::connect(("127.0.0.1", epmd_port)).await.is_ok()
        })
        .await;
        if !epmd.is_running() {
            return false;
        }
        self.epmd = Some(epmd);

        self.write_configuration();
        let mut process = Process::start("rabbitmq-server", &self.command("rabbitmq-server"));
        let mut up = false;
        wait_until("rabbitmq-server answers", VERY_LONG, async || {
            up = process.is_running() && process.log().contains("Server startup complete");
            up || !process.is_running()
        })
        .await;
        self.process = Some(process);
        up
    }

    fn write_configuration(&self) {
        let mut lines = format!("listeners.tcp.1 = 127.0.0.1:{}\nlog.console = true\n", self.port);
        for line in &self.options.configuration {
            writeln!(lines, "{line}").expect("a String takes all");
        }
        let write = |name: &str, text: &str| fs::write(self.folder.path().join(name), text).expect("a file of ours");
        write("rabbitmq.conf", &lines);
        write("enabled_plugins", "[].\n");
        write("rabbitmq-env.conf", "");
    }

    /// One of its scripts, told to use nothing of the machine's own RabbitMQ.
    fn command(&self, script: &str) -> Command {
        let folder = self.folder.path();
        let mut command = Command::new(Path::new(SCRIPTS).join(script));
        command
            .env("LANG", "C.UTF-8")
            // The cookie by which Erlang nodes know one another is there.
            .env("HOME", folder)
            // Erlang writes it where it was started, which is the source of the test.
            .env("ERL_CRASH_DUMP", folder.join("erl_crash.dump"))
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            // exec instead of a shell that waits: the process that we started is then RabbitMQ itself.
            .env("RUNNING_UNDER_SYSTEMD", "1")
            .env("RABBITMQ_NODENAME", "rabbit@localhost")
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", folder.join("rabbitmq-env.conf"))
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", folder.join("none.config"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", folder.join("generated"))
            .env("RABBITMQ_SCHEMA_DIR", folder.join("schema"))
            .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_PID_FILE", folder.join("pid"))
            // Two schedulers that do not spin while they wait: it is not alone on the machine.
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none",
            );
        command
    }
}

impl VirtualHost {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server, which is shared: never for stopping it.
    pub fn rabbit(&self) -> &'static RabbitMq {
        self.rabbit
    }

    /// Its URL, for the user `guest`.
    pub fn url(&self) -> String {
        self.url_for("guest", "guest")
    }

    /// Its URL for another user.
    pub fn url_for(&self, user: &str, password: &str) -> String {
        format!("amqp://{user}:{password}@127.0.0.1:{}/{}", self.rabbit.port, self.name)
    }

    /// The names of its queues.
    pub async fn queues(&self) -> Vec<String> {
        let listed = self.rabbit.ctl(&["list_queues", "--quiet", "--no-table-headers", "-p", &self.name, "name"]).await;
        listed.lines().filter(|line| !line.is_empty()).map(String::from).collect()
    }

    /// Closes every client's connection to it.
    pub async fn close_all_connections(&self) {
        self.rabbit.ctl(&["close_all_connections", "--vhost", &self.name, "a test wants it"]).await;
    }

    /// Adds a user, with a password and these permissions here: configure, write, read.
    pub async fn add_user(&self, user: &str, password: &str, [configure, write, read]: [&str; 3]) {
        self.rabbit.ctl(&["add_user", user, password]).await;
        self.rabbit.ctl(&["set_permissions", "-p", &self.name, user, configure, write, read]).await;
    }
}

/// Nothing is dropped that belongs to the whole process. A shell that reads from us learns of our end, however it comes.
/// It tries for a while, because the server is being killed at the same moment.
#[expect(clippy::zombie_processes, reason = "it outlives us: that is what it is for")]
fn remove_when_we_end(folder: &Path) {
    let script = "read -r _; for _ in 1 2 3 4 5 6 7 8 9 10; do rm -rf \"$1\" && exit; sleep 0.5; done";
    let mut command = Command::new("setsid");
    command.args(["sh", "-c", script, "sh"]).arg(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("setsid can be run (the package util-linux): run `make setup`");
    // Kept open until the process ends.
    std::mem::forget(child.stdin.take());
}
