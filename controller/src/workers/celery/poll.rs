//! Questions that are asked together, and what comes back.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use jiff::Timestamp;
use serde_json::{Value, value::RawValue};
use tracing::{debug, warn};
use worker_drain_plan::{
    NodeName, QueueName,
    observation::{Answer, Job, Queue},
};

use super::{
    match_nodes::Matcher,
    pidbox::{Method, NoAnswer, Recipients, Request, parse_jobs, parse_queues, parse_reply, parse_scheduled},
    profile::{Conf, Gaps, Hidden, Kind, Profile, Stats, parse_conf, parse_registered, parse_stats, parse_version},
    transport::Reply,
};

/// What helps against an answer that is too long.
const FEWER_JOBS: &str = "it lists every job that the worker holds, with all arguments; have it hold fewer or smaller ones, or add the \
                          package celery-worker-drain to it, which tells of a bounded number (docs/limits.md)";

/// Questions that have been asked.
pub(super) struct Poll {
    asked_at: Timestamp,
    questions: Vec<Question>,
    /// What each node said.
    pub(super) heard: BTreeMap<NodeName, Heard>,
    /// Nodes under whose name more than one process answered.
    pub(super) shared: BTreeSet<NodeName>,
    /// Something came that was no readable answer.
    pub(super) unreadable: bool,
    awaited: Awaited,
}

/// For whom a question to everybody waits, whatever the broker says of its receivers.
#[derive(Clone, Default)]
pub(super) struct Awaited {
    /// Nodes that have not answered.
    nodes: BTreeSet<NodeName>,
    /// The broker does not count receivers, and nobody else need be waited for: every task has a node, and one that answers too
    /// late is heard the next time.
    exact: bool,
}

impl Awaited {
    /// Nodes of running tasks that were seen before, or that the template names.
    pub(super) fn new(matcher: &Matcher, is_counted: bool) -> Self {
        let running = || matcher.named().filter(|(expected, _)| expected.running);
        let mut nodes: BTreeSet<NodeName> = running().flat_map(|(expected, _)| expected.nodes.clone()).collect();
        if is_counted {
            // A task's worker that does not listen yet is not worth a wait.
            return Self { nodes, exact: false };
        }
        let exact = running().all(|(expected, names)| !names.is_empty() || !expected.nodes.is_empty());
        nodes.extend(running().flat_map(|(_, names)| names).cloned());
        Self { nodes, exact }
    }
}

struct Question {
    method: Method,
    to: Recipients,
    ticket: String,
    receivers: Option<u64>,
    replies: u64,
    heard: BTreeSet<NodeName>,
}

impl Question {
    /// It is for this node, and not for everybody.
    fn is_for(&self, node: &NodeName) -> bool {
        matches!(&self.to, Recipients::Nodes(nodes) if nodes.contains(node))
    }
}

/// What one node said. `None`: it did not, or not readably.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) asked_at: Timestamp,
    pub(super) answered_at: Timestamp,
    pub(super) queues: Option<Vec<Queue>>,
    pub(super) reserved: Option<Vec<Job>>,
    pub(super) active: Option<Vec<Job>>,
    pub(super) scheduled: Option<Vec<Job>>,
    pub(super) stats: Option<Stats>,
    pub(super) version: Option<(u32, u32)>,
    pub(super) conf: Option<Conf>,
    pub(super) registered: Option<Vec<Hidden>>,
    /// The account of itself that a worker with the package gives, not read yet.
    pub(super) account: Option<Box<RawValue>>,
    /// It knows no such command: it has not the package.
    pub(super) is_refused: bool,
    /// Which answer was too long to be read, and what would help; for a person.
    pub(super) unread: Option<String>,
}

impl Heard {
    fn nothing(asked_at: Timestamp, answered_at: Timestamp) -> Self {
        Self {
            asked_at,
            answered_at,
            queues: None,
            reserved: None,
            active: None,
            scheduled: None,
            stats: None,
            version: None,
            conf: None,
            registered: None,
            account: None,
            is_refused: false,
            unread: None,
        }
    }

    fn take_in(&mut self, method: &Method, answer: Cow<'_, RawValue>, at: Timestamp) {
        let text = answer.get();
        let value = || serde_json::from_str::<Value>(text).ok();
        match method {
            Method::ActiveQueues => self.queues = parse_queues(text),
            Method::Reserved => self.reserved = parse_jobs(text),
            Method::Active => self.active = parse_jobs(text),
            Method::Scheduled => self.scheduled = parse_scheduled(text),
            Method::Stats => self.stats = parse_stats(text, at),
            Method::Report => self.version = value().and_then(|value| parse_version(&value)),
            Method::Conf => self.conf = value().and_then(|value| parse_conf(&value)),
            Method::Registered => self.registered = value().and_then(|value| parse_registered(&value)),
            Method::WorkerDrain => self.account = Some(answer.into_owned()),
            Method::Ping
            | Method::CancelConsumer(_)
            | Method::AddConsumer(_)
            | Method::EnableEvents
            | Method::DisableEvents => {}
        }
    }

    /// Its lists, with their times; they are taken out.
    pub(super) fn lists(&mut self) -> Answer {
        Answer {
            queues: self.queues.take(),
            reserved: self.reserved.take(),
            active: self.active.take(),
            scheduled: self.scheduled.take(),
            hears_later: true,
            ..Answer::new(self.asked_at, self.answered_at)
        }
    }
}

