//! What one observation adds to memory, before anything is decided. One named step a file, in the order in which
//! [`update`] takes them; a step reads the [`View`] and what the steps before it wrote.
//!
//! All of it is idempotent: the same observation remembered twice is remembered once.

pub mod deleted;
pub mod gate;
pub mod intent;
pub mod retries;

mod drained;
mod errors;
mod foreign;
mod held_again;
mod leaving;
mod lifecycle;
mod miscount;
mod nodes;
mod permit;
mod proof;
mod remembering;
mod replaced;
mod rollback;
mod rollout;
mod scale_in;
mod shortage;
mod starts;
mod surplus;
mod taken_up;
mod view;

#[cfg(test)]
mod testing;

use std::collections::BTreeMap;

use jiff::Timestamp;

use self::view::View;
use crate::{
    evidence::{self, Evidence},
    memory::Memory,
    names::TaskId,
    observation::Observation,
    policy::Policy,
};

/// What is known after an observation, and before anything is done.
pub struct Updated<'a> {
    /// What is remembered.
    pub memory: Memory,
    /// What the answers prove of each task; empty if the fleet could not be seen.
    pub evidence: BTreeMap<TaskId, Evidence<'a>>,
}

/// Brings the memory up to date with what was observed.
pub fn update<'a>(policy: &'a Policy, observation: &'a Observation, before: &'a Memory, now: Timestamp) -> Updated<'a> {
    let mut memory = before.clone();
    memory.fleet_error = errors::follow(memory.fleet_error, &observation.fleet);
    let Some(fleet) = observation.fleet.ok() else { return Updated { memory, evidence: BTreeMap::new() } };
    memory.workers_error = errors::follow(memory.workers_error, &observation.workers);

    let observed_at = observation.fleet.at();
    lifecycle::follow(fleet, observed_at, &mut memory);
    retries::settle(policy, fleet, now, &mut memory);
    nodes::learn(observation.workers.ok(), &mut memory);
    nodes::learn_numbers(fleet, observation.workers.ok(), &mut memory, now);
    let evidence = evidence::of_all(fleet, &memory, observation.workers.ok(), &policy.drain, now);
    let view = View { policy, fleet, observation, before, evidence, observed_at, now };

    rollback::follow(&view, &mut memory);
    let is_certain = !memory.is_turning();
    if is_certain {
        leaving::follow(&view, &mut memory);
        surplus::follow(&view, &mut memory);
        replaced::follow(&view, &mut memory);
        scale_in::follow(&view, &mut memory);
    }
    permit::void(&view, &mut memory);
    permit::confirm(&view, &mut memory);
    permit::forget_released(&view, &mut memory);
    foreign::follow(&view, &mut memory);
    proof::follow(&view, &mut memory);
    held_again::follow(&view, &mut memory);
    permit::take_free_for_permitted(&view, &mut memory);
    starts::follow(&view, &mut memory);
    taken_up::follow(&view, &mut memory);
    nodes::learn_instances(&view, &mut memory);
    if is_certain {
        rollout::follow(&view, &mut memory);
        gate::follow(&view, &mut memory);
    }
    lifecycle::forget(&view, &mut memory);
    shortage::follow(&view, &mut memory);
    miscount::follow(&view, &mut memory);
    if is_certain {
        drained::follow(&view, &mut memory);
    }
    remembering::follow(&view, &mut memory);
    Updated { memory, evidence: view.evidence }
}
