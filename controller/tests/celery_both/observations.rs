//! What a look sees.

use std::time::Duration;

use serde_json::json;
use test_support::{Jobs, LONG, SampleApp, Signal, python_with_celery};
use tokio::time::Instant;
use worker_drain::workers::{Workers, celery::CelerySettings};
use worker_drain_plan::{
    NodeName, TaskId,
    observation::{Mapping, WorkersView},
};

use super::{
    all_answer, has_said_all, ids, jobs, known_tasks, look_until, maps_to, node, open, patient, queues, settings, tasks,
};
use crate::{TELLS_HOW_MANY, a_broker};

#[tokio::test]
async fn running_reserved_and_scheduled_jobs_are_told_apart() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("worker@one").queues(["slow", "fast"]).concurrency(2).prefetch(2).start().await;
    let celery = open(&settings(&broker.url()));

    let view = all_answer(&celery, &tasks(&["one"])).await;
    let answer = &view.nodes[&node("one")];
    assert_eq!(queues(answer), ["fast", "slow"]);
    assert_eq!((ids(answer.active.as_ref()), ids(answer.reserved.as_ref())), (vec![], vec![]));
    assert!(answer.asked_at <= answer.answered_at);

    let later = app.submit(Jobs::with_ids(["later"]).queue("slow").countdown(3600.0)).await;
    let now = app.submit(Jobs::with_ids(["a", "b", "c"]).queue("slow").seconds(600.0, 600.0)).await;
    app.journal().wait_started(&now, 2).await;
    let view = look_until("four jobs are there", &celery, &tasks(&["one"]), |view| {
        jobs(view, "one") == Some((2, 1)) && has_said_all(&view.nodes[&node("one")])
    })
    .await;
    let answer = &view.nodes[&node("one")];
    // Celery: jobs with an ETA, and jobs that run, are not among those that are reserved.
    assert_eq!(ids(answer.scheduled.as_ref()), later);
    assert_eq!((ids(answer.active.as_ref()), ids(answer.reserved.as_ref())), (vec!["a", "b"], vec!["c"]));
    let running = &answer.active.as_ref().unwrap()[0];
    assert_eq!(running.name, "sample.work");
    assert!(running.started_at.is_some());
}

#[tokio::test]
async fn a_look_is_over_when_all_have_answered() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let workers = (app.worker("worker@one").spawn(), app.worker("worker@two").spawn());
    let _workers = (workers.0.ready().await, workers.1.ready().await);
    all_answer(&open(&settings(&broker.url())), &tasks(&["one", "two"])).await;
    let celery = patient(&broker.url());

    let began = Instant::now();
    // Nothing is known of the second node: it is not missed because the first was quicker.
    let view = celery.observe(&tasks(&["one"])).await.unwrap();
    assert!(began.elapsed() < LONG / 2, "it waited for its whole bound");
    assert!(maps_to(&view, "one"));
    // A broker that does not tell how many were asked leaves names as the only sign that all have answered.
    if TELLS_HOW_MANY {
        assert_eq!(view.unmatched_workers, [node("two")].into());
    }
    assert!(!view.nodes.contains_key(&node("two")), "answers of strangers are none of our business");
}

#[tokio::test]
async fn a_frozen_worker_is_missing_and_not_idle() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let workers = (app.worker("worker@one").spawn(), app.worker("worker@two").spawn());
    let (_one, mut two) = (workers.0.ready().await, workers.1.ready().await);
    let celery = open(&CelerySettings { reply_bound: Duration::from_secs(1), ..settings(&broker.url()) });
    let tasks = known_tasks(&["one", "two"]);
    look_until("both answer", &celery, &tasks, |view| view.nodes.len() == 2).await;

    two.freeze();
    let view = look_until("one answers", &celery, &tasks, |view| view.nodes.contains_key(&node("one"))).await;
    assert!(!view.nodes.contains_key(&node("two")));
    assert!(maps_to(&view, "two"), "it is known whose the silent node is");

    two.thaw();
    look_until("it answers again", &celery, &tasks, |view| view.nodes.len() == 2).await;
}

