//! The seams of the real loop, with the world behind them.

mod fleet;
mod record;
mod workers;

use jiff::Timestamp;
use worker_drain::clock::Clock;

pub use self::{fleet::SimFleet, record::SimRecord, workers::SimWorkers};
use crate::{sim::Sim, tap::stamp, world::World};

/// An operator's clock.
#[derive(Clone, Copy, Debug)]
pub struct SimClock<'a> {
    /// The world.
    pub sim: &'a Sim,
    /// Whose.
    pub who: usize,
}

impl Clock for SimClock<'_> {
    fn now(&self) -> Timestamp {
        clock(&self.sim.world(), self.who)
    }
}

/// What this operator's clock shows.
pub fn clock(world: &World, who: usize) -> Timestamp {
    stamp(world.now.saturating_add_signed(world.skew[who]))
}
