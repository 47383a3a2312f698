//! What is made of replies, over a transport that says what a test wants.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;
use worker_drain_plan::{
    NodeName, Outcome, TaskId,
    observation::{Failure, FailureKind, Mapping, Strength},
};

use super::{
    Celery, CelerySettings, Replies, Reply, ReplySink, Sent, Transport, Workers,
    pidbox::{Method, Recipients, Request},
};
use crate::{clock::SystemClock, identity::Expected};

mod too_long;

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
        Ok(Sent { receivers: vec![self.receivers; requests.len()], bound: BTreeSet::new(), replies })
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
        node_names: template.map(String::from).into_iter().collect(),
        ..CelerySettings::new("redis://unused")
    };
    let transport = Scripted { receivers, answer, kept: Mutex::default() };
    Celery::over(transport, &settings, Arc::new(SystemClock)).unwrap()
}

fn say(sink: &ReplySink, ticket: &str, node: &str, answer: &Value) {
    let body = json!({node: answer}).to_string().into_bytes();
    sink.put(Ok(Reply { ticket: ticket.into(), body: body.into() }));
}

/// As an idle worker would that was started a minute ago, if it is asked.
fn answer_as(node: &str, request: &Request, sink: &ReplySink) {
    let answer = match request.method {
        Method::Ping => json!({"ok": "pong"}),
        Method::Stats => json!({"pid": 7, "uptime": 60, "total": {}}),
        Method::Report => json!({"ok": "software -> celery:5.7.0 (collider)"}),
        Method::Conf => json!({"accept_content": ["json"], "worker_disable_rate_limits": false}),
        _ => json!([]),
    };
    if is_for(node, request) {
        say(sink, &request.ticket, node, &answer);
    }
}

fn is_for(node: &str, request: &Request) -> bool {
    match &request.to {
        Recipients::Everybody => true,
        Recipients::Nodes(nodes) => nodes.contains(&NodeName::from(node)),
    }
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
    let celery = celery(SHORT, None, Some(2), move |request: &Request, sink: &ReplySink| {
        noted.lock().unwrap().push(request.clone());
        answer_as("w@a", request, sink);
        answer_as("w@stranger", request, sink);
    });
    let (own, stranger) = (Recipients::from(NodeName::from("w@a")), Recipients::from(NodeName::from("w@stranger")));
    let lists = ["active_queues", "stats", "reserved", "active", "scheduled"];
    let introduction = ["active_queues", "stats", "active", "conf", "registered", "stats"];
    // It has nothing to do: which limits there are now is asked last.
    let limits = ["registered"];
    for expected in [vec![&["ping"][..], &introduction, &lists, &limits], vec![&["ping"], &lists, &limits]] {
        celery.observe(&tasks(&["a"])).await.unwrap();
        let asked = std::mem::take(&mut *asked.lock().unwrap());
        let methods: Vec<&str> = asked.iter().map(|request| request.method.name()).collect();
        assert_eq!(methods, expected.concat(), "it is met once");
        for Request { method, to, expires, .. } in asked {
            assert!(expires > celery.remote.clock.now());
            let is_right = match method {
                Method::Ping => to == Recipients::Everybody,
                Method::Stats => to == own || to == stranger,
                _ => to == own,
            };
            assert!(is_right, "{method:?} was asked of {to:?}");
        }
    }
}

#[tokio::test]
async fn one_that_was_nobodys_is_asked_once_it_is_somebodys() {
    let celery = celery(SHORT, None, Some(1), |request: &Request, sink: &ReplySink| answer_as("w@a", request, sink));
    let before = celery.observe(&tasks(&["b"])).await.unwrap();
    assert_eq!(before.unmatched_workers, ["w@a".into()].into());
    let after = celery.observe(&tasks(&["a"])).await.unwrap();
    assert!(after.nodes[&"w@a".into()].is_whole(), "{after:?}");
}

/// What came too late for one observation counts in the next, before anything can be proven.
#[tokio::test]
async fn one_that_answers_too_late_is_met_in_the_next_look() {
    let is_late = AtomicBool::new(true);
    let late = Arc::new(Mutex::new(None));
    let kept = late.clone();
    let celery = celery(LONG, Some("w@{taskId}"), None, move |request: &Request, sink: &ReplySink| {
        answer_as("w@a", request, sink);
        if request.method == Method::Ping && is_late.swap(false, Ordering::Relaxed) {
            *kept.lock().unwrap() = Some((sink.clone(), request.ticket.clone()));
        } else if request.method != Method::Ping {
            answer_as("second-of-a@a", request, sink);
        }
    });
    let one = celery.observe(&tasks(&["a"])).await.unwrap();
    assert_eq!(one.tasks[&TaskId::from("a")], Mapping::Nodes(["w@a".into()].into()));
    let (sink, ticket) = late.lock().unwrap().take().unwrap();
    say(&sink, &ticket, "second-of-a@a", &json!({"ok": "pong"}));
    let two = celery.observe(&known(tasks(&["a"]), &["w@a"])).await.unwrap();
    assert_eq!(two.tasks[&TaskId::from("a")], Mapping::Nodes(["w@a".into(), "second-of-a@a".into()].into()));
    assert!(two.nodes[&"second-of-a@a".into()].is_whole(), "{two:?}");
}

