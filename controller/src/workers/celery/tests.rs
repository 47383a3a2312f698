//! What is made of replies, over a transport that says what a test wants.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;
use worker_drain_plan::{
    NodeName, Outcome, TaskId,
    observation::{Failure, FailureKind, Mapping},
};

use super::{
    Celery, CelerySettings, Replies, Reply, ReplySink, Sent, Transport, Workers,
    pidbox::{Method, Request},
};
use crate::{clock::SystemClock, identity::Expected};

const LONG: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_millis(50);

/// Answers each request with what the closure puts into the sink; keeps the sink, so that more could come.
struct Scripted<F> {
    receivers: Option<u64>,
    answer: F,
    kept: Mutex<Vec<ReplySink>>,
}

impl<F: Fn(&Request, &ReplySink) + Send + Sync> Transport for Scripted<F> {
    async fn publish(&self, requests: &[Request]) -> Result<Sent, Failure> {
        let (sink, replies) = Replies::channel();
        for request in requests {
            (self.answer)(request, &sink);
        }
        self.kept.lock().unwrap().push(sink);
        Ok(Sent { receivers: vec![self.receivers; requests.len()], replies })
    }

    async fn close(&self) {}
}

fn celery<F: Fn(&Request, &ReplySink) + Send + Sync + 'static>(
    bound: Duration,
    template: Option<&str>,
    receivers: Option<u64>,
    answer: F,
) -> Celery<Scripted<F>> {
    let settings = CelerySettings {
        reply_bound: bound,
        node_name: template.map(String::from),
        ..CelerySettings::new("redis://unused")
    };
    let transport = Scripted { receivers, answer, kept: Mutex::default() };
    Celery::over(transport, &settings, Arc::new(SystemClock)).unwrap()
}

fn say(sink: &ReplySink, ticket: &str, node: &str, answer: &Value) {
    let body = json!({node: answer}).to_string().into_bytes();
    sink.put(Ok(Reply { ticket: ticket.into(), body }));
}

fn answer_as(node: &str, request: &Request, sink: &ReplySink) {
    say(sink, &request.ticket, node, &json!([]));
}

fn tasks(ids: &[&str]) -> BTreeMap<TaskId, Expected> {
    ids.iter().map(|id| (TaskId::from(*id), Expected { running: true, ..Expected::default() })).collect()
}

fn known(mut tasks: BTreeMap<TaskId, Expected>, nodes: &[&str]) -> BTreeMap<TaskId, Expected> {
    tasks.values_mut().next().unwrap().nodes.extend(nodes.iter().map(|node| NodeName::from(*node)));
    tasks
}

/// How long an observation took, as a part of its bound.
async fn waits(celery: &Celery<impl Transport + 'static>, tasks: &BTreeMap<TaskId, Expected>) -> bool {
    let began = Instant::now();
    celery.observe(tasks).await.unwrap();
    began.elapsed() >= celery.remote.bound
}

#[tokio::test]
async fn the_questions_are_asked_in_their_order_and_expire() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let celery = celery(SHORT, None, Some(1), move |request: &Request, sink: &ReplySink| {
        noted.lock().unwrap().push(request.clone());
        answer_as("w@x", request, sink);
    });
    celery.observe(&tasks(&[])).await.unwrap();
    let asked = asked.lock().unwrap();
    let methods: Vec<&str> = asked.iter().map(|request| request.method.name()).collect();
    assert_eq!(methods, ["active_queues", "reserved", "active", "scheduled"]);
    assert!(asked.iter().all(|request| request.destination.is_none() && request.expires > celery.remote.clock.now()));
}

#[tokio::test]
async fn where_receivers_are_counted_a_look_ends_with_the_last_of_them() {
    let two = |request: &Request, sink: &ReplySink| {
        answer_as("w@a", request, sink);
        answer_as("w@b", request, sink);
    };
    assert!(!waits(&celery(LONG, None, Some(2), two), &tasks(&["a"])).await);
    assert!(waits(&celery(SHORT, None, Some(3), two), &tasks(&["a"])).await, "a third may be late");
    let missing = known(tasks(&["a"]), &["w@c"]);
    assert!(waits(&celery(SHORT, None, Some(2), two), &missing).await, "one that was seen before is missing");
    assert!(waits(&celery(SHORT, None, Some(0), |_, _| {}), &tasks(&["a"])).await, "a proxy may count none");
}

#[tokio::test]
async fn where_nothing_is_counted_only_exact_names_end_a_look() {
    let one = |request: &Request, sink: &ReplySink| answer_as("w@a", request, sink);
    assert!(waits(&celery(SHORT, None, None, one), &tasks(&["a"])).await, "a second node may be late");
    assert!(!waits(&celery(LONG, Some("w@{taskId}"), None, one), &tasks(&["a"])).await);
    assert!(waits(&celery(SHORT, Some("w@{taskId}"), None, one), &tasks(&["a", "b"])).await);
}

