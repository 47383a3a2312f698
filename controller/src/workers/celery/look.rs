//! One observation of all nodes.
//!
//! Everybody on the broker is asked for a sign of life, and nothing else; only nodes that are a task's own are asked what they
//! do, each in the way that its version bears ([`profile`](super::profile)). A node that is met for the first time is first asked
//! how it wants to be asked, so that its answers come in the same observation.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use worker_drain_plan::{
    NodeName, TaskId,
    observation::{Answer, Failure, Mapping, WorkersView},
};

use super::{
    account,
    events::{DEAF, Lives},
    known::Known,
    match_nodes::{Answered, Matched, Matcher, NOT_READ, Naming},
    pidbox::{Method, Recipients, Request},
    poll::{Awaited, Heard, Poll},
    profile::{Gaps, Kind, Profile},
    remote::{Remote, next},
    transport::{Replies, Transport},
};
use crate::identity::Expected;

/// Asks, over one transport.
pub(super) struct Look<'a, T> {
    remote: &'a Remote<T>,
    known: &'a Known,
    late: Vec<(Poll, Replies)>,
    answers: BTreeMap<NodeName, Answer>,
    answered: Answered,
    /// Nodes that it depends on the version of how they are to be asked.
    wants_version: BTreeSet<NodeName>,
    /// Nodes that answered the last observation when it was over.
    too_late: BTreeSet<NodeName>,
    /// Nodes that gave an answer that was too long to be read, and which.
    unread: BTreeMap<NodeName, String>,
}

impl<'a, T: Transport> Look<'a, T> {
    pub(super) fn new(remote: &'a Remote<T>, known: &'a Known) -> Self {
        Self {
            remote,
            known,
            late: Vec::new(),
            answers: BTreeMap::new(),
            answered: Answered::default(),
            wants_version: BTreeSet::new(),
            too_late: BTreeSet::new(),
            unread: BTreeMap::new(),
        }
    }

    /// All nodes of these tasks. And whether none of them answered, though one is alive.
    pub(super) async fn observe(
        mut self,
        naming: &Naming,
        tasks: &BTreeMap<TaskId, Expected>,
        lives: &Lives,
    ) -> Result<(WorkersView, bool), Failure> {
        let matcher = Matcher::new(naming, tasks);
        self.hear_late();
        let met = self.known.met();
        let expected: BTreeSet<NodeName> = tasks.values().flat_map(|expected| expected.nodes.clone()).collect();
        let unmet = expected.iter().filter(|node| !met.nodes.contains(*node)).cloned().collect();
        let mut requests = vec![(Method::Ping, Recipients::Everybody)];
        requests.extend(self.questions(&matcher.own(&met)));
        requests.extend(introduction(&unmet));
        let (poll, replies, bound) = self.ask(requests, |is_counted| Awaited::new(&matcher, is_counted)).await?;
        self.answered.unreadable = poll.unreadable;
        self.answered.bound = bound;
        self.take_in(poll, replies);
        let here = &self.answered.nodes | &expected;
        self.known.keep_only(&here);

        // One that was nobody's is somebody's as soon as more is known of that task.
        let theirs: BTreeSet<NodeName> =
            matcher.own(&self.answered).into_iter().filter(|node| self.known.is_strange(node)).collect();
        let unmet = &(&self.answered.nodes - &self.known.met().nodes) | &theirs;
        self.meet(&unmet, &theirs).await?;
        self.answered.told = self.known.met().told;
        let unasked = matcher.own(&self.answered).into_iter().filter(|node| self.wants_asking(node)).collect();
        self.question(&unasked).await?;
        self.find_shared().await?;
        self.find_limits(&self.nodes_that(seems_idle)).await?;
        self.known.keep_late(mem::take(&mut self.late));
        Ok(self.finish(&matcher, lives))
    }

    /// These nodes and no others, whosever they are.
    pub(super) async fn question_all(
        mut self,
        nodes: &BTreeSet<NodeName>,
    ) -> Result<BTreeMap<NodeName, Answer>, Failure> {
        let unmet = nodes.iter().filter(|node| self.known.is_strange(node)).cloned().collect();
        self.meet(&unmet, &unmet).await?;
        self.question(nodes).await?;
        self.find_limits(nodes).await?;
        self.answers.retain(|node, _| !self.answered.shared.contains(node));
        Ok(self.answers)
    }

