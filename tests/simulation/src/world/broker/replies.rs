//! What workers say to requests, and what happens to it on its way back.

use std::cmp::Reverse;

use worker_drain::workers::celery::Reply;

use super::{Post, TRAVELS};
use crate::{
    fault::Fault,
    script::Outage,
    setup::SECOND,
    world::{
        Event, World,
        pidbox::{Asked, Order, of_a_stranger, reply},
    },
};

/// Lines of junk that come instead of a reply.
const JUNK: [&str; 5] = ["\u{80}\u{4}rubbish", "[1, 2]", "{}", r#"{"a@x": [], "b@x": []}"#, r#"{"": {"ok": "pong"}}"#];
/// What stands in place of an answer.
const NO_ANSWERS: [&str; 4] = [r#"{"error": "TimeoutError()"}"#, r#"{"odd": true}"#, "null", r#"[{"id": 5}]"#];

impl World {
    /// A worker carries out one request; its reply is among these, unless something happens to it.
    pub(super) fn obey(&mut self, m: usize, n: usize, asked: &Asked, replies: &mut Vec<Reply>) {
        let Asked { order, ticket, reply_to, .. } = asked;
        let refuses = self.is_garbled(m, n, *order);
        // An order that cannot be carried out is refused, again and again; the first of these says so.
        let answer = if refuses && !order.is_question() {
            NO_ANSWERS[0].to_owned()
        } else if refuses {
            NO_ANSWERS[self.pick_of(Fault::ReplyMalformed, NO_ANSWERS.len())].to_owned()
        } else {
            self.answer(&self.members[m].nodes[n], *order)
        };
        if matches!(order, Order::Queues | Order::Account) {
            let node = &mut self.members[m].nodes[n];
            node.told.get_or_insert(node.consuming);
        }
        match *order {
            Order::Cancel(queues) if !refuses => self.control(m, n, false, queues),
            Order::Add(queues) if !refuses => {
                self.judge_gift(m, n, queues);
                self.control(m, n, true, queues);
            }
            _ => {}
        }
        let name = self.members[m].nodes[n].name.clone();
        let mut body = reply(name.as_str(), &answer);
        if refuses && order.is_question() && self.pick_of(Fault::ReplyMalformed, 2) == 0 {
            body = JUNK[self.pick_of(Fault::ReplyMalformed, JUNK.len())].as_bytes().to_vec();
        }
        let reply_of = |body: Vec<u8>| Reply { ticket: ticket.clone(), body: body.into() };
        // The other process under this name answers first, or last.
        let twin = Some(self.members[m].twin_until).filter(|until| *until > self.now && order.is_question());
        let last = twin.filter(|until| until.is_multiple_of(2)).map(|_| reply_of(reply(name.as_str(), "[]")));
        if twin.is_some() && last.is_none() {
            replies.push(reply_of(reply(name.as_str(), "[]")));
        }
        self.send_back(*reply_to, reply_of(body), replies);
        replies.extend(last);
    }

    /// A reply is among these, unless something happens to it.
    fn send_back(&mut self, to: u64, reply: Reply, replies: &mut Vec<Reply>) {
        if self.befalls(Fault::ReplyForeign, 40) {
            replies.push(Reply { ticket: format!("not-ours-{}", self.now), body: reply.body.clone() });
        }
        if self.befalls(Fault::ReplyLost, 60) {
            return;
        }
        if self.befalls(Fault::ReplyDoubled, 40) {
            let later = self.span_of(Fault::ReplyDoubled, 0, SECOND);
            self.post(to, vec![reply.clone()], later);
        }
        if self.befalls(Fault::ReplySlow, 60) {
            // Most of these come when nobody waits any longer.
            let later = self.span_of(Fault::ReplySlow, 100, 4 * SECOND);
            self.post(to, vec![reply], later);
        } else if self.befalls(Fault::ReplyReordered, 200) {
            let later = self.span_of(Fault::ReplyReordered, 1, 300);
            self.post(to, vec![reply], later);
        } else {
            replies.push(reply);
        }
    }

    /// This worker cannot answer this, and will not be able to for a while: what is wrong with it does not pass by itself.
    fn is_garbled(&mut self, m: usize, n: usize, order: Order) -> bool {
        let (now, kind) = (self.now, std::mem::discriminant(&order));
        let garbled = self.members[m].nodes[n].garbled;
        let lasts = garbled.filter(|(_, until)| *until > now);
        if let Some((of, _)) = lasts {
            return of == kind;
        }
        // Orders are few beside questions.
        let begins = self.befalls(Fault::ReplyMalformed, if order.is_question() { 20 } else { 100 });
        if begins {
            let until = now + self.span_of(Fault::ReplyMalformed, 0, 30 * SECOND);
            self.members[m].nodes[n].garbled = Some((kind, until));
        }
        begins
    }

    /// Who waits behind a gate asks all workers which of them take from its queues; nobody else is asked more than whether it is
    /// there, and what it has begun.
    fn judge_curiosity(&mut self, stranger: &str, asked: &[Asked]) {
        const RULE: &str = "others' workers are asked for no more than their counts";
        self.tally.rule(RULE);
        let has_gate = self.setup.policy.drain.gate.is_some();
        let may_be_asked = |order: Order| match order {
            Order::Ping | Order::Stats => true,
            Order::Queues => has_gate,
            _ => false,
        };
        if let Some(asked) = asked.iter().find(|asked| asked.is_for(stranger) && !may_be_asked(asked.order)) {
            self.broken(RULE, || format!("{stranger}: {:?}", asked.order));
        }
    }

    fn pick_of(&mut self, fault: Fault, count: usize) -> usize {
        usize::try_from(self.span_of(fault, 0, count as u64 - 1)).unwrap_or(0)
    }

    /// A worker of another fleet answers too what it is asked.
    pub(super) fn hear_stranger(&mut self, stranger: u8, asked: &[Asked]) {
        let name = format!("celery@elsewhere-{stranger}");
        self.judge_curiosity(&name, asked);
        let answer = |asked: &Asked| Reply {
            ticket: asked.ticket.clone(),
            body: reply(&name, of_a_stranger(asked.order)).into(),
        };
        let replies: Vec<Reply> = asked.iter().filter(|asked| asked.is_for(&name)).map(answer).collect();
        let Some(to) = asked.first().map(|asked| asked.reply_to) else { return };
        let travels = self.delay_chance.pick(&TRAVELS);
        self.post(to, replies, travels);
    }

    /// Replies go on their way.
    pub(super) fn post(&mut self, to: u64, replies: Vec<Reply>, takes: u64) {
        let post = Post { to, replies };
        if takes == 0 {
            self.receive(post);
            return;
        }
        let place = self.broker.posts.put(post);
        self.at(self.now + takes, Event::Posted(place));
        self.broker.due.push(Reverse(self.now + takes));
    }

    /// Replies arrive.
    pub(in crate::world) fn posted(&mut self, place: usize) {
        if let Some(post) = self.broker.posts.take(place) {
            self.receive(post);
        }
    }

    fn receive(&mut self, post: Post) {
        if self.is_out(Outage::BrokerDown) {
            return;
        }
        let link = self.broker.links.iter().flatten().find(|link| link.number == post.to);
        for reply in post.replies {
            if let Some(link) = link {
                link.waiting.deliver(reply);
            }
        }
    }

    /// No worker is given what it did not take when it was first asked. Of answers that are lost nobody knows.
    fn judge_gift(&mut self, m: usize, n: usize, queues: u8) {
        let unknowable = [
            Fault::ReplyLost,
            Fault::ReplySlow,
            Fault::ReplyMalformed,
            Fault::ConnectionLost,
            Fault::BrokerDown,
            Fault::RequestLate,
            Fault::RequestDoubled,
            Fault::RecordRefused,
            Fault::RecordStale,
            Fault::RecordUnreadable,
            Fault::OperatorKilled,
            Fault::OperatorGone,
            Fault::TwoOperators,
            Fault::LeaseLost,
            Fault::Ambiguous,
            Fault::WorkerRenamed,
        ];
        let told = self.members[m].nodes[n].told;
        let Some(told) = told.filter(|_| unknowable.iter().all(|fault| !self.setup.faults.has(*fault))) else { return };
        self.tally.rule("no worker is given a queue that was not its own");
        if queues & !told != 0 {
            self.broken("no worker is given a queue that was not its own", || {
                format!("t{} took {told:b} when it was first asked, and is given {queues:b}", m + 1)
            });
        }
    }
}
