//! Where the report and the little memory live.

pub mod file;
pub mod pages;
pub mod resource;

use std::future::Future;

use worker_drain_plan::{Memory, Report, observation::Failure};

/// Where the report and the memory of one drain live.
pub trait Record: Send + Sync {
    /// What was remembered last; empty if nothing ever was. Errors: it cannot be read, or is not ours. A pass without
    /// its memory must not act.
    fn load(&self) -> impl Future<Output = Result<Memory, Failure>> + Send;

    /// Remembers, and makes the report known. Writes nothing if neither changed. Errors: it may not have been written.
    fn save(&self, memory: &Memory, report: &Report) -> impl Future<Output = Result<(), Failure>> + Send;
}