    /// What came after the last observation had ended.
    fn hear_late(&mut self) {
        for (mut poll, mut replies) in self.known.take_late() {
            let in_time: BTreeSet<NodeName> = poll.heard.keys().cloned().collect();
            let now = self.remote.clock.now();
            while let Some(Ok(reply)) = replies.at_hand() {
                poll.hear(&reply, now);
            }
            self.too_late.extend(poll.heard.keys().filter(|node| !in_time.contains(*node)).cloned());
            self.answered.nodes.extend(poll.heard.keys().cloned());
            self.known.learn(&poll);
            for (node, heard) in &mut poll.heard {
                self.unread.extend(heard.unread.take().map(|unread| (node.clone(), unread)));
            }
        }
    }

    /// Asks nodes that are strange how they want to be asked; those that are nobody's only for their counts, which does no
    /// harm and tells whether they have the package.
    async fn meet(&mut self, nodes: &BTreeSet<NodeName>, own: &BTreeSet<NodeName>) -> Result<(), Failure> {
        let others: BTreeSet<NodeName> = nodes - own;
        let mut requests = introduction(own);
        if !others.is_empty() {
            requests.push((Method::Stats, Recipients::Nodes(others)));
        }
        self.ask_these(requests).await?;
        let mut requests = introduction(&mem::take(&mut self.wants_version));
        requests.extend(requests.first().map(|(_, nodes)| (Method::Report, nodes.clone())));
        self.ask_these(requests).await
    }

    async fn question(&mut self, nodes: &BTreeSet<NodeName>) -> Result<(), Failure> {
        self.ask_these(self.questions(nodes)).await
    }

    async fn ask_these(&mut self, requests: Vec<(Method, Recipients)>) -> Result<(), Failure> {
        if requests.is_empty() {
            return Ok(());
        }
        let (poll, replies, _) = self.ask(requests, |_| Awaited::default()).await?;
        self.take_in(poll, replies);
        Ok(())
    }

    /// What these nodes are asked, if they were met. In this order: a job moves from reserved to active and never back, so that
    /// asking for `reserved` first cannot miss one on its way; what is taken from queues after they were listed shows in neither, so
    /// they come before both; and a job that began before the count of those that began is in `active` still, or has ended.
    fn questions(&self, nodes: &BTreeSet<NodeName>) -> Vec<(Method, Recipients)> {
        let (mut packaged, mut sturdy, mut all) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for node in nodes {
            match self.known.profile(node).map(|profile| profile.kind) {
                Some(Kind::Package(_)) => drop(packaged.insert(node.clone())),
                Some(Kind::Lists(gaps)) => {
                    all.insert(node.clone());
                    if !gaps.is_fragile {
                        sturdy.insert(node.clone());
                    }
                }
                Some(Kind::Stranger) | None => {}
            }
        }
        asked_of([
            (Method::WorkerDrain, packaged),
            (Method::ActiveQueues, all.clone()),
            (Method::Stats, all.clone()),
            (Method::Reserved, sturdy.clone()),
            (Method::Active, all),
            (Method::Scheduled, sturdy),
        ])
    }

    /// Asks, and waits until all have answered who may.
    async fn ask(
        &self,
        questions: Vec<(Method, Recipients)>,
        awaited: impl FnOnce(bool) -> Awaited,
    ) -> Result<(Poll, Replies, BTreeSet<NodeName>), Failure> {
        let asked_at = self.remote.clock.now();
        let expires = self.remote.expires(asked_at);
        let requests: Vec<Request> =
            questions.into_iter().map(|(method, to)| Request::new(method, to, expires)).collect();
        let mut sent = self.remote.transport.publish(&requests).await?;
        let mut poll = Poll::new(asked_at, requests, &sent.receivers, awaited);
        let deadline = self.remote.deadline();
        while !poll.is_complete() {
            let Some(reply) = next(&mut sent.replies, deadline).await? else { break };
            poll.hear(&reply, self.remote.clock.now());
        }
        sent.replies.set_aside();
        Ok((poll, sent.replies, sent.bound))
    }

    fn take_in(&mut self, mut poll: Poll, replies: Replies) {
        self.known.learn(&poll);
        self.answered.nodes.extend(poll.heard.keys().cloned());
        self.answered.shared.extend(poll.shared.iter().cloned());
        self.wants_version.extend(poll.wants_version());
        for (node, mut heard) in mem::take(&mut poll.heard) {
            self.unread.extend(heard.unread.take().map(|unread| (node.clone(), unread)));
            let known = self.known.profile(&node).filter(|_| !poll.introduces(&node));
            let said = match known {
                Some(profile) => Said::of(&profile, &mut heard),
                None => Said::first(&mut heard),
            };
            match said {
                Said::Answer(answer) => drop(self.answers.insert(node.clone(), *answer)),
                Said::Nothing => {}
                Said::Anew => self.known.forget(&node),
            }
            poll.heard.insert(node, heard);
        }
        self.late.push((poll, replies));
    }

