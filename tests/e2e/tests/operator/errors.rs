//! What only the operator can judge: `Ready` is false, with a reason that helps; and what was held stays held.

use std::time::Duration;

use e2e::{Cluster, SERVICE, Setup, Stage, aws_environment};
use ecs_emulator::model::{CallFault, Faults};
use serde_json::{Value, json};
use test_support::{Certificates, Redis, RedisOptions, free_port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::message;

fn ready(answer: &'static str, reason: &'static str) -> impl Fn(&Value) -> bool {
    move |drain| Cluster::condition(drain, "Ready") == Some((answer, reason))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_may_come_late_be_wrong_and_be_changed() {
    let (stage, cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&[]));
    let _operator = cluster.operator(0, &stage);
    cluster.apply(&stage.drain_in_cluster()).await;
    let drain = cluster.until(SERVICE, "the Secret is missed", ready("False", "WorkersInvalid")).await;
    assert!(message(&drain).contains("there is no Secret broker in the namespace media"), "{}", message(&drain));
    assert_eq!(Cluster::condition(&drain, "Stalled"), Some(("False", "NotStalled")), "it may be on its way");
    assert_eq!(Cluster::condition(&drain, "Reconciling"), Some(("True", "WorkersInvalid")));
    stage.until_held(&stage.tasks()).await;

    cluster.apply("{apiVersion: v1, kind: Secret, metadata: {name: broker}, stringData: {uri: x}}").await;
    let has = |words: &'static str| move |drain: &Value| message(drain).contains(words);
    let drain = cluster.until(SERVICE, "the key is missed", has("has no key url")).await;
    assert!(message(&drain).contains("it has uri"), "{}", message(&drain));
    cluster.apply(&stage.secret("")).await;
    cluster.until(SERVICE, "the URL is missed", has("its key url is empty")).await;
    cluster.apply("{apiVersion: v1, kind: Secret, metadata: {name: broker}, data: {url: /w==}}").await;
    cluster.until(SERVICE, "the URL cannot be read", has("its key url is not text")).await;

    cluster.apply(&stage.secret("redis://:hunter2@127.0.0.1:1/0")).await;
    let drain = cluster.until(SERVICE, "the broker is not there", ready("False", "WorkersUnreachable")).await;
    assert!(!drain.to_string().contains("hunter2"), "{drain}");

    cluster.apply(&stage.secret(stage.app().broker())).await;
    cluster.until(SERVICE, "all is well", ready("True", "AllSeen")).await;

    cluster.kubectl("delete secret broker").ok().await;
    cluster.until(SERVICE, "the Secret is missed again", ready("False", "WorkersInvalid")).await;
    assert!(stage.tasks().iter().all(|task| task.is_held), "holds are kept");
}

const ROLE: &str = "arn:aws:iam::123456789012:role/nobody";

/// A drain of a cluster and a service, which may be followed by more fields, with this broker; and more of its spec.
fn drain(name: &str, (cluster, service): (&str, &str), broker: &str, more: &str) -> String {
    format!(
        "{{apiVersion: workerdrain.io/v1alpha1, kind: WorkerDrain, metadata: {{name: {name}}}, spec: {{fleet: {{ecs: \
         {{cluster: {cluster}, service: {service}, region: us-east-1}}}}, workers: {{celery: {{broker: {broker}}}}}{more}}}}}\n\
         ---\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_come_from_secrets_and_are_taken_up_when_they_change() {
    let (stage, cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&[]));
    let _operator = cluster.operator(0, &stage);
    let (ours, others, port) = (Certificates::make(), Certificates::make(), free_port());
    let arguments = ours.redis_arguments(port, false);
    let _redis = Redis::start_with(RedisOptions { arguments, ..RedisOptions::default() }).await;
    let secret = |authority: &str| {
        let data = json!({"url": format!("rediss://127.0.0.1:{port}/0"), "ca": authority});
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "broker"}, "stringData": data}).to_string()
    };
    let authority = |of: &Certificates| std::fs::read_to_string(of.authority()).expect("it was just made");
    let tls = "key: url}}, tls: {caFrom: {secretKeyRef: {name: broker, key: ca}}}";
    let drain = stage.drain_in_cluster().replace("key: url}}", tls);

    cluster.apply(&secret("-----BEGIN CERTIFICATE----- hunter2")).await;
    cluster.apply(&drain).await;
    let has = |words: &'static str| move |drain: &Value| message(drain).contains(words);
    let what_is_wrong = "broker.tls.caFrom (the key ca of the Secret broker) cannot be used for TLS";
    let drain = cluster.until(SERVICE, "it is no certificate", has(what_is_wrong)).await;
    assert!(!drain.to_string().contains("hunter2"), "{drain}");
    cluster.apply(&secret(&authority(&others))).await;
    cluster
        .until(SERVICE, "it is that of another authority", has("for a private authority, give its certificate"))
        .await;
    cluster.apply(&secret(&authority(&ours))).await;
    // Its workers are at another broker: that nobody is there is what it can say only when it is connected.
    cluster.until(SERVICE, "it is the right one", ready("False", "Unmapped")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_cannot_work_is_its_own_trouble_alone() {
    let locked = RedisOptions { password: Some("right".into()), ..RedisOptions::default() };
    let (stage, mut cluster, locked, sts) = tokio::join!(
        Stage::start(Setup::default()),
        Cluster::start(&[]),
        Redis::start_with(locked),
        no_role_for_anybody()
    );
    let mut environment = stage.aws_environment();
    environment.push(("AWS_ENDPOINT_URL_STS", sts));
    let _operator = cluster.operator_with(0, environment);
    // As if it had been applied under an older CRD.
    let rules = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations";
    let patch = format!("[{{\"op\": \"remove\", \"path\": \"{rules}\"}}]");
    let patch = ["patch", "crd", "workerdrains.workerdrain.io", "--type=json", "--patch", &patch];
    cluster.plane().kubectl(patch).ok().await;

    let service = ("default", SERVICE);
    let broker = format!("{{url: '{}'}}", stage.app().broker());
    let assumes = format!("{SERVICE}, roleArn: '{ROLE}'");
    let intruder = stage.secret(&format!("redis://:hunter2@127.0.0.1:{}/0", locked.port()));
    let manifests = [
        drain("no-service", ("default", "nothing"), &broker, ""),
        drain("no-cluster", ("nowhere", SERVICE), &broker, ""),
        drain("no-role", ("default", &assumes), &broker, ", mode: Plan"),
        drain("no-broker", service, "{url: 'redis://127.0.0.1:1/0'}", ", mode: Plan"),
        drain("no-url", service, "{url: 'amqq://127.0.0.1:1/0'}", ", mode: Plan"),
        drain("intruder", service, "{urlFrom: {secretKeyRef: {name: intruder, key: url}}}", ", mode: Plan"),
        drain("contradiction", service, &broker, ", hold: {mode: OnRollout}, drain: {scaleIn: Drain}"),
        intruder.replace("name: broker", "name: intruder") + "---\n",
        stage.drain_with_secret(),
    ];
    cluster.apply(&manifests.concat()).await;
    cluster.until(SERVICE, "the one that can work does", ready("True", "AllSeen")).await;
    stage.until_held(&stage.tasks()).await;
    let table = [
        ("no-service", "FleetNotFound", "no active ECS service nothing"),
        ("no-cluster", "FleetNotFound", "no ECS cluster nowhere"),
        (
            "no-role",
            "FleetDenied",
            "the role arn:aws:iam::123456789012:role/nobody for default/transcoder cannot be assumed",
        ),
        ("no-broker", "WorkersUnreachable", "127.0.0.1:1"),
        ("no-url", "WorkersInvalid", "amqq"),
        ("intruder", "WorkersDenied", "password"),
        ("contradiction", "InvalidSpec", "spec.drain.scaleIn"),
    ];
    for (name, reason, words) in table {
        let drain = cluster.until(name, reason, ready("False", reason)).await;
        assert!(message(&drain).contains(words), "{name}: {}", message(&drain));
        assert!(!drain.to_string().contains("hunter2"), "{drain}");
    }
    for (name, condition) in [("no-service", "Reconciling"), ("intruder", "Reconciling"), ("contradiction", "Stalled")]
    {
        let drain = cluster.drain(name).await;
        assert_eq!(Cluster::condition(&drain, condition).map(|it| it.0), Some("True"), "{drain}");
    }
    cluster.until_events("contradiction", &["InvalidSpec"]).await;
    denied(&stage, &cluster).await;
    // Nothing was ever done for them, so nothing keeps them.
    cluster.kubectl("delete wd contradiction no-broker no-url intruder --timeout=2m").ok().await;
}

/// ECS says no to all of us, and the permission that is missing is named.
async fn denied(stage: &Stage, cluster: &Cluster) {
    let fault = CallFault {
        error: Some("AccessDeniedException".into()),
        message: "User: somebody is not authorized to perform: ecs:DescribeServices".into(),
        times: None,
        after_effect: false,
        delay: Duration::ZERO,
    };
    let set = |fail: Option<CallFault>| {
        let fail = fail.into_iter().map(|fault| (String::from("DescribeServices"), fault)).collect();
        stage.emulator().set_faults(Faults { fail, ..Faults::default() });
    };
    set(Some(fault));
    let drain = cluster.until(SERVICE, "ECS says no", ready("False", "FleetDenied")).await;
    assert!(message(&drain).contains("ecs:DescribeServices"), "{}", message(&drain));
    set(None);
    cluster.until(SERVICE, "ECS says yes again", ready("True", "AllSeen")).await;
    assert!(stage.tasks().iter().all(|task| task.is_held), "holds are kept");
}

/// The URL of an AWS STS that lets nobody assume a role, in its own words. It ends with the test's process.
async fn no_role_for_anybody() -> String {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("127.0.0.1 has a free port");
    let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
    let body = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
        <Code>AccessDenied</Code><Message>not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>";
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: text/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let serve = async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 16 * 1024];
            // Whatever is asked; it comes in one piece or two, and the answer is the same.
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    };
    #[expect(clippy::disallowed_methods, reason = "it is a server of the test's own and holds nothing")]
    tokio::spawn(serve);
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_it_is_said_where_they_are_looked_for() {
    let cluster = Cluster::start(&[]).await;
    let mut environment = aws_environment("http://127.0.0.1:1");
    environment.retain(|(name, _)| !name.starts_with("AWS_ACCESS") && !name.starts_with("AWS_SECRET"));
    // Nor those of whoever runs the test.
    for name in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
        environment.push((name, "/nonexistent".into()));
    }
    let _operator = cluster.operator_with(0, environment);
    cluster.apply(&drain(SERVICE, ("default", SERVICE), "{url: 'redis://127.0.0.1:1/0'}", "")).await;
    let drain = cluster.until(SERVICE, "credentials are missed", ready("False", "FleetDenied")).await;
    assert!(message(&drain).contains("no AWS credentials"), "{}", message(&drain));
}
