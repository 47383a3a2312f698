//! What the operator cannot read or write of its own: it says so where people look, and leaves it as it is.

use e2e::{Cluster, SERVICE, Setup, Stage};
use serde_json::{Value, json};

fn ready(answer: &'static str, reason: &'static str) -> impl Fn(&Value) -> bool {
    move |drain| Cluster::condition(drain, "Ready") == Some((answer, reason))
}

async fn put_memory(cluster: &Cluster, memory: &str) {
    let patch = json!({"status": {"memory": memory}});
    cluster.kubectl(&format!("patch wd {SERVICE} --subresource=status --type=merge --patch {patch}")).ok().await;
}

async fn warnings(cluster: &Cluster, reason: &str) -> Vec<String> {
    let call = format!("get events.events.k8s.io --output json --field-selector regarding.name={SERVICE},type=Warning");
    let events: Value = serde_json::from_str(&cluster.kubectl(&call).ok().await).expect("kubectl's JSON");
    let events = events["items"].as_array().expect("a list").iter().filter(|event| event["reason"] == reason);
    events.map(|event| event["note"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_that_cannot_be_read_is_told_and_left_as_it_is() {
    let (stage, cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&[]));
    let _operator = cluster.operator(0, &stage);
    cluster.apply(&stage.drain_with_secret()).await;
    stage.until_held(&stage.tasks()).await;
    // The second write of the pass tells that they are held; none follows it, so nobody writes over what comes now.
    let held = |drain: &Value| ready("True", "AllSeen")(drain) && drain["status"]["counts"]["held"] == 2;
    let well = cluster.until(SERVICE, "all is well", held).await;
    let memory = well["status"]["memory"].as_str().expect("it remembers the holds").to_owned();

    for (damaged, words) in [
        // By a newer worker-drain; by somebody's hand; and one whose page somebody has deleted.
        ("sheets:two", "its format is unknown to this version"),
        ("here:AAAA", "it is damaged"),
        ("pages:transcoder-memory-lost", "its page transcoder-memory-lost is gone"),
    ] {
        put_memory(&cluster, damaged).await;
        let says = |drain: &Value| ready("False", "RecordInvalid")(drain) && drain.to_string().contains(words);
        let drain = cluster.until(SERVICE, words, says).await;
        assert_eq!(Cluster::condition(&drain, "Stalled"), Some(("True", "RecordInvalid")), "{drain}");
        assert_eq!(Cluster::condition(&drain, "Reconciling"), Some(("False", "RecordInvalid")), "{drain}");
        assert!(drain.to_string().contains("workerdrain.io/abandon"), "the way out is told: {drain}");
        assert_eq!(drain["status"]["memory"], damaged, "it is left as it is");
        assert_eq!(drain["status"]["tasks"], well["status"]["tasks"], "what was known is left as it was");
    }
    cluster.until_events(SERVICE, &["RecordInvalid"]).await;
    let told = warnings(&cluster, "RecordInvalid").await;
    assert_eq!(told.len(), 1, "one event tells of it: {told:?}");
    assert!(told[0].contains("workerdrain.io/abandon"), "{told:?}");

    put_memory(&cluster, &memory).await;
    let drain = cluster.until(SERVICE, "all is well again", ready("True", "AllSeen")).await;
    assert_eq!(Cluster::condition(&drain, "Stalled"), Some(("False", "NotStalled")), "{drain}");
    assert!(drain["status"]["blockedBy"].is_null(), "{drain}");
    cluster.until_events(SERVICE, &["RecordInvalid", "Ready"]).await;
    assert!(stage.tasks().iter().all(|task| task.is_held), "holds are kept: {:?}", stage.tasks());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_is_told() {
    let (stage, mut cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&[]));
    let name = "jsonpath={.items[*].metadata.name}";
    let list = ["get", "clusterrole", "--selector", "app.kubernetes.io/instance=worker-drain", "--output", name];
    let roles = cluster.plane().kubectl(list).ok().await;
    let role = roles.split(' ').next().expect("the chart makes one").to_owned();
    let verbs = async |cluster: &mut Cluster, verbs: Value| {
        let patch = json!([
            {"op": "test", "path": "/rules/0/resources", "value": ["workerdrains"]},
            {"op": "replace", "path": "/rules/0/verbs", "value": verbs},
        ]);
        let patch = patch.to_string();
        cluster.plane().kubectl(["patch", "clusterrole", &role, "--type=json", "--patch", &patch]).ok().await;
    };
    verbs(&mut cluster, json!(["get", "list", "watch"])).await;
    let _operator = cluster.operator(0, &stage);
    cluster.apply(&stage.drain_with_secret()).await;
    let drain = cluster.until(SERVICE, "a right is missed", ready("False", "RecordDenied")).await;
    assert!(drain.to_string().contains("finalizers"), "it is told what for: {drain}");
    assert_eq!(Cluster::condition(&drain, "Stalled"), Some(("True", "RecordDenied")), "{drain}");
    cluster.until_events(SERVICE, &["RecordDenied"]).await;
    assert!(stage.tasks().iter().all(|task| !task.is_held), "nothing is done before it can be undone");

    verbs(&mut cluster, json!(["get", "list", "watch", "patch"])).await;
    cluster.until(SERVICE, "all is well", ready("True", "AllSeen")).await;
    stage.until_held(&stage.tasks()).await;
}
