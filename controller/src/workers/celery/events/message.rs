//! What a node sends unasked: Celery's events, the same on every broker.
//!
//! Described in Celery's documentation, "Monitoring and Management Guide: Event Reference"; the form on the wire was
//! observed on Celery 5.5.3 and 5.7.0. An event of a job holds its arguments or its result, which may be personal data: of
//! all that, only the kind of event and the node's name are read.

use std::borrow::Cow;

use serde::Deserialize;
use worker_drain_plan::NodeName;

use crate::signals::Sign;

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    hostname: Cow<'a, str>,
    active: Option<u64>,
    processed: Option<u64>,
}

/// What a node sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Who.
    pub(super) node: NodeName,
    /// It says that it stops.
    pub(super) leaves: bool,
    /// What it says of a job that ended, if it does.
    pub(super) sign: Option<Sign>,
}

/// What an event, or several at once, tell. Nothing, if it is none.
pub(super) fn told(body: &[u8]) -> Vec<Told> {
    // A node sends events of jobs many at once, as a list.
    let events: Vec<Event<'_>> = if body.first() == Some(&b'[') {
        serde_json::from_slice(body).unwrap_or_default()
    } else {
        serde_json::from_slice(body).into_iter().collect()
    };
    let told = |event: &Event<'_>| Told {
        node: NodeName::from(&*event.hostname),
        leaves: event.kind == "worker-offline",
        sign: sign(event),
    };
    events.iter().map(told).collect()
}

fn sign(event: &Event<'_>) -> Option<Sign> {
    match &*event.kind {
        // A job that will be retried goes back to its queue, and has ended here.
        "task-succeeded" | "task-failed" | "task-retried" | "task-revoked" | "task-rejected" => Some(Sign::Ended),
        "worker-heartbeat" if event.active == Some(0) => Some(Sign::Rests { begun: event.processed.unwrap_or(0) }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case("task-succeeded", true)]
    #[case("task-failed", true)]
    #[case("task-retried", true)]
    #[case("task-revoked", true)]
    #[case("task-rejected", true)]
    #[case("task-started", false)]
    #[case("task-received", false)]
    #[case("worker-offline", false)]
    #[case("custom-event", false)]
    fn ends_of_jobs_are_told_from_all_else(#[case] kind: &str, #[case] is_end: bool) {
        let event = json!({"type": kind, "hostname": "w@x", "uuid": "1", "result": "'alice'", "clock": 4});
        let expected =
            || Told { node: "w@x".into(), leaves: kind == "worker-offline", sign: is_end.then_some(Sign::Ended) };
        assert_eq!(told(event.to_string().as_bytes()), [expected()]);
        let twice = json!([event, event]);
        assert_eq!(told(twice.to_string().as_bytes()), [expected(), expected()]);
    }

    #[test]
    fn a_heartbeat_tells_whether_a_node_rests() {
        let heartbeat = |active: u32| {
            let body = json!({"type": "worker-heartbeat", "hostname": "w@x", "active": active, "processed": 7});
            told(body.to_string().as_bytes()).remove(0).sign
        };
        assert_eq!(heartbeat(0), Some(Sign::Rests { begun: 7 }));
        assert_eq!(heartbeat(1), None);
    }

    #[rstest]
    #[case::nothing(b"")]
    #[case::no_json(b"\xff\xfe{")]
    #[case::text(b"\"task-succeeded\"")]
    #[case::nobody(b"{\"type\": \"task-succeeded\"}")]
    #[case::no_text(b"{\"type\": 5, \"hostname\": []}")]
    #[case::a_broken_list(b"[{\"type\": \"task-succeeded\", \"hostname\": \"w@x\"}, 5]")]
    fn junk_is_no_event(#[case] body: &[u8]) {
        assert_eq!(told(body), []);
    }
}
