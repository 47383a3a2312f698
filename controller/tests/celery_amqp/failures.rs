//! What goes wrong with RabbitMQ, and what is said of it.

use std::time::Duration;

use test_support::{LONG, RabbitMq, SampleApp, free_port, wait_until};
use tokio::time::{Instant, sleep};
use worker_drain::workers::{Workers, celery::CelerySettings};
use worker_drain_plan::{
    Outcome,
    observation::{Failure, FailureKind, Seen},
};

use crate::both::{consumes, jobs, known_tasks, look_until, node, open, settings, tasks};

async fn failure_of(url: &str) -> Failure {
    let failure = open(&settings(url)).observe(&tasks(&["one"])).await.expect_err("it fails");
    assert!(!failure.message.contains("hunter2"), "{failure:?}");
    failure
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_unreachable() {
    let url = format!("amqp://app:hunter2@127.0.0.1:{}/media", free_port());
    let celery = open(&CelerySettings { operation_bound: Duration::from_millis(200), ..settings(&url) });
    let failure = celery.observe(&tasks(&["one"])).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(failure.message.contains("127.0.0.1:") && failure.message.contains("virtual host media"), "{failure:?}");
    assert!(!failure.message.contains("hunter2"), "{failure:?}");
    let outcomes = celery.cancel(&[(node("one"), vec!["celery".into()]), (node("two"), vec![])]).await;
    assert!(
        matches!(&outcomes[..], [Outcome::Failed(failure), Outcome::Done] if failure.kind == FailureKind::Unreachable)
    );
}

#[tokio::test]
async fn a_name_that_nobody_has_is_unreachable() {
    let settings =
        CelerySettings { operation_bound: Duration::from_secs(2), ..settings("amqp://no-such-host.invalid") };
    let failure = open(&settings).observe(&tasks(&["one"])).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(failure.message.contains("no-such-host.invalid:5672, virtual host /"), "{failure:?}");
}

#[tokio::test]
async fn whoever_listens_and_says_nothing_is_unreachable_in_bounded_time() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp://127.0.0.1:{}", silent.local_addr().unwrap().port());
    let settings = CelerySettings { operation_bound: Duration::from_millis(300), ..settings(&url) };
    let look = async { open(&settings).observe(&tasks(&["one"])).await.unwrap_err() };
    let failure = tokio::time::timeout(LONG, look).await.expect("a look is bounded");
    assert_eq!(failure.kind, FailureKind::Unreachable);

    // Nor does the attempt live on.
    let (mut stream, _) = silent.accept().await.unwrap();
    let mut said = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut said);
    let _ = tokio::time::timeout(LONG, reading).await.expect("the connection is given up");
    assert!(said.starts_with(b"AMQP"));
}

#[tokio::test]
async fn whoever_speaks_another_protocol_is_invalid() {
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("amqp://127.0.0.1:{}", other.local_addr().unwrap().port());
    let talking = async {
        loop {
            let (mut stream, _) = other.accept().await.unwrap();
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"-ERR this is another server\r\n").await;
        }
    };
    let failure = tokio::select! {
        failure = failure_of(&url) => failure,
        () = talking => unreachable!("it talks forever"),
    };
    assert_eq!(failure.kind, FailureKind::Invalid, "{failure:?}");
    assert!(failure.message.contains("no AMQP"), "{failure:?}");
}