#[tokio::test]
async fn a_task_may_have_several_nodes_and_its_host_name_may_tell_it() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let host = "ip-10-0-4-168.ec2.internal";
    let workers = (
        app.worker(format!("a@{host}")).spawn(),
        app.worker(format!("b@{host}")).spawn(),
        app.worker("a@else").spawn(),
    );
    let _workers = (workers.0.ready().await, workers.1.ready().await, workers.2.ready().await);
    let celery = open(&CelerySettings { node_names: Vec::new(), ..settings(&broker.url()) });

    let mut tasks = tasks(&["one", "two"]);
    tasks.get_mut(&TaskId::from("one")).unwrap().identity.host_names.insert(host.into());
    let view = look_until("all three answer", &celery, &tasks, |view| {
        let found = |task: &str| matches!(&view.tasks[&TaskId::from(task)], Mapping::Nodes(nodes) if nodes.len() == 2);
        found("one") && view.unmatched_workers.len() == 1
    })
    .await;
    let both = [format!("a@{host}"), format!("b@{host}")].map(NodeName::from);
    assert_eq!(view.tasks[&TaskId::from("one")], Mapping::Nodes(both.into()));
    let Mapping::NotFound { hint } = &view.tasks[&TaskId::from("two")] else { panic!("{view:?}") };
    assert!(hint.contains("a@else"), "{hint}");
}

#[tokio::test]
async fn a_worker_whose_name_has_no_at_is_found_as_celery_calls_it() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("w-one").start().await;
    let celery = open(&CelerySettings { node_names: vec!["w-{taskId}".into()], ..settings(&broker.url()) });
    let name = NodeName::from("celery@w-one");
    let view = look_until("it answers", &celery, &tasks(&["one"]), |view| view.nodes.contains_key(&name)).await;
    assert_eq!(view.tasks[&TaskId::from("one")], Mapping::Nodes([name].into()));
}

#[tokio::test]
async fn many_may_look_at_once() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("worker@one").start().await;
    let (one, other) = (patient(&broker.url()), patient(&broker.url()));
    let tasks = tasks(&["one"]);
    all_answer(&open(&settings(&broker.url())), &tasks).await;
    let looks = (0..20).map(|number| if number % 2 == 0 { one.observe(&tasks) } else { other.observe(&tasks) });
    for view in futures::future::join_all(looks).await {
        let view = view.unwrap();
        assert!(view.nodes[&node("one")].scheduled.is_some(), "{view:?}");
    }
}

#[tokio::test]
async fn every_pool_and_an_older_celery_answer_while_they_work() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let older = app.clone().python(python_with_celery("5.5"));
    let pools = [("threads", &app), ("gevent", &app), ("prefork", &older)];
    let started = pools.map(|(pool, app)| app.worker(format!("worker@{pool}")).queues([pool]).pool(pool).spawn());
    let mut workers = Vec::new();
    for worker in started {
        workers.push(worker.ready().await);
    }
    for (pool, app) in pools {
        let job = app.submit(Jobs::with_ids([format!("in-{pool}")]).queue(pool).seconds(600.0, 600.0)).await;
        app.journal().wait_started(&job, 1).await;
    }

    let celery = open(&settings(&broker.url()));
    let tasks = known_tasks(&["threads", "gevent", "prefork"]);
    let view = look_until("all run theirs", &celery, &tasks, |view| {
        view.nodes.len() == 3
            && view.nodes.values().all(|answer| has_said_all(answer) && ids(answer.active.as_ref()).len() == 1)
    })
    .await;
    for (pool, _) in pools {
        let answer = &view.nodes[&node(pool)];
        assert_eq!(ids(answer.active.as_ref()), [format!("in-{pool}")]);
        assert_eq!((queues(answer), ids(answer.reserved.as_ref())), (vec![pool], vec![]));
    }
}

#[tokio::test]
async fn a_solo_worker_is_silent_while_it_works() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("worker@solo").pool("solo").start().await;
    let celery = open(&CelerySettings { reply_bound: Duration::from_secs(1), ..settings(&broker.url()) });
    let tasks = known_tasks(&["solo"]);
    look_until("it answers", &celery, &tasks, |view| view.nodes.contains_key(&node("solo"))).await;

    let job = app.submit(Jobs::with_ids(["long"]).seconds(4.0, 4.0)).await;
    app.journal().wait_started(&job, 1).await;
    let view = celery.observe(&tasks).await.unwrap();
    // On a slow machine the job may be over by now: then, and only then, it may answer.
    let over = app.journal().tally(&job).finished.len() == 1;
    assert!(over || !view.nodes.contains_key(&node("solo")), "{view:?}");
    test_support::wait_until("it answers between jobs", LONG, async || {
        celery.observe(&tasks).await.unwrap().nodes.contains_key(&node("solo"))
    })
    .await;
}

