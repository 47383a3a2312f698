//! When a broker goes, and comes back.

use std::time::Duration;

use test_support::{Jobs, LONG, SampleApp};
use tokio::time::{Instant, sleep};
use worker_drain::workers::{Workers, celery::CelerySettings};
use worker_drain_plan::{
    Outcome,
    observation::{FailureKind, WorkersView},
};

use super::{known_tasks, look_until, node, open, patient, settings};
use crate::a_broker_to_stop;

#[tokio::test]
async fn a_broker_that_restarts_between_looks_costs_nothing() {
    let mut broker = a_broker_to_stop().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("worker@one").start().await;
    let celery = open(&settings(&broker.url()));
    let tasks = known_tasks(&["one"]);
    look_until("it answers", &celery, &tasks, |view| view.nodes.len() == 1).await;

    broker.restart().await;
    // The worker needs some seconds to come back; we do not.
    celery.observe(&tasks).await.expect("we connect again by ourselves");
    look_until("it answers again", &celery, &tasks, |view| view.nodes.len() == 1).await;
}

#[tokio::test]
async fn a_broker_that_dies_in_a_look_fails_that_look() {
    let mut broker = a_broker_to_stop().await;
    let app = SampleApp::new(broker.url());
    let mut worker = app.worker("worker@one").start().await;
    let celery = open(&settings(&broker.url()));
    let tasks = known_tasks(&["one"]);
    look_until("it answers", &celery, &tasks, |view| view.nodes.len() == 1).await;

    let patient = patient(&broker.url());
    // A frozen worker keeps us waiting; an empty answer would read as "nobody is there".
    worker.freeze();
    let (view, outcomes, ()) = tokio::join!(
        patient.observe(&tasks),
        async { patient.cancel(&[(node("one"), vec!["celery".into()])]).await },
        async {
            sleep(Duration::from_millis(500)).await;
            broker.kill();
        }
    );
    assert_eq!(view.unwrap_err().kind, FailureKind::Unreachable);
    assert!(matches!(&outcomes[..], [Outcome::Failed(_)]), "{outcomes:?}");

    broker.restart().await;
    worker.thaw();
    look_until("it answers again", &celery, &tasks, |view| view.nodes.len() == 1).await;
}

#[tokio::test]
async fn a_frozen_broker_is_noticed_in_bounded_time() {
    let mut broker = a_broker_to_stop().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("worker@one").start().await;
    let celery = open(&CelerySettings { operation_bound: Duration::from_millis(500), ..settings(&broker.url()) });
    let tasks = known_tasks(&["one"]);
    look_until("it answers", &celery, &tasks, |view| view.nodes.len() == 1).await;

    broker.pause();
    let look = tokio::time::timeout(LONG, celery.observe(&tasks)).await.expect("a look is bounded");
    assert_eq!(look.unwrap_err().kind, FailureKind::Unreachable);
    broker.resume();
    look_until("it answers again", &celery, &tasks, |view| view.nodes.len() == 1).await;
}

#[tokio::test]
async fn a_broker_that_is_away_for_half_a_minute_in_mid_drain_costs_nothing_but_time() {
    let mut broker = a_broker_to_stop().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("worker@one").start().await;
    let celery = open(&CelerySettings { operation_bound: Duration::from_secs(1), ..settings(&broker.url()) });
    let tasks = known_tasks(&["one"]);
    let before = look_until("it answers", &celery, &tasks, |view| view.nodes.contains_key(&node("one"))).await;
    let before = before.nodes[&node("one")].queues.clone().expect("it answered");
    let job = app.submit(Jobs::with_ids(["long"]).until_told()).await;
    app.journal().wait_started(&job, 1).await;
    celery.cancel(&[(node("one"), vec!["celery".into()])]).await;
    let is_cancelled = |view: &WorkersView| {
        view.nodes.get(&node("one")).is_some_and(|answer| answer.queues == Some(vec![]) && answer.active.is_some())
    };
    look_until("it is cancelled", &celery, &tasks, is_cancelled).await;

    broker.stop().await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(30) {
        let failure = celery.observe(&tasks).await.expect_err("nobody is there");
        assert_eq!(failure.kind, FailureKind::Unreachable, "{failure:?}");
        sleep(Duration::from_secs(1)).await;
    }
    // Its job is not troubled by it.
    app.tell(&job);
    app.journal().wait_finished(&job).await;

    broker.restart().await;
    let view = look_until("it is back, and cancelled", &celery, &tasks, is_cancelled).await;
    assert_eq!(view.nodes[&node("one")].active, Some(vec![]));
    celery.give_back(&[(node("one"), before)]).await;
    let jobs = app.submit(Jobs::new(1).seconds(0.0, 0.0)).await;
    app.journal().wait_finished(&jobs).await;
}