#[tokio::test]
async fn a_wrong_password_or_user_is_denied_at_once() {
    let broker = RabbitMq::shared().await;
    let began = Instant::now();
    for url in [broker.url_for("guest", "hunter2"), broker.url_for("nobody", "hunter2")] {
        let settings = CelerySettings { operation_bound: Duration::from_mins(1), ..settings(&url) };
        let failure = open(&settings).observe(&tasks(&["one"])).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Denied, "{failure:?}");
        assert!(failure.message.contains("is not the one that RabbitMQ has"), "{failure:?}");
        assert!(!failure.message.contains("hunter2"), "{failure:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(50), "it tried again, though nothing can come of it");
}

#[tokio::test]
async fn a_wrong_virtual_host_is_denied() {
    let broker = RabbitMq::shared().await;
    let failure = failure_of(&format!("amqp://guest:guest@127.0.0.1:{}/no-such", broker.rabbit().port())).await;
    assert_eq!(failure.kind, FailureKind::Denied, "{failure:?}");
    assert!(
        failure.message.contains("virtual host no-such") && failure.message.contains("is not there"),
        "{failure:?}"
    );

    broker.add_user("elsewhere", "hunter2", [".*"; 3]).await;
    let other = RabbitMq::shared().await;
    let failure = failure_of(&other.url_for("elsewhere", "hunter2")).await;
    assert_eq!(failure.kind, FailureKind::Denied, "{failure:?}");
    assert!(failure.message.contains(&format!("set_permissions -p {} elsewhere", other.name())), "{failure:?}");
}

/// What docs/brokers.md tells: configure, write, read.
const LEAST: [&str; 3] = [
    r"^((worker-drain-.*\.)?reply\.celery\.pidbox|worker-drain-.*\.celeryev)$",
    r"^(celery\.pidbox|worker-drain-.*\.(reply\.celery\.pidbox|celeryev))$",
    r"^((worker-drain-.*\.)?reply\.celery\.pidbox|(worker-drain-.*\.)?celeryev)$",
];

/// Those that are enough where nobody listens to events.
const WITHOUT_EVENTS: [&str; 3] = [
    r"^(worker-drain-.*\.)?reply\.celery\.pidbox$",
    r"^(celery\.pidbox|worker-drain-.*\.reply\.celery\.pidbox)$",
    r"^(worker-drain-.*\.)?reply\.celery\.pidbox$",
];

#[tokio::test]
async fn the_least_permissions_are_enough_and_no_less_is() {
    let broker = RabbitMq::shared().await;
    let app = SampleApp::new(broker.url());
    broker.add_user("least", "hunter2", LEAST).await;
    // Before any node: what a node makes is not there yet.
    let early = open(&settings(&broker.url_for("least", "hunter2")));
    assert_eq!(early.observe(&tasks(&["one"])).await.expect("there is nobody").nodes.len(), 0);

    let _worker = app.worker("worker@one").start().await;
    let celery = open(&settings(&broker.url_for("least", "hunter2")));
    let tasks = known_tasks(&["one"]);
    for celery in [&early, &celery] {
        look_until("it answers", celery, &tasks, |view| view.nodes.len() == 1).await;
    }
    assert_eq!(celery.cancel(&[(node("one"), vec!["celery".into()])]).await, [Outcome::Done]);
    look_until("it is cancelled", &celery, &tasks, |view| consumes(view, "one", &[])).await;

    // drain.gate needs no more: to ask whether a queue is there is nobody's privilege.
    let counted = celery.count(&["celery".into()].into()).await;
    assert_eq!(counted.values().next().and_then(Seen::ok).map(|count| count.ready), Some(0), "{counted:?}");

    let awaited = || [(node("one"), std::num::NonZeroU32::MIN)].into();
    celery.listen(&awaited()).await;
    wait_until("it may listen", LONG, async || crate::is_listened_to(&broker).await).await;
    assert_eq!(celery.note(), None);
    celery.close().await;
    broker.add_user("without-events", "hunter2", WITHOUT_EVENTS).await;
    let deaf = open(&settings(&broker.url_for("without-events", "hunter2")));
    deaf.listen(&awaited()).await;
    wait_until("it is told", LONG, async || deaf.note().is_some()).await;
    let note = deaf.note().unwrap();
    assert!(note.contains("docs/brokers.md") && note.contains("without-events") && !note.contains("hunter2"), "{note}");
    look_until("all else goes on", &deaf, &tasks, |view| view.nodes.len() == 1).await;

    for missing in 0..3 {
        let user = format!("without-{missing}");
        let mut permissions = LEAST;
        permissions[missing] = "^$";
        broker.add_user(&user, "hunter2", permissions).await;
        let failure = failure_of(&broker.url_for(&user, "hunter2")).await;
        assert_eq!(failure.kind, FailureKind::Denied, "{failure:?}");
        assert!(failure.message.contains(&user) && failure.message.contains("docs/brokers.md"), "{failure:?}");
    }
    // A user that may do all but publish: the queue for replies can be made.
    let no_publishing = [LEAST[0], r"^worker-drain-.*\.reply\.celery\.pidbox$", LEAST[2]];
    broker.add_user("no-publishing", "hunter2", no_publishing).await;
    let failure = failure_of(&broker.url_for("no-publishing", "hunter2")).await;
    assert_eq!(failure.kind, FailureKind::Denied, "{failure:?}");
    assert!(failure.message.contains("could not publish") && failure.message.contains("celery.pidbox"), "{failure:?}");
}

#[tokio::test]
async fn a_closed_connection_is_made_again() {
    let broker = RabbitMq::shared().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("worker@one").start().await;
    let celery = open(&settings(&broker.url()));
    let tasks = known_tasks(&["one"]);
    look_until("it answers", &celery, &tasks, |view| view.nodes.len() == 1).await;
    for _ in 0..2 {
        broker.close_all_connections().await;
        celery.observe(&tasks).await.expect("we connect again by ourselves");
    }
    look_until("it answers again", &celery, &tasks, |view| view.nodes.len() == 1).await;
}

#[tokio::test]
async fn a_connection_closed_between_request_and_reply_fails_that_look() {
    let broker = RabbitMq::shared().await;
    let app = SampleApp::new(broker.url());
    let mut worker = app.worker("worker@one").start().await;
    let celery = open(&settings(&broker.url()));
    let patient = open(&CelerySettings { reply_bound: Duration::from_mins(1), ..settings(&broker.url()) });
    let tasks = known_tasks(&["one"]);
    look_until("it answers", &patient, &tasks, |view| view.nodes.len() == 1).await;

    // It has the request, and cannot reply.
    worker.freeze();
    let queue = broker.queues().await.into_iter().find(|queue| queue.starts_with("worker-drain-")).expect("ours");
    let (view, ()) = tokio::join!(patient.observe(&tasks), async {
        sleep(Duration::from_millis(500)).await;
        broker.close_all_connections().await;
    });
    let failure = view.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable, "{failure:?}");
    assert!(failure.message.contains("lost the connection while awaiting replies"), "{failure:?}");

    // What it replies now to the old request has nowhere to go, and is not taken for a reply to a new one.
    worker.thaw();
    look_until("it answers again", &celery, &tasks, |view| view.nodes.len() == 1).await;
    assert!(!broker.queues().await.contains(&queue), "another connection has another queue");
}

