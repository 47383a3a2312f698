//! Bad input that only the outside can tell: a service that does not exist, a wrong password, nobody there. Each is one
//! clear message and exit code 1, and nothing is changed outside.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{collections::BTreeMap, fs, process::Output, time::Duration};

use ecs_emulator::{
    Config, Emulator,
    model::{CallFault, ContainerDefinition, CreateService, Faults},
};
use rstest::rstest;
use serde_json::Map;
use tempfile::TempDir;
use test_support::{Redis, RedisOptions, free_port};
use tokio::{process::Command, time::timeout};

/// Stands in for every password.
const SECRET: &str = "hunter2";

/// A bound for what should take seconds; a busy machine may need much longer.
const PATIENCE: Duration = Duration::from_mins(2);

/// An emulated ECS with one service of one task, which is only pretended.
struct Stage {
    emulator: Emulator,
    folder: TempDir,
    environment: BTreeMap<String, String>,
}

impl Stage {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let emulator = Emulator::start(Config::fast(folder.path().join("logs"))).await.unwrap();
        let now = emulator.now();
        emulator.with_world(|world| {
            world.create_cluster("media", now).unwrap();
            let containers = vec![ContainerDefinition::new("worker", &[])];
            world.register_task_definition("worker", containers, Map::new(), now).unwrap();
            let request = CreateService {
                cluster: "media".to_owned(),
                name: "transcoder".to_owned(),
                task_definition: "worker".to_owned(),
                desired: 1,
                ..CreateService::default()
            };
            world.create_service(&request, now).unwrap();
        });
        let environment = [
            ("AWS_ENDPOINT_URL_ECS", emulator.endpoint()),
            ("AWS_ACCESS_KEY_ID", "emulated"),
            ("AWS_SECRET_ACCESS_KEY", "emulated"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
            ("AWS_CONFIG_FILE", "/nonexistent"),
            ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { emulator, folder, environment }
    }

    /// Runs the command on this cluster, service and broker.
    async fn call(&self, command: &[&str], cluster: &str, service: &str, broker: &str) -> Output {
        let manifest = format!(
            "apiVersion: workerdrain.io/v1alpha1
kind: WorkerDrain
metadata: {{name: transcoder}}
spec:
  fleet:
    ecs: {{cluster: {cluster}, service: {service}, region: us-east-1}}
  workers:
    celery:
      broker: {{urlFrom: {{secretKeyRef: {{name: broker, key: url}}}}}}
"
        );
        let file = self.folder.path().join("drain.yaml");
        fs::write(&file, manifest).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_worker-drain"))
            .args(command)
            .arg("-f")
            .arg(file)
            .args(["--secret", "broker/url=env:BROKER_URL", "--state"])
            .arg(self.folder.path().join("state/"))
            .env_clear()
            .env("BROKER_URL", broker)
            .envs(&self.environment)
            .kill_on_drop(true)
            .output();
        timeout(PATIENCE, output).await.expect("it ends in time").unwrap()
    }

    fn refuse(&self, error: &str) {
        let fault = CallFault {
            error: Some(error.to_owned()),
            message: "for a test".to_owned(),
            times: None,
            after_effect: false,
            delay: Duration::ZERO,
        };
        self.emulator.set_faults(Faults { fail: [("*".to_owned(), fault)].into(), ..Faults::default() });
    }

    /// Nothing was changed outside.
    fn assert_untouched(&self) {
        let held = self.emulator.with_world(|world| {
            let now = world.now();
            world.state().tasks.values().filter(|task| task.is_protected(now)).count()
        });
        assert_eq!(held, 0, "a task was held");
    }
}

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
    stage.assert_untouched();
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
    stage.assert_untouched();
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_there(#[values(PLAN, RUN)] command: &[&str]) {
    let stage = Stage::start().await;
    let port = free_port();
    let output = stage.call(command, "media", "transcoder", &format!("redis://:{SECRET}@127.0.0.1:{port}/0")).await;
    assert_refused(&output, &[&port.to_string()]);
    stage.assert_untouched();
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn ecs_that_is_not_there(#[values(PLAN, RUN)] command: &[&str]) {
    let (mut stage, redis) = (Stage::start().await, Redis::start().await);
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    stage.environment.insert("AWS_ENDPOINT_URL_ECS".into(), endpoint);
    assert_refused(&stage.call(command, "media", "transcoder", &redis.url()).await, &["media/transcoder"]);
}
