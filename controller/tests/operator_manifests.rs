//! Bad manifests: the API server refuses each, by the schema and the rules of the CRD, and names the field; and what
//! `worker-drain run` reads is refused offline with the same verdict.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

use serde_json::{Value, json};
use test_support::{ControlPlane, repository};
use worker_drain::api::DrainSpec;

/// What is put into the spec of a good manifest (null: taken out), and what the API server must say.
fn table() -> Vec<(&'static str, Value, &'static str)> {
    let role = |arn: &str| json!(arn);
    vec![
        ("/fleet", json!(null), "spec.fleet"),
        ("/fleet", json!({}), "give exactly one kind of fleet"),
        ("/fleet/kubernetes", json!({"deployment": "x"}), "unknown field \"spec.fleet.kubernetes\""),
        ("/fleet/ecs/cluster", json!(null), "spec.fleet.ecs.cluster"),
        ("/fleet/ecs/cluster", json!(""), "spec.fleet.ecs.cluster"),
        ("/fleet/ecs/service", json!(7), "spec.fleet.ecs.service"),
        ("/fleet/ecs/region", json!("Seoul"), "'Seoul' is not a region"),
        ("/fleet/ecs/roleArn", role("arn:aws:iam::1:role/drain"), "is not the ARN of a role"),
        ("/fleet/ecs/roleArn", role("arn:aws:iam::123456789012:user/somebody"), "is not the ARN of a role"),
        ("/workers", json!({}), "give exactly one kind of workers"),
        ("/workers/celery/broker", json!({}), "give exactly one of url and urlFrom"),
        ("/workers/celery/broker", json!(null), "give exactly one of broker and brokers"),
        ("/workers/celery/brokers", json!([{"url": "redis://other"}]), "give exactly one of broker and brokers"),
        (
            "/workers/celery/broker/urlFrom",
            json!({"secretKeyRef": {"name": "a", "key": "b"}}),
            "give exactly one of url",
        ),
        ("/workers/celery/broker/url", json!("redis://:hunter2@cache/0"), "url contains a password"),
        ("/workers/celery/broker/url", json!("redis://cache/0?password=hunter2"), "url contains a password"),
        (
            "/workers/celery/broker",
            json!({"url": "amqps://rabbit", "tls": {"keyFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}}),
            "certificateFrom and keyFrom go together",
        ),
        ("/workers/celery/broker", json!({"url": "redis://cache", "tls": {}}), "tls needs a broker that uses TLS"),
        (
            "/workers/celery/transportOptions",
            json!({"sentinelKwargs": {"password": "hunter2"}}),
            "unknown field \"spec.workers.celery.transportOptions.sentinelKwargs.password\"",
        ),
        ("/workers/celery/nodeName", json!("worker@%h"), "does not tell one task's worker from another's"),
        ("/workers/celery/nodeName", json!("worker"), "does not tell one task's worker from another's"),
        ("/workers/celery/replyTimeout", json!("2m"), "spec.workers.celery.replyTimeout"),
        ("/workers/celery/replyTimeout", json!("soon"), "is not a duration"),
        ("/workers/startTimeout", json!("13h"), "spec.workers.startTimeout"),
        ("/workers/celery/controlExchange", json!(""), "spec.workers.celery.controlExchange"),
        ("/workers/celery/broker/url", json!("sqs://"), "no remote control over Amazon SQS"),
        ("/hold", json!({"mode": "Always"}), "spec.hold.mode"),
        ("/hold", json!({"expiresIn": "2d"}), "is not a duration"),
        ("/hold", json!({"expiresIn": "49h"}), "spec.hold.expiresIn"),
        ("/hold", json!({"expiresIn": "30s"}), "spec.hold.expiresIn"),
        ("/hold", json!({"expires": "1h"}), "unknown field \"spec.hold.expires\""),
        ("/drain", json!({"minConsuming": "150%"}), "spec.drain.minConsuming"),
        ("/drain", json!({"minConsuming": "50"}), "'50' is neither a number of tasks, such as 2, nor a percentage"),
        ("/drain", json!({"minConsuming": -1}), "'-1' is neither a number of tasks, such as 2, nor a percentage"),
        ("/drain", json!({"minConsuming": 1.5}), "spec.drain.minConsuming"),
        ("/drain", json!({"minConsuming": true}), "spec.drain.minConsuming"),
        ("/drain", json!({"scaleIn": true}), "spec.drain.scaleIn"),
        ("/drain", json!({"scaleIn": "Wait"}), "spec.drain.scaleIn"),
        ("/drain", json!({"idleFor": "0s"}), "spec.drain.idleFor"),
        ("/drain", json!({"idleFor": "1h"}), "hold.expiresIn (2h) is too short"),
        ("/drain", json!({"scheduled": "ignore"}), "spec.drain.scheduled"),
        ("/drain", json!({"deadline": {"action": "Hold"}}), "spec.drain.deadline.after"),
        ("/drain", json!({"deadline": {"after": "2s"}}), "would pass before any task can be proven idle"),
        ("/drain", json!({"deadline": {"after": "12h", "action": "Kill"}}), "spec.drain.deadline.action"),
        ("/drain", json!({"gate": {}}), "spec.drain.gate.queuesEmpty"),
        ("/drain", json!({"gate": {"queuesEmpty": []}}), "spec.drain.gate.queuesEmpty"),
        ("/drain", json!({"gate": {"queuesEmpty": [""]}}), "spec.drain.gate.queuesEmpty[0]"),
        ("/mode", json!("Dry"), "spec.mode"),
        ("/paused", json!("yes"), "spec.paused"),
        ("/pause", json!(true), "unknown field \"spec.pause\""),
    ]
}

/// The same, of HTTP workers.
fn http_table() -> Vec<(&'static str, Value, &'static str)> {
    vec![
        ("/workers", json!({"http": {}}), "spec.workers.http.port"),
        ("/workers", json!({"http": {"port": 0}}), "spec.workers.http.port"),
        ("/workers", json!({"http": {"port": 65536}}), "spec.workers.http.port"),
        ("/workers", json!({"http": {"port": 1, "path": "drain"}}), "'drain' is not a path"),
        ("/workers", json!({"http": {"port": 1, "path": "/a b"}}), "'/a b' is not a path"),
        ("/workers", json!({"http": {"port": 1, "scheme": "tls"}}), "spec.workers.http.scheme"),
        ("/workers", json!({"http": {"port": 1, "serverName": "a.b"}}), "need scheme https"),
        ("/workers", json!({"http": {"port": 1, "token": "x"}}), "unknown field \"spec.workers.http.token\""),
        ("/workers", json!({"http": {"port": 1, "replyTimeout": "11s"}}), "spec.workers.http.replyTimeout"),
        ("/workers/http", json!({"port": 1}), "give exactly one kind of workers"),
    ]
}

fn good() -> Value {
    json!({
        "apiVersion": "workerdrain.io/v1alpha1",
        "kind": "WorkerDrain",
        "metadata": {"name": "transcoder", "namespace": "default"},
        "spec": {
            "fleet": {"ecs": {"cluster": "media", "service": "transcoder"}},
            "workers": {"celery": {"broker": {"url": "redis://cache:6379/0"}}},
        },
    })
}

fn with(path: &str, value: &Value) -> Value {
    let mut manifest = good();
    let (parent, key) = path.rsplit_once('/').unwrap();
    let parent = manifest.pointer_mut(&format!("/spec{parent}")).unwrap().as_object_mut().unwrap();
    if value.is_null() {
        parent.remove(key);
    } else {
        parent.insert(key.into(), value.clone());
    }
    manifest
}

/// What is changed of a drain that exists (null: taken out), and what the API server must say; none: it accepts it.
fn changes() -> Vec<(&'static str, Value, Option<&'static str>)> {
    let role = |account: &str, name: &str| json!(format!("arn:aws:iam::{account}:role/{name}"));
    let (ours, theirs) = ("123456789012", "210987654321");
    vec![
        ("/fleet/ecs/cluster", json!("other"), Some("fleet.ecs.cluster cannot be changed")),
        ("/fleet/ecs/service", json!("other"), Some("fleet.ecs.service cannot be changed")),
        ("/fleet/ecs", json!(null), Some("give exactly one kind of fleet: ecs")),
        // What the environment said before may be written down, and stays then.
        ("/fleet/ecs/region", json!("eu-west-1"), None),
        ("/fleet/ecs/region", json!("us-east-1"), Some("fleet.ecs.region cannot be changed")),
        ("/fleet/ecs/region", json!(null), Some("fleet.ecs.region cannot be removed")),
        ("/fleet/ecs/roleArn", role(ours, "drain"), None),
        ("/fleet/ecs/roleArn", role(theirs, "drain"), Some("fleet.ecs.roleArn cannot be moved to another account")),
        ("/fleet/ecs/roleArn", json!(null), Some("fleet.ecs.roleArn cannot be removed")),
        ("/fleet/ecs/roleArn", json!("arn:aws:iam::1:role/drain"), Some("is not the ARN of a role")),
        ("/fleet/ecs/roleArn", role(ours, "path/other"), None),
        ("/workers", json!({"celery": null, "http": {"port": 1}}), Some("the kind of workers cannot be changed")),
        ("/workers/http", json!({"port": 1}), Some("give exactly one kind of workers")),
        ("/workers/celery/broker/url", json!("redis://elsewhere:6379/0"), None),
        ("/workers/celery", json!({"broker": null, "brokers": [{"url": "redis://new"}, {"url": "redis://old"}]}), None),
        ("/drain", json!({"minConsuming": 2, "scaleIn": "Drain"}), None),
        ("/drain", json!({"minConsuming": "50%"}), None),
        ("/hold", json!({"mode": "OnRollout"}), Some("Drain needs hold.mode Standing")),
        ("/drain", json!({"scaleIn": null}), None),
        ("/hold", json!({"mode": "OnRollout"}), None),
        ("/mode", json!("Plan"), None),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_of_one_service_for_good() {
    let plane = with_crd().await;
    let mut drain = good();
    drain["metadata"]["finalizers"] = json!(["workerdrain.io/give-back"]);
    plane.kubectl(["create", "--filename", "-"]).stdin(drain.to_string()).ok().await;
    let patch = async |change: &Value| {
        plane
            .kubectl(["patch", "workerdrains", "transcoder", "--type=merge", "--patch", &change.to_string()])
            .output()
            .await
    };
    for (path, value, refused) in changes() {
        let change = path.rsplit('/').filter(|part| !part.is_empty()).fold(value, |inner, part| json!({part: inner}));
        let said = patch(&json!({"spec": change})).await;
        match refused {
            Some(words) => assert!(!said.status.success() && said.stderr.contains(words), "{path}: {}", said.stderr),
            None => assert!(said.status.success(), "{path}: {}", said.stderr),
        }
    }
    let stored = plane.kubectl(["get", "workerdrains", "transcoder", "--output", "jsonpath={.spec.drain.scaleIn}"]);
    assert_eq!(stored.ok().await, "Auto", "the default is stored");
    // None of this keeps it from being deleted.
    plane.kubectl(["delete", "workerdrains", "transcoder", "--wait=false"]).ok().await;
    let said = patch(&json!({"metadata": {"finalizers": null}})).await;
    assert!(said.status.success(), "{}", said.stderr);
    plane.kubectl(["wait", "--for=delete", "--timeout=2m", "workerdrains/transcoder"]).ok().await;
}

/// Another resource with one of our short names, as Temporal's worker controller has it.
const SAME_SHORT_NAME: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: workerdeployments.temporal.io}
spec:
  group: temporal.io
  names: {kind: WorkerDeployment, plural: workerdeployments, singular: workerdeployment, shortNames: [wd]}
  scope: Namespaced
  versions:
    - {name: v1alpha1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
";

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_finds_it_by_its_names_and_never_among_all() {
    let plane = with_crd().await;
    plane.kubectl(["create", "--filename", "-"]).stdin(good().to_string()).ok().await;
    for name in ["workerdrains", "workerdrain", "wdrain", "wd"] {
        let found = plane.kubectl(["get", name, "--output=name"]).ok().await;
        assert_eq!(found.trim(), "workerdrain.workerdrain.io/transcoder", "{name}");
    }
    let all = plane.kubectl(["get", "all", "--all-namespaces", "--output=name"]).ok().await;
    assert!(!all.contains("workerdrain"), "{all}");
    let columns = plane.kubectl(["get", "workerdrains"]).ok().await;
    let columns: Vec<&str> = columns.lines().next().unwrap_or_default().split_whitespace().collect();
    let expected =
        ["NAME", "SERVICE", "PHASE", "READY", "DRAINED", "BUSY", "UNKNOWN", "OLDEST-JOB", "BLOCKED-BY", "AGE"];
    assert_eq!(columns, expected);

    // Beside Temporal's resource, `wd` is one of the two, and kubectl says so; the other names are still ours.
    plane.kubectl(["create", "--filename", "-"]).stdin(SAME_SHORT_NAME).ok().await;
    let established = ["wait", "--for=condition=Established", "crd/workerdeployments.temporal.io"];
    plane.kubectl(established).ok().await;
    // kubectl keeps what it has found out for minutes, in a folder.
    let folder = tempfile::tempdir().unwrap();
    let fresh = format!("--cache-dir={}", folder.path().display());
    for name in ["workerdrains", "wdrain"] {
        let found = plane.kubectl(["get", name, "--output=name", &fresh]).ok().await;
        assert_eq!(found.trim(), "workerdrain.workerdrain.io/transcoder", "{name}");
    }
    let shared = plane.kubectl(["get", "wd", "--output=name", &fresh]).output().await;
    assert!(shared.stderr.contains("short name \"wd\" could also match"), "{}", shared.stderr);
}

async fn with_crd() -> ControlPlane {
    let plane = ControlPlane::start().await;
    let crd = repository().join("crds/workerdrains.yaml").display().to_string();
    plane.kubectl(["apply", "--server-side", "--filename", &crd]).ok().await;
    plane.kubectl(["wait", "--for=condition=Established", "crd/workerdrains.workerdrain.io"]).ok().await;
    plane
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_manifests_are_refused_by_the_api_server_and_offline_alike() {
    let plane = with_crd().await;
    // kubectl itself would refuse what it can tell; it is the server's word that counts.
    let apply = ["create", "--dry-run=server", "--validate=strict", "--filename", "-"];
    plane.kubectl(apply).stdin(good().to_string()).ok().await;
    let fine = [
        ("/workers", json!({"http": {"port": 8765}})),
        ("/drain", json!({"minConsuming": 0})),
        ("/drain", json!({"minConsuming": 2, "scaleIn": "Drain"})),
        ("/drain", json!({"minConsuming": "100%", "scaleIn": "Ignore"})),
        ("/hold", json!({"mode": "OnRollout"})),
        ("/workers/celery/nodeName", json!("{taskId}")),
        ("/workers/celery/nodeName", json!("w-{hostName}")),
    ];
    for (path, value) in fine {
        let manifest = with(path, &value);
        plane.kubectl(apply).stdin(manifest.to_string()).ok().await;
        DrainSpec::parse(&manifest).unwrap();
    }
    let mut wrong = Vec::new();
    for (path, value, message) in table().into_iter().chain(http_table()) {
        let manifest = with(path, &value);
        let said = plane.kubectl(apply).stdin(manifest.to_string()).output().await;
        if said.status.success() || !said.stderr.contains(message) {
            wrong.push(format!("{path}: {value}: the API server should say {message:?}: {}", said.stderr));
        }
        if said.stderr.contains("hunter2") {
            wrong.push(format!("{path}: a password is shown: {}", said.stderr));
        }
        if DrainSpec::parse(&manifest).is_ok() {
            wrong.push(format!("{path}: {value}: accepted offline"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
