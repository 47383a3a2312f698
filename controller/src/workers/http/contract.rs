//! The contract's documents, as docs/http-worker.openapi.yaml describes them: what a worker says of itself, and what it is
//! told. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use worker_drain_plan::{QueueName, observation::Job};

/// Of a longer list the first are kept: a worker lists the oldest first, and a list that is not empty says all that
/// matters.
const MOST_JOBS: usize = 1000;
/// So much is kept of an id or a name that goes into a status.
const LONGEST_TEXT: usize = 256;

/// What a worker says of itself, all of it as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Changes with every start of the worker.
    pub instance: String,
    /// The ECS task that it runs in, by id or ARN, if it knows.
    pub task: Option<String>,
    /// The queues that it may still take jobs from; `None`: it does not know now.
    pub queues: Option<Vec<String>>,
    /// Jobs that run.
    pub active: Vec<Job>,
    /// Jobs that it has and that do not run.
    pub reserved: Vec<Job>,
    /// Jobs that it holds until a later time.
    pub scheduled: Vec<Job>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StateDocument {
    instance: String,
    #[serde(rename = "startedAt")]
    _started_at: Timestamp,
    #[serde(rename = "worker")]
    _worker: Option<String>,
    task: Option<String>,
    #[serde(deserialize_with = "null_is_said")]
    queues: Option<Vec<String>>,
    active: Vec<JobDocument>,
    reserved: Vec<JobDocument>,
    scheduled: Vec<JobDocument>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JobDocument {
    id: String,
    name: String,
    started_at: Option<Timestamp>,
    #[serde(rename = "eta")]
    _eta: Option<Timestamp>,
}

/// With its own function a field must be there, though it may be null.
fn null_is_said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    Option::deserialize(deserializer)
}

impl State {
    /// Reads the body of an answer. Fields that are not known are left alone. Errors: what is wrong with it, in short.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let document: StateDocument = serde_json::from_slice(body).map_err(|error| clip(&error.to_string()))?;
        if document.instance.is_empty() || document.instance.len() > LONGEST_TEXT {
            return Err(format!("instance must be a text of 1 to {LONGEST_TEXT} characters"));
        }
        Ok(Self {
            instance: document.instance,
            task: document.task.map(|task| clip(&task)),
            queues: document.queues,
            active: jobs(document.active),
            reserved: jobs(document.reserved),
            scheduled: jobs(document.scheduled),
        })
    }
}

fn jobs(documents: Vec<JobDocument>) -> Vec<Job> {
    let job = |JobDocument { id, name, started_at, .. }| Job { id: clip(&id), name: clip(&name), started_at };
    documents.into_iter().take(MOST_JOBS).map(job).collect()
}

/// A text of somebody else's that goes to people's terminals and into a status.
pub(super) fn clip(text: &str) -> String {
    text.chars().filter(|sign| !sign.is_control()).take(LONGEST_TEXT).collect()
}

/// What a worker is sent.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Order<'a> {
    /// Whom it is meant for: another instance refuses it.
    pub(super) instance: &'a str,
    /// The queues that it is about.
    pub(super) queues: Vec<&'a QueueName>,
}

/// What a worker says when it does not do what it is asked.
#[derive(Deserialize)]
pub(super) struct Complaint {
    error: String,
}

impl Complaint {
    /// Its words, in short; nothing if it says something else.
    pub(super) fn read(body: &[u8]) -> String {
        serde_json::from_slice(body).map(|Self { error }| clip(&error)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::State;

    fn state(change: impl FnOnce(&mut Value)) -> Result<State, String> {
        let mut state = json!({
            "instance": "6f1", "startedAt": "2026-11-24T05:44:54.8Z", "queues": ["slow"],
            "active": [{"id": "a", "name": "cut", "startedAt": "2026-11-24T05:45:02Z"}],
            "reserved": [{"id": "b", "name": "cut"}],
            "scheduled": [{"id": "c", "name": "cut", "eta": "2026-11-25T00:00:00Z"}],
            "something": "of a later version",
        });
        change(&mut state);
        State::parse(state.to_string().as_bytes())
    }

    #[test]
    fn a_state_is_read() {
        let read = state(|_| {}).unwrap();
        assert_eq!((read.instance.as_str(), read.task), ("6f1", None));
        assert_eq!(read.queues.unwrap(), ["slow"]);
        assert_eq!(read.active[0].started_at, Some("2026-11-24T05:45:02Z".parse().unwrap()));
        assert_eq!((read.reserved[0].id.as_str(), read.scheduled[0].name.as_str()), ("b", "cut"));
        assert_eq!(state(|state| state["queues"] = Value::Null).unwrap().queues, None, "it cannot tell now");
    }

    #[rstest]
    #[case("instance", "missing field `instance`")]
    #[case("startedAt", "missing field `startedAt`")]
    #[case("queues", "missing field `queues`")]
    #[case("active", "missing field `active`")]
    #[case("reserved", "missing field `reserved`")]
    #[case("scheduled", "missing field `scheduled`")]
    fn what_is_missing_is_never_taken_for_none(#[case] field: &str, #[case] expected: &str) {
        let error = state(|state| drop(state.as_object_mut().unwrap().remove(field))).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[rstest]
    #[case("queues", json!("slow"))]
    #[case("active", Value::Null)]
    #[case("active", json!([{"name": "cut"}]))]
    #[case("reserved", json!(0))]
    #[case("startedAt", json!("yesterday"))]
    #[case("instance", json!(""))]
    #[case("instance", json!("x".repeat(1000)))]
    fn what_is_of_another_form_is_no_answer(#[case] field: &str, #[case] value: Value) {
        assert!(state(|state| state[field] = value).is_err());
    }

    #[test]
    fn what_is_shown_to_people_is_short_and_plain() {
        let jobs: Vec<Value> =
            (0..5000).map(|_| json!({"id": "\u{1b}[2J".to_owned() + &"x".repeat(999), "name": ""})).collect();
        let read = state(|state| state["reserved"] = jobs.into()).unwrap();
        assert_eq!(read.reserved.len(), 1000);
        assert!(read.reserved[0].id.starts_with("[2Jx") && read.reserved[0].id.len() == 256);
    }
}