impl Poll {
    /// `receivers` is what the transport said, `awaited` for whom a question to everybody waits.
    pub(super) fn new(
        asked_at: Timestamp,
        requests: Vec<Request>,
        receivers: &[Option<u64>],
        awaited: impl FnOnce(bool) -> Awaited,
    ) -> Self {
        // A count of none comes from a proxy that does not count: workers that run do listen.
        let receivers: Vec<_> = receivers.iter().map(|count| count.filter(|count| *count > 0)).collect();
        let is_counted = receivers.len() == requests.len() && receivers.iter().all(Option::is_some);
        let questions = requests
            .into_iter()
            .zip(receivers.into_iter().chain(std::iter::repeat(None)))
            .map(|(Request { method, ticket, to, .. }, receivers)| Question {
                method,
                to,
                ticket,
                receivers,
                replies: 0,
                heard: BTreeSet::new(),
            })
            .collect();
        Self {
            asked_at,
            questions,
            heard: BTreeMap::new(),
            shared: BTreeSet::new(),
            unreadable: false,
            awaited: awaited(is_counted),
        }
    }

    /// Takes in a reply. One to no question of ours, or that is none, changes nothing.
    pub(super) fn hear(&mut self, reply: &Reply, at: Timestamp) {
        let Some(question) = self.questions.iter_mut().find(|question| question.ticket == reply.ticket) else { return };
        let Some(said) = parse_reply(&reply.body) else {
            // A node whose task_serializer is not JSON answers in that: it cannot be understood, and so did not answer.
            self.unreadable = true;
            return;
        };
        question.replies += 1;
        if !question.heard.insert(said.node.clone()) {
            self.shared.insert(said.node);
            return;
        }
        if question.to == Recipients::Everybody {
            self.awaited.nodes.remove(&said.node);
        }
        let nothing = || Heard::nothing(self.asked_at, at);
        let heard = self.heard.entry(said.node.clone()).or_insert_with(nothing);
        heard.answered_at = heard.answered_at.max(at);
        match said.answer {
            Ok(answer) => heard.take_in(&question.method, answer, at),
            Err(NoAnswer::Refused(error)) => {
                heard.is_refused |= question.method == Method::WorkerDrain;
                debug!(node = %said.node, method = question.method.name(), error, "a node could not answer");
            }
            Err(NoAnswer::TooLong(how)) => {
                warn!(node = %said.node, method = question.method.name(), %how, "an answer was not read");
                let why = || format!("its answer to `{}` {how}: {FEWER_JOBS}", question.method.name());
                heard.unread.get_or_insert_with(why);
            }
        }
    }

    /// Nodes that take jobs from this queue.
    pub(super) fn takers(&self, queue: &QueueName) -> BTreeSet<NodeName> {
        let takes = |heard: &Heard| heard.queues.iter().flatten().any(|taken| taken.name == *queue);
        let nodes = self.heard.iter().filter(|(node, heard)| takes(heard) && !self.shared.contains(*node));
        nodes.map(|(node, _)| node.clone()).collect()
    }

    /// This node was asked how it wants to be asked.
    pub(super) fn introduces(&self, node: &NodeName) -> bool {
        self.asks(node, &Method::Conf)
    }

    /// How this node is to be asked from now on, if it was asked for that and has told. One that was asked for its counts and
    /// nothing else is nobody's.
    pub(super) fn profile(&self, node: &NodeName, heard: &Heard) -> Option<Profile> {
        let Stats { start, package, between_jobs, .. } = heard.stats.clone()?;
        let kind = match package {
            Some(package) => Kind::Package(package),
            None if self.introduces(node) && !self.needs_version(node, heard) => {
                Kind::Lists(Gaps::of(heard.version, heard.conf.as_ref()?, heard.registered.as_deref()?))
            }
            None if !self.asks(node, &Method::ActiveQueues) => Kind::Stranger,
            None => return None,
        };
        Some(Profile { start, between_jobs, kind })
    }

    /// Nodes that have told how they want to be asked but for their version, on which it depends.
    pub(super) fn wants_version(&self) -> impl Iterator<Item = NodeName> {
        let wants = |(node, heard): &(&NodeName, &Heard)| self.introduces(node) && self.needs_version(node, heard);
        self.heard.iter().filter(wants).map(|(node, _)| node.clone())
    }

    fn needs_version(&self, node: &NodeName, heard: &Heard) -> bool {
        heard.conf.as_ref().is_some_and(|conf| conf.takes_more_than_json) && !self.asks(node, &Method::Report)
    }

    fn asks(&self, node: &NodeName, method: &Method) -> bool {
        self.questions.iter().any(|question| question.method == *method && question.is_for(node))
    }

    /// Whether nobody can be left who will still answer, so that waiting longer is of no use.
    ///
    /// Where the broker says to how many it handed a question to everybody, as many replies are all there will be: a second
    /// node of a task is then not missed, though nobody knew of it. A node that was seen before and did not get the question is
    /// waited for all the same, because a proxy may report fewer than there are.
    pub(super) fn is_complete(&self) -> bool {
        self.questions.iter().all(|question| match &question.to {
            Recipients::Nodes(nodes) => nodes.is_subset(&question.heard),
            Recipients::Everybody => {
                let met = question.receivers.is_some_and(|receivers| question.replies >= receivers);
                self.awaited.nodes.is_empty() && (self.awaited.exact || met)
            }
        })
    }
}
