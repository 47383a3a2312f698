//! The broker's part in remote control: it carries requests to the workers that listen, and replies to the client that
//! asked. What may happen to a message on its way happens here.

mod replies;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
};

use jiff::Timestamp;
use worker_drain::workers::celery::{
    Reply, Sent, Waiting,
    pidbox::{ReplyTo, Request},
};
use worker_drain_plan::{
    NodeName,
    observation::{Failure, FailureKind},
};

use super::{
    Event, Node, NodeState, OPERATORS, World,
    pidbox::{Asked, REPLIES, read},
};
use crate::{fault::Fault, remote::Receivers, script::Outage, setup::SECOND, tap::stamp};

/// How long messages are on their way. Few values, so that several arrive at once and fewer moments are looked at.
const TRAVELS: [u64; 4] = [2, 5, 20, 60];
/// Connections and messages.
#[derive(Debug, Default)]
pub struct Broker {
    links: [Option<Link>; OPERATORS],
    last_link: u64,
    batches: Slab<Batch>,
    posts: Slab<Post>,
    /// When messages arrive: then somebody may be waiting.
    due: BinaryHeap<Reverse<u64>>,
}

/// An operator's connection.
#[derive(Debug)]
struct Link {
    number: u64,
    waiting: Waiting<Failure>,
}

/// Requests that were published together.
#[derive(Debug)]
struct Batch {
    asked: Vec<Asked>,
    expires: Timestamp,
    /// Deliveries that are still under way.
    left: usize,
}

/// Replies on their way to a client.
#[derive(Debug)]
struct Post {
    to: u64,
    replies: Vec<Reply>,
}

/// A list with holes that are filled again.
#[derive(Debug)]
struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    fn put(&mut self, item: T) -> usize {
        let place = self.free.pop().unwrap_or(self.items.len());
        if place == self.items.len() {
            self.items.push(None);
        }
        self.items[place] = Some(item);
        place
    }

    fn take(&mut self, place: usize) -> Option<T> {
        let item = self.items[place].take();
        self.free.push(place);
        item
    }
}

fn lost(why: &str) -> Failure {
    Failure::new(FailureKind::Unreachable, why)
}

impl World {
    /// Publishes requests, on the connection that there is or on a new one. Errors: the connection was lost.
    pub fn publish(&mut self, who: usize, requests: &[Request]) -> Result<Sent, Failure> {
        let number = self.link(who);
        let Some(link) = &self.broker.links[who] else { return Err(lost("no connection")) };
        let replies = link.waiting.add(requests)?;
        let reply_to = ReplyTo { exchange: REPLIES.to_owned(), routing_key: number.to_string() };
        self.tally.rule("requests are what Celery reads");
        let mut asked = Vec::with_capacity(requests.len());
        for request in requests {
            match read(&request.body(&reply_to)) {
                Ok(request) => asked.push(request),
                Err(what) => self.broken("requests are what Celery reads", || what),
            }
        }
        let expires = requests.first().map_or(Timestamp::MAX, |request| request.expires);
        let is_look = asked.iter().all(|request| request.order.is_question());
        let receivers = self.send(asked, expires, is_look);
        if self.befalls(Fault::ConnectionLost, 60) {
            return self.lose_connection(who, Sent { receivers, bound: self.bound(), replies });
        }
        Ok(Sent { receivers, bound: self.bound(), replies })
    }

    /// The names of those who have a queue for requests, where the broker tells them: whoever counts knows them.
    fn bound(&self) -> BTreeSet<NodeName> {
        if self.setup.remote.receivers != Receivers::Counted {
            return BTreeSet::new();
        }
        let is_bound = |node: &&Node| !matches!(node.state, NodeState::Booting | NodeState::Gone);
        let nodes = self.members.iter().flat_map(|member| &member.nodes);
        nodes.filter(is_bound).map(|node| node.name.clone()).collect()
    }

    /// The connection that this operator has, or a new one.
    fn link(&mut self, who: usize) -> u64 {
        let broker = &mut self.broker;
        match &broker.links[who] {
            Some(link) if link.waiting.is_alive() => link.number,
            _ => {
                broker.last_link += 1;
                broker.links[who] = Some(Link { number: broker.last_link, waiting: Waiting::new() });
                broker.last_link
            }
        }
    }

