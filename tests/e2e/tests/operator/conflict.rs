//! Several drains of one service.

use e2e::{Cluster, SERVICE, Setup, Stage, TaskView};
use serde_json::{Value, json};
use test_support::{LONG, wait_until};

use crate::common::message;

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
    assert!(message(&drain).contains("the WorkerDrain media/transcoder acts on the same service"), "{drain}");
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
        let line =
            told.lines().find_map(|line| line.strip_prefix("worker_drain_reconciliations_total{result=\"Ok\"} "));
        line.is_some_and(|count| count.parse().is_ok_and(|count: u64| count >= 12))
    })
    .await;
    let drain = cluster.until("second", "it stands by", STANDS_BY).await;
    assert!(drain["status"]["memory"].is_null(), "it has never acted: {drain}");

    // One that stands by and has done nothing goes without a trace; when the one that works is gone, the next one works.
    cluster.kubectl("delete wd a-third --timeout=2m").ok().await;
    assert!(stage.tasks().iter().all(|task| task.is_held), "holds are kept: {:?}", stage.tasks());
    cluster.kubectl("delete wd transcoder --timeout=3m").ok().await;
    cluster.until("second", "it takes over", WORKS).await;
    stage.until_held(&stage.tasks()).await;
}

/// Whoever began anew would not know which queues have to be given back if the deployment fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_is_set_to_plan_in_mid_rollout_is_not_taken_over_from_and_gives_back_when_deleted() {
    let (stage, cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&[]));
    let _operator = cluster.operator(0, &stage);
    let old = mid_drain(&stage, &cluster).await;
    cluster.apply(&renamed(&stage, "second")).await;
    cluster.until("second", "it stands by", STANDS_BY).await;

    cluster.kubectl("patch wd transcoder --type=merge --patch {\"spec\":{\"mode\":\"Plan\"}}").ok().await;
    let plans = |drain: &Value| STANDS_BY(drain) && message(drain).contains("is in mode Plan, but took queues before");
    let drain = cluster.until("second", "it still stands by, and says why", plans).await;
    assert!(drain["status"]["memory"].is_null(), "it has never acted: {drain}");

    // Not taken over by the second one, which would begin to cancel again.
    cluster.kubectl("delete wd second --timeout=2m").ok().await;
    cluster.until_events("second", &["Conflict", "Withdrawn"]).await;
    assert!(old.iter().all(|task| stage.task(task.id).is_held), "the first one's holds are kept: {:?}", stage.tasks());
    cluster.kubectl("delete wd transcoder --timeout=3m").ok().await;
    assert!(stage.tasks().iter().all(|task| !task.is_held), "holds are left: {:?}", stage.tasks());
    stage.until_consuming(&old).await;
    cluster.until_events(SERVICE, &["Withdrawn"]).await;
}

/// As after an edit under an older CRD, which let the service be changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_stands_by_and_has_taken_queues_does_not_go_silently() {
    let (stage, cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&[]));
    let _operator = cluster.operator(0, &stage);
    let old = mid_drain(&stage, &cluster).await;
    cluster.apply(&renamed(&stage, "second")).await;
    cluster.until("second", "it stands by", STANDS_BY).await;
    let first = cluster.drain(SERVICE).await;
    let patch = json!({"status": {"memory": first["status"]["memory"]}});
    cluster.kubectl(&format!("patch wd second --subresource=status --type=merge --patch {patch}")).ok().await;
    let warned = |drain: &Value| STANDS_BY(drain) && message(drain).contains("nobody gives back the queues");
    let drain = cluster.until("second", "it says what would be lost", warned).await;
    let short = first["status"]["tasks"][0]["task"].as_str().expect("tasks are shown");
    assert!(message(&drain).contains(short), "tasks are named: {drain}");

    cluster.kubectl("delete wd second --timeout=2m").ok().await;
    cluster.until_events("second", &["Conflict", "Abandoned"]).await;
    assert!(old.iter().all(|task| stage.task(task.id).is_held), "the first one goes on: {:?}", stage.tasks());
    // The one that works gives everything back.
    cluster.kubectl("delete wd transcoder --timeout=3m").ok().await;
    stage.until_consuming(&old).await;
}

/// A drain in the middle of a deployment that does not come to an end: the old tasks take no more jobs.
async fn mid_drain(stage: &Stage, cluster: &Cluster) -> Vec<TaskView> {
    cluster.apply(&stage.drain_with_secret()).await;
    let old = stage.tasks();
    stage.until_held(&old).await;
    stage.fill("job").await;
    stage.deploy_a_bad_one(2);
    stage.until_cancelled(&old).await;
    old
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
