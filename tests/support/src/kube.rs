//! A Kubernetes control plane of real parts: etcd, kube-apiserver, kube-controller-manager, and kubectl and helm to
//! talk to it. There are no nodes: Pods stay Pending, and a test runs their commands itself (see [`PodCommand`]).

mod call;
mod pod;

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

pub use self::{
    call::{Call, CallOutput},
    pod::PodCommand,
};
use crate::{
    app::repository,
    process::{Process, Signal, program},
    wait::{LONG, free_port, wait_until},
};

/// The controllers that the tests need. The others would only cost memory and time.
const CONTROLLERS: &str = "clusterrole-aggregation-controller,deployment-controller,disruption-controller,\
    endpointslice-controller,garbage-collector-controller,namespace-controller,replicaset-controller,\
    serviceaccount-controller";

/// A running control plane on 127.0.0.1. It ends, and its data is gone, when this is dropped.
///
/// ```no_run
/// # async fn example() {
/// use test_support::ControlPlane;
///
/// let plane = ControlPlane::start().await;
/// plane.kubectl(["create", "namespace", "media"]).ok().await;
/// plane.kubectl(["apply", "-f", "-"]).stdin("…").ok().await;
/// let theirs = plane.service_account_kubeconfig("media", "default").await;
/// let why = plane.kubectl(["get", "secrets"]).kubeconfig(&theirs).refused().await;
/// # }
/// ```
#[derive(Debug)]
pub struct ControlPlane {
    // Processes end in this order, and before their folder: each would complain about the end of the next.
    controller_manager: Option<Process>,
    apiserver: Option<Process>,
    etcd: Option<Process>,
    etcd_port: u16,
    port: u16,
    kubeconfig: PathBuf,
    folder: TempDir,
}

