//! Celery's remote-control messages: the same on every broker.
//!
//! Described in Celery's documentation, "Workers Guide: Remote control" and "Inspecting workers"; the form on the wire is
//! kombu's `pidbox`, observed on Celery 5.5.3 and 5.7.0. What comes back is not trusted: a reply of another shape is no
//! answer, and nothing in it can make us panic. The arguments of jobs are never kept, because they may hold personal
//! data.

use std::{borrow::Cow, collections::BTreeSet, fmt};

use jiff::{SignedDuration, Timestamp};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use thiserror::Error;
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
        #[derive(Serialize)]
        struct Body<'a> {
            method: &'static str,
            arguments: Arguments<'a>,
            destination: Option<&'a BTreeSet<NodeName>>,
            pattern: (),
            matcher: (),
            ticket: &'a str,
            reply_to: &'a ReplyTo,
        }

        let destination = match &self.to {
            Recipients::Everybody => None,
            Recipients::Nodes(nodes) => Some(nodes),
        };
        let (method, arguments) = (self.method.name(), self.method.arguments());
        let body = Body { method, arguments, destination, pattern: (), matcher: (), ticket: &self.ticket, reply_to };
        serde_json::to_string(&body).expect("text and lists of text can always be written")
    }
}

/// What goes with a remote-control command.
#[derive(Serialize)]
#[serde(untagged)]
enum Arguments<'a> {
    Nothing {},
    Registered {
        taskinfoitems: [&'static str; 2],
    },
    Active {
        safe: bool,
    },
    Cancel {
        queue: &'a QueueName,
    },
    Add {
        queue: &'a QueueName,
        exchange: Option<&'a str>,
        exchange_type: Option<&'a str>,
        routing_key: Option<&'a str>,
    },
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

    fn arguments(&self) -> Arguments<'_> {
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
            | Self::DisableEvents => Arguments::Nothing {},
            Self::Registered => Arguments::Registered { taskinfoitems: ["rate_limit", "Strategy"] },
            // "safe" has arguments shown as their short text; the rest of the commands have no such switch.
            Self::Active => Arguments::Active { safe: true },
            Self::CancelConsumer(queue) => Arguments::Cancel { queue },
            Self::AddConsumer(Queue { name, binding, .. }) => {
                let part = |part: fn(&Binding) -> &String| binding.as_ref().map(|binding| part(binding).as_str());
                Arguments::Add {
                    queue: name,
                    exchange: part(|binding| &binding.exchange),
                    exchange_type: part(|binding| &binding.exchange_type),
                    routing_key: part(|binding| &binding.routing_key),
                }
            }
        }
    }
}

/// The body of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// As it came, not yet looked into.
    Whole(Vec<u8>),
    /// It was too long, and left out but for who sent it.
    TooLong(NodeName, TooLong),
}

impl From<Vec<u8>> for Body {
    fn from(body: Vec<u8>) -> Self {
        Self::Whole(body)
    }
}

impl Body {
    /// How much memory it takes.
    pub fn size(&self) -> usize {
        match self {
            Self::Whole(body) => body.len(),
            Self::TooLong(..) => 0,
        }
    }
}

/// A reply that is longer than what is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("has {} MiB, more than the {} MiB that are read", .bytes >> 20, .most >> 20)]
pub struct TooLong {
    /// Its length.
    pub bytes: u64,
    /// What is read.
    pub most: u64,
}

/// What a node said to one request.
#[derive(Clone, Debug)]
pub struct Said<'a> {
    /// Who.
    pub node: NodeName,
    /// Its answer, as JSON that whoever asked can read. It may be long, and is copied only where it must be.
    pub answer: Result<Cow<'a, RawValue>, NoAnswer>,
}

/// Why a reply holds no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoAnswer {
    /// The node's own words.
    #[error("{0}")]
    Refused(String),
    /// It was left out.
    #[error("its answer {0}")]
    TooLong(TooLong),
}

/// Reads a reply's body, as far as it is the same for all requests. `None`: it is no reply at all.
pub fn parse_reply(body: &Body) -> Option<Said<'_>> {
    let body = match body {
        Body::Whole(body) => std::str::from_utf8(body).ok()?,
        Body::TooLong(node, how) => return Some(Said { node: node.clone(), answer: Err(NoAnswer::TooLong(*how)) }),
    };
    let (node, answer) = if let Ok(Reply { node, answer }) = serde_json::from_str(body) {
        (node, Cow::Borrowed(answer))
    } else {
        let body = without_python_numbers(body);
        let Reply { node, answer } = serde_json::from_str(&body).ok()?;
        (node, Cow::Owned(answer.to_owned()))
    };
    let refusal = error(answer.get()).map(|error| error.chars().take(ERROR_LENGTH).collect());
    Some(Said { node, answer: refusal.map_or(Ok(answer), |error| Err(NoAnswer::Refused(error))) })
}

/// A reply is an object of one entry, with the node's name for its key.
struct Reply<'a> {
    node: NodeName,
    answer: &'a RawValue,
}

