//! How requests reach the nodes and replies come back, whatever the broker is.
//!
//! A transport carries messages and knows nothing of what they mean. It never makes an answer up: a connection that is
//! lost while replies are awaited is an error, because an empty answer would read as "nobody is there".

use std::{
    collections::BTreeSet,
    future::{Future, ready},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures::{Stream, stream};
use tokio::sync::mpsc;
use tracing::debug;
use worker_drain_plan::{
    NodeName, QueueName,
    observation::{Failure, FailureKind},
};

use super::pidbox::{Body, Request};

/// Carries remote-control requests to nodes, and their replies back.
pub trait Transport: Send + Sync {
    /// Publishes these requests, in this order, and returns without waiting for replies.
    ///
    /// Connects, or connects again, when it must. Every wait in it is bounded. Errors: nothing is known to have been
    /// published, though it may have been.
    fn publish(&self, requests: &[Request]) -> impl Future<Output = Result<Sent, Failure>> + Send;

    /// Counts the messages of these queues, first those that wait, then those that are delivered; an answer for each, in the
    /// same order. Changes nothing on the broker. Bounded, and connects as [`Transport::publish`] does.
    ///
    /// A transport that cannot count says so of each: what is not counted is not empty.
    fn count(&self, queues: &[QueueName]) -> impl Future<Output = Vec<Result<Count, Failure>>> + Send {
        let failure = Failure::new(FailureKind::Invalid, "what goes over this transport cannot be counted");
        std::future::ready(vec![Err(failure); queues.len()])
    }

    /// Those of these nodes whose queue for requests more than one process listens on: of such, only one gets each request.
    /// Default: a broker on which every listener gets every request, so that all of them answer.
    fn shared(&self, nodes: &BTreeSet<NodeName>) -> impl Future<Output = Result<BTreeSet<NodeName>, Failure>> + Send {
        let _ = nodes;
        ready(Ok(BTreeSet::new()))
    }

    /// Leaves nothing of ours on the broker. It may still be used: it then connects again.
    fn close(&self) -> impl Future<Output = ()> + Send;

    /// Listens to what nodes send unasked, on a separate connection that lasts as long as what is
    /// returned. Default: nothing is received.
    fn events(&self) -> impl Future<Output = Result<Events, Failure>> + Send {
        ready(Ok(Box::pin(stream::pending()) as Events))
    }
}

/// The bodies of Celery's events as they come in, until the connection is lost. Some may be missing.
pub type Events = Pin<Box<dyn Stream<Item = Vec<u8>> + Send>>;

/// Requests that were published.
#[derive(Debug)]
pub struct Sent {
    /// For each request, how many subscribers it was handed to; `None` where the broker does not say. Subscribers that
    /// are frozen, belong to other fleets, or are not the request's destination count too.
    pub receivers: Vec<Option<u64>>,
    /// Nodes that have a queue for requests on the broker, whether or not they answer; of some that ended without a word the
    /// queue may have stayed. Empty where the broker does not say.
    pub bound: BTreeSet<NodeName>,
    /// What comes back to these requests, and to no others.
    pub replies: Replies,
}

/// What a broker says of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Messages that wait.
    pub ready: u64,
    /// What it says of messages that are delivered and not acknowledged.
    pub delivered: Delivered,
    /// It knows a queue of this name; false: it does not know.
    pub known: bool,
}

/// What a broker says of messages that are delivered and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// So many.
    Counted(u64),
    /// Nothing; only that so many consumers may hold some.
    To(u64),
}

/// A reply, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The ticket of the request that it answers.
    pub ticket: String,
    /// The message's body.
    pub body: Body,
}

/// Replies as they come in, or the failure that ended their coming.
#[derive(Debug)]
pub struct Replies {
    receiver: mpsc::UnboundedReceiver<Result<Reply, Failure>>,
    shared: Arc<Shared>,
}

/// Where a transport puts the replies to one set of requests.
#[derive(Clone, Debug)]
pub struct ReplySink {
    sender: mpsc::UnboundedSender<Result<Reply, Failure>>,
    shared: Arc<Shared>,
}

/// What both ends know.
#[derive(Debug)]
struct Shared {
    is_awaited: AtomicBool,
    /// The bytes of what came and was not taken yet.
    unread: AtomicUsize,
}

/// How many bytes of replies are read ahead of who takes them. One more may be longer than that.
const MOST_UNREAD: usize = 4 << 20;
/// The longest reply that is kept when nobody waits for it now. What a late one is kept for, how a node wants to be asked, is
/// shorter; lists of jobs are of no use by then.
const LONGEST_LATE: usize = 1 << 20;

impl Replies {
    /// Both ends. Unbounded, because only replies to tickets that were just made up get in: a few for each node.
    pub fn channel() -> (ReplySink, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared { is_awaited: AtomicBool::new(true), unread: AtomicUsize::new(0) });
        (ReplySink { sender, shared: shared.clone() }, Self { receiver, shared })
    }

    /// Nobody waits for more of them now. What comes all the same is kept, if it is short.
    pub fn set_aside(&self) {
        self.shared.is_awaited.store(false, Ordering::Relaxed);
    }

    /// One that has come in already.
    pub fn at_hand(&mut self) -> Option<Result<Reply, Failure>> {
        self.receiver.try_recv().ok().inspect(|reply| self.took(reply))
    }

    /// The next one. `None`: the transport is gone, and nothing will come.
    pub async fn next(&mut self) -> Option<Result<Reply, Failure>> {
        let reply = self.receiver.recv().await;
        reply.inspect(|reply| self.took(reply))
    }

    fn took(&self, reply: &Result<Reply, Failure>) {
        self.shared.unread.fetch_sub(size(reply), Ordering::Relaxed);
    }
}

impl ReplySink {
    /// Hands over a reply, or the failure after which none will come.
    pub fn put(&self, reply: Result<Reply, Failure>) {
        let bytes = size(&reply);
        if bytes > LONGEST_LATE && !self.is_awaited() {
            debug!(bytes, "a long reply came too late, and is not kept");
            return;
        }
        self.shared.unread.fetch_add(bytes, Ordering::Relaxed);
        // Nobody waits any longer: then nobody misses it.
        let _ = self.sender.send(reply);
    }

    /// Whether somebody waits for more.
    pub fn is_awaited(&self) -> bool {
        !self.is_closed() && self.shared.is_awaited.load(Ordering::Relaxed)
    }

    /// Whether so much came that more is to be left at the broker until that is taken.
    pub fn is_full(&self) -> bool {
        self.is_awaited() && self.shared.unread.load(Ordering::Relaxed) >= MOST_UNREAD
    }

    /// Whether nobody can take any more.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

fn size(reply: &Result<Reply, Failure>) -> usize {
    reply.as_ref().map_or(0, |reply| reply.body.size())
}
