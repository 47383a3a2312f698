//! The seams of the real loop, with the world behind them.

mod fleet;
mod record;
mod transport;
mod workers;

use std::sync::Arc;

use jiff::Timestamp;
use worker_drain::clock::Clock;
use worker_drain_plan::policy::Mode;

pub use self::{
    fleet::SimFleet,
    record::SimRecord,
    transport::{SimTransport, connect},
    workers::SimWorkers,
};
use crate::{
    fault::Fault,
    sim::Sim,
    tap::stamp,
    world::{GOOD_FOR, World},
};

/// An operator's clock.
#[derive(Clone, Debug)]
pub struct SimClock {
    /// The world.
    pub sim: Arc<Sim>,
    /// Whose.
    pub who: usize,
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        clock(&self.sim.world(), self.who)
    }
}

/// An operator begins to do something: is it what its plan, its policy and the time allow?
pub fn judge_begin(world: &mut World, who: usize, is_hold: bool) {
    world.tally.rule("nothing is begun that was not written down");
    world.tally.rule("nothing is begun on an old plan");
    world.tally.rule("a paused drain, or one in mode Plan, does nothing");
    let now = clock(world, who);
    let tap = &world.taps[who];
    let old = tap.plan.as_ref().is_some_and(|plan| now > plan.good_until);
    let unwritten = !tap.saved;
    let unwanted = tap.policy.as_ref().is_some_and(|policy| policy.mode == Mode::Plan || (policy.paused && !is_hold));
    if unwritten {
        world.broken("nothing is begun that was not written down", || format!("by operator {who}"));
    }
    if old {
        world.broken("nothing is begun on an old plan", || format!("by operator {who}"));
    }
    if unwanted {
        world.broken("a paused drain, or one in mode Plan, does nothing", || format!("operator {who} does"));
    }
}

/// A release knows no condition: it is not tried for longer than its plan is good, however long its turn or its replies
/// take. Of a process that was paused, or whose clock jumped, no more is asked.
pub fn judge_attempt(world: &mut World, who: usize) {
    let planned = world.taps[who].planned_ms;
    if world.paused_at[who] >= planned || world.setup.faults.has(Fault::ClockJumps) {
        return;
    }
    world.tally.rule("nothing is tried on an old plan");
    let late = world.now.saturating_sub(planned);
    if late > GOOD_FOR {
        world.broken("nothing is tried on an old plan", || {
            format!("operator {who} releases {late} ms after it decided")
        });
    }
}

/// What this operator's clock shows.
pub fn clock(world: &World, who: usize) -> Timestamp {
    stamp(world.now.saturating_add_signed(world.skew[who]))
}
