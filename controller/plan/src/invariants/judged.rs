//! What is judged, and how a verdict is given.

use jiff::Timestamp;

use crate::{Memory, Observation, Plan, Policy};

/// One reconciliation, as it is judged.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'a> {
    /// What the user asked for.
    pub policy: &'a Policy,
    /// What was seen.
    pub observation: &'a Observation,
    /// What was remembered before.
    pub before: &'a Memory,
    /// What was decided.
    pub plan: &'a Plan,
    /// When.
    pub now: Timestamp,
}

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its number.
    pub rule: u8,
    /// What is wrong, for a developer.
    pub what: String,
}

/// Whether a rule holds.
pub type Check = Result<(), Violation>;

/// A rule holds, or this is wrong.
pub(super) fn demand(rule: u8, holds: bool, what: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(Violation { rule, what: what() }) }
}
