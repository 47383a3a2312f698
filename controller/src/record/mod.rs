//! Where the report and the little memory live.

pub mod api_server;
pub mod deletion;
pub mod file;
pub mod pages;
pub mod resource;

use std::future::Future;

use serde::{Deserialize, Serialize};
use worker_drain_plan::{Memory, Plan, Report, observation::Failure};

/// What is remembered of one drain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The fleet that it is about ([`FleetId`](crate::identity::FleetId)); `None`: it was not seen yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<String>,
    /// The policy's memory.
    pub memory: Memory,
}

/// Where the report and the memory of one drain live.
pub trait Record: Send + Sync {
    /// What was remembered last; empty if nothing ever was. Errors: it cannot be read, or is not ours. A reconciliation without
    /// its memory must not act.
    fn load(&self) -> impl Future<Output = Result<Memory, Failure>> + Send;

    /// A plan was made, and is about to be written down. For whoever judges plans; a record need not listen.
    fn decided(&self, _plan: &Plan) {}

    /// Adds to a report what only the record knows of the drain, such as that somebody is deleting it.
    fn tell(&self, _report: &mut Report) {}

    /// Remembers, and makes the report known. Writes nothing if neither changed. Errors: it may not have been written.
    fn save(&self, memory: &Memory, report: &Report) -> impl Future<Output = Result<(), Failure>> + Send;
}