/// It is there, and is no frozen one: what helps is another.
#[tokio::test]
async fn one_that_answers_too_late_again_and_again_is_told_to_do_so() {
    let kept: Arc<Mutex<Vec<(ReplySink, String)>>> = Arc::default();
    let pings = kept.clone();
    let celery = celery(SHORT, Some("w@{taskId}"), None, move |request: &Request, sink: &ReplySink| {
        if request.method == Method::Ping {
            pings.lock().unwrap().push((sink.clone(), request.ticket.clone()));
        }
    });
    let tasks = known(tasks(&["a"]), &["w@a"]);
    for (look, is_known) in [false, true, true].into_iter().enumerate() {
        let view = celery.observe(&tasks).await.unwrap();
        let told = view.silences.get(&"w@a".into()).is_some_and(|why| why.contains("replyTimeout"));
        assert_eq!((told, view.nodes.len()), (is_known, 0), "look {look}");
        for (sink, ticket) in kept.lock().unwrap().drain(..) {
            say(&sink, &ticket, "w@a", &json!({"ok": "pong"}));
        }
    }
}

#[tokio::test]
async fn a_worker_with_the_package_is_asked_one_question_and_says_whose_it_is() {
    let celery = celery(SHORT, None, Some(1), |request: &Request, sink: &ReplySink| match request.method {
        Method::Ping => answer_as("w@anywhere", request, sink),
        Method::Stats => {
            let package = json!({"contract": 1, "version": "0.1.0", "instance": "9f", "task": "A", "celery": "5.7.0"});
            let stats = json!({"pid": 7, "uptime": 60, "total": {}, "worker_drain": package});
            say(sink, &request.ticket, "w@anywhere", &stats);
        }
        Method::WorkerDrain => {
            let counts =
                json!({"active": 0, "reserved": 0, "limited": 0, "scheduled": 0, "pool": 2, "unacknowledged": 0});
            let account = json!({
                "contract": 1, "instance": "9f", "pool": "threads", "queues": [], "active": [], "reserved": [],
                "limited": [], "scheduled": [], "counts": counts,
            });
            say(sink, &request.ticket, "w@anywhere", &account);
        }
        _ => panic!("{request:?} is asked of one with the package"),
    });
    let view = celery.observe(&tasks(&["a"])).await.unwrap();
    assert_eq!(view.tasks[&TaskId::from("a")], Mapping::Nodes(["w@anywhere".into()].into()));
    let answer = &view.nodes[&NodeName::from("w@anywhere")];
    assert_eq!((answer.unlisted, answer.strength), (2, Strength::Account));
    assert_eq!(answer.instance.as_deref(), Some("9f"));
}

#[tokio::test]
async fn a_worker_that_could_go_deaf_is_not_asked_what_would_make_it_so() {
    let celery = celery(SHORT, None, Some(1), |request: &Request, sink: &ReplySink| match request.method {
        Method::Reserved | Method::Scheduled => panic!("it goes deaf"),
        Method::Report => say(sink, &request.ticket, "w@a", &json!({"ok": "software -> celery:5.4.0"})),
        Method::Conf => say(sink, &request.ticket, "w@a", &json!({"accept_content": ["json", "pickle"]})),
        _ => answer_as("w@a", request, sink),
    });
    let view = celery.observe(&tasks(&["a"])).await.unwrap();
    let answer = &view.nodes[&NodeName::from("w@a")];
    assert!(answer.unseen.as_ref().is_some_and(|unseen| unseen.contains("accept_content")), "{answer:?}");
}

