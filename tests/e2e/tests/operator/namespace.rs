//! The namespace of a drain is deleted: its Secret goes at once, nothing can be made in it any more, and only the drain
//! is left.

use std::time::Duration;

use e2e::{Cluster, NAMESPACE, SERVICE, Setup, Stage};
use serde_json::Value;
use test_support::wait_until;

use crate::common::{message, mid_drain};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_silent_for_long_gets_its_queues_back_without_the_secret() {
    let (stage, cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&[]));
    let operator = cluster.operator(0, &stage);
    let (old, jobs) = mid_drain(&stage, &cluster).await;

    stage.freeze(&old[0]);
    cluster.delete_namespace().await;
    // Either it goes on with the Secret that it has read, or it misses it; both only after it was read for the last time.
    wait_until("the operator has looked for the Secret in vain", Duration::from_mins(3), async || {
        let misses = Cluster::condition(&cluster.drain(SERVICE).await, "Ready") == Some(("False", "WorkersInvalid"));
        misses || operator.log().contains("the last one that was read is used")
    })
    .await;
    let drain = cluster.drain(SERVICE).await;
    stage.thaw(&old[0]);

    cluster.until_namespace_is_gone().await;
    assert!(stage.tasks().iter().all(|task| !task.is_held), "holds are left: {:?}", stage.tasks());
    stage.until_consuming(&old).await;
    assert!(old.iter().all(|task| !stage.running_on(task, &jobs).is_empty()), "jobs go on");
    assert!(drain["status"]["notes"].to_string().contains("workerdrain.io/abandon=true"), "{drain}");
    // There cannot be a new event in the namespace.
    let (is_warning, note) = cluster.event("default", NAMESPACE, "Withdrawn").await;
    assert!(is_warning && note.contains("2 old tasks with ") && note.contains(SERVICE), "{note}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_was_away_tells_the_way_out() {
    let (stage, cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&[]));
    let mut operator = cluster.operator(0, &stage);
    let (old, _) = mid_drain(&stage, &cluster).await;

    operator.terminate().await;
    cluster.delete_namespace().await;
    let operator = cluster.operator(0, &stage);
    let waits = |drain: &Value| {
        drain["status"]["phase"] == "Withdrawing"
            && Cluster::condition(drain, "Stalled") == Some(("True", "WorkersInvalid"))
            && drain["status"]["counts"]["held"] == 0
    };
    let drain = cluster.until(SERVICE, "the drain waits for its Secret", waits).await;
    let told = message(&drain);
    let abandon = format!("kubectl annotate workerdrain {SERVICE} --namespace {NAMESPACE} workerdrain.io/abandon=true");
    let lack = |task: &e2e::TaskView| told.contains(&task.id.to_string());
    assert!(old.iter().all(lack) && told.contains("celery") && told.contains(&abandon), "{told}");
    assert!(told.contains("cannot be made again") && !told.contains("create it"), "{told}");
    assert!(!told.contains("hold is kept"), "none is: {told}");
    assert!(stage.tasks().iter().all(|task| !task.is_held), "holds are left: {:?}", stage.tasks());

    cluster.kubectl(abandon.trim_start_matches("kubectl ")).ok().await;
    cluster.until_namespace_is_gone().await;
    operator.until_said("queues may be left taken").await;
    let (is_warning, note) = cluster.event("default", NAMESPACE, "Abandoned").await;
    assert!(is_warning && note.contains(SERVICE), "{note}");
}

/// As docs/operations.md says, with the command that it gives.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_with_a_role_in_the_namespace_loses_it_and_an_administrator_lets_the_drain_go() {
    let values = ["watch.namespaces[0]=media", "secrets.names[0]=broker"];
    let (stage, cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&values));
    let operator = cluster.operator(0, &stage);
    let (old, _) = mid_drain(&stage, &cluster).await;

    stage.freeze(&old[0]);
    cluster.delete_namespace().await;
    operator.until_said("cannot get resource \\\"workerdrains\\\"").await;
    let page = std::fs::read_to_string(test_support::repository().join("docs/operations.md")).expect("it is there");
    let command = page.lines().find_map(|line| line.trim().strip_prefix("kubectl patch ")).expect("the page has it");
    cluster.kubectl(&format!("patch {}", command.replace('\'', ""))).ok().await;
    cluster.until_namespace_is_gone().await;
    stage.thaw(&old[0]);
}
