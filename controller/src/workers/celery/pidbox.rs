//! Celery's remote-control messages: the same on every broker.
//!
//! Described in Celery's documentation, "Workers Guide: Remote control" and "Inspecting workers"; the form on the wire is
//! kombu's `pidbox`, observed on Celery 5.5.3 and 5.7.0. What comes back is not trusted: a reply of another shape is no
//! answer, and nothing in it can make us panic. The arguments of jobs are never kept, because they may hold personal
//! data.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;
use worker_drain_plan::{
    NodeName, QueueName,
    observation::{Binding, Job, Queue},
};

/// The longest part of a node's error that is passed on.
const ERROR_LENGTH: usize = 200;

/// A request to nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What the replies are known by. Each request has its own.
    pub ticket: String,
    /// When it is too late to carry it out. Sent because Celery's own client sends it, and not to be relied on: on Redis,
    /// Celery 5.5.3 and 5.7.0 were seen to carry out requests that had expired, as a frozen worker does when it goes on.
    pub expires: Timestamp,
    /// Who is asked.
    pub to: Recipients,
    /// The remote-control command.
    pub method: Method,
}

/// Who is asked. All nodes of a broker get every request; those that it is not for pass over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// Every node of the broker, of other fleets too.
    Everybody,
    /// These.
    Nodes(BTreeSet<NodeName>),
}

impl From<NodeName> for Recipients {
    fn from(node: NodeName) -> Self {
        Self::Nodes([node].into())
    }
}

/// A remote-control command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// Is anybody there? The one question that does no harm to anybody, and costs each node the least.
    Ping,
    /// Counts since its start: process id, uptime, jobs begun, by name.
    Stats,
    /// Versions, as text.
    Report,
    /// Its configuration, without its defaults. Secrets are masked by Celery.
    Conf,
    /// The kinds of job that it knows, with rate limit and strategy of each.
    Registered,
    /// Everything at once, of a worker that has the package `celery-worker-drain`.
    WorkerDrain,
    /// Which queues the node takes jobs from. The only proof of a cancel.
    ActiveQueues,
    /// Jobs received and not started. Neither running jobs nor those with an ETA are among them.
    Reserved,
    /// Jobs that run.
    Active,
    /// Jobs with an ETA or a countdown that the node holds.
    Scheduled,
    /// Take no more jobs from this queue. Answered with "ok" whether or not the queue exists, and before the deed.
    CancelConsumer(QueueName),
    /// Take jobs from this queue.
    AddConsumer(Queue),
    /// Send events of jobs, until switched off or restarted.
    EnableEvents,
    /// Send none any more.
    DisableEvents,
}

/// Where a transport wants replies to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    /// The exchange, such as `reply.celery.pidbox`.
    pub exchange: String,
    /// The routing key: the client's own id.
    pub routing_key: String,
}

impl Request {
    /// A request with a new ticket.
    pub fn new(method: Method, to: Recipients, expires: Timestamp) -> Self {
        Self { ticket: Uuid::new_v4().to_string(), expires, to, method }
    }

    /// The message's body, UTF-8 JSON.
    pub fn body(&self, reply_to: &ReplyTo) -> String {
        let destination = match &self.to {
            Recipients::Everybody => None,
            Recipients::Nodes(nodes) => Some(nodes),
        };
        json!({
            "method": self.method.name(),
            "arguments": self.method.arguments(),
            "destination": destination,
            "pattern": null,
            "matcher": null,
            "ticket": self.ticket,
            "reply_to": {"exchange": reply_to.exchange, "routing_key": reply_to.routing_key},
        })
        .to_string()
    }
}

