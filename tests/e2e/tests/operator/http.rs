//! Workers that answer over HTTP, with a token from a Secret.

use e2e::{BrokerKind, Cluster, SERVICE, Setup, Stage, TOKEN};

use crate::common::{assert_all_ran_once, assert_ended_gently};

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_on_sqs_is_drained_with_a_token_from_a_secret() {
    let setup = Setup { broker: BrokerKind::SqsByHttp, ..Setup::default() };
    let (stage, cluster) = tokio::join!(Stage::start(setup), Cluster::start(&[]));
    let mut operator = cluster.operator(0, &stage);
    cluster
        .apply(&format!("{}---\n{}", stage.token_secret("another-than-the-workers"), stage.http_drain_in_cluster()))
        .await;
    let old = stage.tasks();
    stage.until_held(&old).await;
    let is_denied = |drain: &serde_json::Value| Cluster::condition(drain, "Ready") == Some(("False", "WorkersDenied"));
    let drain = cluster.until(SERVICE, "the token is refused", is_denied).await;
    let told = drain["status"]["conditions"].to_string();
    assert!(told.contains("tokenFrom") && !told.contains("another-than"), "{told}");

    // The Secret is read again by itself.
    cluster.apply(&stage.token_secret(TOKEN)).await;
    cluster.kubectl("wait --for=condition=Ready --timeout=3m wd/transcoder").ok().await;
    let jobs = stage.fill("job").await;
    stage.deploy();
    stage.until_revision_is_up(2).await;
    stage.until_cancelled(&old).await;
    let waits = |drain: &serde_json::Value| Cluster::condition(drain, "Drained") == Some(("False", "JobsRunning"));
    cluster.until(SERVICE, "the drain waits for jobs", waits).await;
    stage.app().tell(&jobs);
    cluster.kubectl("wait --for=condition=Drained --timeout=3m wd/transcoder").ok().await;
    stage.until_stopped(&old).await;
    assert_ended_gently(&stage, &old);
    assert_all_ran_once(&stage, &jobs);
    assert_eq!(operator.terminate().await, Some(0));
    assert!(!operator.log().contains(TOKEN), "a token is in the log");
}
