//! `worker-drain run --until-queues-empty`: the step before a deployment.

use serde_json::{Value, json};
use test_support::{Jobs, RabbitMq, Redis, SampleApp, Sqs, python_with_sqs};
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
    assert!(stderr.contains("misspelt") && stderr.contains("check its spelling"), "{stderr}");
}

/// RabbitMQ does not count what is delivered, and Celery does not list what such a strategy keeps.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_whose_worker_may_hold_messages_unseen_is_not_taken_for_empty() {
    let (stage, rabbit) = (Stage::with(1).await, RabbitMq::shared().await);
    let app = SampleApp::new(rabbit.url()).variable("SAMPLE_HOARD", "3600");
    let _worker = app.worker("worker@elsewhere").queues(["slow"]).prefetch(2).start().await;
    app.submit(Jobs::with_ids(["kept"]).queue("slow").seconds(0.0, 0.0)).await;
    let run = ["run", "--until-queues-empty=slow", "-o", "json"];
    let mut child = stage.begin(&run, "media", "transcoder", &rabbit.url());
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let gate = until(&mut lines, |event| {
        let is_about_it = event["message"].as_str().is_some_and(|message| message.contains("strategy of their own"));
        assert_ne!(event["event"], "end", "{event}");
        event["type"] == "Gate" && is_about_it
    })
    .await;
    assert_eq!(gate["reason"], "QueuesUnknown", "{gate}");
    let message = gate["message"].as_str().unwrap();
    assert!(message.contains("worker@elsewhere may hold some: jobs of sample.work"), "{message}");
    assert!(message.contains("it is not taken for empty"), "{message}");
    child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_on_sqs_are_counted_for_workers_that_answer_over_http() {
    let (mut stage, sqs) = (Stage::with(2).await, Sqs::start().await);
    stage.environment.insert("AWS_ENDPOINT_URL_SQS".to_owned(), sqs.endpoint());
    let mut settings = Sqs::settings();
    settings["task_acks_late"] = json!(true);
    let app = SampleApp::new(sqs.url()).settings(settings).python(python_with_sqs());
    let _worker = app.worker("worker@elsewhere").queues(["slow"]).start().await;
    let jobs = app.submit(Jobs::with_ids(["job"]).queue("slow").until_told()).await;
    app.journal().wait_started(&jobs, 1).await;

    let run = ["run", "--until-queues-empty=slow", "--sqs-settles-in", "2s", "-o", "json"];
    let mut child = stage.begin_with_http(&run);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let gate = until(&mut lines, |event| event["reason"] == "QueuesNotEmpty").await;
    let message = gate["message"].as_str().unwrap();
    assert!(message.contains("slow has 0 ready and 1 not acknowledged"), "{message}");

    app.tell(&jobs);
    let end = until(&mut lines, |event| event["event"] == "end").await;
    assert_eq!((&end["outcome"], &end["exitCode"]), (&json!("QueuesEmpty"), &json!(0)), "{end}");
    assert!(end["seconds"].as_f64().unwrap() >= 2.0, "{end}");
    assert_eq!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().code(), Some(0));
    assert_eq!(stage.held(), 2, "holds are left as they are");

    // What nobody made is not waited for; and one empty look is not enough: a minute passes until the second counts.
    let output = stage.begin_with_http(&["run", "--until-queues-empty=misspelt"]).wait_with_output();
    let output = timeout(PATIENCE, output).await.expect("it ends in time").unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(code(&output) == 1 && stderr.contains("queue_name_prefix"), "{stderr}");
    let output = stage.begin_with_http(&["run", "--until-queues-empty=slow", "--timeout", "10s", "-o", "json"]);
    let output = timeout(PATIENCE, output.wait_with_output()).await.expect("it ends in time").unwrap();
    assert_eq!((code(&output), &said(&output).pop().unwrap()["outcome"]), (3, &json!("TimeLimit")));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_gate_sqs_is_left_alone() {
    let mut stage = Stage::with(2).await;
    let sqs = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    sqs.set_nonblocking(true).unwrap();
    let endpoint = format!("http://{}", sqs.local_addr().unwrap());
    stage.environment.insert("AWS_ENDPOINT_URL_SQS".to_owned(), endpoint);
    stage.deploy();
    for run in [&["plan"][..], &["run", "--timeout", "5s"]] {
        let output = stage.begin_with_http(run).wait_with_output();
        timeout(PATIENCE, output).await.expect("it ends in time").unwrap();
    }
    assert!(stage.held() > 0, "it has done something");
    assert_eq!(sqs.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody has called");
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