#[tokio::test]
async fn replies_that_are_not_json_are_told_of() {
    let broker = a_broker().await;
    let yaml = json!({"task_serializer": "yaml", "accept_content": ["json", "yaml"]});
    let app = SampleApp::new(broker.url()).settings(yaml);
    let _worker = app.worker("worker@one").start().await;
    let celery = open(&settings(&broker.url()));
    // Redis tells at least that it was there.
    let view = look_until("it answers in its way", &celery, &tasks(&["one"]), |view| {
        match &view.tasks[&TaskId::from("one")] {
            Mapping::NotFound { hint } => hint.contains("task_serializer"),
            _ => view.silences.get(&node("one")).is_some_and(|why| why.contains("task_serializer")),
        }
    })
    .await;
    assert!(view.nodes.is_empty());
}

/// What a worker sends unasked tells a deaf one from a frozen one, and from one that stops.
#[tokio::test]
async fn the_silence_of_a_worker_is_explained_by_its_heartbeats() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url());
    let deaf = app.clone().settings(json!({"worker_enable_remote_control": false}));
    let names = ["deaf", "frozen", "leaving"];
    let spawned = [("deaf", &deaf), ("frozen", &app), ("leaving", &app)]
        .map(|(name, app)| app.worker(format!("worker@{name}")).queues([name]).spawn());
    let mut workers = Vec::new();
    for worker in spawned {
        workers.push(worker.ready().await);
    }
    let celery = open(&CelerySettings { reply_bound: Duration::from_secs(1), ..settings(&broker.url()) });
    let job = app.submit(Jobs::with_ids(["last"]).queue("leaving").until_told()).await;
    app.journal().wait_started(&job, 1).await;
    workers[1].process().signal_group(Signal::STOP);
    let tasks = known_tasks(&names);
    let why = |view: &WorkersView, name: &str| view.silences.get(&node(name)).cloned().unwrap_or_default();
    look_until("one is deaf, and one is frozen", &celery, &tasks, |view| {
        why(view, "deaf").contains("accept_content") && why(view, "frozen").contains("no heartbeat")
    })
    .await;
    workers[2].process().signal(Signal::TERM);
    look_until("one says that it stops", &celery, &tasks, |view| why(view, "leaving").contains("it stops")).await;
    app.tell(&job);
    app.journal().wait_finished(&job).await;
}

/// Each request that it refuses is an error in its log.
#[tokio::test]
async fn a_worker_that_takes_no_json_is_named_and_left_alone_for_a_while() {
    let broker = a_broker().await;
    let app = SampleApp::new(broker.url()).settings(json!({"task_serializer": "yaml", "accept_content": ["yaml"]}));
    let mut worker = app.worker("worker@one").start().await;
    let celery = open(&CelerySettings { reply_bound: Duration::from_secs(1), ..settings(&broker.url()) });
    let tasks = tasks(&["one"]);
    let mut refusals = || worker.process().log().matches("Refusing to deserialize").count();
    // Redis tells at least that it was there.
    look_until("it is named", &celery, &tasks, |view| match &view.tasks[&TaskId::from("one")] {
        Mapping::NotFound { hint } => hint.contains("worker@one would be its") && hint.contains("accept_content"),
        _ => view.silences.get(&node("one")).is_some_and(|why| why.contains("accept_content")),
    })
    .await;
    assert!(refusals() > 0, "it refuses what it is asked");
    let (mut before, mut unasked) = (refusals(), 0);
    test_support::wait_until("it is left alone", LONG, async || {
        celery.observe(&tasks).await.unwrap();
        let now = refusals();
        unasked = if now == before { unasked + 1 } else { 0 };
        before = now;
        unasked == 5
    })
    .await;
}
