//! What a look sees.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;
use test_support::{Jobs, LONG, Redis, SampleApp, python_with_celery_5_5};
use tokio::time::Instant;
use worker_drain::workers::{Workers, celery::CelerySettings};
use worker_drain_plan::{
    NodeName, TaskId,
    observation::{Mapping, WorkersView},
};

use super::{all_answer, ids, known_tasks, look_until, maps_to, node, open, patient, queues, settings, tasks};

#[tokio::test]
async fn running_reserved_and_scheduled_jobs_are_told_apart() {
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url());
    let _worker = app.worker("worker@one").queues(["slow", "fast"]).concurrency(2).prefetch(2).start().await;
    let celery = open(&settings(&redis.url()));

    let view = all_answer(&celery, &tasks(&["one"])).await;
    let answer = &view.nodes[&node("one")];
    assert_eq!(queues(answer), ["fast", "slow"]);
    assert_eq!((ids(answer.active.as_ref()), ids(answer.reserved.as_ref())), (vec![], vec![]));
    assert!(answer.asked_at <= answer.answered_at);

    let later = app.submit(Jobs::with_ids(["later"]).queue("slow").countdown(3600.0)).await;
    let now = app.submit(Jobs::with_ids(["a", "b", "c"]).queue("slow").seconds(600.0, 600.0)).await;
    app.journal().wait_started(&now, 2).await;
    let view = look_until("four jobs are there", &celery, &tasks(&["one"]), |view| {
        let answer = &view.nodes[&node("one")];
        ids(answer.active.as_ref()).len() == 2 && ids(answer.reserved.as_ref()).len() == 1
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
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url());
    let workers = (app.worker("worker@one").spawn(), app.worker("worker@two").spawn());
    let _workers = (workers.0.ready().await, workers.1.ready().await);
    all_answer(&open(&settings(&redis.url())), &tasks(&["one", "two"])).await;
    let celery = patient(&redis.url());

    let began = Instant::now();
    // Nothing is known of the second node: it is not missed because the first was quicker.
    let view = celery.observe(&tasks(&["one"])).await.unwrap();
    assert!(began.elapsed() < LONG / 2, "it waited for its whole bound");
    assert!(maps_to(&view, "one"));
    assert_eq!(view.strangers, [node("two")].into());
    assert!(!view.nodes.contains_key(&node("two")), "answers of strangers are none of our business");
}

#[tokio::test]
async fn a_frozen_worker_is_missing_and_not_idle() {
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url());
    let workers = (app.worker("worker@one").spawn(), app.worker("worker@two").spawn());
    let (_one, mut two) = (workers.0.ready().await, workers.1.ready().await);
    let celery = open(&CelerySettings { reply_bound: Duration::from_secs(1), ..settings(&redis.url()) });
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
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url());
    let host = "ip-10-0-4-168.ec2.internal";
    let workers = (
        app.worker(format!("a@{host}")).spawn(),
        app.worker(format!("b@{host}")).spawn(),
        app.worker("a@else").spawn(),
    );
    let _workers = (workers.0.ready().await, workers.1.ready().await, workers.2.ready().await);
    let celery = open(&CelerySettings { node_name: None, ..settings(&redis.url()) });

    let mut tasks = tasks(&["one", "two"]);
    tasks.get_mut(&TaskId::from("one")).unwrap().identity.host_names.insert(host.into());
    let view = look_until("all three answer", &celery, &tasks, |view| {
        let found = |task: &str| matches!(&view.tasks[&TaskId::from(task)], Mapping::Nodes(nodes) if nodes.len() == 2);
        found("one") && view.strangers.len() == 1
    })
    .await;
    let both = [format!("a@{host}"), format!("b@{host}")].map(NodeName::from);
    assert_eq!(view.tasks[&TaskId::from("one")], Mapping::Nodes(both.into()));
    let Mapping::NotFound { hint } = &view.tasks[&TaskId::from("two")] else { panic!("{view:?}") };
    assert!(hint.contains("a@else"), "{hint}");
}

#[tokio::test]
async fn two_workers_under_one_name_are_never_taken_for_one() {
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url());
    let workers = (app.worker("worker@one").spawn(), app.worker("worker@one").spawn());
    let _workers = (workers.0.ready().await, workers.1.ready().await);
    let celery = open(&settings(&redis.url()));

    let shared = |view: &WorkersView| matches!(&view.tasks[&TaskId::from("one")], Mapping::Ambiguous { why } if why.contains("several processes"));
    let view = look_until("both answer", &celery, &known_tasks(&["one"]), shared).await;
    assert!(view.nodes.is_empty());
}