    /// It is met, and has not answered in the way that it wants to be asked.
    fn wants_asking(&self, node: &NodeName) -> bool {
        let is_unmet = |answer: &Answer| answer.unseen.as_deref() == Some(UNMET);
        self.answers.get(node).map_or_else(|| !self.unread.contains_key(node), is_unmet)
    }

    /// A node that seems to have nothing to do may be two, of which one was asked.
    async fn find_shared(&mut self) -> Result<(), Failure> {
        let cancelled = self.nodes_that(takes_none);
        if !cancelled.is_empty() {
            self.answered.shared.extend(self.remote.transport.shared(&cancelled).await?);
        }
        Ok(())
    }

    fn nodes_that(&self, are_so: fn(&Answer) -> bool) -> BTreeSet<NodeName> {
        self.answers.iter().filter(|(_, answer)| are_so(answer)).map(|(node, _)| node.clone()).collect()
    }

    /// Which rate limits there are now is asked after the lists: what waits for one and was not listed had come before. Without an
    /// answer nothing is proven.
    async fn find_limits(&mut self, nodes: &BTreeSet<NodeName>) -> Result<(), Failure> {
        let has_lists =
            |node: &&NodeName| self.known.profile(node).is_some_and(|profile| matches!(profile.kind, Kind::Lists(_)));
        let nodes: BTreeSet<NodeName> = nodes.iter().filter(has_lists).cloned().collect();
        if nodes.is_empty() {
            return Ok(());
        }
        let requests = asked_of([(Method::Registered, nodes.clone())]);
        let (poll, replies, _) = self.ask(requests, |_| Awaited::default()).await?;
        for node in &nodes {
            let Some(answer) = self.answers.get_mut(node) else { continue };
            let registered = poll.heard.get(node).and_then(|heard| heard.registered.as_deref());
            match registered.and_then(|registered| self.known.widen(node, registered)) {
                Some(gaps) => {
                    answer.settles_in = gaps.settles_in;
                    answer.unseen = answer.unseen.take().or(gaps.unseen);
                }
                None => drop(answer.unseen.get_or_insert_with(|| LIMITS_UNTOLD.to_owned())),
            }
        }
        self.take_in(poll, replies);
        Ok(())
    }

    fn finish(self, matcher: &Matcher, lives: &Lives) -> (WorkersView, bool) {
        let Matched { mut tasks, unmatched_workers } = matcher.matched(&self.answered);
        let deaf = deaf(matcher, lives, &self.answered);
        for (task, node) in &deaf {
            if let Some(Mapping::NotFound { hint }) = tasks.get_mut(task) {
                *hint = format!("{hint}; {node} would be its: {DEAF}");
            }
        }
        let mut nodes = self.answers;
        // Answers of several processes under one name are nobody's; those of unmatched workers are ignored.
        nodes.retain(|node, _| !self.answered.shared.contains(node) && !unmatched_workers.contains(node));
        let mut silences: BTreeMap<NodeName, String> = BTreeMap::new();
        for node in self.answered.bound.iter().filter(|node| !self.answered.nodes.contains(*node)) {
            let not_read = self.answered.unreadable.then_some(NOT_READ);
            let (heard, there) = match lives.why(node) {
                Some(why) if lives.is_alive(node) => (Some(why), None),
                why => (why, Some(BOUND_AND_SILENT)),
            };
            let told: Vec<&str> = [not_read, heard, there].into_iter().flatten().collect();
            silences.insert(node.clone(), told.join("; "));
        }
        let too_late = self.too_late.into_iter().filter(|node| !nodes.contains_key(node));
        silences.extend(too_late.map(|node| (node, TOO_LATE.to_owned())));
        let expected = matcher.named().flat_map(|(expected, _)| &expected.nodes);
        for node in expected.filter(|node| !nodes.contains_key(*node)) {
            silences.entry(node.clone()).or_insert_with(|| lives.why(node).unwrap_or(UNHEARD).to_owned());
        }
        silences.extend(self.unread);
        let is_deaf = nodes.is_empty() && !deaf.is_empty();
        (WorkersView { tasks, nodes, unmatched_workers, silences }, is_deaf)
    }
}

