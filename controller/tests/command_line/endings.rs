//! How a run ends, and what it leaves.

use std::{process::Output, time::Duration};

use ecs_emulator::model::Operation;
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use test_support::{Redis, wait_until};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::{Instant, timeout},
};

use crate::stage::{PATIENCE, Stage};

pub fn said(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_with_nothing_to_drain_is_done() {
    let (stage, redis) = (Stage::with(0).await, Redis::start().await);
    let output = stage.call(&["run", "--grace", "1s", "-o", "json"], "media", "transcoder", &redis.url()).await;
    let end = said(&output).pop().unwrap();
    assert_eq!((code(&output), &end["event"], &end["outcome"]), (0, &"end".into(), &"Drained".into()));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_limit_leaves_everything_held() {
    let (stage, redis) = (Stage::with(2).await, Redis::start().await);
    stage.until_held(&redis.url(), 2).await;
    stage.deploy();
    // No worker answers for the old tasks, so that nothing may let them go.
    let run = ["run", "--timeout", "6s", "-o", "json"];
    let output = stage.call(&run, "media", "transcoder", &redis.url()).await;
    let end = said(&output).pop().unwrap();
    assert_eq!((code(&output), &end["outcome"]), (3, &"TimeLimit".into()), "{end}");
    assert_eq!(stage.held(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_ends_without_our_permit_is_no_success() {
    let (stage, redis) = (Stage::with(1).await, Redis::start().await);
    stage.until_held(&redis.url(), 1).await;
    stage.deploy();
    let child = stage.begin(&["run", "-o", "json"], "media", "transcoder", &redis.url());
    wait_until("the rollout is seen", PATIENCE, || std::future::ready(stage.held_for(Duration::from_hours(24)) == 1))
        .await;
    stage.stop_held_tasks();
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("it ends in time").unwrap();
    let end = said(&output).pop().unwrap();
    assert_eq!((code(&output), &end["outcome"]), (5, &"EndedUnpermitted".into()), "{end}");
    assert_eq!((&end["endedUnpermitted"], &end["tasksDrained"]), (&1.into(), &1.into()), "{end}");
}

/// With a rollout going on, and with nothing to drain.
#[rstest]
#[case::in_a_rollout(true)]
#[case::at_rest(false)]
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_deleted_ends_the_run_with_what_was_lost(#[case] rolls_out: bool) {
    let (stage, redis) = (Stage::with(1).await, Redis::start().await);
    let child = stage.begin(&["run", "-o", "json"], "media", "transcoder", &redis.url());
    wait_until("the task is held", PATIENCE, || std::future::ready(stage.held() == 1)).await;
    if rolls_out {
        stage.deploy();
        let is_seen = || std::future::ready(stage.held_for(Duration::from_hours(24)) == 1);
        wait_until("the rollout is seen", PATIENCE, is_seen).await;
    }
    stage.delete_service();
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("it ends in time").unwrap();
    let (end, stderr) = (said(&output).pop().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert_eq!((code(&output), &end["outcome"]), (5, &"EndedUnpermitted".into()), "{end}");
    for part in ["media/transcoder was deleted: ", "ended with it without our permit", "or delete this drain"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
}

/// A service of no tasks: nothing is lost with it, and there is nothing to wait for.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_does_not_wait_for_a_service_that_is_no_more() {
    let (stage, redis) = (Stage::with(0).await, Redis::start().await);
    let child = stage.begin(&["run", "-o", "json"], "media", "transcoder", &redis.url());
    let calls = || stage.emulator.with_world(|world| world.calls().get(&Operation::DescribeServices).copied());
    wait_until("the run waits for a rollout", PATIENCE, || std::future::ready(calls() >= Some(4))).await;
    stage.delete_service();
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("it ends in time").unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(code(&output) == 1 && stderr.contains("there is no active ECS service transcoder"), "{stderr}");
}

/// A hold that has lasted for longer than an answer of ECS may be old, and is gone, was released.
#[tokio::test(flavor = "multi_thread")]
async fn another_hand_on_our_holds_is_told_and_they_are_set_again() {
    let (stage, redis) = (Stage::with(1).await, Redis::start().await);
    let mut child = stage.begin(&["run", "--watch", "-o", "json"], "media", "transcoder", &redis.url());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut held_since = None;
    let told = async {
        loop {
            let line = timeout(Duration::from_millis(200), lines.next_line()).await;
            if line.is_ok_and(|line| line.unwrap().unwrap().contains("somebody else released the hold of ")) {
                return;
            }
            let since = *held_since.get_or_insert_with(Instant::now);
            if stage.held() == 0 {
                held_since = None;
            } else if since.elapsed() > Duration::from_secs(45) {
                stage.release_holds();
            }
        }
    };
    timeout(PATIENCE, told).await.expect("it is told");
    wait_until("it is held again", PATIENCE, || std::future::ready(stage.held() == 1)).await;
}

#[rstest]
#[case(Signal::INT)]
#[case(Signal::TERM)]
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_leaves_holds_as_they_are_and_says_so(#[case] signal: Signal) {
    let (stage, redis) = (Stage::with(2).await, Redis::start().await);
    let child = stage.begin(&["run", "--watch"], "media", "transcoder", &redis.url());
    // Signals are listened to before the first look.
    wait_until("both tasks are held", PATIENCE, || std::future::ready(stage.held() == 2)).await;
    let id = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(id, signal).unwrap();
    let output = timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(code(&output), 130, "{stderr}");
    assert!(stderr.contains("2 tasks held, the first until "), "{stderr}");
    assert_eq!(stage.held(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_after_the_first_look_ends_nothing() {
    let (stage, mut redis) = (Stage::with(1).await, Redis::start().await);
    let url = redis.url();
    let mut child = stage.begin(&["run", "--watch", "--connect-timeout", "1s"], "media", "transcoder", &url);
    wait_until("the task is held", PATIENCE, || std::future::ready(stage.held() == 1)).await;
    redis.stop().await;
    let early = timeout(Duration::from_secs(5), child.wait()).await;
    assert!(early.is_err(), "it ended: {early:?}");
    assert_eq!(stage.held(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_of_one_drain_do_not_share_a_memory() {
    let (stage, redis) = (Stage::with(1).await, Redis::start().await);
    let first = stage.begin(&["run", "--watch"], "media", "transcoder", &redis.url());
    wait_until("the task is held", PATIENCE, || std::future::ready(stage.held() == 1)).await;
    let second = stage.call(&["run"], "media", "transcoder", &redis.url()).await;
    assert_eq!(code(&second), 1);
    let plan = stage.call(&["plan"], "media", "transcoder", &redis.url()).await;
    let text = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert_eq!(code(&plan), 0, "a plan disturbs nobody");
    assert!(text.contains("its worker has not answered yet") && text.contains("hold: held for another "), "{text}");
    drop(first);
}

/// The same manifest and the same state file; but the credentials, say, have come to be of another account.
#[tokio::test(flavor = "multi_thread")]
async fn another_service_of_the_same_names_is_left_alone() {
    let elsewhere = Stage::in_account("210987654321", 2).await;
    let (mut stage, redis) = (Stage::with(2).await, Redis::start().await);
    stage.until_held(&redis.url(), 2).await;
    let endpoint = elsewhere.emulator.endpoint().to_owned();
    let here = stage.environment.insert("AWS_ENDPOINT_URL_ECS".to_owned(), endpoint).unwrap();
    for command in [&["plan"][..], &["run", "--grace", "1s"]] {
        let output = stage.call(command, "media", "transcoder", &redis.url()).await;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(code(&output), 1, "{stderr}");
        for account in ["123456789012", "210987654321"] {
            assert!(stderr.contains(&format!("arn:aws:ecs:us-east-1:{account}:service/media/transcoder")), "{stderr}");
        }
    }
    assert_eq!((stage.held(), elsewhere.held()), (2, 0), "nothing was done to either");
    stage.environment.insert("AWS_ENDPOINT_URL_ECS".to_owned(), here);
    let output = stage.call(&["run", "--grace", "1s"], "media", "transcoder", &redis.url()).await;
    assert_eq!(code(&output), 0, "{}", String::from_utf8_lossy(&output.stderr));
}

/// Programs rely on these names: docs/run.md has them.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_for_programs_has_the_documented_fields() {
    let (stage, redis) = (Stage::start().await, Redis::start().await);
    let output = stage.call(&["plan", "-o", "json"], "media", "transcoder", &redis.url()).await;
    let plan = said(&output).pop().unwrap();
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(code(&output), 0);
    assert_eq!(
        fields(&plan),
        "counts drain drained dryRun event fleet notes phase ready stalled tasks time unaccounted unmatchedWorkers"
    );
    assert_eq!(fields(&plan["ready"]), "message reason status");
    assert_eq!(plan["dryRun"], Value::Bool(false));
}