#[tokio::test]
async fn many_may_look_at_once() {
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url());
    let _worker = app.worker("worker@one").start().await;
    let (one, other) = (patient(&redis.url()), patient(&redis.url()));
    let tasks = tasks(&["one"]);
    all_answer(&open(&settings(&redis.url())), &tasks).await;
    let looks = (0..20).map(|number| if number % 2 == 0 { one.observe(&tasks) } else { other.observe(&tasks) });
    for view in futures::future::join_all(looks).await {
        let view = view.unwrap();
        assert!(view.nodes[&node("one")].scheduled.is_some(), "{view:?}");
    }
}

#[tokio::test]
async fn every_pool_and_an_older_celery_answer_while_they_work() {
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url());
    let older = app.clone().python(python_with_celery_5_5());
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

    let celery = open(&settings(&redis.url()));
    let tasks = known_tasks(&["threads", "gevent", "prefork"]);
    let view = look_until("all run theirs", &celery, &tasks, |view| {
        view.nodes.len() == 3 && view.nodes.values().all(|answer| ids(answer.active.as_ref()).len() == 1)
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
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url());
    let _worker = app.worker("worker@solo").pool("solo").start().await;
    let celery = open(&CelerySettings { reply_bound: Duration::from_secs(1), ..settings(&redis.url()) });
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
    let redis = Redis::start().await;
    let yaml = json!({"task_serializer": "yaml", "accept_content": ["json", "yaml"]});
    let app = SampleApp::new(redis.url()).settings(yaml);
    let _worker = app.worker("worker@one").start().await;
    let celery = open(&settings(&redis.url()));
    let view = look_until("it answers in its way", &celery, &tasks(&["one"]), |view| {
        matches!(&view.tasks[&TaskId::from("one")], Mapping::NotFound { hint } if hint.contains("task_serializer"))
    })
    .await;
    assert!(view.nodes.is_empty());
}

/// Nodes that answer as a worker does, all of them through one subscription.
async fn pretend_to_be(nodes: Vec<String>, url: String, ready: tokio::sync::oneshot::Sender<()>) {
    use futures::StreamExt;
    let client = redis::Client::open(url).expect("it is a URL of Redis");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis is there");
    let mut subscription = client.get_async_pubsub().await.expect("Redis is there");
    subscription.subscribe("/0.celery.pidbox").await.expect("Redis is there");
    ready.send(()).expect("somebody waits");
    let mut requests = subscription.into_on_message();
    while let Some(message) = requests.next().await {
        let envelope: serde_json::Value = serde_json::from_slice(message.get_payload_bytes()).expect("it is JSON");
        let body = STANDARD.decode(envelope["body"].as_str().expect("it has a body")).expect("it is base64");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("it is JSON");
        let queue =
            format!("{}.reply.celery.pidbox", body["reply_to"]["routing_key"].as_str().expect("it wants a reply"));
        let mut pipeline = redis::pipe();
        for node in &nodes {
            let reply = STANDARD.encode(json!({node: []}).to_string());
            let headers = json!({"ticket": body["ticket"], "clock": 1});
            let reply = json!({"body": reply, "headers": headers, "properties": {"body_encoding": "base64"}});
            pipeline.cmd("LPUSH").arg(&queue).arg(reply.to_string()).ignore();
        }
        pipeline.query_async::<()>(&mut connection).await.expect("Redis is there");
    }
}

#[tokio::test]
async fn a_thousand_nodes_are_heard_though_one_receiver_was_counted() {
    let redis = Redis::start().await;
    let ids: Vec<String> = (0..1000).map(|number| format!("task-{number}")).collect();
    let (sender, ready) = tokio::sync::oneshot::channel();
    let mut nodes = tokio::task::JoinSet::new();
    nodes.spawn(pretend_to_be(ids.iter().map(|id| format!("worker@{id}")).collect(), redis.url(), sender));
    ready.await.unwrap();

    // Celery's own bound is 1 s; a slow machine is no failure.
    let celery = patient(&redis.url());
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let began = Instant::now();
    let view = celery.observe(&known_tasks(&ids)).await.unwrap();
    assert!(began.elapsed() < LONG, "it waited for its whole bound");
    assert_eq!(view.nodes.len(), 1000);
    assert!(view.nodes.values().all(|answer| answer.queues.is_some() && answer.scheduled.is_some()));
    println!("a look at 1,000 nodes took {:?}", began.elapsed());
}
