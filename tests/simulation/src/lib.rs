//! Whole rollouts on virtual time, from a seed that replays, with every fault we can think of.
//!
//! The real pass of the loop ([`worker_drain::reconcile`]) runs unchanged: against the model of the ECS scheduler behind
//! [`Fleet`](worker_drain::fleet::Fleet), modelled workers and a broker behind [`Workers`](worker_drain::workers::Workers),
//! and a store with versions behind [`Record`](worker_drain::record::Record). First comes a phase with faults, in which
//! nothing bad may happen; then one without, in which everything good must.
//!
//! [`run`] runs one history. `docs/proof.md` tells in plain words what is proven by that, and what is not.

mod adapters;
mod chance;
mod fault;
mod judge;
mod operator;
mod remote;
mod run;
mod script;
mod setup;
mod sim;
mod tally;
mod tap;
mod world;

pub use crate::{
    fault::{Fault, FaultSet},
    judge::Broken,
    run::{Options, Outcome, run, shrink},
    script::{Beat, Happening, Outage},
    tally::Tally,
};