impl ControlPlane {
    /// Starts one, and waits until it answers and namespaces get their service accounts.
    pub async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("worker-drain-kube-").tempdir().expect("a temporary folder");
        let kubeconfig = folder.path().join("admin.kubeconfig");
        let mut plane =
            Self { controller_manager: None, apiserver: None, etcd: None, etcd_port: 0, port: 0, kubeconfig, folder };
        let admin = plane.make_secrets();
        plane.start_etcd().await;
        plane.find_port_and_start_apiserver(&admin).await;
        plane.start_controller_manager();
        let account = "serviceaccount/default";
        plane.wait_for("the controllers work", &["get", account, "--namespace", "default"]).await;
        plane
    }

    /// A kubeconfig that may do everything.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The URL of the API server.
    pub fn url(&self) -> String {
        format!("https://{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// A call of kubectl.
    pub fn kubectl<A: AsRef<str>>(&self, arguments: impl IntoIterator<Item = A>) -> Call {
        self.call("kubectl", arguments)
    }

    /// A call of helm.
    pub fn helm<A: AsRef<str>>(&self, arguments: impl IntoIterator<Item = A>) -> Call {
        self.call("helm", arguments)
    }

    /// Ends the API server as an administrator would, and starts it again: same port, certificate and data.
    pub async fn restart_apiserver(&mut self) {
        self.stop_apiserver().await;
        self.start_apiserver().await;
    }

    /// Ends the API server: connections break, and new ones are refused.
    pub async fn stop_apiserver(&mut self) {
        if let Some(mut process) = self.apiserver.take() {
            process.signal(Signal::TERM);
            process.ended(LONG).await;
        }
    }

    /// Starts the API server again, and waits until it is ready.
    pub async fn start_apiserver(&mut self) {
        // The port may be in use for a moment by somebody's short-lived connection.
        for _ in 0..20 {
            if self.try_start_apiserver().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("kube-apiserver did not start again on port {}:\n{}", self.port, tail(self.apiserver.as_ref()));
    }

    /// Freezes the API server: connections stay open and nothing answers.
    pub fn pause_apiserver(&mut self) {
        self.apiserver.as_mut().expect("the API server runs").signal(Signal::STOP);
    }

    /// Lets the API server go on.
    pub fn resume_apiserver(&mut self) {
        self.apiserver.as_mut().expect("the API server runs").signal(Signal::CONT);
    }

    /// A kubeconfig with a token of this service account and with its namespace, as a process in a Pod of it would have
    /// them. The token is good for a day.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> PathBuf {
        let token = self.token(namespace, name).await;
        let file = self.folder.path().join(format!("{namespace}.{name}.kubeconfig"));
        self.write_kubeconfig(&file, &token, namespace);
        file
    }

    /// Puts into a folder, which is to be a process's root, what a node mounts into a Pod of this service account.
    pub async fn mount_service_account(&self, namespace: &str, name: &str, root: &Path) {
        let folder = root.join("var/run/secrets/kubernetes.io/serviceaccount");
        fs::create_dir_all(&folder).expect("the folder can be written to");
        let ca = fs::read(self.certificate()).expect("the API server has made its certificate");
        let files = [
            ("token", self.token(namespace, name).await.into_bytes()),
            ("namespace", namespace.into()),
            ("ca.crt", ca),
        ];
        for (file, content) in files {
            fs::write(folder.join(file), content).expect("the folder can be written to");
        }
    }

    /// The environment variables by which a Pod finds the API server.
    pub fn service_environment(&self) -> [(&'static str, String); 2] {
        let host = Ipv4Addr::LOCALHOST.to_string();
        [("KUBERNETES_SERVICE_HOST", host), ("KUBERNETES_SERVICE_PORT", self.port.to_string())]
    }

    async fn token(&self, namespace: &str, name: &str) -> String {
        let duration = "--duration=24h";
        let token = self.kubectl(["create", "token", name, "--namespace", namespace, duration]).ok().await;
        token.trim().to_owned()
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("certificates/apiserver.crt")
    }

    /// What the first of [`pod_commands`](Self::pod_commands) would run.
    pub async fn pod_command(&self, namespace: &str, selector: &str) -> PodCommand {
        self.pod_commands(namespace, selector, 1).await.remove(0)
    }

    /// What the Pods with these labels would run, one each, the newest first. Waits until there are at least so many.
    pub async fn pod_commands(&self, namespace: &str, selector: &str, at_least: usize) -> Vec<PodCommand> {
        let mut pods: Vec<Value> = Vec::new();
        let what = format!("{namespace} has {at_least} Pods with {selector}");
        let arguments = ["get", "pods", "--namespace", namespace, "--selector", selector, "--output", "json"];
        wait_until(&what, LONG, async || {
            let mut list: Value = serde_json::from_str(&self.kubectl(arguments).ok().await).expect("kubectl's JSON");
            pods = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
            pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
            pods.len() >= at_least
        })
        .await;
        let key = |pod: &Value, field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
        pods.sort_by_key(|pod| (std::cmp::Reverse(key(pod, "creationTimestamp")), key(pod, "name")));
        pods.iter().map(PodCommand::of).collect()
    }

    fn call<A: AsRef<str>>(&self, name: &str, arguments: impl IntoIterator<Item = A>) -> Call {
        let home = self.folder.path().join("home");
        let mut command = Command::new(kube_tool(name));
        command.args(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        // What they would leave in a home folder goes away with ours.
        command.env("HOME", &home).env("KUBECACHEDIR", home.join("kube")).env("KUBECONFIG", &self.kubeconfig);
        for (variable, folder) in [("CACHE", "cache"), ("CONFIG", "config"), ("DATA", "data")] {
            command.env(format!("HELM_{variable}_HOME"), home.join("helm").join(folder));
        }
        Call { name: name.into(), command, stdin: None, bound: 3 * LONG }
    }

    async fn wait_for(&self, what: &str, kubectl: &[&str]) {
        wait_until(what, LONG, async || self.kubectl(kubectl).output().await.status.success()).await;
    }

    /// The key that tokens of service accounts are signed with, and the administrator's token.
    fn make_secrets(&self) -> String {
        let folder = self.folder.path();
        fs::create_dir(folder.join("home")).expect("our folder can be written");
        let key = folder.join("service-accounts.key");
        let curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
        let openssl = || Command::new(program("openssl", "openssl"));
        printed(openssl().arg("genpkey").args(curve).arg("-out").arg(&key));
        let public = folder.join("service-accounts.pub");
        printed(openssl().args(["pkey", "-pubout", "-in"]).arg(&key).arg("-out").arg(public));
        let token = printed(openssl().args(["rand", "-hex", "16"]));
        let tokens = format!("{token},administrator,administrator,\"system:masters\"\n");
        fs::write(folder.join("tokens.csv"), tokens).expect("our folder can be written");
        token
    }

    fn write_kubeconfig(&self, file: &Path, token: &str, namespace: &str) {
        let ca = self.certificate();
        let text = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.url(), "certificate-authority": ca}}],
            "users": [{"name": "user", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user", "namespace": namespace}}],
            "current-context": "test",
        });
        fs::write(file, text.to_string()).expect("our folder can be written");
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        fs::set_permissions(file, owner_only).expect("it is our file");
    }

    async fn start_etcd(&mut self) {
        // Somebody may take a port between our look and its bind.
        for _ in 0..5 {
            self.etcd_port = free_port();
            let (client, peer) = (self.etcd_url(), format!("http://{}:{}", Ipv4Addr::LOCALHOST, free_port()));
            let mut command = Command::new(kube_tool("etcd"));
            command.args(["--name", "test", "--unsafe-no-fsync", "--initial-cluster", &format!("test={peer}")]);
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.arg("--data-dir").arg(self.folder.path().join("etcd"));
            let up = |process: &Process| process.log().contains("ready to serve client requests");
            let (process, up) = start("etcd", &command, async |process| up(process)).await;
            self.etcd = Some(process);
            if up {
                return;
            }
            // A member that found its port taken has written the port down.
            let _ = fs::remove_dir_all(self.folder.path().join("etcd"));
        }
        panic!("etcd ended at once, five times:\n{}", tail(self.etcd.as_ref()));
    }

    async fn find_port_and_start_apiserver(&mut self, admin: &str) {
        for _ in 0..5 {
            self.port = free_port();
            self.write_kubeconfig(&self.kubeconfig, admin, "default");
            if self.try_start_apiserver().await {
                return;
            }
        }
        panic!("kube-apiserver ended at once, five times:\n{}", tail(self.apiserver.as_ref()));
    }

    /// Starts it, and tells whether it came up; false if it ended, as when its port is taken.
    async fn try_start_apiserver(&mut self) -> bool {
        let folder = self.folder.path();
        let mut command = Command::new(kube_tool("kube-apiserver"));
        command.args(["--bind-address", "127.0.0.1", "--secure-port", &self.port.to_string()]);
        command.args(["--etcd-servers", &self.etcd_url()]);
        command.arg("--cert-dir").arg(folder.join("certificates"));
        command.arg("--token-auth-file").arg(folder.join("tokens.csv"));
        command.arg("--service-account-key-file").arg(folder.join("service-accounts.pub"));
        command.arg("--service-account-signing-key-file").arg(folder.join("service-accounts.key"));
        command.args(["--service-account-issuer", "https://kubernetes.default.svc"]);
        command.args(["--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.0.0.0/24"]);
        // It is nobody's endpoint but ours: it need not write itself into the Service `kubernetes`.
        command.args(["--endpoint-reconciler-type", "none"]);
        // Without this, it waits a minute at its end for clients that keep their connections open.
        command.arg("--shutdown-send-retry-after");
        let ready = async |_: &Process| self.kubectl(["get", "--raw", "/readyz"]).output().await.status.success();
        let (process, up) = start("kube-apiserver", &command, ready).await;
        self.apiserver = Some(process);
        up
    }

    fn start_controller_manager(&mut self) {
        let mut command = Command::new(kube_tool("kube-controller-manager"));
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command.arg("--service-account-private-key-file").arg(self.folder.path().join("service-accounts.key"));
        command.args(["--leader-elect=false", "--secure-port=0", "--controllers", CONTROLLERS]);
        self.controller_manager = Some(Process::start("kube-controller-manager", &command));
    }

    fn etcd_url(&self) -> String {
        format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.etcd_port)
    }
}

