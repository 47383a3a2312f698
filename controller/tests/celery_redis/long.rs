//! Answers of megabytes.

use serde_json::{Value, json};
use test_support::{LONG, ModelledNodes, Redis};
use tokio::time::Instant;
use worker_drain_plan::observation::WorkersView;

use crate::both::{has_said_all, known_tasks, look_until, node, patient};

/// Jobs for later, of 20 kB each.
fn later(count: usize) -> Value {
    let job = |number| json!({"eta": "", "priority": 6, "request": {"id": format!("job-{number}"), "name": "later", "args": ["p".repeat(20_000)]}});
    (0..count).map(job).collect()
}

fn scheduled(view: &WorkersView, task: &str) -> Option<usize> {
    view.nodes.get(&node(task))?.scheduled.as_ref().map(Vec::len)
}

#[tokio::test]
async fn lists_of_megabytes_are_read_from_all_who_send_them_at_once() {
    let redis = Redis::start().await;
    let ids = ["1", "2", "3", "4", "5", "6", "7", "8"];
    let names = ids.iter().map(|id| format!("worker@{id}")).collect();
    let _nodes = ModelledNodes::start_with(&redis.url(), names, later(300)).await;
    let all = |view: &WorkersView| ids.iter().all(|id| scheduled(view, id) == Some(300));
    look_until("all is read", &patient(&redis.url()), &known_tasks(&ids), all).await;
}

#[tokio::test]
async fn a_list_that_is_too_long_is_left_out_and_told() {
    let redis = Redis::start().await;
    let _short = ModelledNodes::start(&redis.url(), vec!["worker@short".into()]).await;
    let _long = ModelledNodes::start_with(&redis.url(), vec!["worker@long".into()], later(1700)).await;
    let (celery, tasks) = (patient(&redis.url()), known_tasks(&["short", "long"]));
    let began = Instant::now();
    // A node that is slow to answer is taken for another start of it, and is met again in the next look.
    let both = |view: &WorkersView| {
        view.nodes.get(&node("short")).is_some_and(has_said_all)
            && view.nodes.get(&node("long")).is_some_and(|answer| answer.active.is_some() && answer.reserved.is_some())
    };
    let view = look_until("both answer", &celery, &tasks, both).await;
    assert!(began.elapsed() < LONG, "it waited for an answer that had come");
    assert_eq!(scheduled(&view, "long"), None, "it is not read");
    let why = &view.silences[&node("long")];
    assert!(why.starts_with("its answer to `scheduled` has 43 MiB, more than the 32 MiB that are read"), "{why}");

    // A user that may not run scripts reads what there is.
    redis.cli(&["ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-eval"]);
    let celery = patient(&format!("redis://app:pw@127.0.0.1:{}/0", redis.port()));
    let all = |view: &WorkersView| scheduled(view, "long") == Some(1700) && view.silences.is_empty();
    look_until("all of it is read", &celery, &tasks, all).await;
}
