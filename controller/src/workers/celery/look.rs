//! One look at all nodes: four questions to everybody at once, and what comes back.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tracing::debug;
use worker_drain_plan::{
    NodeName, TaskId,
    observation::{Answer, WorkersView},
};

use super::{
    match_nodes::{Answered, Matched, Naming, match_nodes},
    pidbox::{Method, Request, parse_jobs, parse_queues, parse_reply, parse_scheduled},
    transport::Reply,
};
use crate::identity::Expected;

/// In this order. A job moves from reserved to active and never back, so that asking for `reserved` first cannot miss one
/// on its way; and what is taken from queues after they were told shows in neither, so they come before both.
const METHODS: [Method; 4] = [Method::ActiveQueues, Method::Reserved, Method::Active, Method::Scheduled];

/// A look that has been asked for.
pub(super) struct Look {
    asked_at: Timestamp,
    questions: Vec<Question>,
    answers: BTreeMap<NodeName, Answer>,
    shared: BTreeSet<NodeName>,
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

impl Look {
    pub(super) fn new(asked_at: Timestamp, requests: Vec<Request>, receivers: &[Option<u64>]) -> Self {
        // A transport that tells less than it should is one that does not tell.
        let receivers = receivers.iter().copied().chain(std::iter::repeat(None));
        let questions = requests
            .into_iter()
            .zip(receivers)
            .map(|(Request { method, ticket, .. }, receivers)| Question {
                method,
                ticket,
                receivers,
                replies: 0,
                heard: BTreeSet::new(),
            })
            .collect();
        Self { asked_at, questions, answers: BTreeMap::new(), shared: BTreeSet::new() }
    }

    /// Takes in a reply. One to no question of ours, or that is none, changes nothing.
    pub(super) fn hear(&mut self, reply: &Reply, at: Timestamp) {
        let Some(question) = self.questions.iter_mut().find(|question| question.ticket == reply.ticket) else { return };
        let method = question.method.name();
        let Some(said) = parse_reply(&reply.body) else {
            // A node whose task_serializer is not JSON answers in that: it cannot be understood, and so did not answer.
            debug!(method, "a reply cannot be read; Celery replies in its task_serializer, which is to be json");
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
            queues: None,
            reserved: None,
            active: None,
            scheduled: None,
        });
        answer.answered_at = answer.answered_at.max(at);
        let value = match said.answer {
            Ok(value) => value,
            Err(error) => {
                debug!(node = %said.node, method, error, "a node could not answer");
                return;
            }
        };
        match question.method {
            Method::ActiveQueues => answer.queues = parse_queues(&value),
            Method::Reserved => answer.reserved = parse_jobs(&value),
            Method::Active => answer.active = parse_jobs(&value),
            Method::Scheduled => answer.scheduled = parse_scheduled(&value),
            Method::CancelConsumer(_) | Method::AddConsumer(_) => {}
        }
    }

    /// Whether nobody can be left who will still answer, so that waiting longer is of no use.
    ///
    /// Where the broker tells to how many it handed each question, as many replies are all there will be: a second node of
    /// a task is then not missed, though nobody knew of it. A node that was seen before and did not get the question is
    /// waited for all the same, because a proxy may tell fewer than there are. Where the broker tells nothing, only exact
    /// names can tell that all is complete.
    pub(super) fn is_complete(&self, naming: &Naming, tasks: &BTreeMap<TaskId, Expected>) -> bool {
        let mut running = tasks.iter().filter(|(_, expected)| expected.running);
        if running.clone().flat_map(|(_, expected)| &expected.nodes).any(|node| !self.has_answered_all(node)) {
            return false;
        }
        let told = |question: &Question| question.receivers.filter(|receivers| *receivers > 0);
        if self.questions.iter().all(|question| told(question).is_some()) {
            return self.questions.iter().all(|question| told(question).is_some_and(|count| question.replies >= count));
        }
        let Naming::Template(template) = naming else { return false };
        running.all(|(task, expected)| {
            let names = template.names(task, &expected.identity);
            !names.is_empty() && names.iter().all(|name| self.has_answered_all(name))
        })
    }

    fn has_answered_all(&self, node: &NodeName) -> bool {
        self.questions.iter().all(|question| question.heard.contains(node))
    }

    /// What was seen.
    pub(super) fn finish(self, naming: &Naming, tasks: &BTreeMap<TaskId, Expected>) -> WorkersView {
        let answered = Answered { nodes: self.answers.keys().cloned().collect(), shared: self.shared };
        let Matched { tasks, strangers } = match_nodes(naming, tasks, &answered);
        let mut nodes = self.answers;
        // Answers of several processes under one name are nobody's; those of strangers are none of our business.
        nodes.retain(|node, _| !answered.shared.contains(node) && !strangers.contains(node));
        WorkersView { tasks, nodes, strangers }
    }
}