impl Method {
    /// Celery's name of it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Stats => "stats",
            Self::Report => "report",
            Self::Conf => "conf",
            Self::Registered => "registered",
            Self::WorkerDrain => "worker_drain",
            Self::ActiveQueues => "active_queues",
            Self::Reserved => "reserved",
            Self::Active => "active",
            Self::Scheduled => "scheduled",
            Self::CancelConsumer(_) => "cancel_consumer",
            Self::AddConsumer(_) => "add_consumer",
            Self::EnableEvents => "enable_events",
            Self::DisableEvents => "disable_events",
        }
    }

    fn arguments(&self) -> Value {
        match self {
            Self::Ping
            | Self::Stats
            | Self::Report
            | Self::Conf
            | Self::WorkerDrain
            | Self::ActiveQueues
            | Self::Reserved
            | Self::Scheduled
            | Self::EnableEvents
            | Self::DisableEvents => json!({}),
            Self::Registered => json!({"taskinfoitems": ["rate_limit", "Strategy"]}),
            // "safe" has arguments shown as their short text; the rest of the commands have no such switch.
            Self::Active => json!({"safe": true}),
            Self::CancelConsumer(queue) => json!({"queue": queue}),
            Self::AddConsumer(Queue { name, binding, .. }) => {
                let part = |part: fn(&Binding) -> &String| binding.as_ref().map(part);
                json!({
                    "queue": name,
                    "exchange": part(|binding| &binding.exchange),
                    "exchange_type": part(|binding| &binding.exchange_type),
                    "routing_key": part(|binding| &binding.routing_key),
                })
            }
        }
    }
}

/// What a node said to one request.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// Who.
    pub node: NodeName,
    /// Its answer, or its own words about why there is none.
    pub answer: Result<Value, String>,
}

/// Reads a reply's body. `None`: it is no reply at all.
pub fn parse_reply(body: &[u8]) -> Option<Said> {
    let Value::Object(reply) = serde_json::from_slice(body).ok().or_else(|| python_json(body))? else { return None };
    let mut entries = reply.into_iter();
    let (node, answer) = entries.next()?;
    if node.is_empty() || entries.next().is_some() {
        return None;
    }
    let answer = match answer.get("error") {
        Some(error) => Err(error.as_str().map_or_else(|| error.to_string(), String::from)),
        None => Ok(answer),
    };
    Some(Said { node: node.into(), answer: answer.map_err(|error| error.chars().take(ERROR_LENGTH).collect()) })
}

/// JSON as Python writes it: with numbers that JSON has not, of which Celery's configuration has some.
fn python_json(body: &[u8]) -> Option<Value> {
    let text = ["-Infinity", "Infinity", "NaN"]
        .iter()
        .fold(String::from_utf8(body.to_vec()).ok()?, |text, number| text.replace(number, "null"));
    serde_json::from_str(&text).ok()
}

/// Reads the answer to [`Method::ActiveQueues`]. `None`: it is not one, and one entry that cannot be read spoils it all,
/// because a queue that is left out would read as cancelled.
pub fn parse_queues(answer: &Value) -> Option<Vec<Queue>> {
    answer.as_array()?.iter().map(parse_queue).collect()
}

fn parse_queue(entry: &Value) -> Option<Queue> {
    let text = |value: &Value| value.as_str().map(String::from);
    let name = text(&entry["name"]).filter(|name| !name.is_empty())?;
    let exchange = &entry["exchange"];
    // A queue without any of these is on the broker's default exchange, and add_consumer needs none of them.
    let binding = text(&exchange["name"])
        .zip(text(&exchange["type"]))
        .zip(text(&entry["routing_key"]))
        .map(|((exchange, exchange_type), routing_key)| Binding { exchange, exchange_type, routing_key });
    // Celery 5.3 to 5.7 tell it; where it is not told, nothing is known against the queue.
    let auto_delete = entry["auto_delete"].as_bool().unwrap_or(false);
    Some(Queue { name: name.into(), binding, auto_delete })
}

/// Reads the answer to [`Method::Active`] or [`Method::Reserved`]. `None`: it is not one, and one entry that cannot be
/// read spoils it all, because a job that is left out would read as done.
pub fn parse_jobs(answer: &Value) -> Option<Vec<Job>> {
    answer.as_array()?.iter().map(parse_job).collect()
}

/// Reads the answer to [`Method::Scheduled`], as [`parse_jobs`] does.
pub fn parse_scheduled(answer: &Value) -> Option<Vec<Job>> {
    answer.as_array()?.iter().map(|entry| parse_job(&entry["request"])).collect()
}