    fn lose_connection(&mut self, who: usize, sent: Sent) -> Result<Sent, Failure> {
        if self.span_of(Fault::ConnectionLost, 0, 2) == 0 {
            self.hang_up(who);
            return Err(lost("the connection was lost before the broker had confirmed"));
        }
        let number = self.broker.links[who].as_ref().map_or(0, |link| link.number);
        let at = self.now + self.span_of(Fault::ConnectionLost, 0, 100);
        self.at(at, Event::LinkLost(who, number));
        self.broker.due.push(Reverse(at));
        Ok(sent)
    }

    /// A connection ends, and whoever waits on it is told.
    pub(super) fn link_lost(&mut self, who: usize, number: u64) {
        if self.broker.links[who].as_ref().is_some_and(|link| link.number == number) {
            self.hang_up(who);
        }
    }

    /// This operator's connection ends.
    pub fn hang_up(&mut self, who: usize) {
        if let Some(link) = self.broker.links[who].take() {
            let failure = lost("the connection was lost");
            link.waiting.end(failure.clone(), &failure);
        }
    }

    /// All connections end.
    pub(super) fn hang_up_all(&mut self) {
        for who in 0..OPERATORS {
            self.hang_up(who);
        }
    }

    /// When a message arrives next.
    pub fn next_message(&mut self) -> Option<u64> {
        while self.broker.due.peek().is_some_and(|Reverse(at)| *at <= self.now) {
            self.broker.due.pop();
        }
        self.broker.due.peek().map(|Reverse(at)| *at)
    }

    /// Requests go on their way to all who listen; tells to how many, as far as this broker does.
    fn send(&mut self, asked: Vec<Asked>, expires: Timestamp, is_look: bool) -> Vec<Option<u64>> {
        let count = asked.len();
        let listeners = self.listeners();
        let unmatched_workers = self.setup.remote.unmatched_workers;
        let twins = listeners.iter().filter(|(m, _)| self.members[*m].twin_until > self.now).count();
        let told = match self.setup.remote.receivers {
            Receivers::Counted => Some((listeners.len() + twins) as u64 + u64::from(unmatched_workers)),
            Receivers::Untold => None,
            Receivers::None => Some(0),
        };
        if is_look {
            (0..unmatched_workers).for_each(|stranger| self.hear_stranger(stranger, &asked));
        }
        let batch = self.broker.batches.put(Batch { asked, expires, left: 1 });
        for (m, n) in listeners {
            if is_look { self.ask(m, n, batch, count) } else { self.order(m, n, batch) }
        }
        self.arrived(batch);
        vec![told; count]
    }

    /// Workers that the broker hands requests to, whether or not they can do anything with them.
    fn listeners(&self) -> Vec<(usize, usize)> {
        let ending = self.setup.remote.answers_ending;
        let listens = |state: NodeState| match state {
            NodeState::Up | NodeState::Frozen(_) => true,
            NodeState::Ending => ending,
            NodeState::Booting | NodeState::Reconnecting | NodeState::Gone => false,
        };
        let members = self.members.iter().enumerate();
        members
            .flat_map(|(m, member)| member.nodes.iter().enumerate().map(move |(n, node)| (m, n, node.state)))
            .filter(|(_, _, state)| listens(*state))
            .map(|(m, n, _)| (m, n))
            .collect()
    }

    /// Questions reach a worker, most often all at once. Those that are not for it reach it too.
    fn ask(&mut self, m: usize, n: usize, batch: usize, count: usize) {
        let disturbed = [Fault::RequestLost, Fault::RequestLate, Fault::RequestDoubled];
        let apart = self.delay_chance.percent(15);
        let mut at = self.now + self.delay_chance.pick(&TRAVELS);
        if !apart && disturbed.iter().all(|fault| self.is_off(*fault)) {
            self.deliver(m, n, batch, 0, count, at);
            return;
        }
        for index in 0..count {
            if apart {
                at += self.delay_chance.between(0, 120);
            }
            self.deliver_disturbed(m, n, batch, index, at, 30);
        }
    }