#[tokio::test]
async fn a_part_that_was_not_answered_is_not_known() {
    let celery = celery(SHORT, None, Some(9), |request: &Request, sink: &ReplySink| match request.method {
        Method::ActiveQueues => say(sink, &request.ticket, "w@a", &json!({"error": "KeyError('active_queues')"})),
        Method::Reserved => say(sink, &request.ticket, "w@a", &json!({"odd": true})),
        Method::Active => say(sink, &request.ticket, "w@a", &json!([{"id": "j", "name": "n"}, 5])),
        _ => {
            say(sink, "a ticket of somebody else's", "w@foreign", &json!([]));
            sink.put(Ok(Reply { ticket: request.ticket.clone(), body: b"\x80\x04rubbish".to_vec() }));
            answer_as("w@a", request, sink);
        }
    });
    let view = celery.observe(&tasks(&["a"])).await.unwrap();
    let answer = &view.nodes[&NodeName::from("w@a")];
    assert_eq!((&answer.queues, &answer.reserved, &answer.active), (&None, &None, &None));
    assert_eq!(answer.scheduled, Some(vec![]));
    assert!(view.unmatched_workers.is_empty(), "{view:?}");
}

#[tokio::test]
async fn a_lost_connection_is_never_an_empty_answer() {
    let lost = || Failure::new(FailureKind::Unreachable, "lost");
    let celery = celery(LONG, None, Some(2), move |request: &Request, sink: &ReplySink| {
        answer_as("w@a", request, sink);
        if request.method == Method::Scheduled || matches!(request.method, Method::CancelConsumer(_)) {
            sink.put(Err(lost()));
        }
    });
    assert_eq!(celery.observe(&tasks(&["a"])).await, Err(lost()));
    let cancels = [("w@a".into(), vec!["q".into(), "r".into()]), ("w@b".into(), vec![])];
    assert_eq!(celery.cancel(&cancels).await, [Outcome::Failed(lost()), Outcome::Done]);
}

#[tokio::test]
async fn answers_under_one_name_are_not_mixed() {
    let celery = celery(LONG, None, Some(2), |request: &Request, sink: &ReplySink| {
        answer_as("w@a", request, sink);
        answer_as("w@a", request, sink);
    });
    let view = celery.observe(&tasks(&["a"])).await.unwrap();
    assert!(matches!(view.tasks[&TaskId::from("a")], Mapping::Ambiguous { .. }));
    assert!(view.nodes.is_empty());
}

#[tokio::test]
async fn what_a_node_refuses_is_told_in_its_own_words() {
    let celery = celery(SHORT, None, Some(3), |request: &Request, sink: &ReplySink| {
        let node = request.destination.as_ref().unwrap().as_str();
        match (&request.method, node) {
            (Method::CancelConsumer(queue), "w@a") if queue.as_str() == "bad" => {
                say(sink, &request.ticket, node, &json!({"error": "TypeError()"}));
            }
            (_, "w@silent") => {}
            _ => say(sink, &request.ticket, node, &json!({"ok": "no longer consuming"})),
        }
    });
    let cancels = [
        ("w@a".into(), vec!["good".into(), "bad".into(), "good".into()]),
        ("w@b".into(), vec!["good".into()]),
        ("w@silent".into(), vec!["good".into()]),
    ];
    let refused = Outcome::Refused { reason: "TypeError()".into() };
    assert_eq!(celery.cancel(&cancels).await, [refused, Outcome::Done, Outcome::Done]);
}

/// A row that names a test that is gone proves nothing.
#[test]
fn every_hazard_that_the_docs_list_has_its_test() {
    let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read =
        |path: &str| std::fs::read_to_string(repository.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let sources = [
        "both/hazards",
        "both/observations",
        "both/orders",
        "both/outages",
        "redis/many",
        "redis/sentinel",
        "redis/separators",
        "amqp/many",
    ];
    let sources = sources.map(|name| read(&format!("controller/tests/celery_{name}.rs"))).concat();
    let sources = sources + &read("controller/src/workers/celery/tests.rs");
    let hazards = read("docs/hazards.md");
    let mut count = 0;
    for row in hazards.lines().filter(|line| line.starts_with("| ")).take_while(|line| !line.contains("5.3 | 5.4")) {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        for test in tests.split('`').filter(|word| word.matches('_').count() > 2) {
            assert!(
                sources.contains(&format!("fn {test}(")),
                "docs/hazards.md names {test}, and there is no such test"
            );
            count += 1;
        }
    }
    assert!(count > 20, "only {count} tests were found in docs/hazards.md");
}
