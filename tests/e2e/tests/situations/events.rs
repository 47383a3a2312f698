//! The end of a worker's last job makes worker-drain look, and not the clock alone.

use std::future::ready;

use e2e::{BrokerKind, Setup, Stage, TaskView};
use rstest::rstest;
use serde_json::json;
use test_support::{Jobs, LONG, wait_until};

use crate::common::{assert_all_ran_once, assert_ended_gently};

/// A look may be under way when a job ends, and then it sees that by itself. It will not be so each time.
const TRIES: u32 = 5;

#[rstest]
#[case::redis(BrokerKind::Redis)]
#[case::rabbitmq(BrokerKind::RabbitMq)]
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_last_job_is_heard(#[case] broker: BrokerKind) {
    let settings = json!({"worker_send_task_events": true});
    let stage = Stage::start(Setup { broker, concurrency: 1, prefetch: 0, settings, ..Setup::default() }).await;
    let mut drain = stage.run(&["--watch", "-v"]);
    for revision in 2..2 + TRIES {
        let old: Vec<TaskView> = stage.tasks().into_iter().filter(TaskView::is_live).collect();
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
        assert_ended_gently(&stage, &old);
        assert_all_ran_once(&stage, &jobs);
        if drain.process().log().contains("observing now") {
            return;
        }
    }
    panic!("{TRIES} rollouts, and nobody was heard:\n{}", drain.process().log_tail(40));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_lets_nobody_listen_costs_a_note_and_no_more() {
    let mut stage = Stage::start(Setup::default()).await;
    stage.redis().cli(&["ACL", "SETUSER", "deaf", "on", ">pw", "~*", "&*", "+@all", "-psubscribe"]);
    let mut drain = stage.run_as("deaf", "pw", &["--wait-for-rollout"]);
    let old = stage.tasks();
    stage.until_held(&old).await;
    let jobs = stage.fill("job").await;
    stage.deploy();
    stage.until_revision_is_up(2).await;
    stage.until_cancelled(&old).await;
    let notes = |drain: &e2e::WorkerDrain| -> usize {
        let is_it =
            |event: &serde_json::Value| event["event"] == "note" && event.to_string().contains("docs/brokers.md");
        drain.said().iter().filter(|event| is_it(event)).count()
    };
    wait_until("it is told", LONG, || ready(notes(&drain) > 0)).await;
    let later = stage.submit(Jobs::new(2).prefix("later").seconds(0.1, 0.3)).await;
    stage.app().journal().wait_finished(&later).await;
    stage.app().tell(&jobs);
    assert_eq!(drain.ended().await, crate::common::DRAINED);
    stage.until_rolled_out().await;
    assert_eq!(notes(&drain), 1, "once");
    assert_ended_gently(&stage, &old);
    assert_all_ran_once(&stage, &jobs);
}
