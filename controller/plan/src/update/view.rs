//! What every step of the update reads.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    evidence::Evidence,
    memory::Memory,
    names::TaskId,
    observation::{FleetView, Observation},
    policy::Policy,
};

/// One observation in which the fleet could be seen, with what its answers prove.
pub struct View<'a> {
    /// What the user asked for.
    pub policy: &'a Policy,
    /// The fleet as it was seen.
    pub fleet: &'a FleetView,
    /// All that was seen.
    pub observation: &'a Observation,
    /// What was remembered before this observation.
    pub before: &'a Memory,
    /// What is proven of each task that is remembered.
    pub evidence: BTreeMap<TaskId, Evidence<'a>>,
    /// When the observation of the fleet began. How long something has been so is counted from one observation to another:
    /// the time that passes between an observation and its decision is none of it.
    pub observed_at: Timestamp,
    /// Now.
    pub now: Timestamp,
}
