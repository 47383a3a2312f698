//! When to look again at the latest. Losing every signal costs latency, never correctness; looking too often costs the
//! scheduler's and the broker's patience, which all drains share.

use jiff::{SignedDuration, Timestamp};

use crate::{
    evidence::Work,
    memory::{Memory, ObserveError},
    observation::{HoldState, Life},
    situation::Situation,
    turn,
};

/// After something was done: whether it took effect is read back.
const READ_BACK: SignedDuration = SignedDuration::from_secs(1);
/// While a task leaves, at first; a task that has been in one phase for long is looked at more seldom.
const LEAVING_MIN: SignedDuration = SignedDuration::from_secs(2);
/// While a task leaves, at the most.
const LEAVING_MAX: SignedDuration = SignedDuration::from_secs(10);
/// The part of the time already spent in a phase that is waited before the next look.
const LEAVING_SHARE: i32 = 20;
/// When nothing leaves: this is what a deployment may wait for its first cancel if no signal tells of it.
const STEADY: SignedDuration = SignedDuration::from_secs(15);
/// A new worker should be seen soon: an old one waits for it.
const BOOTING: SignedDuration = SignedDuration::from_secs(3);
/// The shortest time between two looks, whatever is being waited for.
const SHORTEST: SignedDuration = SignedDuration::from_millis(100);
/// The longest back-off from an outside system in trouble.
const TROUBLE_MAX: SignedDuration = SignedDuration::from_secs(30);

/// When to look again, if the outside could be seen.
pub fn wake_after(situation: &Situation<'_>, acted: bool) -> SignedDuration {
    let mut wake = if acted { READ_BACK } else { STEADY };
    for member in situation.members.values() {
        if member.leaving.is_some() || member.task.life == Life::Stopping {
            wake = wake.min(leaving(situation, member));
        } else if member.task.life == Life::Starting
            || (member.evidence.work == Work::Unknown && situation.is_booting(member))
        {
            wake = wake.min(BOOTING);
        }
        if let HoldState::Until(end) = member.task.hold {
            wake = wake.min((end.duration_since(situation.now) / 2).max(LEAVING_MIN));
        }
    }
    if let Some(gate) = &situation.memory.gate
        && gate.opened.is_none()
    {
        wake = wake.min(gate.empty.map_or(LEAVING_MIN, |run| until_proven(gate.apart, run.first, situation.now)));
    }
    if turn::is_turning(situation.memory) {
        wake = wake.min(LEAVING_MIN);
    }
    match &situation.memory.workers_error {
        Some(trouble) => wake.min(backoff(trouble)),
        None => wake,
    }
}

fn leaving(situation: &Situation<'_>, member: &crate::situation::Member<'_>) -> SignedDuration {
    let idle_for = situation.policy.drain.idle_for;
    match member.memory.idle {
        Some(run) if !run.proves(idle_for) && member.memory.permitted.is_none() => {
            until_proven(idle_for, run.first, situation.now)
        }
        _ => {
            let since = member.memory.phase.map_or(situation.now, |phase| phase.since);
            (situation.now.duration_since(since) / LEAVING_SHARE).clamp(LEAVING_MIN, LEAVING_MAX)
        }
    }
}

/// How long until a second look can prove what the first one saw. If that time is long over, and nothing is proven, then
/// something is in the way that haste does not help: a clock that jumped, a memory that cannot be written.
fn until_proven(apart: SignedDuration, first: Timestamp, now: Timestamp) -> SignedDuration {
    let left = apart - now.duration_since(first);
    if left < -READ_BACK { READ_BACK } else { left.clamp(SHORTEST, LEAVING_MAX) }
}

/// When to look again, if the fleet could not be seen.
pub fn wake_blind(memory: &Memory) -> SignedDuration {
    memory.fleet_error.as_ref().map_or(READ_BACK, backoff)
}

/// 1 s, then twice as long each time, up to 30 s.
fn backoff(trouble: &ObserveError) -> SignedDuration {
    SignedDuration::from_secs(1 << trouble.times.saturating_sub(1).min(5)).min(TROUBLE_MAX)
}
