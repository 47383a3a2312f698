//! A Kubernetes cluster with the operator installed as users install it: by its chart, under the identity and the rights
//! that the chart gives it. Only its Pods run as local processes, because there are no nodes.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use test_support::{Call, ControlPlane, PodCommand, Process, Signal, free_port, repository, wait_until};

use crate::{
    drain::binary,
    stage::{SERVICE, Stage},
};

/// Where drains are.
pub const NAMESPACE: &str = "media";

/// Where the operator is.
const OPERATOR: &str = "ops";

/// A bound that only something stuck passes: several clusters may start at once on a small machine.
const BOUND: Duration = Duration::from_mins(5);

/// A control plane with the chart installed.
#[derive(Debug)]
pub struct Cluster {
    plane: ControlPlane,
    pods: Vec<PodCommand>,
    kubeconfig: PathBuf,
}

/// A replica of the operator. It is killed when this is dropped.
#[derive(Debug)]
pub struct Operator {
    process: Process,
    address: String,
}

impl Cluster {
    /// Starts it, and installs the chart with these values more.
    pub async fn start(values: &[&str]) -> Self {
        let plane = ControlPlane::start().await;
        for namespace in [NAMESPACE, OPERATOR] {
            plane.kubectl(["create", "namespace", namespace]).ok().await;
        }
        let mut cluster = Self { plane, pods: Vec::new(), kubeconfig: PathBuf::new() };
        cluster.install(values).await;
        cluster
    }

    /// Installs the chart with these values, and finds the Pods that come of it.
    pub async fn install(&mut self, values: &[&str]) {
        let chart = repository().join("charts/worker-drain").display().to_string();
        let mut install = vec!["install", "worker-drain", &chart, "--namespace", OPERATOR];
        // Nothing pulls it: Pods run as local processes.
        install.extend(["--set", "image.repository=worker-drain"]);
        install.extend(values.iter().flat_map(|value| ["--set", value]));
        self.plane.helm(install).ok().await;
        let selector = "app.kubernetes.io/instance=worker-drain";
        self.pods = self.plane.pod_commands(OPERATOR, selector, 2).await;
        self.kubeconfig = self.plane.service_account_kubeconfig(OPERATOR, &self.pods[0].service_account).await;
    }

    /// Uninstalls it. The local processes that stand for its Pods are the caller's to end.
    pub async fn uninstall(&self) {
        self.plane.helm(["uninstall", "worker-drain", "--namespace", OPERATOR, "--wait"]).ok().await;
    }

    /// Its control plane.
    pub fn plane(&mut self) -> &mut ControlPlane {
        &mut self.plane
    }

    /// Starts one of the Pods, with this stage's ECS.
    pub fn operator(&self, pod: usize, stage: &Stage) -> Operator {
        self.operator_with(pod, stage.aws_environment())
    }

    /// Starts one of the Pods, with this environment besides its own.
    pub fn operator_with(&self, pod: usize, environment: Vec<(&'static str, String)>) -> Operator {
        let address = format!("127.0.0.1:{}", free_port());
        let pod = self.pods[pod].clone().with_flag("--metrics-address", &address);
        let mut command: Command = pod.to_command(&binary());
        command.env("KUBECONFIG", &self.kubeconfig).envs(environment);
        Operator { process: Process::start(format!("operator {}", pod.pod), &command), address }
    }

    /// Starts one of the Pods in a folder that is all that it sees: the program in it, and what a node mounts.
    pub async fn operator_in(&self, pod: usize, folder: &Path, program: &str) -> Operator {
        let address = format!("127.0.0.1:{}", free_port());
        let pod = self.pods[pod].clone().with_flag("--metrics-address", &address);
        self.plane.mount_service_account(OPERATOR, &pod.service_account, folder).await;
        let mut command = enclosed(folder, program);
        command.args(pod.args.iter().cloned()).envs(&pod.env).env_remove("KUBECONFIG");
        command.envs(self.plane.service_environment());
        Operator { process: Process::start(format!("operator {}", pod.pod), &command), address }
    }

    /// kubectl, with the arguments separated by spaces, in the drains' namespace.
    pub fn kubectl(&self, words: &str) -> Call {
        self.plane.kubectl(words.split(' ').chain(["--namespace", NAMESPACE]))
    }

    /// Applies a manifest.
    pub async fn apply(&self, manifest: &str) {
        self.kubectl("apply --filename -").stdin(manifest).ok().await;
    }

    /// Applies a manifest as soon as the API server takes it, for one that was away a moment ago.
    pub async fn apply_when_possible(&self, manifest: &str) {
        let apply = async || self.kubectl("apply --filename -").stdin(manifest).output().await.status.success();
        wait_until("the API server takes the manifest", BOUND, apply).await;
    }

    /// A drain as it is now.
    pub async fn drain(&self, name: &str) -> Value {
        let text = self.kubectl(&format!("get workerdrain {name} --output json")).ok().await;
        serde_json::from_str(&text).expect("kubectl's JSON")
    }

    /// Waits until a drain is so.
    pub async fn until(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        wait_until(what, BOUND, async || {
            last = self.drain(name).await;
            holds(&last)
        })
        .await;
        last
    }

    /// The answer and the reason of a condition; `None`: it is not there.
    pub fn condition<'a>(drain: &'a Value, type_: &str) -> Option<(&'a str, &'a str)> {
        let conditions = drain["status"]["conditions"].as_array()?;
        let condition = conditions.iter().find(|condition| condition["type"] == type_)?;
        Some((condition["status"].as_str()?, condition["reason"].as_str()?))
    }

