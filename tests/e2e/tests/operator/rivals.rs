//! Several drains of one service.

use e2e::{Cluster, SERVICE, Setup, Stage};
use serde_json::Value;
use test_support::{LONG, wait_until};

const STANDS_BY: fn(&Value) -> bool = |drain| Cluster::condition(drain, "Ready") == Some(("False", "Conflict"));

const WORKS: fn(&Value) -> bool = |drain| Cluster::condition(drain, "Ready") == Some(("True", "AllSeen"));

#[tokio::test(flavor = "multi_thread")]
async fn of_several_drains_of_one_service_one_acts_and_another_takes_over_when_it_is_gone() {
    let (stage, cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&[]));
    let mut operator = cluster.operator(0, &stage);
    cluster.apply(&stage.drain_with_secret()).await;
    stage.until_held(&stage.tasks()).await;

    // The same service, by its ARN; and one that only looks.
    let (second, watcher) = (by_arn(&stage, "second"), renamed(&stage, "watcher") + "  mode: Plan\n");
    cluster.apply(&[second.as_str(), &by_arn(&stage, "a-third"), &watcher].join("---\n")).await;
    let drain = cluster.until("second", "it stands by", STANDS_BY).await;
    assert!(message(&drain).contains("the WorkerDrain media/transcoder looks after the same service"), "{drain}");
    assert_eq!(Cluster::condition(&drain, "Stalled"), Some(("True", "Conflict")));
    cluster.until_events("second", &["Conflict"]).await;
    cluster.until("a-third", "it stands by", STANDS_BY).await;
    cluster.until("watcher", "it is in nobody's way", WORKS).await;
    cluster.until(SERVICE, "the first one works", WORKS).await;

    // Another process knows nothing of that, and may look at the second one first.
    assert_eq!(operator.terminate().await, Some(0), "{}", operator.log());
    let operator = cluster.operator(1, &stage);
    operator.until_ready_as("leader").await;
    wait_until("it has looked at all of them", 5 * LONG, async || {
        let (_, told) = operator.get("/metrics").await.expect("the operator answers");
        let line = told.lines().find_map(|line| line.strip_prefix("worker_drain_passes_total{result=\"Ok\"} "));
        line.is_some_and(|count| count.parse().is_ok_and(|count: u64| count >= 12))
    })
    .await;
    let drain = cluster.until("second", "it stands by", STANDS_BY).await;
    assert!(drain["status"]["memory"].is_null(), "it has never acted: {drain}");

    // One that stands by goes without a trace; when the one that works is gone, the next one works.
    cluster.kubectl("delete wd a-third --timeout=2m").ok().await;
    assert!(stage.tasks().iter().all(|task| task.is_held), "holds are kept: {:?}", stage.tasks());
    cluster.kubectl("delete wd transcoder --timeout=3m").ok().await;
    cluster.until("second", "it takes over", WORKS).await;
    stage.until_held(&stage.tasks()).await;
}

fn renamed(stage: &Stage, name: &str) -> String {
    stage.drain_in_cluster().replace(&format!("metadata: {{name: {SERVICE}}}"), &format!("metadata: {{name: {name}}}"))
}

fn by_arn(stage: &Stage, name: &str) -> String {
    let arn = |what: &str| format!("'arn:aws:ecs:us-east-1:123456789012:{what}'");
    let (short, long) = (
        format!("cluster: default, service: {SERVICE}, region: us-east-1"),
        format!("cluster: {}, service: {}", arn("cluster/default"), arn(&format!("service/default/{SERVICE}"))),
    );
    let drain = renamed(stage, name);
    assert!(drain.contains(&short), "{drain}");
    drain.replace(&short, &long)
}

fn message(drain: &Value) -> &str {
    let mut conditions = drain["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.find(|condition| condition["type"] == "Ready");
    ready.and_then(|ready| ready["message"].as_str()).unwrap_or_default()
}
