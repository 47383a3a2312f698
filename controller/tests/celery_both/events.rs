//! What is heard of jobs that end, and what is done with it. In none of these does anybody look while it is waited: what
//! ends the wait is what was heard.

use std::num::NonZeroU32;

use serde_json::json;
use test_support::{Jobs, LONG, SampleApp, wait_until};
use tokio::time::timeout;
use worker_drain::workers::{
    Workers,
    celery::{Celery, CelerySettings, Listening},
};
use worker_drain_plan::{Awaited, Outcome, observation::WorkersView};

use super::{all_answer, ids, known_tasks, look_until, node, open, queues, settings};
use crate::{a_broker, a_broker_to_stop, is_listened_to};

/// After so many more ends, the node `worker@one` may be idle.
fn ends(number: u32) -> Awaited {
    [(node("one"), NonZeroU32::new(number).expect("one or more"))].into()
}

async fn is_heard(celery: &Celery) {
    timeout(LONG, celery.heard()).await.expect("the end of a job is heard");
}

#[tokio::test]
async fn the_end_of_a_job_is_heard_at_once() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url()).settings(json!({"worker_send_task_events": true}));
    let _worker = app.worker("worker@one").concurrency(3).start().await;
    let celery = open(&settings(&broker.url()));
    all_answer(&celery, &known_tasks(&["one"])).await;
    let jobs = app.submit(Jobs::with_ids(["a", "b", "c"]).until_told()).await;
    app.journal().wait_started(&jobs, 3).await;
    look_until("all run", &celery, &known_tasks(&["one"]), |view| {
        view.nodes.get(&node("one")).is_some_and(|answer| ids(answer.active.as_ref()).len() == 3)
    })
    .await;

    celery.listen(&ends(2)).await;
    wait_until("it listens", LONG, async || is_listened_to(&broker).await).await;
    // Only an event can tell this, and no heartbeat: a job still runs.
    app.tell(&jobs[..1]);
    app.journal().wait_finished(&jobs[..1]).await;
    app.tell(&jobs[1..2]);
    is_heard(&celery).await;
    let finished = app.journal().tally(&jobs).finished;
    assert!(finished.len() == 2 && !finished.contains("c"), "the first end is not enough: {finished:?}");
    assert_eq!(celery.note(), None);
}

#[tokio::test]
async fn without_events_of_jobs_a_heartbeat_tells_that_a_node_rests() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("worker@one").start().await;
    let celery = open(&settings(&broker.url()));
    all_answer(&celery, &known_tasks(&["one"])).await;
    let job = app.submit(Jobs::with_ids(["a"]).until_told()).await;
    app.journal().wait_started(&job, 1).await;
    // More ends than will be.
    celery.listen(&ends(9)).await;
    wait_until("it listens", LONG, async || is_listened_to(&broker).await).await;
    app.tell(&job);
    is_heard(&celery).await;
}

#[tokio::test]
async fn workers_are_told_to_send_events_and_to_stop_when_they_are_back() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let mut worker = app.worker("worker@one").concurrency(2).start().await;
    let celery = open(&CelerySettings { listening: Listening::Enable, ..settings(&broker.url()) });
    let tasks = known_tasks(&["one"]);
    let before = all_answer(&celery, &tasks).await.nodes[&node("one")].queues.clone().unwrap();
    let jobs = app.submit(Jobs::with_ids(["a", "b"]).until_told()).await;
    app.journal().wait_started(&jobs, 2).await;
    assert_eq!(celery.cancel(&[(node("one"), vec!["celery".into()])]).await, [Outcome::Done]);
    let takes_from = |wanted: &'static [&str]| {
        move |view: &WorkersView| view.nodes.get(&node("one")).is_some_and(|answer| queues(answer) == wanted)
    };
    look_until("it is cancelled", &celery, &tasks, takes_from(&[])).await;

    celery.listen(&ends(1)).await;
    wait_until("it listens", LONG, async || is_listened_to(&broker).await).await;
    wait_until("it was told", LONG, || std::future::ready(worker.process().log().contains("enabled by remote"))).await;
    app.tell(&jobs[..1]);
    is_heard(&celery).await;

    assert_eq!(celery.give_back(&[(node("one"), before)]).await, [Outcome::Done]);
    look_until("it is back", &celery, &tasks, takes_from(&["celery"])).await;
    celery.listen(&Awaited::new()).await;
    wait_until("it was told", LONG, || std::future::ready(worker.process().log().contains("disabled by remote"))).await;
}

#[tokio::test]
async fn what_an_operator_had_turned_on_stays_on() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url()).settings(json!({"worker_send_task_events": true}));
    let mut worker = app.worker("worker@one").start().await;
    let celery = open(&CelerySettings { listening: Listening::Enable, ..settings(&broker.url()) });
    let tasks = known_tasks(&["one"]);
    all_answer(&celery, &tasks).await;
    celery.listen(&ends(1)).await;
    // It takes jobs, as one does that is back.
    celery.observe(&tasks).await.unwrap();
    celery.listen(&Awaited::new()).await;
    // It answers in the order in which it was asked.
    all_answer(&celery, &tasks).await;
    assert!(!worker.process().log().contains("by remote"), "{}", worker.process().log());
}

#[tokio::test]
async fn one_who_has_lost_the_broker_listens_again() {
    let mut broker = a_broker_to_stop().await;
    let app = SampleApp::new(broker.url()).settings(json!({"worker_send_task_events": true}));
    let _worker = app.worker("worker@one").concurrency(2).start().await;
    let celery = open(&settings(&broker.url()));
    let tasks = known_tasks(&["one"]);
    all_answer(&celery, &tasks).await;
    let jobs = app.submit(Jobs::with_ids(["a", "b"]).until_told()).await;
    app.journal().wait_started(&jobs, 2).await;
    celery.listen(&ends(1)).await;
    wait_until("it listens", LONG, async || is_listened_to(&broker).await).await;

    broker.restart().await;
    look_until("looks go on", &celery, &tasks, |view| view.nodes.len() == 1).await;
    celery.listen(&ends(1)).await;
    wait_until("it listens again", LONG, async || is_listened_to(&broker).await).await;
    assert_eq!(celery.note(), None, "what passes by itself is no news");
    app.tell(&jobs[..1]);
    is_heard(&celery).await;
}
