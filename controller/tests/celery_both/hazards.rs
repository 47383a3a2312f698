//! What Celery does that a drain must not be taken in by, seen on real workers. docs/hazards.md lists all of them.

use jiff::Timestamp;
use test_support::{Jobs, LONG, SampleApp, Signal, python_with_celery};
use tokio::time::timeout;
use worker_drain::{
    clock::SystemClock,
    workers::{
        Workers,
        celery::{
            Broker, Transport,
            pidbox::{Method, Request, parse_reply},
        },
    },
};
use worker_drain_plan::{Outcome, QueueName, observation::WorkersView};

use super::{all_answer, consumes, give_back_until, jobs, known_tasks, look_until, node, open, settings};
use crate::{a_broker, cut_connections};

#[tokio::test]
async fn a_cancel_of_a_queue_that_never_was_is_said_to_be_done() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("worker@one").start().await;
    let (celery, tasks) = (open(&settings(&broker.url())), known_tasks(&["one"]));
    all_answer(&celery, &tasks).await;
    for _ in 0..2 {
        assert_eq!(celery.cancel(&[(node("one"), vec!["never-was".into()])]).await, [Outcome::Done]);
    }
    look_until("what was read back is what counts", &celery, &tasks, |view| consumes(view, "one", &["celery"])).await;
}

/// Celery sends a time after which a request is of no use, and its workers do not look at it.
#[tokio::test]
async fn a_request_that_has_expired_is_carried_out_all_the_same() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("worker@one").start().await;
    let settings = settings(&broker.url());
    let (celery, tasks) = (open(&settings), known_tasks(&["one"]));
    all_answer(&celery, &tasks).await;

    let transport = Broker::open(&settings, std::sync::Arc::new(SystemClock)).expect("the settings are fine");
    let long_ago = Timestamp::from_second(1).expect("it is a time");
    let order = Request::new(Method::CancelConsumer("celery".into()), node("one").into(), long_ago);
    let mut sent = transport.publish(&[order]).await.expect("the broker is there");
    let reply =
        timeout(LONG, sent.replies.next()).await.expect("it answers").expect("it is connected").expect("a reply");
    let answer = parse_reply(&reply.body).expect("it is one").answer.expect("it is no refusal");
    assert_eq!(answer.get(), r#"{"ok": "no longer consuming from celery"}"#);
    look_until("it was done", &celery, &tasks, |view| consumes(view, "one", &[])).await;
}

/// A frozen worker finds its orders waiting when it goes on. And in what order it carries them out is not certain: they
/// stand in a set (kombu's `Hub._ready`, Celery's `call_soon`). So only what is read back counts, and is ordered again.
#[tokio::test]
async fn a_frozen_worker_carries_out_late_what_it_was_told_and_in_any_order() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let mut worker = app.worker("worker@one").queues(["slow", "fast"]).start().await;
    let impatient = worker_drain::workers::celery::CelerySettings {
        reply_bound: std::time::Duration::from_millis(500),
        ..settings(&broker.url())
    };
    let (celery, tasks) = (open(&impatient), known_tasks(&["one"]));
    let is_fresh = |view: &WorkersView| consumes(view, "one", &["fast", "slow"]);
    let view = look_until("it answers", &celery, &tasks, is_fresh).await;
    let slow = view.nodes[&node("one")].queues.iter().flatten().find(|queue| queue.name.as_str() == "slow").cloned();
    let slow: Vec<_> = slow.into_iter().collect();

    worker.freeze();
    let both: Vec<QueueName> = vec!["slow".into(), "fast".into()];
    assert_eq!(celery.cancel(&[(node("one"), both)]).await, [Outcome::Done], "no more is known than that it was sent");
    assert_eq!(celery.give_back(&[(node("one"), slow.clone())]).await, [Outcome::Done]);
    worker.thaw();
    let either = |view: &WorkersView| consumes(view, "one", &["slow"]) || consumes(view, "one", &[]);
    look_until("what it was told last may not be done last", &celery, &tasks, either).await;
    let is_back = |view: &WorkersView| consumes(view, "one", &["slow"]);
    give_back_until("told again, it is done", &celery, &tasks, &[(node("one"), slow)], is_back).await;
}

#[tokio::test]
async fn a_cancel_outlives_a_reconnect_and_silence_meanwhile_is_not_idleness() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("worker@one").queues(["slow", "fast"]).start().await;
    let (celery, tasks) = (open(&settings(&broker.url())), known_tasks(&["one"]));
    all_answer(&celery, &tasks).await;
    celery.cancel(&[(node("one"), vec!["slow".into(), "fast".into()])]).await;
    look_until("it is cancelled", &celery, &tasks, |view| consumes(view, "one", &[])).await;

    cut_connections(&broker).await;
    // Until it is back it is missing, or the look fails; a node that answers has read its own state.
    look_until("it is back, and cancelled", &celery, &tasks, |view| consumes(view, "one", &[])).await;
}

#[tokio::test]
async fn a_restarted_worker_consumes_everything_again() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let mut worker = app.worker("worker@one").start().await;
    let (celery, tasks) = (open(&settings(&broker.url())), known_tasks(&["one"]));
    all_answer(&celery, &tasks).await;
    celery.cancel(&[(node("one"), vec!["celery".into()])]).await;
    look_until("it is cancelled", &celery, &tasks, |view| consumes(view, "one", &[])).await;

    worker.process().signal(Signal::TERM);
    worker.process().ended(LONG).await;
    let _again = app.worker("worker@one").start().await;
    look_until("it consumes again", &celery, &tasks, |view| consumes(view, "one", &["celery"])).await;
    celery.cancel(&[(node("one"), vec!["celery".into()])]).await;
    look_until("it is cancelled again", &celery, &tasks, |view| consumes(view, "one", &[])).await;
}

