//! What only the operator can judge: `Ready` is false, with a reason that helps; and what was held stays held.

use e2e::{Cluster, SERVICE, Setup, Stage};
use serde_json::{Value, json};
use test_support::{Certificates, Redis, RedisOptions, free_port};

fn ready(answer: &'static str, reason: &'static str) -> impl Fn(&Value) -> bool {
    move |drain| Cluster::condition(drain, "Ready") == Some((answer, reason))
}

fn message(drain: &Value) -> &str {
    let mut conditions = drain["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.find(|condition| condition["type"] == "Ready");
    ready.and_then(|ready| ready["message"].as_str()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_may_come_late_be_wrong_and_be_changed() {
    let (stage, cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&[]));
    let _operator = cluster.operator(0, &stage);
    cluster.apply(&stage.drain_in_cluster()).await;
    let drain = cluster.until(SERVICE, "the Secret is missed", ready("False", "WorkersInvalid")).await;
    assert!(message(&drain).contains("there is no Secret broker in the namespace media"), "{}", message(&drain));
    assert_eq!(Cluster::condition(&drain, "Stalled"), Some(("True", "WorkersInvalid")));
    stage.until_held(&stage.tasks()).await;

    cluster.apply("{apiVersion: v1, kind: Secret, metadata: {name: broker}, stringData: {uri: x}}").await;
    let has = |words: &'static str| move |drain: &Value| message(drain).contains(words);
    let drain = cluster.until(SERVICE, "the key is missed", has("has no key url")).await;
    assert!(message(&drain).contains("it has uri"), "{}", message(&drain));

    cluster.apply(&stage.secret("redis://:hunter2@127.0.0.1:1/0")).await;
    let drain = cluster.until(SERVICE, "the broker is not there", ready("False", "WorkersUnreachable")).await;
    assert!(!drain.to_string().contains("hunter2"), "{drain}");

    cluster.apply(&stage.secret(stage.app().broker())).await;
    cluster.until(SERVICE, "all is well", ready("True", "AllSeen")).await;

    cluster.kubectl("delete secret broker").ok().await;
    cluster.until(SERVICE, "the Secret is missed again", ready("False", "WorkersInvalid")).await;
    assert!(stage.tasks().iter().all(|task| task.is_held), "holds are kept");
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
    let (stage, cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&[]));
    let _operator = cluster.operator(0, &stage);
    // As if it had been applied under an older CRD.
    let rules = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations";
    let patch = format!("[{{\"op\": \"remove\", \"path\": \"{rules}\"}}]");
    let patch = ["patch", "crd", "workerdrains.workerdrain.io", "--type=json", "--patch", &patch];
    let cluster = {
        let mut cluster = cluster;
        cluster.plane().kubectl(patch).ok().await;
        cluster
    };
    let with = |name: &str, service: &str, broker: &str, more: &str| {
        format!(
            "{{apiVersion: workerdrain.io/v1alpha1, kind: WorkerDrain, metadata: {{name: {name}}}, spec: {{fleet: {{ecs: \
             {{cluster: default, service: {service}, region: us-east-1}}}}, workers: {{celery: {{broker: {{url: \
             \"{broker}\"}}}}}}{more}}}}}\n---\n"
        )
    };
    let broker = stage.app().broker();
    let manifests = [
        with("nothing", "nothing", broker, ""),
        with("nobody", SERVICE, "redis://127.0.0.1:1/0", ", mode: Plan"),
        with("whatever", SERVICE, "amqq://127.0.0.1:1/0", ", mode: Plan"),
        with("contradiction", SERVICE, broker, ", hold: {mode: OnRollout}, drain: {scaleIn: true}"),
        with("elsewhere", "transcoder, roleArn: 'arn:aws:iam::123456789012:role/nobody'", broker, ", mode: Plan"),
    ];
    cluster.apply(&(manifests.concat() + &stage.drain_with_secret())).await;
    cluster.until(SERVICE, "the one that can work does", ready("True", "AllSeen")).await;
    stage.until_held(&stage.tasks()).await;
    let drain = cluster.until("nothing", "the service is missed", ready("False", "FleetNotFound")).await;
    assert!(message(&drain).contains("no active ECS service nothing"), "{}", message(&drain));
    cluster.until("nobody", "the broker is missed", ready("False", "WorkersUnreachable")).await;
    cluster.until("whatever", "the URL is refused", ready("False", "WorkersInvalid")).await;
    let drain = cluster.until("contradiction", "the spec is refused", ready("False", "InvalidSpec")).await;
    assert!(message(&drain).contains("spec.drain.scaleIn"), "{}", message(&drain));
    assert_eq!(Cluster::condition(&drain, "Stalled"), Some(("True", "InvalidSpec")));
    // Nothing was ever done for them, so nothing keeps them.
    cluster.kubectl("delete wd contradiction nobody whatever --timeout=2m").ok().await;
}