fn parse_job(entry: &Value) -> Option<Job> {
    /// Only what is kept: serde passes over the arguments.
    #[derive(Deserialize)]
    struct Entry {
        id: String,
        name: Option<String>,
        time_start: Option<f64>,
    }

    let Entry { id, name, time_start } = Entry::deserialize(entry).ok()?;
    let started_at = time_start
        .and_then(|seconds| SignedDuration::try_from_secs_f64(seconds).ok())
        .and_then(|since_1970| Timestamp::from_duration(since_1970).ok());
    Some(Job { id, name: name.unwrap_or_default(), started_at })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use rstest::rstest;
    use serde_json::{Value, json};
    use worker_drain_plan::{
        NodeName,
        observation::{Binding, Queue},
    };

    use super::{Method, Recipients, ReplyTo, Request, parse_jobs, parse_queues, parse_reply, parse_scheduled};

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
        let queue = parse_queues(&told).unwrap().remove(0);
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

    #[rstest]
    #[case::no_json(b"\xff\xfe{")]
    #[case::another_shape(b"[1, 2]")]
    #[case::text(b"\"pong\"")]
    #[case::nobody(b"{}")]
    #[case::nameless(b"{\"\": []}")]
    #[case::two_at_once(b"{\"a@x\": [], \"b@x\": []}")]
    fn junk_is_no_reply(#[case] body: &[u8]) {
        assert_eq!(parse_reply(body), None);
    }

    #[test]
    fn numbers_that_only_python_has_do_not_spoil_a_reply() {
        let said = parse_reply(br#"{"w@x": {"result_backend_max_retries": Infinity}}"#).unwrap();
        assert_eq!(said.answer, Ok(json!({"result_backend_max_retries": null})));
    }

    #[test]
    fn an_error_is_no_answer() {
        let said = parse_reply(br#"{"w@x": {"error": "KeyError('nonsense')"}}"#).unwrap();
        assert_eq!((said.node.as_str(), said.answer), ("w@x", Err("KeyError('nonsense')".into())));
        let said = parse_reply(br#"{"w@x": {"error": {"odd": true}}}"#).unwrap();
        assert_eq!(said.answer, Err(r#"{"odd":true}"#.into()));
    }

    #[rstest]
    #[case::ok(json!({"ok": "pong"}))]
    #[case::null(json!(null))]
    #[case::number(json!(7))]
    #[case::wrong_entries(json!([1, "two", null]))]
    #[case::one_of_them_is_wrong(json!([{"id": "a", "name": "a", "request": {"id": "a"}}, {}]))]
    #[case::no_text(json!([{"id": 5, "name": 5, "request": {"id": 5}}]))]
    fn a_wrong_shape_is_no_answer(#[case] answer: Value) {
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
        let jobs = parse_jobs(&json!([entry])).unwrap();
        assert_eq!(jobs[0].started_at.unwrap().to_string(), "2026-01-01T00:00:00.25Z");
        assert!(!format!("{jobs:?}").contains("alice"));

        let scheduled = parse_scheduled(&json!([{"eta": "…", "priority": 6, "request": entry}])).unwrap();
        assert_eq!(scheduled, jobs);
        let waiting = parse_jobs(&json!([{"id": "job-2", "name": "send", "time_start": null}])).unwrap();
        assert_eq!(waiting[0].started_at, None);
        let absurd = parse_jobs(&json!([{"id": "job-3", "name": "send", "time_start": 1e300}])).unwrap();
        assert_eq!(absurd[0].started_at, None);
    }

    #[test]
    fn a_queue_without_an_exchange_has_no_binding() {
        let queues = parse_queues(&json!([{"name": "a", "exchange": null, "routing_key": "a"}])).unwrap();
        assert_eq!(queues, [Queue::named("a")]);
        let bound =
            parse_queues(&json!([{"name": "a", "exchange": {"name": "", "type": "direct"}, "routing_key": "a"}]));
        let binding = Binding { exchange: String::new(), exchange_type: "direct".into(), routing_key: "a".into() };
        assert_eq!(bound.unwrap()[0].binding, Some(binding));
        let doomed = parse_queues(&json!([{"name": "a", "auto_delete": true}])).unwrap();
        assert!(doomed[0].auto_delete);
    }
}
