//! Two replicas, and an API server that goes away.

use e2e::{Cluster, Operator, SERVICE, Setup, Stage};

use crate::common::{assert_all_ran_once, assert_ended_gently};

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leader_is_killed_the_other_one_finishes_and_so_it_does_when_the_api_server_restarts() {
    let (stage, mut cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&[]));
    let mut operators = vec![cluster.operator(0, &stage), cluster.operator(1, &stage)];
    let leading = leader(&cluster, &operators).await;
    cluster.apply(&stage.drain_with_secret()).await;
    let old = stage.tasks();
    stage.until_held(&old).await;
    let jobs = stage.fill("job").await;
    stage.deploy();
    stage.until_cancelled(&old).await;

    let killed = tokio::time::Instant::now();
    drop(operators.remove(leading));
    let survivor = operators.remove(0);
    survivor.until_ready_as("leader").await;
    eprintln!("took over {:?} after the kill", killed.elapsed());

    cluster.plane().restart_apiserver().await;
    stage.app().tell(&jobs);
    stage.until_stopped(&old).await;
    stage.until_rolled_out().await;
    assert_ended_gently(&stage, &old);
    assert_all_ran_once(&stage, &jobs);
    let drained = |drain: &serde_json::Value| drain["status"]["pastRollouts"][0]["outcome"] == "Drained";
    let drain = cluster.until(SERVICE, "the rollout is over", drained).await;
    assert_eq!(drain["status"]["pastRollouts"][0]["endedUnpermitted"], 0, "{drain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_ends_hands_over_at_once_and_one_without_the_api_server_does_not_act() {
    let (stage, mut cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&[]));
    let mut operators = [cluster.operator(0, &stage), cluster.operator(1, &stage)];
    let leading = leader(&cluster, &operators).await;
    let ended = tokio::time::Instant::now();
    assert_eq!(operators[leading].terminate().await, Some(0), "{}", operators[leading].log());
    assert!(operators[leading].log().contains("the lease is released"), "{}", operators[leading].log());
    let survivor = &operators[1 - leading];
    // It is asked itself: who holds the Lease was told by the API server before the holder knows.
    survivor.until_ready_as("leader").await;
    eprintln!("handed over within {:?}", ended.elapsed());

    // Frozen, the API server takes connections and answers nothing.
    cluster.plane().pause_apiserver();
    survivor.until_measured("worker_drain_leader 0").await;
    assert_eq!(survivor.get("/livez").await.map(|(status, _)| status), Some(200), "it waits, and lives");
    cluster.plane().resume_apiserver();
    survivor.until_ready_as("leader").await;
    assert_eq!(cluster.leading_pod().await, 1 - leading);
    cluster.apply_when_possible(&stage.drain_with_secret()).await;
    stage.until_held(&stage.tasks()).await;
}

/// Which of the two leads, when the other one is ready to.
async fn leader(cluster: &Cluster, operators: &[Operator]) -> usize {
    let leading = cluster.leading_pod().await;
    operators[leading].until_ready_as("leader").await;
    operators[1 - leading].until_ready_as("standby").await;
    leading
}
