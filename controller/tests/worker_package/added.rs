//! How the package is built and added to a worker, and what a worker that has it tells of itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use test_support::{Jobs, LONG, Process, Redis, SampleApp, python, python_with_celery, wait_until};

use crate::{package, told, told_until, with_package};

const TASK: &str = "8f03e41243824aea923aca126495f665";

/// A copy of the package's folder, so that what a build leaves behind is not left in the source.
fn copy_of_the_package(folder: &Path) -> PathBuf {
    let copy = folder.join("source");
    // What links lead to is copied: the licence is the project's.
    let copied = Command::new("cp").args(["--recursive", "--dereference"]).arg(package()).arg(&copy).status().unwrap();
    assert!(copied.success());
    copy
}

/// Builds by the backend that pyproject.toml names, from what is installed; returns the file's path.
fn build(what: &str, source: &Path) -> PathBuf {
    let code = format!("from setuptools import build_meta as backend; print('built', backend.{what}('dist'))");
    let output = Command::new(python()).args(["-c", &code]).current_dir(source).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let built = said.lines().find_map(|line| line.strip_prefix("built "));
    let complaint = String::from_utf8_lossy(&output.stderr);
    source.join("dist").join(built.unwrap_or_else(|| panic!("{what} failed: {said}{complaint}")))
}

fn pip_install(what: &Path, target: &Path) {
    let pip = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target"];
    let output = Command::new(python()).args(pip).arg(target).arg(what).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The paths of all files in a folder but what Python compiles, sorted.
fn files(folder: &Path) -> Vec<String> {
    let list = Command::new("find").args([".", "-type", "f", "-not", "-name", "*.pyc"]).current_dir(folder).output();
    let text = String::from_utf8(list.unwrap().stdout).unwrap();
    let mut paths: Vec<String> = text.lines().map(|line| line.trim_start_matches("./").to_owned()).collect();
    paths.sort();
    paths
}

/// What a wheel and a source distribution both install.
fn is_whole(installed: &Path) {
    let all = files(installed);
    let code: Vec<&str> =
        all.iter().filter(|path| Path::new(path).extension() == Some("py".as_ref())).map(String::as_str).collect();
    let modules = [
        "celery_worker_drain/__init__.py",
        "celery_worker_drain/pools.py",
        "worker_drain_http.py",
        "worker_drain_nodename.py",
    ];
    assert_eq!(code, modules);
    assert!(all.iter().any(|path| path.ends_with("licenses/LICENSE")), "the licence goes with it: {all:?}");
    let metadata = all.iter().find(|path| path.ends_with(".dist-info/METADATA")).unwrap();
    let metadata = fs::read_to_string(installed.join(metadata)).unwrap();
    for line in ["Name: celery-worker-drain", "Requires-Python: >=3.8", "Requires-Dist: celery<6,>=5.3"] {
        assert!(metadata.contains(line), "{line} is not in {metadata}");
    }
}

/// Starts a worker of the sample app with these further arguments.
async fn worker_with(app: &SampleApp, node: &str, arguments: &[&str]) -> Process {
    let line = app.worker_command();
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]).args(["--loglevel", "INFO", "--pool", "solo"]).args(arguments);
    command.envs(app.environment()).env("WORKER_NODE_NAME", node);
    let mut process = Process::start(node, &command);
    wait_until("it is ready", LONG, async || {
        assert!(process.is_running(), "{node} ended: {}", process.log());
        process.log().contains(" ready.")
    })
    .await;
    process
}

#[tokio::test]
async fn it_is_built_and_added_in_each_way_that_the_page_names() {
    let (redis, folder) = (Redis::start().await, tempfile::tempdir().unwrap());
    let source = copy_of_the_package(folder.path());
    let (wheel, sdist) = (build("build_wheel", &source), build("build_sdist", &source));
    let [from_wheel, from_sdist] = ["wheel", "sdist"].map(|name| folder.path().join(name));
    pip_install(&wheel, &from_wheel);
    pip_install(&sdist, &from_sdist);
    is_whole(&from_wheel);
    is_whole(&from_sdist);

    let app = |version: &str, settings: Value| {
        let app = SampleApp::new(redis.url()).settings(settings).python(python_with_celery(version));
        app.variable("PYTHONPATH", from_wheel.display().to_string())
    };
    let imports = app("5.5", json!({"imports": ["celery_worker_drain"]}));
    let include = app("5.7", json!({"include": ["celery_worker_drain"]}));
    let (option, without) = (app("5.3", json!({})), app("5.6", json!({})));
    let _workers = [
        worker_with(&imports, "worker@imports", &[]).await,
        worker_with(&include, "worker@include", &[]).await,
        worker_with(&option, "worker@option", &["-I", "celery_worker_drain"]).await,
        worker_with(&without, "worker@without", &[]).await,
    ];
    let nodes = ["imports", "include", "option", "without"].map(|name| format!("worker@{name}"));
    let told = told(&include, &nodes[..3]).await;
    assert_eq!(told.len(), 3, "{told:?}");
    // How worker-drain learns who has it, without an error in the log of those that do not.
    let stats = include.ask("stats", &nodes, json!({})).await;
    assert_eq!(stats["worker@without"].get("worker_drain"), None);
    for (node, told) in &told {
        let key = stats[node]["worker_drain"].as_object().unwrap();
        assert_eq!(key.keys().collect::<Vec<_>>(), ["celery", "contract", "instance", "task", "version"]);
        for (name, value) in key {
            assert_eq!(told.0[name], *value, "{node}: {name}");
        }
        assert_eq!((&told.0["contract"], &told.0["version"]), (&json!(1), &json!("0.1.0")));
    }
}