    /// The reasons of all events, in the order in which they happened.
    pub async fn events(&self, name: &str) -> Vec<String> {
        let call = format!("get events.events.k8s.io --output json --field-selector regarding.name={name}");
        let events: Value = serde_json::from_str(&self.kubectl(&call).ok().await).expect("kubectl's JSON");
        let mut events: Vec<&Value> = events["items"].as_array().expect("a list").iter().collect();
        events.sort_by_key(|event| event["eventTime"].as_str().unwrap_or_default());
        events.iter().map(|event| event["reason"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Waits until there is an event with this reason of what has this name, among those of a namespace: whether it is a
    /// warning, and its note.
    pub async fn event(&self, namespace: &str, name: &str, reason: &str) -> (bool, String) {
        let selector = format!("regarding.name={name},reason={reason}");
        let call = [
            "get",
            "events.events.k8s.io",
            "--namespace",
            namespace,
            "--field-selector",
            &selector,
            "--output",
            "json",
        ];
        let mut found = None;
        wait_until(&format!("there is an event {reason} of {name}"), BOUND, async || {
            let events: Value = serde_json::from_str(&self.plane.kubectl(call).ok().await).expect("kubectl's JSON");
            let event = &events["items"][0];
            found = event["note"].as_str().map(|note| (event["type"] == "Warning", note.to_owned()));
            found.is_some()
        })
        .await;
        found.expect("it was waited for")
    }

    /// Deletes the drains' namespace, and waits until the Secret in it is gone: from then on nothing can be made in it.
    pub async fn delete_namespace(&self) {
        self.plane.kubectl(["delete", "namespace", NAMESPACE, "--wait=false"]).ok().await;
        self.kubectl("wait --for=delete --timeout=2m secret/broker").ok().await;
    }

    /// Waits until the drains' namespace is gone.
    pub async fn until_namespace_is_gone(&self) {
        self.kubectl(&format!("wait --for=delete --timeout=3m namespace/{NAMESPACE}")).bound(BOUND).ok().await;
    }

    /// Waits until there were events with these reasons, in this order: they are published beside the passes that they
    /// tell of.
    pub async fn until_events(&self, name: &str, reasons: &[&str]) {
        let what = format!("there were events of {name}: {}", reasons.join(", "));
        wait_until(&what, BOUND, async || {
            let events = self.events(name).await;
            let mut seen = events.iter();
            reasons.iter().all(|reason| seen.any(|event| event == reason))
        })
        .await;
    }

    /// Who holds the Lease.
    pub async fn leader(&self) -> String {
        let path = "jsonpath={.spec.holderIdentity}";
        let call = ["get", "lease", "worker-drain", "--namespace", OPERATOR, "--output", path];
        self.plane.kubectl(call).output().await.stdout
    }

    /// Which of the Pods holds the Lease; waits until one does.
    pub async fn leading_pod(&self) -> usize {
        let mut found = None;
        wait_until("a replica leads", BOUND, async || {
            let leader = self.leader().await;
            found = self.pods.iter().position(|pod| leader.starts_with(&format!("{}_", pod.pod)));
            found.is_some()
        })
        .await;
        found.expect("it was waited for")
    }
}

impl Operator {
    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Asks it to end, as Kubernetes does, and waits until it has; its exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        self.process.signal(Signal::TERM);
        self.process.ended(BOUND).await.code()
    }

    /// What it has written.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Its answer to an HTTP request: the status and the body; `None`: it does not answer.
    pub async fn get(&self, path: &str) -> Option<(u16, String)> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(&self.address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// Waits until it is ready; as what.
    pub async fn ready(&self) -> String {
        let mut said = String::new();
        wait_until("the operator is ready", BOUND, async || match self.get("/readyz").await {
            Some((200, text)) => {
                said = text;
                true
            }
            _ => false,
        })
        .await;
        said
    }

    /// Waits until it is so: `leader` or `standby`.
    pub async fn until_ready_as(&self, role: &str) {
        let said = format!("ready: {role}\n");
        let what = format!("the operator is ready as the {role}");
        wait_until(&what, BOUND, async || self.get("/readyz").await.is_some_and(|(_, text)| text == said)).await;
    }

    /// Waits until this is a line of its metrics: a pass is counted after it has written its status.
    pub async fn until_measured(&self, line: &str) {
        let what = format!("the operator tells of {line}");
        let told = async || self.get("/metrics").await.is_some_and(|(_, told)| told.lines().any(|it| it == line));
        wait_until(&what, BOUND, told).await;
    }

    /// Waits until it has written this.
    pub async fn until_said(&self, words: &str) {
        let what = format!("the operator writes {words:?}");
        wait_until(&what, BOUND, || std::future::ready(self.process.log().contains(words))).await;
    }
}

/// A command whose root is this folder. Whoever is not root may have one too, in a namespace of one's own.
pub fn enclosed(folder: &Path, program: &str) -> Command {
    let mut command;
    if rustix::process::geteuid().is_root() {
        command = Command::new("chroot");
        command.arg(folder);
    } else {
        command = Command::new("unshare");
        command.arg("--map-root-user").arg("--root").arg(folder).arg("--");
    }
    command.arg(program);
    command
}

/// The same drain, with so much patience for replies that no worker is silent because the machine is busy.
pub fn patient(drain: &str) -> String {
    drain.replace("    celery:\n", "    celery:\n      replyTimeout: 1m\n")
}

impl Stage {
    /// A drain of this stage's service whose broker's URL is in the Secret `broker`, and that Secret.
    pub fn drain_with_secret(&self) -> String {
        format!("{}---\n{}", self.secret(self.app().broker()), self.drain_in_cluster())
    }

    /// The Secret with this URL.
    pub fn secret(&self, url: &str) -> String {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: broker}}\nstringData: {{url: \"{url}\"}}\n")
    }

    /// The Secret with a token for workers that answer over HTTP.
    pub fn token_secret(&self, token: &str) -> String {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: drain}}\nstringData: {{token: \"{token}\"}}\n")
    }

    /// A drain of this stage's service, whose workers answer over HTTP.
    pub fn http_drain_in_cluster(&self) -> String {
        let port = self.http_port().expect("the stage is set up with HTTP workers");
        format!(
            "apiVersion: workerdrain.io/v1alpha1
kind: WorkerDrain
metadata: {{name: {SERVICE}}}
spec:
  fleet:
    ecs: {{cluster: default, service: {SERVICE}, region: us-east-1}}
  workers:
    http: {{port: {port}, tokenFrom: {{secretKeyRef: {{name: drain, key: token}}}}}}
"
        )
    }

    /// The drain alone.
    pub fn drain_in_cluster(&self) -> String {
        format!(
            "apiVersion: workerdrain.io/v1alpha1
kind: WorkerDrain
metadata: {{name: {SERVICE}}}
spec:
  fleet:
    ecs: {{cluster: default, service: {SERVICE}, region: us-east-1}}
  workers:
    celery:
      broker: {{urlFrom: {{secretKeyRef: {{name: broker, key: url}}}}}}
"
        )
    }
}
