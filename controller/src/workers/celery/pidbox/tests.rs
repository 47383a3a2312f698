use jiff::Timestamp;
use rstest::rstest;
use serde_json::{Value, json};
use worker_drain_plan::{
    NodeName,
    observation::{Binding, Queue},
};

use super::{Body, Method, Recipients, ReplyTo, Request, parse_jobs, parse_queues, parse_reply, parse_scheduled};

fn body(method: Method, destination: Option<&str>) -> Value {
    let request = Request {
        ticket: "t-1".into(),
        expires: Timestamp::UNIX_EPOCH,
        to: destination.map_or(Recipients::Everybody, |node| NodeName::from(node).into()),
        method,
    };
    let reply_to = ReplyTo { exchange: "reply.celery.pidbox".into(), routing_key: "me".into() };
    serde_json::from_str(&request.body(&reply_to)).unwrap()
}

#[test]
fn a_request_is_what_celerys_own_client_sends() {
    assert_eq!(
        body(Method::CancelConsumer("slow".into()), Some("w1@test")),
        json!({
            "method": "cancel_consumer", "arguments": {"queue": "slow"}, "destination": ["w1@test"],
            "pattern": null, "matcher": null, "ticket": "t-1",
            "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "me"},
        })
    );
    assert_eq!(body(Method::Reserved, None)["destination"], Value::Null);
}

#[test]
fn a_queue_is_given_back_as_it_was_told() {
    let told = json!([{
        "name": "slow", "exchange": {"name": "media", "type": "topic", "durable": true},
        "routing_key": "video.#", "durable": true,
    }]);
    let queue = parse_queues(&told.to_string()).unwrap().remove(0);
    assert_eq!(
        body(Method::AddConsumer(queue), None)["arguments"],
        json!({"queue": "slow", "exchange": "media", "exchange_type": "topic", "routing_key": "video.#"})
    );
    let plain = Queue::named("slow");
    assert_eq!(
        body(Method::AddConsumer(plain), None)["arguments"],
        json!({"queue": "slow", "exchange": null, "exchange_type": null, "routing_key": null})
    );
}

fn whole(body: &[u8]) -> Body {
    body.to_vec().into()
}

#[rstest]
#[case::no_json(b"\xff\xfe{")]
#[case::another_shape(b"[1, 2]")]
#[case::text(b"\"pong\"")]
#[case::nobody(b"{}")]
#[case::nameless(b"{\"\": []}")]
#[case::two_at_once(b"{\"a@x\": [], \"b@x\": []}")]
fn junk_is_no_reply(#[case] body: &[u8]) {
    assert!(parse_reply(&whole(body)).is_none());
}

#[test]
fn numbers_that_only_python_has_do_not_spoil_a_reply() {
    let body = whole(br#"{"w@x": {"result_backend_max_retries": Infinity}}"#);
    let said = parse_reply(&body).unwrap();
    assert_eq!(said.answer.unwrap().get(), r#"{"result_backend_max_retries": null}"#);
}

#[test]
fn an_error_is_no_answer() {
    let body = whole(br#"{"w@x": {"error": "KeyError('nonsense')"}}"#);
    let said = parse_reply(&body).unwrap();
    assert_eq!((said.node.as_str(), said.answer.unwrap_err().to_string().as_str()), ("w@x", "KeyError('nonsense')"));
    let body = whole(br#"{"w@x": {"error": {"odd": true}}}"#);
    assert_eq!(parse_reply(&body).unwrap().answer.unwrap_err().to_string(), r#"{"odd": true}"#);
}

#[rstest]
#[case::ok(json!({"ok": "pong"}))]
#[case::null(json!(null))]
#[case::number(json!(7))]
#[case::wrong_entries(json!([1, "two", null]))]
#[case::one_of_them_is_wrong(json!([{"id": "a", "name": "a", "request": {"id": "a"}}, {}]))]
#[case::no_text(json!([{"id": 5, "name": 5, "request": {"id": 5}}]))]
fn a_wrong_shape_is_no_answer(#[case] answer: Value) {
    let answer = answer.to_string();
    assert_eq!(parse_queues(&answer), None);
    assert_eq!(parse_jobs(&answer), None);
    assert_eq!(parse_scheduled(&answer), None);
}

#[test]
fn jobs_are_kept_without_their_arguments() {
    let entry = json!({
        "id": "job-1", "name": "send", "args": ["alice@example.org"], "kwargs": {"card": 4111},
        "time_start": 1_767_225_600.25, "worker_pid": 7,
    });
    let jobs = parse_jobs(&json!([entry]).to_string()).unwrap();
    assert_eq!(jobs[0].started_at.unwrap().to_string(), "2026-01-01T00:00:00.25Z");
    assert!(!format!("{jobs:?}").contains("alice"));

    let scheduled = parse_scheduled(&json!([{"eta": "…", "priority": 6, "request": entry}]).to_string()).unwrap();
    assert_eq!(scheduled, jobs);
    let waiting = parse_jobs(&json!([{"id": "job-2", "name": "send", "time_start": null}]).to_string()).unwrap();
    assert_eq!(waiting[0].started_at, None);
    let absurd = parse_jobs(&json!([{"id": "job-3", "name": "send", "time_start": 1e300}]).to_string()).unwrap();
    assert_eq!(absurd[0].started_at, None);
}

#[test]
fn a_queue_without_an_exchange_has_no_binding() {
    let queues = parse_queues(&json!([{"name": "a", "exchange": null, "routing_key": "a"}]).to_string()).unwrap();
    assert_eq!(queues, [Queue::named("a")]);
    let bound = json!([{"name": "a", "exchange": {"name": "", "type": "direct"}, "routing_key": "a"}]);
    let bound = parse_queues(&bound.to_string());
    let binding = Binding { exchange: String::new(), exchange_type: "direct".into(), routing_key: "a".into() };
    assert_eq!(bound.unwrap()[0].binding, Some(binding));
    let doomed = parse_queues(&json!([{"name": "a", "auto_delete": true}]).to_string()).unwrap();
    assert!(doomed[0].auto_delete);
}

#[test]
fn a_broadcast_is_no_queue_that_could_be_taken_from_its_worker() {
    let told = |name: &str, kind: &str, auto_delete: bool| json!({"name": name, "exchange": {"name": "news", "type": kind}, "routing_key": "", "auto_delete": auto_delete});
    let unique = "bcast.7bcacca6-f55b-4bb0-b6b4-3768566613c9";
    let entries = [
        told(unique, "fanout", true),
        told("shared", "fanout", true),
        told(unique, "fanout", false),
        told(unique, "direct", true),
    ];
    let queues = parse_queues(&json!(entries).to_string()).unwrap();
    assert_eq!(queues.iter().map(|queue| queue.name.as_str()).collect::<Vec<_>>(), ["shared", unique, unique]);
}