    /// Each order goes to whom it names.
    fn order(&mut self, m: usize, n: usize, batch: usize) {
        let count = self.broker.batches.items[batch].as_ref().map_or(0, |batch| batch.asked.len());
        let at = self.now + self.delay_chance.pick(&TRAVELS);
        for index in 0..count {
            let batches = &self.broker.batches.items;
            let name = self.members[m].nodes[n].name.as_str();
            let for_it = batches[batch].as_ref().is_some_and(|batch| batch.asked[index].is_for(name));
            if for_it {
                self.deliver_disturbed(m, n, batch, index, at, 120);
            }
        }
    }

    fn deliver_disturbed(&mut self, m: usize, n: usize, batch: usize, index: usize, mut at: u64, permille: u64) {
        if self.befalls(Fault::RequestLost, permille) {
            return;
        }
        if self.befalls(Fault::RequestLate, permille) {
            let late = at + self.span_of(Fault::RequestLate, 500, 10 * SECOND);
            self.hand_over(m, n, batch, index, 1, late);
            return;
        }
        at = self.deliver(m, n, batch, index, 1, at);
        if self.befalls(Fault::RequestDoubled, permille) {
            let again = at + self.span_of(Fault::RequestDoubled, 0, 10 * SECOND);
            self.hand_over(m, n, batch, index, 1, again);
        }
    }

    /// What one worker gets on one connection comes in the order in which it was sent.
    fn deliver(&mut self, m: usize, n: usize, batch: usize, first: usize, count: usize, at: u64) -> u64 {
        let node = &mut self.members[m].nodes[n];
        node.last_request = node.last_request.max(at);
        let at = node.last_request;
        self.hand_over(m, n, batch, first, count, at);
        at
    }

    fn hand_over(&mut self, m: usize, n: usize, batch: usize, first: usize, count: usize, at: u64) {
        if let Some(batch) = &mut self.broker.batches.items[batch] {
            batch.left += 1;
        }
        let epoch = self.members[m].nodes[n].epoch;
        self.at(at, Event::Asked(m, n, epoch, batch, first, count));
        self.broker.due.push(Reverse(at));
    }

    /// One delivery of a batch is over.
    fn arrived(&mut self, batch: usize) {
        let Some(slot) = &mut self.broker.batches.items[batch] else { return };
        slot.left -= 1;
        if slot.left == 0 {
            self.broker.batches.take(batch);
        }
    }

    /// Requests reach a worker.
    pub(super) fn asked(&mut self, m: usize, n: usize, epoch: u32, batch: usize, (first, count): (usize, usize)) {
        let state = self.members[m].nodes.get(n).filter(|node| node.epoch == epoch).map(|node| node.state);
        match state {
            _ if self.is_out(Outage::BrokerDown) => {}
            // They wait in its socket.
            Some(NodeState::Frozen(until)) => self.hand_over(m, n, batch, first, count, until.max(self.now) + 2),
            Some(NodeState::Up | NodeState::Ending) => match self.deaf_until(m, n) {
                Some(ends) => self.hand_over(m, n, batch, first, count, ends + 2),
                None => self.carry_out(m, n, batch, first, count),
            },
            _ => {}
        }
        self.arrived(batch);
    }

    fn carry_out(&mut self, m: usize, n: usize, batch: usize, first: usize, count: usize) {
        let Some(taken) = self.broker.batches.items[batch].take() else { return };
        let expired = self.setup.remote.drops_expired && stamp(self.now) > taken.expires;
        let mut replies = Vec::with_capacity(count);
        for asked in taken.asked.iter().skip(first).take(count).filter(|_| !expired) {
            if !asked.is_for(self.members[m].nodes[n].name.as_str()) {
                continue;
            }
            self.obey(m, n, asked, &mut replies);
        }
        if let Some(to) = taken.asked.first().map(|asked| asked.reply_to).filter(|_| !replies.is_empty()) {
            // One message in four takes its time on the way back.
            let back = self.delay_chance.pick(&[0, 0, 0, 20]);
            self.post(to, replies, back);
        }
        self.broker.batches.items[batch] = Some(taken);
    }
}
