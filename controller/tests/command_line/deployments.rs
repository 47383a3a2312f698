//! A run for one deployment, and the step before it.

use rstest::rstest;
use test_support::{Redis, wait_until};
use tokio::time::timeout;

use crate::{
    endings::{code, said},
    stage::{PATIENCE, Stage},
};

#[tokio::test(flavor = "multi_thread")]
async fn every_task_is_held_before_a_deployment_and_stays_so() {
    let (stage, redis) = (Stage::with(2).await, Redis::start().await);
    stage.until_running(2).await;
    let run = ["run", "--until-held", "--timeout", "1m", "-o", "json"];
    let output = stage.call(&run, "media", "transcoder", &redis.url()).await;
    let end = said(&output).pop().unwrap();
    assert_eq!((code(&output), &end["outcome"], &end["held"]), (0, &"Held".into(), &2.into()), "{end}");
    assert_eq!(stage.held(), 2);

    // A rollout that goes on is left as it is.
    stage.deploy();
    let output = stage.call(&run[..4], "media", "transcoder", &redis.url()).await;
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        code(&output) == 0 && told.contains("every running task is held; 2 tasks held, the first until "),
        "{told}"
    );
    assert_eq!(stage.held(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_is_drained_already_ends_the_run_at_once() {
    let (stage, redis) = (Stage::with(0).await, Redis::start().await);
    let deployment = stage.deployment();
    let run = ["run", "--deployment", &deployment, "--grace", "10m", "-o", "json"];
    let output = stage.call(&run, "media", "transcoder", &redis.url()).await;
    let end = said(&output).pop().unwrap();
    assert_eq!((code(&output), &end["outcome"]), (0, &"Drained".into()), "{end}");
    let output = stage.call(&["run", "--task-definition", "worker:1"], "media", "transcoder", &redis.url()).await;
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(code(&output) == 0 && told.contains("done, the deployment of worker:1 is drained"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_is_never_seen_is_no_success() {
    let (stage, redis) = (Stage::with(0).await, Redis::start().await);
    let run = ["run", "--deployment", "ecs-svc/1", "--grace", "0s", "--timeout", "4s", "-o", "json"];
    let output = stage.call(&run, "media", "transcoder", &redis.url()).await;
    let end = said(&output).pop().unwrap();
    assert_eq!((code(&output), &end["outcome"]), (3, &"TimeLimit".into()), "{end}");
}

#[rstest]
#[case(&["--deployment", "transcoder:43"], "is no id of an ECS deployment")]
#[case(&["--task-definition", "transcoder"], "is no task definition with its revision")]
#[case(&["--deployment", "ecs-svc/1", "--watch"], "cannot be used with")]
#[case(&["--deployment", "ecs-svc/1", "--until-held"], "cannot be used with")]
#[case(&["--until-held", "--wait-for-rollout"], "cannot be used with")]
#[tokio::test(flavor = "multi_thread")]
async fn what_names_no_deployment_is_refused(#[case] arguments: &[&str], #[case] words: &str) {
    let stage = Stage::with(0).await;
    let run = [&["run"], arguments].concat();
    let output = stage.call(&run, "media", "transcoder", "redis://127.0.0.1:1/0").await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(code(&output) == 2 && told.contains(words), "{told}");
}

/// A check before a deployment.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_can_be_asked_whether_the_drain_is_ready() {
    let (stage, redis) = (Stage::with(1).await, Redis::start().await);
    // No worker answers for the task, and one that starts is given this long.
    let workers = format!("{{startTimeout: 10s, celery: {{broker: {{url: '{}'}}}}}}", redis.url());
    let plan = async |arguments: &[&str]| {
        let call = stage.command(arguments, "media", "transcoder", &workers).output();
        timeout(PATIENCE, call).await.expect("it ends in time").unwrap()
    };
    wait_until("the plan is not ready", PATIENCE, async || code(&plan(&["plan", "--exit-code"]).await) == 1).await;
    let output = plan(&["plan", "--exit-code"]).await;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.starts_with("error: transcoder: task "), "{told}");
    assert_eq!(code(&plan(&["plan"]).await), 0, "to show a plan is all that was asked for");
}
