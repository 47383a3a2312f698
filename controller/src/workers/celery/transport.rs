//! How requests reach the nodes and replies come back, whatever the broker is.
//!
//! A transport carries messages and knows nothing of what they mean. It never makes an answer up: a connection that is
//! lost while replies are awaited is an error, because an empty answer would read as "nobody is there".

use std::{
    future::{Future, ready},
    pin::Pin,
};

use futures::{Stream, stream};
use tokio::sync::mpsc;
use worker_drain_plan::{
    QueueName,
    observation::{Failure, FailureKind},
};

use super::pidbox::Request;

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
    /// The message's body, not yet looked into.
    pub body: Vec<u8>,
}

/// Replies as they come in, or the failure that ended their coming.
#[derive(Debug)]
pub struct Replies(mpsc::UnboundedReceiver<Result<Reply, Failure>>);

/// Where a transport puts the replies to one set of requests.
#[derive(Clone, Debug)]
pub struct ReplySink(mpsc::UnboundedSender<Result<Reply, Failure>>);

impl Replies {
    /// Both ends. Unbounded, because only replies to tickets that were just made up get in: a few for each node.
    pub fn channel() -> (ReplySink, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (ReplySink(sender), Self(receiver))
    }

    /// The next one. `None`: the transport is gone, and nothing will come.
    pub async fn next(&mut self) -> Option<Result<Reply, Failure>> {
        self.0.recv().await
    }
}

impl ReplySink {
    /// Hands over a reply, or the failure after which none will come.
    pub fn put(&self, reply: Result<Reply, Failure>) {
        // Nobody waits any longer: then nobody misses it.
        let _ = self.0.send(reply);
    }

    /// Whether nobody waits any longer.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}