#[tokio::test]
async fn a_broker_that_is_away_for_some_seconds_in_a_look_is_found_again() {
    let mut broker = RabbitMq::start().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("worker@one").start().await;
    let settings = CelerySettings { operation_bound: Duration::from_secs(2), ..settings(&broker.url()) };
    let celery = open(&settings);
    let tasks = known_tasks(&["one"]);
    look_until("it answers", &celery, &tasks, |view| view.nodes.len() == 1).await;

    broker.stop().await;
    let failure = celery.observe(&tasks).await.expect_err("nobody is there");
    assert_eq!(failure.kind, FailureKind::Unreachable, "{failure:?}");
    sleep(Duration::from_secs(5)).await;
    broker.restart().await;
    // It is a transient exchange: until a node has come back there is none to publish to.
    celery.observe(&tasks).await.expect("we connect again by ourselves");
    look_until("it answers again", &celery, &tasks, |view| view.nodes.len() == 1).await;
}

#[tokio::test]
async fn a_broker_that_takes_no_messages_says_why() {
    let broker = RabbitMq::start().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("worker@one").start().await;
    let celery = open(&CelerySettings { operation_bound: Duration::from_secs(1), ..settings(&broker.url()) });
    let tasks = known_tasks(&["one"]);
    look_until("it answers", &celery, &tasks, |view| view.nodes.len() == 1).await;

    broker.ctl(&["set_vm_memory_high_watermark", "0.0000001"]).await;
    let mut said = None;
    wait_until("the alarm is told of", LONG, async || {
        said = celery.observe(&tasks).await.err();
        said.as_ref().is_some_and(|failure| failure.message.contains("short of memory"))
    })
    .await;
    assert_eq!(said.expect("it was told").kind, FailureKind::Unreachable);
    broker.ctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    look_until("it answers again", &celery, &tasks, |view| view.nodes.len() == 1).await;
}

