//! The workers: processes that take jobs from queues and can answer for themselves.
//!
//! Another kind of worker is another folder here and one line where the trait's implementation is chosen ([`any`]). Adapters hand
//! over raw answers with their times; what those prove is policy, and not decided here.

pub mod any;
pub mod brokers;
pub mod celery;
pub mod http;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::{Future, pending, ready},
};

use jiff::Timestamp;
use worker_drain_plan::{
    Awaited, NodeName, Outcome, QueueName, TaskId,
    observation::{Failure, FailureKind, Queue, QueueCount, Seen, WorkersView},
};

use crate::identity::Expected;

/// The workers of a fleet, as whatever they are asked through knows them.
pub trait Workers: Send + Sync {
    /// Asks every node what it consumes, holds and runs, and maps nodes to tasks.
    ///
    /// A node that does not answer is simply missing from the result. Errors: nobody could be asked at all.
    fn observe(&self, tasks: &BTreeMap<TaskId, Expected>) -> impl Future<Output = Result<WorkersView, Failure>> + Send;

    /// Tells each node to stop taking jobs from these queues. One outcome for each, in the same order; `Done` means that
    /// the request was sent: whether it took effect, the next observation shows.
    fn cancel(&self, cancels: &[(NodeName, Vec<QueueName>)]) -> impl Future<Output = Vec<Outcome>> + Send;

    /// Tells each node to take jobs from these queues again. Outcomes as in [`Workers::cancel`].
    fn give_back(&self, undos: &[(NodeName, Vec<Queue>)]) -> impl Future<Output = Vec<Outcome>> + Send;

    /// Counts the messages of these queues: each has an answer, or the failure to get one. Nothing of a failure may read as
    /// an empty queue.
    fn count(
        &self,
        queues: &BTreeSet<QueueName>,
    ) -> impl Future<Output = BTreeMap<QueueName, Seen<QueueCount>>> + Send {
        let why = "what these workers take their jobs from cannot be counted";
        ready(uncounted(queues, &Failure::new(FailureKind::Invalid, why), Timestamp::UNIX_EPOCH))
    }

    /// From now on, listens for the ends of these jobs and of no others; called after each reconciliation. It is bounded, and fails
    /// in silence: what cannot be heard is seen by the next observation. Default: there is nothing to listen to.
    fn listen(&self, awaited: &Awaited) -> impl Future<Output = ()> + Send {
        let _ = awaited;
        ready(())
    }

    /// Waits until something is heard that makes an observation worth it: a signal, which proves nothing. For one who waits at a
    /// time. Default: never.
    fn heard(&self) -> impl Future<Output = ()> + Send {
        pending()
    }

    /// What a person should know about the listening: that it does not work, and what would help. Default: nothing.
    fn note(&self) -> Option<String> {
        None
    }
}

/// None of these queues could be counted, for one and the same reason.
pub fn uncounted(
    queues: &BTreeSet<QueueName>,
    failure: &Failure,
    at: Timestamp,
) -> BTreeMap<QueueName, Seen<QueueCount>> {
    queues.iter().map(|queue| (queue.clone(), Seen::Err { failure: failure.clone(), at })).collect()
}
