//! Bad input that only the outside can tell: a service that does not exist, a wrong password, nobody there. Each is one
//! clear message and exit code 1, and nothing is changed outside.

use std::process::Output;

use ecs_emulator::model::{Strategy, UpdateService};
use rstest::rstest;
use test_support::{Redis, RedisOptions, free_port};

use crate::stage::Stage;

/// Stands in for every password.
const SECRET: &str = "hunter2";

/// One message on standard error, with these words, and no secret anywhere.
fn assert_refused(output: &Output, words: &[&str]) {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{stdout}{stderr}");
    assert!(!stdout.contains(SECRET) && !stderr.contains(SECRET), "the secret was shown: {stdout}{stderr}");
    assert!(stderr.starts_with("error: transcoder: ") && stderr.trim_end().lines().count() == 1, "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no {word:?} in: {stderr}");
    }
}

const PLAN: &[&str] = &["plan"];
const RUN: &[&str] = &["run", "--connect-timeout", "2s"];

#[rstest]
#[case::cluster("nowhere", "transcoder", &["nowhere"])]
#[case::service("media", "nobody", &["media", "nobody"])]
#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_named(
    #[values(PLAN, RUN)] command: &[&str],
    #[case] cluster: &str,
    #[case] service: &str,
    #[case] words: &[&str],
) {
    let (stage, redis) = (Stage::start().await, Redis::start().await);
    assert_refused(&stage.call(command, cluster, service, &redis.url()).await, words);
    assert_eq!(stage.held(), 0, "a task was held");
}

/// Before anything is done: not even a hold is set.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_strategy_with_a_bake_time(
    #[values(PLAN, RUN)] command: &[&str],
    #[values(Strategy::BlueGreen, Strategy::Linear, Strategy::Canary)] strategy: Strategy,
) {
    let (stage, redis) = (Stage::start().await, Redis::start().await);
    let request = UpdateService {
        cluster: "media".to_owned(),
        service: "transcoder".to_owned(),
        strategy: Some(strategy),
        bake_minutes: Some(30),
        ..UpdateService::default()
    };
    let now = stage.emulator.now();
    stage.emulator.with_world(|world| world.update_service(&request, now).unwrap());
    let output = stage.call(command, "media", "transcoder", &redis.url()).await;
    assert_refused(&output, &[strategy.as_str(), "strategy=ROLLING"]);
    assert_eq!(stage.held(), 0, "a task was held");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn no_credentials(#[values(PLAN, RUN)] command: &[&str]) {
    let (mut stage, redis) = (Stage::start().await, Redis::start().await);
    stage.environment.retain(|name, _| !name.contains("KEY"));
    assert_refused(&stage.call(command, "media", "transcoder", &redis.url()).await, &["credentials"]);
}

#[rstest]
#[case::not_allowed("AccessDeniedException", "docs/iam.md")]
#[case::expired("ExpiredTokenException", "expired")]
#[tokio::test(flavor = "multi_thread")]
async fn aws_does_not_let_us_in(#[values(PLAN, RUN)] command: &[&str], #[case] error: &str, #[case] words: &str) {
    let (stage, redis) = (Stage::start().await, Redis::start().await);
    stage.refuse(error);
    assert_refused(&stage.call(command, "media", "transcoder", &redis.url()).await, &["media/transcoder", words]);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password(#[values(PLAN, RUN)] command: &[&str], #[values("wrong", "")] prefix: &str) {
    let stage = Stage::start().await;
    let redis = Redis::start_with(RedisOptions { password: Some("right".into()), ..RedisOptions::default() }).await;
    let credentials = if prefix.is_empty() { String::new() } else { format!(":{prefix}{SECRET}@") };
    let url = format!("redis://{credentials}127.0.0.1:{}/0", redis.port());
    assert_refused(&stage.call(command, "media", "transcoder", &url).await, &["password"]);
    assert_eq!(stage.held(), 0, "a task was held");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_there(#[values(PLAN, RUN)] command: &[&str]) {
    let stage = Stage::start().await;
    let port = free_port();
    let output = stage.call(command, "media", "transcoder", &format!("redis://:{SECRET}@127.0.0.1:{port}/0")).await;
    assert_refused(&output, &[&port.to_string()]);
    assert_eq!(stage.held(), 0, "a task was held");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn ecs_that_is_not_there(#[values(PLAN, RUN)] command: &[&str]) {
    let (mut stage, redis) = (Stage::start().await, Redis::start().await);
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    stage.environment.insert("AWS_ENDPOINT_URL_ECS".into(), endpoint);
    assert_refused(&stage.call(command, "media", "transcoder", &redis.url()).await, &["media/transcoder"]);
}