/// Starts a process and waits until it is up, which is true, or has ended, which is false.
async fn start(name: &str, command: &Command, is_up: impl AsyncFn(&Process) -> bool) -> (Process, bool) {
    let mut process = Process::start(name, command);
    let mut up = false;
    wait_until(&format!("{name} answers"), LONG, async || {
        // Somebody else's may answer on its port, so it must be running afterwards.
        up = is_up(&process).await && process.is_running();
        up || !process.is_running()
    })
    .await;
    (process, up)
}

fn tail(process: Option<&Process>) -> String {
    process.map(|process| process.log_tail(20)).unwrap_or_default()
}

/// Runs a command and returns what it printed. Panics, with what it complained of, if it failed.
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The path of one of the programs of `tests/kube`: from the folder `KUBEBUILDER_ASSETS`, or as `build.sh` made it.
pub fn kube_tool(name: &str) -> PathBuf {
    static BUILT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let given = std::env::var_os("KUBEBUILDER_ASSETS").map(|folder| PathBuf::from(folder).join(name));
    if let Some(given) = given.filter(|file| file.is_file()) {
        return given;
    }
    let built = BUILT.get_or_init(|| {
        let script = repository().join("tests/kube/build.sh");
        PathBuf::from(printed(Command::new(script).arg("--where")))
    });
    let file = built.join(name);
    assert!(file.is_file(), "there is no {name} for the tests: run `make setup` (tests/kube/build.sh builds it, once)");
    file
}
