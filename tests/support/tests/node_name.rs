//! The files in `contrib/celery` that read the id of their ECS task; and a Celery worker that is named by it, with the
//! entrypoint in docs/configuration.md and with `worker_drain_nodename.py`.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

use test_support::{LONG, Process, Redis, SampleApp, python, repository, wait_until};

const TASK: &str = "8f03e41243824aea923aca126495f665";

/// The task metadata endpoint of a container (Amazon ECS Developer Guide, "Amazon ECS task metadata endpoint version 4").
/// It refuses so many requests first, and ends with the test.
fn metadata_endpoint(mut refusals: u32) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let uri = format!("http://{}/v4/0a1b2c", listener.local_addr().unwrap());
    let task = format!(r#"{{"Cluster": "media", "TaskARN": "arn:aws:ecs:eu-west-1:111122223333:task/media/{TASK}"}}"#);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            let asks_for_the_task = request[..length].starts_with(b"GET /v4/0a1b2c/task HTTP");
            let status = if refusals > 0 { "503 Service Unavailable" } else { "200 OK" };
            refusals = refusals.saturating_sub(1);
            let body = if asks_for_the_task { &task } else { r#"{"Name": "worker"}"# };
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    uri
}

fn helper(variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(python());
    command.args(["-m", "worker_drain_nodename"]).current_dir(repository().join("contrib/celery"));
    command.env_remove("ECS_CONTAINER_METADATA_URI_V4").env_remove("WORKER_DRAIN_TASK_ID");
    command.env("PYTHONDONTWRITEBYTECODE", "1").envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn the_helper_prints_the_tasks_id() {
    let given = helper(&[("WORKER_DRAIN_TASK_ID", "laptop")]);
    assert_eq!(String::from_utf8_lossy(&given.stdout), "laptop\n");
    // The endpoint answers late, and a proxy is set that it cannot be reached by.
    let uri = metadata_endpoint(1);
    let asked = helper(&[("ECS_CONTAINER_METADATA_URI_V4", &uri), ("http_proxy", "http://127.0.0.1:1")]);
    assert_eq!(String::from_utf8_lossy(&asked.stdout), format!("{TASK}\n"));
}

#[test]
fn the_package_reads_the_tasks_id_without_a_proxy() {
    let mut command = Command::new(python());
    command.args(["-c", "from celery_worker_drain import ecs_task; print(ecs_task())"]);
    command.current_dir(repository().join("contrib/celery")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("ECS_CONTAINER_METADATA_URI_V4", metadata_endpoint(0)).env("http_proxy", "http://127.0.0.1:1");
    assert_eq!(String::from_utf8_lossy(&command.output().unwrap().stdout), format!("{TASK}\n"));
}

#[test]
fn the_helper_says_what_to_do_outside_of_ecs() {
    let no_task = metadata_endpoint(0) + "/task/container";
    for (variables, what) in [
        (vec![], "ECS_CONTAINER_METADATA_URI_V4 is not set"),
        (vec![("ECS_CONTAINER_METADATA_URI_V4", "nowhere")], "nowhere/task could not be read"),
        (vec![("ECS_CONTAINER_METADATA_URI_V4", no_task.as_str())], "names no task"),
    ] {
        let output = helper(&variables);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert!(said.contains(what) && said.contains("set WORKER_DRAIN_TASK_ID"), "{said}");
    }
}

/// The script in this page that begins with this line, indented by four spaces there.
fn script(page: &str, first_line: &str) -> String {
    let text = fs::read_to_string(repository().join(page)).unwrap();
    let lines = text.lines().map(|line| line.strip_prefix("    ").unwrap_or(""));
    let script: Vec<_> = lines.skip_while(|line| *line != first_line).take_while(|line| !line.is_empty()).collect();
    assert!(!script.is_empty(), "{page} has no script that begins with {first_line}");
    script.join("\n")
}

/// Starts the sample app's worker by this entrypoint, and waits until it says under which name it is ready.
async fn is_named_by_its_task(entrypoint: &Path, uri: &str) {
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url());
    let mut command = Command::new("sh");
    // Celery and its Python come first.
    let folder = python().parent().unwrap().display().to_string();
    let path = folder + ":" + &std::env::var("PATH").unwrap();
    command
        .arg(entrypoint)
        .args(["--pool", "solo", "--loglevel", "INFO"])
        .current_dir(repository().join("tests/celery"));
    command.envs(app.environment()).env("PATH", path).env("ECS_CONTAINER_METADATA_URI_V4", uri);
    command.env("PYTHONPATH", repository().join("contrib/celery")).env("PYTHONDONTWRITEBYTECODE", "1");
    let mut worker = Process::start("the entrypoint", &command);
    wait_until("the worker is ready", LONG, async || {
        assert!(worker.is_running(), "it ended: {}", worker.log());
        worker.log().contains(&format!("worker@{TASK} ready."))
    })
    .await;
}

#[tokio::test]
async fn a_worker_is_named_by_its_task_by_what_the_page_says() {
    let (folder, uri) = (tempfile::tempdir().unwrap(), metadata_endpoint(0));
    let entrypoint = folder.path().join("entrypoint.sh");
    fs::write(&entrypoint, script("docs/configuration.md", "#!/bin/sh")).unwrap();
    is_named_by_its_task(&entrypoint, &uri).await;
    let with_helper = r#"exec celery --app app worker --hostname "worker@$(python -m worker_drain_nodename)" "$@""#;
    fs::write(&entrypoint, with_helper).unwrap();
    is_named_by_its_task(&entrypoint, &uri).await;
}
