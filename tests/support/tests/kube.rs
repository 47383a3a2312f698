//! The control plane works: it answers, knows who asks, keeps its data, and leaves nothing behind.

use std::path::Path;

use test_support::{ControlPlane, LONG, wait_until};

#[tokio::test]
async fn a_control_plane_answers_knows_who_asks_and_keeps_its_data() {
    let mut plane = ControlPlane::start().await;
    let version = plane.kubectl(["version"]).ok().await;
    assert!(version.contains("Server Version: v1.37.2"), "{version}");

    plane.kubectl(["create", "namespace", "media"]).ok().await;
    plane.kubectl(["create", "serviceaccount", "worker", "--namespace", "media"]).ok().await;
    let role = ["create", "role", "reader", "--namespace", "media", "--verb", "get", "--resource", "configmaps"];
    plane.kubectl(role).ok().await;
    let account = "--serviceaccount=media:worker";
    plane.kubectl(["create", "rolebinding", "reader", "--namespace=media", "--role=reader", account]).ok().await;

    let worker = plane.service_account_kubeconfig("media", "worker").await;
    let may = async |plane: &ControlPlane, question: [&str; 2]| {
        let answer = plane.kubectl(["auth", "can-i"].into_iter().chain(question)).kubeconfig(&worker);
        answer.output().await.stdout.trim().to_owned()
    };
    assert_eq!(may(&plane, ["get", "configmaps"]).await, "yes");
    assert_eq!(may(&plane, ["get", "secrets"]).await, "no");
    let why = plane.kubectl(["get", "secrets"]).kubeconfig(&worker).refused().await;
    assert!(why.contains("system:serviceaccount:media:worker"), "{why}");

    plane.kubectl(["create", "configmap", "kept", "--namespace=media", "--from-literal=key=value"]).ok().await;
    plane.restart_apiserver().await;
    let kept = ["get", "configmap", "kept", "--namespace=media", "--output=jsonpath={.data.key}"];
    assert_eq!(plane.kubectl(kept).kubeconfig(&worker).ok().await, "value");
    assert_eq!(may(&plane, ["get", "configmaps"]).await, "yes", "the token outlives the restart");

    // The controllers find their way back to the API server.
    plane.kubectl(["create", "namespace", "later"]).ok().await;
    let account = ["get", "serviceaccount/default", "--namespace=later"];
    wait_until("the controllers work", LONG, async || plane.kubectl(account).output().await.status.success()).await;

    assert!(plane.helm(["version"]).ok().await.contains("v4.3.1"));
    leaves_nothing_behind(plane).await;
}

#[tokio::test]
async fn the_command_of_a_pod_can_be_had() {
    let plane = ControlPlane::start().await;
    plane.kubectl(["apply", "-f", "-"]).stdin(DEPLOYMENT).ok().await;
    let pods = plane.pod_commands("default", "app=sleeper", 2).await;
    assert_eq!(pods.len(), 2);
    let pod = pods[0].clone().with_flag("--port", "1");
    assert_eq!((pod.command.as_slice(), pod.service_account.as_str()), (["sh".to_owned()].as_slice(), "default"));
    assert_eq!(pod.args, ["-c", "echo $WHO in $0", "default-of-pod", "--port=1"]);
    assert_eq!((&pod.env["WHO"], pod.ports["http"]), (&pod.pod, 8080));
    assert_eq!(pod.probes["readinessProbe"], ("/readyz".to_owned(), 8080));

    let process = test_support::Process::start("the Pod's command", &pod.to_command(Path::new("/bin/sh")));
    wait_until("it has printed", LONG, async || process.log().ends_with('\n')).await;
    assert_eq!(process.log().trim(), format!("{} in default-of-pod", pod.pod));
}

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: sleeper}
spec:
  replicas: 2
  selector: {matchLabels: {app: sleeper}}
  template:
    metadata: {labels: {app: sleeper}}
    spec:
      containers:
      - name: sleeper
        image: sleeper
        command: [sh]
        args: [-c, "echo $WHO in $0", "$(NAMESPACE)-of-pod", --port=8080]
        env:
        - {name: WHO, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /readyz, port: http}}
"#;

/// Its folder is gone, and no process has it in its command line.
async fn leaves_nothing_behind(plane: ControlPlane) {
    let folder = plane.kubeconfig().parent().expect("it is in a folder").to_owned();
    let name = folder.display().to_string();
    assert!(!processes_with(&name).is_empty());
    drop(plane);
    assert!(!folder.exists());
    wait_until("its processes are gone", LONG, async || processes_with(&name).is_empty()).await;
}

fn processes_with(text: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("/proc can be read").flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).into_owned()).filter(|line| line.contains(text)).collect()
}