#[tokio::test]
async fn one_that_was_started_again_is_met_again() {
    let uptime = AtomicU64::new(60);
    let celery = celery(SHORT, None, Some(1), move |request: &Request, sink: &ReplySink| match request.method {
        Method::Stats => {
            let stats = json!({"pid": 7, "uptime": uptime.load(Ordering::Relaxed), "total": {}});
            say(sink, &request.ticket, "w@a", &stats);
        }
        // What it limits is known from its second start only, which comes when it has been asked that twice.
        Method::Registered if uptime.load(Ordering::Relaxed) == 0 => {
            say(sink, &request.ticket, "w@a", &json!(["app.slow [rate_limit=2/m]"]));
        }
        Method::Registered => {
            let now = uptime.load(Ordering::Relaxed);
            uptime.store(if now == 60 { 61 } else { 0 }, Ordering::Relaxed);
            answer_as("w@a", request, sink);
        }
        _ => answer_as("w@a", request, sink),
    });
    for expected in [0, 32] {
        let view = celery.observe(&tasks(&["a"])).await.unwrap();
        assert_eq!(view.nodes[&NodeName::from("w@a")].settles_in.as_secs(), expected);
    }
}

/// `celery control rate_limit` changes it while the worker runs, and those that wait already go on as before.
#[tokio::test]
async fn a_limit_that_is_set_later_is_seen_and_one_that_is_taken_away_is_not_forgotten() {
    let limits = Mutex::new(["", "2/m", "0", "?"].into_iter());
    let met = AtomicU64::new(0);
    let celery = celery(SHORT, None, Some(1), move |request: &Request, sink: &ReplySink| match request.method {
        Method::Registered if met.swap(1, Ordering::Relaxed) == 1 => match limits.lock().unwrap().next() {
            Some("?") | None => {}
            Some(rate) => say(sink, &request.ticket, "w@a", &json!([format!("app.slow [rate_limit={rate}]")])),
        },
        _ => answer_as("w@a", request, sink),
    });
    for (settles_in, is_told) in [(0, true), (32, true), (32, true), (32, false)] {
        let view = celery.observe(&tasks(&["a"])).await.unwrap();
        let answer = &view.nodes[&NodeName::from("w@a")];
        assert_eq!((answer.settles_in.as_secs(), answer.unseen.is_none()), (settles_in, is_told), "{answer:?}");
    }
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
async fn where_nothing_is_counted_a_look_ends_when_each_task_has_answered() {
    let one = |request: &Request, sink: &ReplySink| answer_as("w@a", request, sink);
    assert!(waits(&celery(SHORT, None, None, one), &tasks(&["a"])).await, "nobody is known yet");
    assert!(!waits(&celery(LONG, None, None, one), &known(tasks(&["a"]), &["w@a"])).await);
    assert!(!waits(&celery(LONG, Some("w@{taskId}"), None, one), &tasks(&["a"])).await);
    assert!(waits(&celery(SHORT, Some("w@{taskId}"), None, one), &tasks(&["a", "b"])).await);
}

#[tokio::test]
async fn a_part_that_was_not_answered_is_not_known() {
    let celery = celery(SHORT, None, Some(9), |request: &Request, sink: &ReplySink| match request.method {
        Method::ActiveQueues => say(sink, &request.ticket, "w@a", &json!({"error": "KeyError('active_queues')"})),
        Method::Reserved => say(sink, &request.ticket, "w@a", &json!({"odd": true})),
        Method::Active => say(sink, &request.ticket, "w@a", &json!([{"id": "j", "name": "n"}, 5])),
        Method::Ping | Method::Stats | Method::Report | Method::Conf | Method::Registered => {
            answer_as("w@a", request, sink);
        }
        _ => {
            say(sink, "a ticket of somebody else's", "w@foreign", &json!([]));
            sink.put(Ok(Reply { ticket: request.ticket.clone(), body: b"\x80\x04rubbish".to_vec().into() }));
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
    let celery = celery(LONG, None, Some(1), move |request: &Request, sink: &ReplySink| {
        if request.method == Method::Scheduled || matches!(request.method, Method::CancelConsumer(_)) {
            sink.put(Err(lost()));
        }
        answer_as("w@a", request, sink);
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
        let Recipients::Nodes(nodes) = &request.to else { panic!("an order goes to one node") };
        let node = nodes.first().unwrap().as_str();
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
        "both/gate",
        "both/orders",
        "both/outages",
        "both/unseen",
        "redis/many",
        "redis/sentinel",
        "redis/separators",
        "amqp/many",
    ];
    let sources = sources.map(|name| read(&format!("controller/tests/celery_{name}.rs"))).concat();
    let others = [
        "controller/src/workers/celery/tests.rs",
        "controller/src/workers/celery/pidbox/tests.rs",
        "controller/tests/command_line/another_hand.rs",
        "controller/tests/http_workers/celery.rs",
        "controller/tests/worker_package/counted.rs",
        "controller/tests/worker_package/disconnected.rs",
    ];
    let sources = sources + &others.map(read).concat();
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
