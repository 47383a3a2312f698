//! Apply, deploy, watch, done.

use e2e::{Cluster, SERVICE, Setup, Stage, patient};
use serde_json::json;

use crate::common::{assert_all_ran_once, assert_ended_gently};

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_drained_and_kubectl_tells_it() {
    let (stage, cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&[]));
    let mut operator = cluster.operator(0, &stage);
    cluster.apply(&stage.drain_with_secret()).await;
    let old = stage.tasks();
    stage.until_held(&old).await;
    cluster.kubectl("wait --for=condition=Ready --timeout=2m wd/transcoder").ok().await;
    let jobs = stage.fill("job").await;
    stage.deploy();

    stage.until_revision_is_up(2).await;
    stage.until_ecs_alone_would_have_killed(2).await;
    stage.until_cancelled(&old).await;
    let waits = |drain: &serde_json::Value| {
        Cluster::condition(drain, "Drained") == Some(("False", "JobsRunning")) && drain["status"]["counts"]["busy"] == 2
    };
    let drain = cluster.until(SERVICE, "the drain waits for jobs", waits).await;
    assert_eq!(Cluster::condition(&drain, "Ready"), Some(("True", "AllSeen")));
    assert_eq!(Cluster::condition(&drain, "Reconciling"), Some(("False", "UpToDate")), "Helm would take it back");
    let (current, before) = (&drain["status"]["current"], &drain["status"]["drained"]);
    assert_eq!((&current["deployment"], before["outcome"].as_str()), (&json!(stage.deployment()), None));
    assert_ne!(current["deployment"], before["deployment"]);
    assert_eq!(Cluster::condition(&drain, "Stalled"), Some(("False", "NotStalled")));
    assert_eq!(drain["status"]["observedGeneration"], drain["metadata"]["generation"]);
    columns(&cluster).await;

    let later = stage.submit(test_support::Jobs::new(4).prefix("later").seconds(0.1, 0.3)).await;
    stage.app().journal().wait_finished(&later).await;
    stage.app().tell(&jobs);
    let is_drained = format!("--for=jsonpath={{.status.drained.deployment}}={}", stage.deployment());
    cluster.kubectl(&format!("wait {is_drained} --timeout=3m wd/transcoder")).ok().await;
    cluster.kubectl("wait --for=condition=Clean --timeout=1s wd/transcoder").ok().await;
    cluster.kubectl("wait --for=condition=Drained --timeout=1s wd/transcoder").ok().await;
    stage.until_stopped(&old).await;
    stage.until_rolled_out().await;
    assert_ended_gently(&stage, &old);
    assert_all_ran_once(&stage, &jobs);
    assert_all_ran_once(&stage, &later);

    let drain = cluster.until(SERVICE, "the past rollout", |drain| drain["status"]["phase"] == "Steady").await;
    assert_eq!(drain["status"]["pastRollouts"][0]["outcome"], "Drained", "{drain}");
    cluster.until_events(SERVICE, &["RolloutSeen", "ConsumersCancelled", "TaskPermitted", "RolloutDrained"]).await;
    assert!(!cluster.kubectl("describe wd transcoder").ok().await.contains("redis://"), "a URL is shown");

    metrics(&operator).await;
    assert_eq!(operator.terminate().await, Some(0), "{}", operator.log());
    assert_eq!(cluster.leader().await, "", "the Lease is released");
    assert!(!operator.log().contains("redis://"), "a URL is logged:\n{}", operator.log());
}

/// What `kubectl get` shows while both old tasks have jobs; under load a worker may be silent for a moment.
async fn columns(cluster: &Cluster) {
    let head = ["NAME", "SERVICE", "PHASE", "READY", "DRAINED", "BUSY", "UNKNOWN", "OLDEST-JOB", "BLOCKED-BY", "AGE"];
    let row = ["transcoder", "transcoder", "Draining", "True", "0/2", "2", "0"];
    let mut table = String::new();
    test_support::wait_until("the columns tell of both tasks", 2 * test_support::LONG, async || {
        table = cluster.kubectl("get workerdrains").ok().await;
        let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        words[0] == head && words[1][..7] == row && words[1][8] == "JobsRunning"
    })
    .await;
}

async fn metrics(operator: &e2e::Operator) {
    let drain = "{drain_namespace=\"media\",drain=\"transcoder\"";
    for line in [
        format!("worker_drain_tasks{drain},phase=\"Serving\"}} 2.0"),
        format!("worker_drain_reachable{drain},system=\"Ecs\"}} 1.0"),
        format!("worker_drain_reachable{drain},system=\"Broker\"}} 1.0"),
        format!("worker_drain_oldest_hold_timestamp_seconds{drain}}} 0.0"),
        format!("worker_drain_jobs_cut_total{drain}}} 0"),
        format!("worker_drain_ended_unpermitted_total{drain}}} 0"),
        format!("worker_drain_hold_expires_in_seconds{drain}}} 7200.0"),
        String::from("worker_drain_leader 1"),
    ] {
        operator.until_measured(&line).await;
    }
    assert_eq!(operator.get("/livez").await.map(|(status, _)| status), Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_is_not_written() {
    let (stage, cluster) = tokio::join!(Stage::start(Setup::default()), Cluster::start(&[]));
    let operator = cluster.operator(0, &stage);
    cluster.apply(&patient(&stage.drain_with_secret())).await;
    stage.until_held(&stage.tasks()).await;
    let calm = |drain: &serde_json::Value| drain["status"]["phase"] == "Steady";
    cluster.until(SERVICE, "the drain is calm", calm).await;
    operator.until_said("reconcile").await;
    // What the first looks have changed is written by now.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let version = |drain: serde_json::Value| drain["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let before = version(cluster.drain(SERVICE).await);
    let passes = passes(&operator).await;
    test_support::wait_until("three more passes", std::time::Duration::from_mins(3), async || {
        self::passes(&operator).await >= passes + 3
    })
    .await;
    assert_eq!(version(cluster.drain(SERVICE).await), before);
}

async fn passes(operator: &e2e::Operator) -> u64 {
    number(operator, "worker_drain_reconciliations_total{result=\"Ok\"}").await
}

/// A look may be under way when a job ends, and then it sees that by itself: not so each time.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_last_job_asks_for_a_look() {
    let settings = serde_json::json!({"worker_send_task_events": true});
    let setup = Setup { concurrency: 1, prefetch: 0, settings, ..Setup::default() };
    let (stage, cluster) = tokio::join!(Stage::start(setup), Cluster::start(&[]));
    let operator = cluster.operator(0, &stage);
    cluster.apply(&stage.drain_with_secret()).await;
    for revision in 2..7 {
        let old: Vec<_> = stage.tasks().into_iter().filter(e2e::TaskView::is_live).collect();
        stage.until_held(&old).await;
        let jobs = stage.fill(&format!("job-{revision}")).await;
        stage.deploy();
        stage.until_revision_is_up(revision).await;
        stage.until_cancelled(&old).await;
        for task in &old {
            stage.app().tell(&stage.running_on(task, &jobs));
            stage.until_stopped(std::slice::from_ref(task)).await;
        }
        stage.until_rolled_out().await;
        assert_all_ran_once(&stage, &jobs);
        if number(&operator, "worker_drain_wakeups_total").await > 0 {
            return;
        }
    }
    panic!("five rollouts, and nobody was heard");
}

async fn number(operator: &e2e::Operator, metric: &str) -> u64 {
    let (_, told) = operator.get("/metrics").await.expect("the operator answers");
    let line = told.lines().find_map(|line| line.strip_prefix(metric));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or_default()
}
