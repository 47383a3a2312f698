//! The policy of worker-drain: a pure, total function from what was seen to what is to be done.
//!
//! Nothing here reads a clock, draws a random number, waits, or does I/O; nothing depends on hash order. The crate's
//! only dependencies are std, jiff and serde, so Cargo itself proves that policy knows no AWS, no Kubernetes and no
//! Celery.
//!
//! Vocabulary: [`policy`] (what the user asked for), [`observation`] (what was seen), [`memory`] (the little that cannot
//! be seen later), [`actions`] (what is to be done), [`report`] (what a person is told).

pub mod actions;
pub mod memory;
pub mod names;
pub mod observation;
pub mod policy;
pub mod report;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use crate::{
    actions::{Action, Ground, Outcome},
    memory::Memory,
    names::{NodeName, QueueName, RevisionId, TaskId},
    observation::Observation,
    policy::Policy,
    report::Report,
};

/// What one pass decided.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What is to be done, in this order.
    pub actions: Vec<Action>,
    /// The actions are for show only: nothing may be done (mode `Plan`).
    pub dry: bool,
    /// No action may be begun after this: what it was decided on is too old then.
    pub good_until: Timestamp,
    /// What a person is told.
    pub report: Report,
    /// What is to be remembered, written down *before* acting.
    pub memory: Memory,
    /// When to look again at the latest, if nothing wakes the loop earlier.
    pub wake_after: SignedDuration,
}
