//! One observation of all nodes: four questions to everybody at once, and what comes back.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;
use tracing::debug;
use worker_drain_plan::{
    NodeName, QueueName, TaskId,
    observation::{Answer, WorkersView},
};

use super::{
    match_nodes::{Answered, Matched, Naming, match_nodes},
    pidbox::{Method, Request, parse_jobs, parse_queues, parse_reply, parse_scheduled},
    transport::Reply,
};
use crate::identity::Expected;

/// In this order. A job moves from reserved to active and never back, so that asking for `reserved` first cannot miss one
/// on its way; and what is taken from queues after they were listed shows in neither, so they come before both.
const METHODS: [Method; 4] = [Method::ActiveQueues, Method::Reserved, Method::Active, Method::Scheduled];

/// An observation that has been asked for.
pub(super) struct Poll {
    asked_at: Timestamp,
    questions: Vec<Question>,
    answers: BTreeMap<NodeName, Answer>,
    shared: BTreeSet<NodeName>,
    unreadable: bool,
    awaited: Awaited,
}

/// For whom an observation waits, whatever the broker says of its receivers.
pub(super) struct Awaited {
    /// Nodes that have not answered all.
    nodes: BTreeSet<NodeName>,
    /// Whether these are all there can be.
    exact: bool,
}

impl Awaited {
    /// Nodes of running tasks that were seen before; and, where it names them exactly, those that the template names.
    pub(super) fn new(naming: &Naming, tasks: &BTreeMap<TaskId, Expected>, is_counted: bool) -> Self {
        let running = || tasks.iter().filter(|(_, expected)| expected.running);
        let mut nodes: BTreeSet<NodeName> = running().flat_map(|(_, expected)| expected.nodes.clone()).collect();
        let Naming::Template(template) = naming else { return Self { nodes, exact: false } };
        if is_counted {
            // A task's worker that does not listen yet is not worth a wait.
            return Self { nodes, exact: false };
        }
        let mut exact = true;
        for (task, expected) in running() {
            let names = template.names(task, &expected.identity);
            exact &= !names.is_empty();
            nodes.extend(names);
        }
        Self { nodes, exact }
    }
}

struct Question {
    method: Method,
    ticket: String,
    receivers: Option<u64>,
    replies: u64,
    heard: BTreeSet<NodeName>,
}

/// The four questions.
pub(super) fn questions(expires: Timestamp) -> Vec<Request> {
    METHODS.into_iter().map(|method| Request::new(method, None, expires)).collect()
}

impl Poll {
    /// `naming` and `tasks` decide for whom it waits, `receivers` is what the transport said.
    pub(super) fn new(
        asked_at: Timestamp,
        requests: Vec<Request>,
        receivers: &[Option<u64>],
        naming: &Naming,
        tasks: &BTreeMap<TaskId, Expected>,
    ) -> Self {
        // A count of none comes from a proxy that does not count: workers that run do listen.
        let receivers: Vec<_> = receivers.iter().map(|count| count.filter(|count| *count > 0)).collect();
        let is_counted = receivers.len() == requests.len() && receivers.iter().all(Option::is_some);
        let awaited = Awaited::new(naming, tasks, is_counted);
        let questions = requests
            .into_iter()
            .zip(receivers.into_iter().chain(std::iter::repeat(None)))
            .map(|(Request { method, ticket, .. }, receivers)| Question {
                method,
                ticket,
                receivers,
                replies: 0,
                heard: BTreeSet::new(),
            })
            .collect();
        Self { asked_at, questions, answers: BTreeMap::new(), shared: BTreeSet::new(), unreadable: false, awaited }
    }

    /// Takes in a reply. One to no question of ours, or that is none, changes nothing.
    pub(super) fn hear(&mut self, reply: &Reply, at: Timestamp) {
        let Some(question) = self.questions.iter_mut().find(|question| question.ticket == reply.ticket) else { return };
        let method = question.method.name();
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
        let answer = self.answers.entry(said.node.clone()).or_insert_with(|| Answer {
            asked_at: self.asked_at,
            answered_at: at,
            instance: None,
            queues: None,
            reserved: None,
            active: None,
            scheduled: None,
        });
        answer.answered_at = answer.answered_at.max(at);
        match said.answer {
            Ok(value) => take_in(answer, &question.method, &value),
            Err(error) => debug!(node = %said.node, method, error, "a node could not answer"),
        }
        if self.questions.iter().all(|question| question.heard.contains(&said.node)) {
            self.awaited.nodes.remove(&said.node);
        }
    }

    /// Whether nobody can be left who will still answer, so that waiting longer is of no use.
    ///
    /// Where the broker says to how many it handed each question, as many replies are all there will be: a second node of
    /// a task is then not missed, though nobody knew of it. A node that was seen before and did not get the question is
    /// waited for all the same, because a proxy may report fewer than there are. Where the broker says nothing, only exact
    /// names can show that all is complete.
    pub(super) fn is_complete(&self) -> bool {
        let met = |question: &Question| question.receivers.is_some_and(|receivers| question.replies >= receivers);
        self.awaited.nodes.is_empty() && (self.awaited.exact || self.questions.iter().all(met))
    }

    /// Nodes that take jobs from this queue, with what they answered, if they answered all.
    pub(super) fn takers(&self, queue: &QueueName) -> BTreeMap<NodeName, Answer> {
        let takes = |answer: &Answer| answer.queues.iter().flatten().any(|taken| taken.name == *queue);
        let is_whole =
            |answer: &Answer| answer.active.is_some() && answer.reserved.is_some() && answer.scheduled.is_some();
        self.answers
            .iter()
            .filter(|(node, answer)| takes(answer) && is_whole(answer) && !self.shared.contains(*node))
            .map(|(node, answer)| (node.clone(), answer.clone()))
            .collect()
    }

    /// What was seen.
    pub(super) fn finish(self, naming: &Naming, tasks: &BTreeMap<TaskId, Expected>) -> WorkersView {
        let nodes = self.answers.keys().cloned().collect();
        let answered = Answered { nodes, shared: self.shared, unreadable: self.unreadable };
        let Matched { tasks, unmatched_workers } = match_nodes(naming, tasks, &answered);
        let mut nodes = self.answers;
        // Answers of several processes under one name are nobody's; those of unmatched workers are ignored.
        nodes.retain(|node, _| !answered.shared.contains(node) && !unmatched_workers.contains(node));
        WorkersView { tasks, nodes, unmatched_workers, silences: BTreeMap::new() }
    }
}

fn take_in(answer: &mut Answer, method: &Method, value: &Value) {
    match method {
        Method::ActiveQueues => answer.queues = parse_queues(value),
        Method::Reserved => answer.reserved = parse_jobs(value),
        Method::Active => answer.active = parse_jobs(value),
        Method::Scheduled => answer.scheduled = parse_scheduled(value),
        Method::CancelConsumer(_) | Method::AddConsumer(_) | Method::EnableEvents | Method::DisableEvents => {}
    }
}
