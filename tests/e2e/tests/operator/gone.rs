//! A drain is deleted.

use e2e::{Cluster, NAMESPACE, SERVICE, Setup, Stage};

use crate::common::mid_drain;

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_drain_gives_queues_back_and_releases_holds() {
    // With a Role in one namespace instead of a ClusterRole.
    let values = ["watch.namespaces[0]=media", "secrets.names[0]=broker"];
    let (stage, cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&values));
    let _operator = cluster.operator(0, &stage);
    let (old, jobs) = mid_drain(&stage, &cluster).await;

    cluster.kubectl("delete wd transcoder --timeout=3m").ok().await;
    assert!(stage.tasks().iter().all(|task| !task.is_held), "holds are left: {:?}", stage.tasks());
    stage.until_consuming(&old).await;
    assert!(old.iter().all(|task| !stage.running_on(task, &jobs).is_empty()), "jobs go on");
    // That it was cancelled may be told, or be over before the operator has looked again.
    cluster.until_events(SERVICE, &["Withdrawn"]).await;
    // ECS may stop the old tasks now, in the middle of their jobs.
    let (is_warning, note) = cluster.event(NAMESPACE, SERVICE, "Withdrawn").await;
    assert!(is_warning && note.contains("2 old tasks with ") && note.contains(" jobs"), "{note}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_given_back_keeps_the_drain_until_a_person_abandons_it() {
    let (mut stage, cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&[]));
    let operator = cluster.operator(0, &stage);
    mid_drain(&stage, &cluster).await;

    stage.redis().kill();
    cluster.kubectl("delete wd transcoder --wait=false").ok().await;
    let waits = |drain: &serde_json::Value| {
        drain["status"]["phase"] == "Withdrawing"
            && Cluster::condition(drain, "Ready") == Some(("False", "WorkersUnreachable"))
    };
    cluster.until(SERVICE, "the drain waits for its broker", waits).await;
    // The log tells of a pass when it has ended, after the status.
    operator.until_said("Withdrawing").await;

    cluster.kubectl("annotate wd transcoder workerdrain.io/abandon=true").ok().await;
    cluster.kubectl("wait --for=delete --timeout=2m wd/transcoder").ok().await;
    operator.until_said("queues may be left taken").await;
    cluster.until_events(SERVICE, &["Abandoned"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_uninstalled_operator_leaves_is_held_and_given_back_by_the_next_one() {
    let (stage, mut cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&[]));
    let mut operator = cluster.operator(0, &stage);
    let (old, jobs) = mid_drain(&stage, &cluster).await;

    // Its rights go before its Pods do.
    cluster.uninstall().await;
    assert_eq!(operator.terminate().await, Some(0), "{}", operator.log());
    cluster.kubectl("delete wd transcoder --wait=false").ok().await;
    let waits = cluster.kubectl("wait --for=delete --timeout=5s wd/transcoder").refused().await;
    assert!(waits.contains("timed out"), "{waits}");
    assert!(old.iter().all(|task| stage.task(task.id).is_held), "holds outlast the operator: {:?}", stage.tasks());
    assert!(old.iter().all(|task| !stage.running_on(task, &jobs).is_empty()), "jobs go on");

    cluster.install(&[]).await;
    let _operator = cluster.operator(0, &stage);
    cluster.kubectl("wait --for=delete --timeout=3m wd/transcoder").bound(5 * test_support::LONG).ok().await;
    assert!(stage.tasks().iter().all(|task| !task.is_held), "holds are left: {:?}", stage.tasks());
    stage.until_consuming(&old).await;
}
