//! When to observe again at the latest. Losing every signal costs latency, never correctness; observing too often costs the
//! scheduler's and the broker's patience, which all drains share.

use std::{collections::BTreeMap, num::NonZeroU32};

use jiff::{SignedDuration, Timestamp};

use crate::{
    actions::Action,
    evidence::{Work, held},
    memory::{Memory, ObserveError, Retry},
    names::{NodeName, TaskId},
    observation::{Answer, HoldState, Life},
    policy::{Mode, Scheduled},
    situation::{Member, Situation},
};

/// After something was done: whether it took effect is read back.
const READ_BACK: SignedDuration = SignedDuration::from_secs(1);
/// While a task leaves, at first; a task that has been in one phase for long is observed less often.
const LEAVING_MIN: SignedDuration = SignedDuration::from_secs(2);
/// While a task leaves, at the most.
const LEAVING_MAX: SignedDuration = SignedDuration::from_secs(10);
/// The part of the time already spent in a phase that is waited before the next observation.
const LEAVING_SHARE: i32 = 20;
/// When nothing leaves: this is what a deployment may wait for its first cancel if no signal tells of it.
const STEADY: SignedDuration = SignedDuration::from_secs(15);
/// A new worker should be seen soon: an old one waits for it.
const BOOTING: SignedDuration = SignedDuration::from_secs(3);
/// The shortest time between two observations, whatever is being waited for.
const SHORTEST: SignedDuration = SignedDuration::from_millis(100);
/// The longest back-off from an outside system that fails.
const BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(30);

/// When to observe again, if the outside could be seen.
pub fn wake_after(situation: &Situation<'_>, actions: &[Action]) -> SignedDuration {
    let is_dry_run = situation.policy.mode == Mode::Plan;
    let acts = !is_dry_run && actions.iter().any(|action| !is_vain(situation, action));
    let mut wake = if acts { READ_BACK } else { STEADY };
    for member in situation.members.values() {
        if member.leaving.is_some() || member.task.life == Life::Stopping {
            wake = wake.min(leaving(situation, member));
        } else if member.task.life == Life::Starting
            || (member.evidence.work == Work::Unknown && situation.is_starting_up(member))
        {
            wake = wake.min(BOOTING);
        }
        if let HoldState::Until(end) = member.task.hold {
            wake = wake.min((end.duration_since(situation.now) / 2).max(LEAVING_MIN));
        }
    }
    // Who released one may release the next.
    if situation.live().any(|member| member.memory.released_by_others > 0) {
        wake = wake.min(LEAVING_MIN);
    }
    if let Some(gate) = &situation.memory.gate
        && gate.opened.is_none()
    {
        wake = wake.min(gate.empty.map_or(LEAVING_MIN, |run| until_proven(gate.apart, run.first, situation.now)));
    }
    if situation.memory.is_turning() {
        wake = wake.min(LEAVING_MIN);
    }
    match &situation.memory.workers_error {
        Some(error) => wake.min(backoff(error)),
        None => wake,
    }
}

/// It was tried so often that haste does not help.
fn is_vain(situation: &Situation<'_>, action: &Action) -> bool {
    let is_silent =
        |task: &TaskId, node| situation.members.get(task).is_some_and(|member| member.evidence.queues(node).is_none());
    if let Action::Cancel { task, node, .. } = action
        && is_silent(task, node)
    {
        return true;
    }
    let retry = situation.memory.tasks.get(action.task()).and_then(|task| task.retries.get(&action.step()));
    retry.is_some_and(Retry::is_stubborn)
}

fn leaving(situation: &Situation<'_>, member: &Member<'_>) -> SignedDuration {
    let (idle_for, settles_in) = (situation.policy.drain.idle_for, member.evidence.settles_in());
    match member.memory.idle {
        Some(run) if !run.proves(idle_for, settles_in) && member.memory.permitted.is_none() => {
            until_proven(run.lasts(idle_for, settles_in), run.first, situation.now)
        }
        _ => {
            let since = member.memory.phase.map_or(situation.now, |phase| phase.since);
            (situation.now.duration_since(since) / LEAVING_SHARE).clamp(LEAVING_MIN, LEAVING_MAX)
        }
    }
}

/// How long until a second observation can prove what the first one saw. If that time is long over, and nothing is proven, then
/// something is in the way that haste does not help: a clock that jumped, a memory that cannot be written.
fn until_proven(apart: SignedDuration, first: Timestamp, now: Timestamp) -> SignedDuration {
    let left = apart - now.duration_since(first);
    if left < -READ_BACK { READ_BACK } else { left.clamp(SHORTEST, LEAVING_MAX) }
}

/// When to observe again, if the fleet could not be seen.
pub fn wake_blind(memory: &Memory) -> SignedDuration {
    memory.fleet_error.as_ref().map_or(READ_BACK, backoff)
}

/// 1 s, then twice as long each time, up to 30 s.
fn backoff(error: &ObserveError) -> SignedDuration {
    SignedDuration::from_secs(1 << error.times.saturating_sub(1).min(5)).min(BACKOFF_MAX)
}

/// For each node that a stop waits for: after how many more jobs' ends it may be idle. A node that is not here is waited
/// for by nobody.
pub type Awaited = BTreeMap<NodeName, NonZeroU32>;

/// Nodes that were cancelled and have jobs, and those that do not answer and may have some, of tasks that leave.
pub fn awaited(situation: &Situation<'_>) -> Awaited {
    if situation.policy.paused || situation.policy.mode == Mode::Plan {
        return Awaited::new();
    }
    let waiting = situation.leaving().filter(|member| member.memory.permitted.is_none());
    let nodes = waiting.flat_map(|member| &member.evidence.nodes);
    let scheduled = situation.policy.drain.scheduled;
    nodes.filter_map(|(node, answer)| Some((node.clone(), ends_until_idle(*answer, scheduled)?))).collect()
}

/// `None`: nothing is to be waited for, because it has no jobs, or because it still takes new ones and is to be cancelled
/// first.
fn ends_until_idle(answer: Option<&Answer>, scheduled: Scheduled) -> Option<NonZeroU32> {
    // One that is silent, such as a worker of the solo pool, may answer when it has ended a job.
    let Some((answer, held)) = answer.and_then(|answer| Some((answer, held(answer, scheduled)?))) else {
        return Some(NonZeroU32::MIN);
    };
    match &answer.queues {
        None => Some(NonZeroU32::MIN),
        Some(queues) if queues.is_empty() => NonZeroU32::new(held),
        Some(_) => None,
    }
}
