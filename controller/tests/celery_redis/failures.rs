//! When the broker fails, and when it is full of rubbish.

use std::time::Duration;

use test_support::{Jobs, LONG, Redis, RedisOptions, SampleApp, free_port, wait_until};
use tokio::time::Instant;
use worker_drain::workers::{Workers, celery::CelerySettings};
use worker_drain_plan::{
    Outcome,
    observation::{FailureKind, Seen},
};

use crate::both::{consumes, jobs, known_tasks, look_until, node, open, settings, tasks};

#[tokio::test]
async fn a_broker_that_is_not_there_is_unreachable() {
    let url = format!("redis://:hunter2@127.0.0.1:{}/3", free_port());
    let celery = open(&CelerySettings { operation_bound: Duration::from_millis(200), ..settings(&url) });
    let failure = celery.observe(&tasks(&["one"])).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(failure.message.contains("127.0.0.1:") && failure.message.contains("database 3"), "{failure:?}");
    assert!(!failure.message.contains("hunter2"), "{failure:?}");
    let outcomes = celery.cancel(&[(node("one"), vec!["celery".into()]), (node("two"), vec![])]).await;
    assert!(
        matches!(&outcomes[..], [Outcome::Failed(failure), Outcome::Done] if failure.kind == FailureKind::Unreachable)
    );
}

#[tokio::test]
async fn a_name_that_nobody_has_is_unreachable() {
    let settings =
        CelerySettings { operation_bound: Duration::from_secs(2), ..settings("redis://no-such-host.invalid/0") };
    let failure = open(&settings).observe(&tasks(&["one"])).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(failure.message.contains("no-such-host.invalid:6379"), "{failure:?}");
}

#[tokio::test]
async fn a_wrong_password_is_denied_at_once() {
    let redis = Redis::start_with(RedisOptions { password: Some("right".into()), ..RedisOptions::default() }).await;
    let began = Instant::now();
    for (url, advice) in [
        (format!("redis://:hunter2@127.0.0.1:{}/0", redis.port()), "is not the one that Redis has"),
        (format!("redis://127.0.0.1:{}/0", redis.port()), "the broker's URL has no password"),
    ] {
        let settings = CelerySettings { operation_bound: Duration::from_mins(1), ..settings(&url) };
        let failure = open(&settings).observe(&tasks(&["one"])).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Denied, "{failure:?}");
        assert!(failure.message.contains(advice) && !failure.message.contains("hunter2"), "{failure:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(50), "it tried again, though nothing can come of it");
}

#[tokio::test]
async fn a_user_that_may_not_publish_is_denied() {
    let redis = Redis::start().await;
    redis.cli(&["ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-publish"]);
    let url = format!("redis://app:pw@127.0.0.1:{}/0", redis.port());
    let failure = open(&settings(&url)).observe(&tasks(&["one"])).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Denied, "{failure:?}");
    assert!(failure.message.contains("PUBLISH"), "{failure:?}");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_invalid() {
    let redis = Redis::start().await;
    let failure = open(&settings(&redis.url_of(99))).observe(&tasks(&["one"])).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid, "{failure:?}");
    assert!(failure.message.contains("database 99"), "{failure:?}");
}

#[tokio::test]
async fn a_killed_connection_is_made_again() {
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url());
    let _worker = app.worker("worker@one").start().await;
    let celery = open(&CelerySettings { reply_bound: Duration::from_millis(500), ..settings(&redis.url()) });
    let tasks = known_tasks(&["one"]);
    look_until("it answers", &celery, &tasks, |view| view.nodes.len() == 1).await;
    for _ in 0..3 {
        redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        celery.observe(&tasks).await.expect("we connect again by ourselves");
    }
    look_until("it answers again", &celery, &tasks, |view| view.nodes.len() == 1).await;
}

#[tokio::test]
async fn rubbish_in_our_reply_queue_is_passed_over() {
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url());
    let _worker = app.worker("worker@one").start().await;
    let celery = open(&settings(&redis.url()));
    let tasks = known_tasks(&["one"]);
    look_until("it answers", &celery, &tasks, |view| view.nodes.len() == 1).await;

    let members = redis.cli(&["SMEMBERS", "_kombu.binding.reply.celery.pidbox"]);
    let binding = members.lines().find(|member| member.contains("worker-drain")).expect("ours is there");
    let queue = binding.rsplit('\u{16}').next().expect("the last field is the queue").trim_end_matches('"');
    let late = r#"{"body": "eyJ3b3JrZXJAb25lIjogW119", "headers": {"ticket": "some-other"}, "properties": {"body_encoding": "base64"}}"#;
    for rubbish in ["", "rubbish", "{}", "[1]", r#"{"body": 5, "headers": null}"#, "\u{1}\u{2}", late] {
        for list in [queue.to_owned(), format!("{queue}\u{6}\u{16}3"), format!("{queue}\u{6}\u{16}9")] {
            redis.cli(&["LPUSH", &list, rubbish]);
        }
    }
    look_until("it answers still", &celery, &tasks, |view| jobs(view, "one").is_some()).await;
    wait_until("all of it is gone", LONG, async || !redis.cli(&["KEYS", "*"]).contains(queue)).await;
}

