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
        (
            "/workers/celery/broker/urlFrom",
            json!({"secretKeyRef": {"name": "a", "key": "b"}}),
            "give exactly one of url",
        ),
        ("/workers/celery/broker/url", json!("redis://:hunter2@cache/0"), "url holds a password"),
        ("/workers/celery/broker/url", json!("redis://cache/0?password=hunter2"), "url holds a password"),
        (
            "/workers/celery/broker",
            json!({"url": "amqps://rabbit", "tls": {"keyFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}}),
            "certificateFrom and keyFrom go together",
        ),
        ("/workers/celery/broker", json!({"url": "redis://cache", "tls": {}}), "tls needs a broker that speaks it"),
        (
            "/workers/celery/transportOptions",
            json!({"sentinelKwargs": {"password": "hunter2"}}),
            "unknown field \"spec.workers.celery.transportOptions.sentinelKwargs.password\"",
        ),
        ("/workers/celery/nodeName", json!("worker@%h"), "does not tell one task's worker from another's"),
        ("/workers/celery/nodeName", json!("{taskId}"), "does not tell one task's worker from another's"),
        ("/workers/celery/replyTimeout", json!("2m"), "spec.workers.celery.replyTimeout"),
        ("/workers/celery/replyTimeout", json!("soon"), "is not a length of time"),
        ("/workers/celery/controlExchange", json!(""), "spec.workers.celery.controlExchange"),
        ("/workers/celery/broker/url", json!("sqs://"), "no remote control over Amazon SQS"),
        ("/workers", json!({"http": {}}), "spec.workers.http.port"),
        ("/workers", json!({"http": {"port": 0}}), "spec.workers.http.port"),
        ("/workers", json!({"http": {"port": 65536}}), "spec.workers.http.port"),
        ("/workers", json!({"http": {"port": 1, "path": "drain"}}), "'drain' is not a path"),
        ("/workers", json!({"http": {"port": 1, "path": "/a b"}}), "'/a b' is not a path"),
        ("/workers", json!({"http": {"port": 1, "scheme": "tls"}}), "spec.workers.http.scheme"),
        ("/workers", json!({"http": {"port": 1, "serverName": "a.b"}}), "are for scheme https"),
        ("/workers", json!({"http": {"port": 1, "token": "x"}}), "unknown field \"spec.workers.http.token\""),
        ("/workers", json!({"http": {"port": 1, "replyTimeout": "11s"}}), "spec.workers.http.replyTimeout"),
        ("/workers/http", json!({"port": 1}), "give exactly one kind of workers"),
        ("/hold", json!({"mode": "Always"}), "spec.hold.mode"),
        ("/hold", json!({"expiresIn": "2d"}), "is not a length of time"),
        ("/hold", json!({"expiresIn": "49h"}), "spec.hold.expiresIn"),
        ("/hold", json!({"expiresIn": "30s"}), "spec.hold.expiresIn"),
        ("/hold", json!({"expires": "1h"}), "unknown field \"spec.hold.expires\""),
        ("/drain", json!({"minConsuming": "150%"}), "spec.drain.minConsuming"),
        ("/drain", json!({"minConsuming": 50}), "spec.drain.minConsuming"),
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

/// What is changed of a drain that is there, and what the API server must say; none: it takes it.
fn changes() -> Vec<(&'static str, Value, Option<&'static str>)> {
    vec![
        ("/fleet/ecs/cluster", json!("other"), Some("fleet.ecs.cluster cannot be changed")),
        ("/fleet/ecs/service", json!("other"), Some("fleet.ecs.service cannot be changed")),
        // What the environment said before may be written down, and nothing else then.
        ("/fleet/ecs/region", json!("eu-west-1"), None),
        ("/fleet/ecs/region", json!("us-east-1"), Some("fleet.ecs.region cannot be changed")),
        ("/fleet/ecs/roleArn", json!("arn:aws:iam::123456789012:role/drain"), None),
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
        plane.kubectl(["patch", "wd", "transcoder", "--type=merge", "--patch", &change.to_string()]).output().await
    };
    for (path, value, refused) in changes() {
        let change = path.rsplit('/').filter(|part| !part.is_empty()).fold(value, |inner, part| json!({part: inner}));
        let said = patch(&json!({"spec": change})).await;
        match refused {
            Some(words) => assert!(!said.status.success() && said.stderr.contains(words), "{path}: {}", said.stderr),
            None => assert!(said.status.success(), "{path}: {}", said.stderr),
        }
    }
    // It is no obstacle to the way out.
    plane.kubectl(["delete", "wd", "transcoder", "--wait=false"]).ok().await;
    let said = patch(&json!({"metadata": {"finalizers": null}})).await;
    assert!(said.status.success(), "{}", said.stderr);
    plane.kubectl(["wait", "--for=delete", "--timeout=2m", "wd/transcoder"]).ok().await;
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
    plane.kubectl(apply).stdin(with("/workers", &json!({"http": {"port": 8765}})).to_string()).ok().await;
    let mut wrong = Vec::new();
    for (path, value, message) in table() {
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