/// celery#10352: until 5.6 a queue that was added is gone after a reconnect, silently. So an undo is looked at again.
#[tokio::test]
async fn an_older_celery_may_forget_what_was_given_back_and_gets_it_again() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url()).python(python_with_celery("5.5"));
    let _worker = app.worker("worker@one").start().await;
    let (celery, tasks) = (open(&settings(&broker.url())), known_tasks(&["one"]));
    let view = look_until("it answers", &celery, &tasks, |view| consumes(view, "one", &["celery"])).await;
    let before = view.nodes[&node("one")].queues.clone().expect("it was seen");
    celery.cancel(&[(node("one"), vec!["celery".into()])]).await;
    look_until("it is cancelled", &celery, &tasks, |view| consumes(view, "one", &[])).await;
    celery.give_back(&[(node("one"), before.clone())]).await;
    look_until("it is back", &celery, &tasks, |view| consumes(view, "one", &["celery"])).await;

    cut_connections(&broker).await;
    look_until("it is forgotten", &celery, &tasks, |view| consumes(view, "one", &[])).await;
    celery.give_back(&[(node("one"), before)]).await;
    look_until("it is back again", &celery, &tasks, |view| consumes(view, "one", &["celery"])).await;
}

/// So that ECS's own SIGTERM after a permit, or after a hold that was lost, loses nothing but what runs.
#[tokio::test]
async fn a_worker_that_is_stopped_gives_back_what_waits_in_it() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let mut first = app.worker("worker@one").prefetch(3).start().await;
    let (celery, one) = (open(&settings(&broker.url())), known_tasks(&["one"]));
    all_answer(&celery, &one).await;
    let later = app.submit(Jobs::with_ids(["later"]).countdown(3600.0)).await;
    let jobs = app.submit(Jobs::with_ids(["a", "b", "c"]).until_told()).await;
    look_until("one runs, and the rest waits in it", &celery, &one, |view| {
        view.nodes.get(&node("one")).is_some_and(|answer| {
            let count = |jobs: Option<&Vec<_>>| jobs.map_or(0, Vec::len);
            let counts = [&answer.active, &answer.reserved, &answer.scheduled].map(|jobs| count(jobs.as_ref()));
            counts == [1, 2, 1]
        })
    })
    .await;

    first.process().signal(Signal::TERM);
    app.tell(&jobs[..1]);
    first.process().ended(LONG).await;
    assert_eq!(app.journal().tally(&jobs).started.len(), 1, "it began nothing new");
    app.tell(&jobs);
    let _second = app.worker("worker@two").start().await;
    app.journal().wait_finished(&jobs).await;
    assert!(app.journal().tally(&jobs).run_twice.is_empty());
    look_until("the other one has what is for later", &celery, &known_tasks(&["two"]), |view| {
        view.nodes.get(&node("two")).is_some_and(|answer| answer.scheduled.as_ref().is_some_and(|jobs| jobs.len() == 1))
    })
    .await;
    assert!(app.journal().tally(&later).started.is_empty());
}

/// Why idleness is proven at all: what runs is acknowledged already, and nobody runs it again.
#[tokio::test]
async fn a_worker_that_is_killed_loses_what_it_runs() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let mut first = app.worker("worker@one").start().await;
    let lost = app.submit(Jobs::with_ids(["lost"]).until_told()).await;
    app.journal().wait_started(&lost, 1).await;
    first.kill();
    app.tell(&lost);
    let _second = app.worker("worker@two").start().await;
    // In the same queue after it: when these are done, it is not coming.
    let others = app.submit(Jobs::new(3).seconds(0.0, 0.0)).await;
    app.journal().wait_finished(&others).await;
    let tally = app.journal().tally(&lost);
    assert!(tally.finished.is_empty() && tally.run_twice.is_empty(), "{tally:?}");
}

/// Old reports have it that a cancel in the midst of deliveries loses or doubles them (celery#2953, #1773, #2564).
#[tokio::test]
async fn jobs_that_arrive_while_a_cancel_does_are_neither_lost_nor_doubled() {
    let broker = a_broker().await;
    for version in ["5.5", "5.7"] {
        let app = SampleApp::new(broker.url()).python(python_with_celery(version));
        let name = format!("hammered-{version}");
        let _worker =
            app.worker(format!("worker@{name}")).queues([name.clone()]).concurrency(2).prefetch(4).start().await;
        let (celery, tasks) = (open(&settings(&broker.url())), known_tasks(&[&name]));
        let view = look_until("it answers", &celery, &tasks, |view| consumes(view, &name, &[&name])).await;
        let before = view.nodes[&node(&name)].queues.clone().expect("it was seen");
        let jobs = app.submit(Jobs::new(300).prefix(&name).seconds(0.0, 0.002).queue(&name)).await;
        for _ in 0..25 {
            celery.cancel(&[(node(&name), vec![name.as_str().into()])]).await;
            celery.give_back(&[(node(&name), before.clone())]).await;
        }
        let (undo, is_back) = ([(node(&name), before)], |view: &WorkersView| consumes(view, &name, &[&name]));
        give_back_until("it is back", &celery, &tasks, &undo, is_back).await;
        app.journal().wait_finished(&jobs).await;
        assert!(app.journal().tally(&jobs).run_twice.is_empty(), "{version}: {:?}", app.journal().tally(&jobs));
        look_until("nothing is left in it", &celery, &tasks, |view| self::jobs(view, &name) == Some((0, 0))).await;
    }
}