impl<'de> Deserialize<'de> for Reply<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneEntry;

        impl<'de> Visitor<'de> for OneEntry {
            type Value = Reply<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of one entry, whose key is not empty")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut entries: M) -> Result<Reply<'de>, M::Error> {
                let entry: Option<(NodeName, &'de RawValue)> = entries.next_entry()?;
                let is_one = entries.next_key::<IgnoredAny>()?.is_none();
                let entry = entry.filter(|(node, _)| is_one && !node.as_str().is_empty());
                let (node, answer) = entry.ok_or_else(|| M::Error::custom("not one entry"))?;
                Ok(Reply { node, answer })
            }
        }

        deserializer.deserialize_map(OneEntry)
    }
}

/// A node's own words about why it does not answer.
fn error(answer: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        error: Option<Box<RawValue>>,
    }

    // Only an object has an error; lists of jobs may be long.
    let refusal: Refusal = answer.starts_with('{').then(|| serde_json::from_str(answer).ok())??;
    let error = refusal.error?;
    Some(serde_json::from_str(error.get()).unwrap_or_else(|_| error.get().to_owned()))
}

/// Python writes numbers that JSON has not, of which Celery's configuration has some.
fn without_python_numbers(body: &str) -> String {
    let numbers = ["-Infinity", "Infinity", "NaN"];
    numbers.iter().fold(body.to_owned(), |text, number| text.replace(number, "null"))
}

/// Reads the answer to [`Method::ActiveQueues`]. `None`: it is not one, and one entry that cannot be read spoils it all,
/// because a queue that is left out would read as cancelled. Only a [broadcast](is_broadcast) is left out: of its messages each
/// worker has a copy of its own, which nobody else could take.
pub fn parse_queues(answer: &str) -> Option<Vec<Queue>> {
    #[derive(Deserialize)]
    struct Entry {
        name: String,
        exchange: Option<Exchange>,
        routing_key: Option<String>,
        auto_delete: Option<bool>,
    }

    #[derive(Deserialize)]
    struct Exchange {
        name: Option<String>,
        #[serde(rename = "type")]
        exchange_type: Option<String>,
    }

    let queue = |Entry { name, exchange, routing_key, auto_delete }: Entry| {
        // A queue without any of these is on the broker's default exchange, and add_consumer needs none of them.
        let binding = exchange.and_then(|Exchange { name, exchange_type }| {
            Some(Binding { exchange: name?, exchange_type: exchange_type?, routing_key: routing_key? })
        });
        // Celery 5.3 to 5.7 tell auto_delete; where it is not told, nothing is known against the queue.
        let queue = Queue { name: name.into(), binding, auto_delete: auto_delete.unwrap_or(false) };
        (!queue.name.as_str().is_empty()).then_some(queue)
    };
    let mut queues: Vec<Queue> =
        serde_json::from_str::<Vec<Entry>>(answer).ok()?.into_iter().map(queue).collect::<Option<_>>()?;
    queues.retain(|queue| !is_broadcast(queue));
    Some(queues)
}

/// This queue is one worker's alone, as kombu's `Broadcast` makes it (`kombu/common.py`, read in kombu 5.7): bound to a fanout exchange,
/// deleted with its worker, and named after a new UUID. It is left alone: on Redis a worker goes on taking jobs from it after a cancel
/// (seen with Celery 5.4 and 5.7), and on RabbitMQ the cancel deletes it.
fn is_broadcast(queue: &Queue) -> bool {
    let is_fanout = queue.binding.as_ref().is_some_and(|binding| binding.exchange_type == "fanout");
    let (_, unique) = queue.name.as_str().rsplit_once('.').unwrap_or_default();
    is_fanout && queue.auto_delete && Uuid::try_parse(unique).is_ok()
}

/// Reads the answer to [`Method::Active`] or [`Method::Reserved`]. `None`: it is not one, and one entry that cannot be
/// read spoils it all, because a job that is left out would read as done.
pub fn parse_jobs(answer: &str) -> Option<Vec<Job>> {
    let entries: Vec<JobEntry> = serde_json::from_str(answer).ok()?;
    Some(entries.into_iter().map(Job::from).collect())
}

/// Reads the answer to [`Method::Scheduled`], as [`parse_jobs`] does.
pub fn parse_scheduled(answer: &str) -> Option<Vec<Job>> {
    #[derive(Deserialize)]
    struct Entry {
        request: JobEntry,
    }

    let entries: Vec<Entry> = serde_json::from_str(answer).ok()?;
    Some(entries.into_iter().map(|entry| entry.request.into()).collect())
}

/// Only what is kept of a job: its arguments are passed over, and never stand in memory as values. A worker may hold tens of
/// thousands.
#[derive(Deserialize)]
struct JobEntry {
    id: String,
    name: Option<String>,
    time_start: Option<f64>,
}

impl From<JobEntry> for Job {
    fn from(JobEntry { id, name, time_start }: JobEntry) -> Self {
        let started_at = time_start
            .and_then(|seconds| SignedDuration::try_from_secs_f64(seconds).ok())
            .and_then(|since_1970| Timestamp::from_duration(since_1970).ok());
        Self { id, name: name.unwrap_or_default(), started_at }
    }
}

#[cfg(test)]
mod tests;
