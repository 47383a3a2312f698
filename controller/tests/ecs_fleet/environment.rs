//! Where Regions, credentials and endpoints are found.

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    sync::Arc,
};

use tokio::time::timeout;
use worker_drain::{
    clock::SystemClock,
    fleet::{
        Fleet,
        ecs::{EcsFleet, EcsSettings, Limiters},
    },
};

use super::{PATIENCE, Stage, settings};

/// What [`nothing_is_found_in_an_empty_environment`] prints when it is the process that looks.
const SAYS: &str = "the look said: ";

/// Set in a process that is to look and to say what came of it: a test cannot set the environment, which is the whole
/// process's.
const LOOK: &str = "TEST_LOOK";

#[tokio::test]
async fn nothing_is_found_in_an_empty_environment() {
    if std::env::var_os(LOOK).is_none() {
        let nothing = in_environment(&[]).await;
        assert!(nothing.contains("Invalid") && nothing.contains("no AWS Region"), "{nothing}");
        return;
    }
    let role_arn = std::env::var("TEST_ROLE").ok();
    let profile = std::env::var("TEST_PROFILE").ok();
    let settings = EcsSettings { role_arn, profile, ..settings() };
    let look = match EcsFleet::connect(settings, &Limiters::default(), Arc::new(SystemClock)).await {
        Ok(fleet) => fleet.observe(&BTreeSet::new()).await.map(|look| look.view.name),
        Err(failure) => Err(failure),
    };
    println!("\n{SAYS}{look:?}");
}

/// What a fleet says that finds its configuration in this environment and no other.
async fn in_environment(variables: &[(&str, &str)]) -> String {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "environment::nothing_is_found_in_an_empty_environment", "--nocapture"])
        .env_clear()
        .env(LOOK, "1")
        .env("HOME", "/nonexistent")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(variables.iter().copied())
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || child.output().unwrap());
    let text = String::from_utf8(timeout(PATIENCE, output).await.unwrap().unwrap().stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix(SAYS)).unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[tokio::test]
async fn the_configuration_is_found_as_the_aws_command_line_finds_it() {
    let stage = Stage::with(1).await;
    let keys = [("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let region = ("AWS_REGION", "us-east-1");
    let endpoint = ("AWS_ENDPOINT_URL_ECS", stage.emulator.endpoint());
    let for_all = ("AWS_ENDPOINT_URL", stage.emulator.endpoint());
    let seen = r#"Ok("media/transcoder")"#;
    assert_eq!(in_environment(&[keys[0], keys[1], region, endpoint]).await, seen);
    assert_eq!(in_environment(&[keys[0], keys[1], region, for_all]).await, seen);

    let folder = tempfile::tempdir().unwrap();
    let (shared, secret) = (folder.path().join("config"), folder.path().join("credentials"));
    std::fs::write(&shared, format!("[profile prod]\nregion = us-east-1\nendpoint_url = {}\n", endpoint.1)).unwrap();
    std::fs::write(&secret, "[prod]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret\n").unwrap();
    let files =
        [("AWS_CONFIG_FILE", shared.to_str().unwrap()), ("AWS_SHARED_CREDENTIALS_FILE", secret.to_str().unwrap())];
    assert_eq!(in_environment(&[files[0], files[1], ("TEST_PROFILE", "prod")]).await, seen);
    assert_eq!(in_environment(&[files[0], files[1], ("AWS_PROFILE", "prod")]).await, seen);

    let none = in_environment(&[region, endpoint]).await;
    assert!(none.contains("Denied") && none.contains("no AWS credentials for media/transcoder"), "{none}");
    let wrong = in_environment(&[region, endpoint, files[0], files[1], ("TEST_PROFILE", "staging")]).await;
    assert!(wrong.contains("Denied") && wrong.contains("staging"), "{wrong}");
    let nowhere = in_environment(&[keys[0], keys[1], endpoint]).await;
    assert!(nowhere.contains("Invalid") && nowhere.contains("no AWS Region"), "{nowhere}");
    stage.emulator.stop().await;
}

#[tokio::test]
async fn a_role_that_cannot_be_assumed_is_named() {
    let stage = Stage::with(1).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let role = "arn:aws:iam::123456789012:role/drain";
    let with_sts_at = async |endpoint: &str| {
        let variables = [
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "us-east-1"),
            ("TEST_ROLE", role),
            ("AWS_ENDPOINT_URL_ECS", stage.emulator.endpoint()),
            ("AWS_ENDPOINT_URL_STS", endpoint),
        ];
        in_environment(&variables).await
    };
    // The emulator is no STS, so it refuses.
    let refused = with_sts_at(stage.emulator.endpoint()).await;
    assert!(refused.contains("Denied") && refused.contains(role), "{refused}");
    let unreachable = with_sts_at(&nobody).await;
    assert!(unreachable.contains("Unreachable") && unreachable.contains("credentials"), "{unreachable}");
    stage.emulator.stop().await;
}