/// Tasks with a node that is alive and did not answer. What a node's own word would show is not known of it.
fn deaf(matcher: &Matcher, lives: &Lives, answered: &Answered) -> BTreeMap<TaskId, NodeName> {
    let alive = Answered { nodes: &lives.beating - &answered.nodes, ..Answered::default() };
    let nodes = matcher.matched(&alive).tasks.into_iter().filter_map(|(task, mapping)| match mapping {
        Mapping::Nodes(nodes) => Some((task, nodes.intersection(&alive.nodes).next()?.clone())),
        Mapping::NotFound { .. } | Mapping::Ambiguous { .. } => None,
    });
    nodes.collect()
}

/// Why nothing is proven of a node that was met just now.
const UNMET: &str = "it has not said yet how it is to be asked";

/// Why nothing is proven of a node that told all else.
const LIMITS_UNTOLD: &str = "it does not say which rate limits it has now";

/// Of a node that is known by its queue only.
const BOUND_AND_SILENT: &str = "it has a queue for requests on the broker, so that a worker of this name was there; if it is gone \
                                for good, delete its binding (docs/brokers.md)";

/// Of a node of which nothing is heard at all.
const UNHEARD: &str = "check whether the worker is frozen or cut off; one of Celery 5.3 over Redis may be deaf since Redis was restarted \
                       (docs/hazards.md)";

/// Of a node that is busy or far away.
const TOO_LATE: &str = "it answers later than spec.workers.celery.replyTimeout allows: make that longer, or look at what keeps the worker \
                        or its broker so busy";

fn takes_none(answer: &Answer) -> bool {
    answer.queues.as_ref().is_some_and(Vec::is_empty)
}

/// It takes no jobs, and tells of none.
fn seems_idle(answer: &Answer) -> bool {
    takes_none(answer) && [&answer.active, &answer.reserved].into_iter().flatten().all(Vec::is_empty)
}

/// What a node is asked that was never met: how it wants to be asked, and what does no harm to any.
fn introduction(nodes: &BTreeSet<NodeName>) -> Vec<(Method, Recipients)> {
    let methods = [Method::ActiveQueues, Method::Stats, Method::Active, Method::Conf, Method::Registered];
    asked_of(methods.map(|method| (method, nodes.clone())))
}

fn asked_of<const N: usize>(questions: [(Method, BTreeSet<NodeName>); N]) -> Vec<(Method, Recipients)> {
    let asked = questions.into_iter().filter(|(_, nodes)| !nodes.is_empty());
    asked.map(|(method, nodes)| (method, Recipients::Nodes(nodes))).collect()
}

/// What a node's words amount to.
enum Said {
    Answer(Box<Answer>),
    /// No more than that it is there.
    Nothing,
    /// Another start of it answered than was met.
    Anew,
}

impl Said {
    /// The words of one that was never met: they can show work, and never that there is none.
    fn first(heard: &mut Heard) -> Self {
        if heard.queues.is_none() && heard.active.is_none() {
            return Self::Nothing;
        }
        let between_jobs = heard.stats.as_ref().is_some_and(|stats| stats.between_jobs);
        Self::Answer(Box::new(Answer { unseen: Some(UNMET.to_owned()), between_jobs, ..heard.lists() }))
    }

    fn of(profile: &Profile, heard: &mut Heard) -> Self {
        match &profile.kind {
            Kind::Stranger => Self::Nothing,
            Kind::Package(_) if heard.is_refused => Self::Anew,
            Kind::Package(_) => {
                let told = heard.account.take();
                let account = told.and_then(|told| account::take_in(told.get(), (heard.asked_at, heard.answered_at)));
                let between_jobs = profile.between_jobs;
                account.map_or(Self::Nothing, |answer| Self::Answer(Box::new(Answer { between_jobs, ..answer })))
            }
            Kind::Lists(gaps) => Self::listed(profile, gaps, heard),
        }
    }

    fn listed(profile: &Profile, gaps: &Gaps, heard: &mut Heard) -> Self {
        let stats = heard.stats.as_ref();
        if stats.is_some_and(|stats| !stats.start.is(profile.start) || stats.package.is_some()) {
            return Self::Anew;
        }
        if stats.is_none() && heard.queues.is_none() && heard.active.is_none() {
            return Self::Nothing;
        }
        let uncounted = || String::from("it does not say how many jobs it has begun");
        let unseen = gaps.unseen.clone().or_else(|| stats.is_none().then(uncounted));
        let (begun, up_for) = stats.map(|stats| (stats.begun, stats.up_for)).unzip();
        let (settles_in, between_jobs) = (gaps.settles_in, profile.between_jobs);
        Self::Answer(Box::new(Answer { begun, up_for, unseen, settles_in, between_jobs, ..heard.lists() }))
    }
}
