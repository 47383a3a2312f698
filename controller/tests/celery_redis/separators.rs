//! kombu's option `sep`, which joins the fields of bindings too (kombu#2023): an entry of ours with another separator than the
//! application's would stop its workers from answering anybody, and on Celery 5.3 to 5.6 from taking jobs.

use std::process::Command;

use serde_json::json;
use test_support::{Jobs, LONG, Redis, SampleApp, python_with_celery, repository, wait_until};
use worker_drain::workers::{
    Workers,
    celery::{CelerySettings, TransportOptions},
};
use worker_drain_plan::observation::FailureKind;

use crate::{
    both::{all_answer, open, settings, tasks},
    brokers::ours,
};

const VERSIONS: [&str; 2] = ["5.3", "5.7"];

fn app(redis: &Redis, version: &str, sep: Option<&str>) -> SampleApp {
    let app = SampleApp::new(redis.url()).python(python_with_celery(version));
    match sep {
        Some(sep) => app.settings(json!({"broker_transport_options": {"sep": sep}})),
        None => app,
    }
}

/// Somebody else asks this application's workers with Celery's own command, and each of them answers.
fn others_are_answered(app: &SampleApp, version: &str) -> bool {
    let mut inspect = Command::new(python_with_celery(version));
    inspect.args(["-m", "celery", "-A", "app", "inspect", "ping", "-t", "5"]);
    inspect.envs(app.environment()).current_dir(repository().join("tests/celery"));
    inspect.output().expect("Python can be run").status.success()
}

/// A job that is sent now is run.
async fn takes_jobs(app: &SampleApp) {
    let jobs = app.submit(Jobs::new(1).seconds(0.1, 0.1)).await;
    app.journal().wait_finished(&jobs).await;
}

#[tokio::test]
async fn with_the_applications_separator_everybody_is_answered() {
    for version in VERSIONS {
        let redis = Redis::start().await;
        let app = app(&redis, version, Some(":"));
        let _worker = app.worker("worker@one").start().await;
        let transport_options = TransportOptions { sep: ":".into(), ..TransportOptions::default() };
        let celery = open(&CelerySettings { transport_options, ..settings(&redis.url()) });
        all_answer(&celery, &tasks(&["one"])).await;
        assert!(others_are_answered(&app, version), "Celery {version}: while we are connected");
        takes_jobs(&app).await;
        celery.close().await;
        assert_eq!(ours(&redis), "");
    }
}

#[tokio::test]
async fn with_another_separator_nothing_is_written_and_that_is_said() {
    for version in VERSIONS {
        let redis = Redis::start().await;
        let app = app(&redis, version, Some(":"));
        let _worker = app.worker("worker@one").start().await;
        wait_until("the worker listens", LONG, async || others_are_answered(&app, version)).await;
        let celery = open(&settings(&redis.url()));
        let failure = celery.observe(&tasks(&["one"])).await.expect_err("it must not be asked");
        assert_eq!(failure.kind, FailureKind::Invalid, "{failure:?}");
        for part in ["joins the fields of bindings with \":\"", "set transportOptions.sep"] {
            assert!(failure.message.contains(part), "{failure:?}");
        }
        assert_eq!(ours(&redis), "", "Celery {version}");
        assert!(others_are_answered(&app, version), "Celery {version}: after we looked");
        takes_jobs(&app).await;
    }
}

#[tokio::test]
async fn what_is_ours_goes_when_an_application_with_another_separator_comes() {
    let redis = Redis::start().await;
    let first = app(&redis, "5.7", None);
    let _worker = first.worker("worker@one").start().await;
    let celery = open(&settings(&redis.url()));
    all_answer(&celery, &tasks(&["one"])).await;
    assert!(ours(&redis).contains("worker-drain"));

    let neighbour = app(&redis, "5.7", Some(":"));
    let _other = neighbour.worker("neighbour@elsewhere").queues(["theirs"]).start().await;
    wait_until("it is seen", LONG, async || celery.observe(&tasks(&["one"])).await.is_err()).await;
    assert_eq!(ours(&redis), "");
}
