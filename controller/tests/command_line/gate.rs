//! `worker-drain run --until-queues-empty`: the step before a deployment.

use serde_json::{Value, json};
use test_support::{Jobs, Redis, SampleApp};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader, Lines},
    time::timeout,
};

use crate::{
    endings::{code, said},
    stage::{PATIENCE, Stage},
};

/// Reads what it says until this holds of it.
async fn until(lines: &mut Lines<BufReader<impl AsyncRead + Unpin>>, wanted: impl Fn(&Value) -> bool) -> Value {
    let reading = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let event: Value = serde_json::from_str(&line).unwrap();
            if wanted(&event) {
                return event;
            }
        }
        panic!("it ended before that");
    };
    timeout(PATIENCE, reading).await.expect("it says so in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_task_is_held_until_the_queues_are_empty_and_stays_so() {
    let (stage, redis) = (Stage::with(2).await, Redis::start().await);
    let app = SampleApp::new(redis.url()).settings(json!({"task_acks_late": true}));
    let _worker = app.worker("worker@elsewhere").queues(["slow", "fast"]).start().await;
    let jobs = app.submit(Jobs::with_ids(["job"]).queue("slow").until_told()).await;
    app.journal().wait_started(&jobs, 1).await;

    let run = ["run", "--until-queues-empty=slow,fast", "-o", "json"];
    let mut child = stage.begin(&run, "media", "transcoder", &redis.url());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let gate = until(&mut lines, |event| event["reason"] == "QueuesNotEmpty").await;
    let message = gate["message"].as_str().unwrap();
    assert!(message.contains("slow has 0 ready and 1 not acknowledged") && !message.contains("fast has"), "{message}");
    assert_eq!((&gate["event"], &gate["type"]), (&json!("condition"), &json!("Gate")));

    app.tell(&jobs);
    let end = until(&mut lines, |event| event["event"] == "end").await;
    assert_eq!(
        (&end["outcome"], &end["exitCode"], &end["held"]),
        (&json!("QueuesEmpty"), &json!(0), &json!(2)),
        "{end}"
    );
    assert_eq!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().code(), Some(0));
    assert_eq!(stage.held(), 2, "holds are left as they are");

    // The deployment comes now, and what drains it finds every task held.
    stage.deploy();
    let plan = stage.call(&["plan"], "media", "transcoder", &redis.url()).await;
    let text = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(code(&plan) == 0 && text.contains("held for another"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_may_name_the_queues_and_the_time_limit_leaves_everything_held() {
    let (mut stage, redis) = (Stage::with(1).await, Redis::start().await);
    stage.drain = "{gate: {queuesEmpty: [slow]}}";
    redis.cli(&["LPUSH", "slow", "a message that nobody takes"]);
    let run = ["run", "--until-queues-empty", "--timeout", "15s", "-o", "json"];
    let output = stage.call(&run, "media", "transcoder", &redis.url()).await;
    let end = said(&output).pop().unwrap();
    assert_eq!((code(&output), &end["outcome"]), (3, &json!("TimeLimit")), "{end}");
    assert_eq!(stage.held(), 1);

    // Another time it is counted anew, whatever the memory says of the first.
    redis.cli(&["DEL", "slow"]);
    redis.cli(&["SADD", "_kombu.binding.slow", "slow\u{6}\u{16}\u{6}\u{16}slow"]);
    let output = stage.call(&["run", "--until-queues-empty"], "media", "transcoder", &redis.url()).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(code(&output), 0, "{text}");
    assert!(text.contains("transcoder: the queues are empty; 1 task held, the first until "), "{text}");
    assert_eq!(stage.held(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_nobody_knows_is_not_waited_for() {
    let (stage, redis) = (Stage::with(1).await, Redis::start().await);
    let output = stage.call(&["run", "--until-queues-empty=misspelt"], "media", "transcoder", &redis.url()).await;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(code(&output), 1, "{stderr}");
    assert!(stderr.contains("misspelt") && stderr.contains("spelt right"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn to_wait_for_queues_and_to_stay_are_not_wanted_at_once() {
    let (stage, redis) = (Stage::with(1).await, Redis::start().await);
    let run = ["run", "--until-queues-empty=slow", "--watch"];
    let output = stage.call(&run, "media", "transcoder", &redis.url()).await;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(code(&output), 2, "{stderr}");
    assert!(stderr.contains("cannot be used with"), "{stderr}");
    assert_eq!(stage.held(), 0);
}