#[tokio::test]
async fn what_somebody_flushed_is_made_good() {
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url());
    let _worker = app.worker("worker@one").start().await;
    let celery = open(&settings(&redis.url()));
    let tasks = known_tasks(&["one"]);
    look_until("it answers", &celery, &tasks, |view| view.nodes.len() == 1).await;
    redis.cli(&["FLUSHALL"]);
    look_until("it answers still", &celery, &tasks, |view| view.nodes.len() == 1).await;
}

#[tokio::test]
async fn the_least_rights_are_enough() {
    let redis = Redis::start().await;
    let app = SampleApp::new(redis.url());
    let _worker = app.worker("worker@one").start().await;
    // What docs/brokers.md tells.
    let least = "on >hunter2 resetkeys ~_kombu.binding.reply.celery.pidbox ~_kombu.binding.celery.pidbox ~_kombu.binding_deadlines ~worker-drain-* \
                 resetchannels &/0.celery.pidbox &/0.celeryev/* -@all +psubscribe +publish +eval +brpop +rpop +sadd +srem +smembers +zadd +set +exists +del";
    let user: Vec<&str> = ["ACL", "SETUSER", "least"].into_iter().chain(least.split_whitespace()).collect();
    assert_eq!(redis.cli(&user), "OK");
    let celery = open(&settings(&format!("redis://least:hunter2@127.0.0.1:{}/0", redis.port())));
    let tasks = known_tasks(&["one"]);
    celery.observe(&tasks).await.expect("it may do all that it does");
    look_until("it answers", &celery, &tasks, |view| view.nodes.len() == 1).await;
    assert_eq!(celery.cancel(&[(node("one"), vec!["celery".into()])]).await, [Outcome::Done]);
    look_until("it is cancelled", &celery, &tasks, |view| consumes(view, "one", &[])).await;
    let counted = celery.count(&["celery".into()].into()).await;
    let Some(Seen::Err { failure, .. }) = counted.values().next() else { panic!("{counted:?}") };
    assert_eq!(failure.kind, FailureKind::Denied, "{failure:?}");
    assert!(failure.message.contains("LLEN") && failure.message.contains("docs/brokers.md"), "{failure:?}");
    // What docs/brokers.md tells for drain.gate.
    let to_count = "~celery* ~unacked ~_kombu.binding.* +llen +hscan";
    let user: Vec<&str> = ["ACL", "SETUSER", "least"].into_iter().chain(to_count.split_whitespace()).collect();
    assert_eq!(redis.cli(&user), "OK");
    let jobs = app.submit(Jobs::new(2).seconds(0.0, 0.0)).await;
    let counted = celery.count(&["celery".into()].into()).await;
    assert_eq!(counted.values().next().and_then(Seen::ok).map(|count| count.ready), Some(jobs.len() as u64));
    let awaited = || [(node("one"), std::num::NonZeroU32::MIN)].into();
    celery.listen(&awaited()).await;
    wait_until("it may listen", LONG, async || crate::is_listened_to(&redis).await).await;
    assert_eq!(celery.note(), None);

    celery.close().await;
    assert!(!redis.cli(&["KEYS", "*"]).contains("worker-drain"));

    for refused in
        [["+psubscribe", "resetchannels", "&/0.celery.pidbox"], ["+publish", "-psubscribe", "&/0.celeryev/*"]]
    {
        assert_eq!(redis.cli(&[&["ACL", "SETUSER", "least"], &refused[..]].concat()), "OK");
        let celery = open(&settings(&format!("redis://least:hunter2@127.0.0.1:{}/0", redis.port())));
        celery.listen(&awaited()).await;
        wait_until("it is told", LONG, async || celery.note().is_some()).await;
        let note = celery.note().unwrap();
        assert!(note.contains("docs/brokers.md") && note.contains("PSUBSCRIBE") && !note.contains("hunter2"), "{note}");
        look_until("all else goes on", &celery, &tasks, |view| view.nodes.len() == 1).await;
    }
}