#[tokio::test]
async fn a_queue_that_was_taken_away_is_made_again() {
    let broker = RabbitMq::shared().await;
    let app = SampleApp::new(broker.url());
    let mut worker = app.worker("worker@one").start().await;
    let celery = open(&settings(&broker.url()));
    let patient = open(&CelerySettings { reply_bound: Duration::from_mins(1), ..settings(&broker.url()) });
    let tasks = known_tasks(&["one"]);
    look_until("it answers", &patient, &tasks, |view| view.nodes.len() == 1).await;

    worker.freeze();
    let queue = broker.queues().await.into_iter().find(|queue| queue.starts_with("worker-drain-")).expect("ours");
    let resource = format!("rabbit_misc:r(<<\"{}\">>, queue, <<\"{queue}\">>)", broker.name());
    let delete =
        format!("{{ok, Q}} = rabbit_amqqueue:lookup({resource}), rabbit_amqqueue:delete(Q, false, false, <<\"x\">>).");
    let (view, ()) = tokio::join!(patient.observe(&tasks), async {
        sleep(Duration::from_millis(500)).await;
        broker.rabbit().eval(&delete).await;
    });
    assert_eq!(view.unwrap_err().kind, FailureKind::Unreachable);
    worker.thaw();
    look_until("it answers again", &celery, &tasks, |view| view.nodes.len() == 1).await;
}

#[tokio::test]
async fn rubbish_in_our_reply_queue_is_passed_over() {
    let broker = RabbitMq::shared().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("worker@one").start().await;
    let celery = open(&settings(&broker.url()));
    let tasks = known_tasks(&["one"]);
    look_until("it answers", &celery, &tasks, |view| view.nodes.len() == 1).await;

    let queue = broker.queues().await.into_iter().find(|queue| queue.starts_with("worker-drain-")).expect("ours");
    let publish = |properties: &str, body: &str| {
        format!(
            "rabbit_basic:publish(rabbit_misc:r(<<\"{}\">>, exchange, <<>>), <<\"{queue}\">>, {properties}, <<{body}>>)",
            broker.name()
        )
    };
    let late = "[{headers, [{<<\"ticket\">>, longstr, <<\"some-other\">>}]}]";
    let odd = "[{headers, [{<<\"ticket\">>, long, 7}]}]";
    let all: Vec<String> = [("[]", "\"rubbish\""), ("[]", ""), (late, "\"{}\""), (odd, "255, 0, 1")]
        .map(|(properties, body)| publish(properties, body))
        .into();
    broker.rabbit().eval(&format!("{}.", all.join(", "))).await;
    look_until("it answers still", &celery, &tasks, |view| jobs(view, "one").is_some()).await;
}

#[tokio::test]
async fn a_list_of_urls_is_gone_through() {
    let broker = RabbitMq::shared().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("worker@one").start().await;
    let dead = format!("amqp://guest:guest@127.0.0.1:{}/{}", free_port(), broker.name());
    let tasks = known_tasks(&["one"]);
    for separator in [';', ','] {
        let celery = open(&settings(&format!("{dead}{separator}{}", broker.url())));
        look_until("it answers", &celery, &tasks, |view| view.nodes.len() == 1).await;
        broker.close_all_connections().await;
        celery.observe(&tasks).await.expect("it goes on with the one that was good");
    }

    // All is told, and what a person has to see to comes first.
    let failure = failure_of(&format!("{dead};{}", broker.url_for("guest", "hunter2"))).await;
    assert_eq!(failure.kind, FailureKind::Denied, "{failure:?}");
    let (denied, unreachable) = failure.message.split_once("; and ").expect("two are told of");
    assert!(denied.contains("is not the one that RabbitMQ has") && unreachable.contains("refused"), "{failure:?}");
}

#[tokio::test]
async fn nothing_is_left_behind() {
    let broker = RabbitMq::shared().await;
    let app = SampleApp::new(broker.url());
    let _worker = app.worker("worker@one").start().await;
    let tasks = known_tasks(&["one"]);
    let (closed, dropped, other) =
        (open(&settings(&broker.url())), open(&settings(&broker.url())), open(&settings(&broker.url())));
    for celery in [&closed, &dropped, &other] {
        look_until("it answers", celery, &tasks, |view| view.nodes.len() == 1).await;
    }
    let ours = async || broker.queues().await.iter().filter(|queue| queue.starts_with("worker-drain-")).count();
    assert_eq!(ours().await, 3);
    closed.close().await;
    drop(dropped);
    wait_until("their queues are gone", LONG, async || ours().await == 1).await;
    // It can be used again.
    closed.observe(&tasks).await.unwrap();
    look_until("it answers", &other, &tasks, |view| view.nodes.len() == 1).await;
}