#[tokio::test]
async fn an_answer_has_every_member_and_no_argument_of_a_job() {
    let redis = Redis::start().await;
    let uri = format!("http://127.0.0.1:1/v4/{TASK}-1234567890");
    let app = with_package(redis.url(), &[], &json!({})).variable("ECS_CONTAINER_METADATA_URI_V4", uri);
    let worker = app.worker("worker@one").queues(["slow", "fast"]).prefetch(9).start().await;
    // The id is the first argument of each job, so ids of Celery's own stand in for it here.
    let secret = "a-secret-argument";
    let jobs = app.submit(Jobs::with_ids([secret, "b"]).queue("slow").until_told().unnamed()).await;
    let _scheduled = app.submit(Jobs::with_ids([secret]).queue("fast").countdown(3600.0).unnamed()).await;
    let counts = ["active", "reserved", "scheduled"];
    let answer = told_until(&app, "it has work of each kind", |told| told.counts(counts) == [1, 1, 1]).await.0;
    assert!(!answer.to_string().contains(secret), "{answer}");
    let members = [
        "active",
        "celery",
        "connection_losses",
        "contract",
        "counts",
        "instance",
        "limited",
        "own_queues",
        "pid",
        "pool",
        "queues",
        "reserved",
        "scheduled",
        "started_at",
        "task",
        "version",
    ];
    assert_eq!(answer.as_object().unwrap().keys().collect::<Vec<_>>(), members);
    assert_eq!(answer["task"], TASK);
    assert_eq!((&answer["pool"], &answer["celery"]), (&json!("prefork"), &json!("5.7.0")));
    let slow = json!({"name": "slow", "routing_key": "slow", "exchange": {"name": "slow", "type": "direct"}, "auto_delete": false});
    assert!(answer["queues"].as_array().unwrap().contains(&slow), "{answer}");
    let mut own: Vec<_> = answer["own_queues"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    own.sort_unstable();
    assert_eq!(own, ["fast", "slow"]);
    let active = answer["active"][0].as_object().unwrap();
    assert_eq!(active.keys().collect::<Vec<_>>(), ["id", "name", "time_start"]);
    assert_eq!(active["name"], "sample.work");
    assert!(active["time_start"].as_f64() > answer["started_at"].as_f64());

    // What it was started with stays what it was started with.
    app.ask("cancel_consumer", &["worker@one".into()], json!({"queue": "slow"})).await;
    app.ask("add_consumer", &["worker@one".into()], json!({"queue": "another"})).await;
    let changed = |told: &crate::Told| {
        let mut queues: Vec<_> =
            told.0["queues"].as_array().unwrap().iter().map(|queue| queue["name"].clone()).collect();
        queues.sort_by_key(ToString::to_string);
        queues == ["another", "fast"]
    };
    let later = told_until(&app, "it consumes from others", changed).await.0;
    assert_eq!(later["own_queues"], answer["own_queues"]);
    assert_eq!(later["instance"], answer["instance"]);
    app.tell(&jobs);
    drop(worker);
    let _again = app.worker("worker@one").start().await;
    let again = told_until(&app, "it answers", |_| true).await.0;
    assert_ne!(again["instance"], answer["instance"], "each start is another instance");
}

/// An answer stays small, however many jobs the worker has.
#[tokio::test]
async fn lists_are_cut_and_counts_are_not() {
    let redis = Redis::start().await;
    let app = with_package(redis.url(), &[], &json!({}));
    let _worker = app.worker("worker@one").start().await;
    app.submit(Jobs::new(150).countdown(3600.0)).await;
    let told = told_until(&app, "it holds all", |told| told.count("scheduled") == Some(150)).await;
    assert_eq!(told.ids("scheduled").len(), 100);
    assert!(told.0.to_string().len() < 20_000);
}
