//! Chooses who leaves when the fleet has more tasks than it wants: the idlest of the current revision, as many as there
//! are too many. Whoever was chosen stays chosen while the choice is needed, and gets its queues back when it is not.

use jiff::Timestamp;

use crate::{
    evidence::Work,
    memory::{Leaving, Memory, Why},
    names::TaskId,
    observation::{FleetView, HoldState, Life, Observation},
    policy::{HoldMode, Policy},
    remember::stay,
    situation::{Member, Situation, count},
};

/// Writes down who leaves for scale-in. Holds stand in the way of a scale-in only in `Standing` mode, so only there is
/// it ours to drain.
pub fn choose(policy: &Policy, fleet: &FleetView, observation: &Observation, memory: &mut Memory, now: Timestamp) {
    let ours = policy.drain.scale_in && policy.hold.mode == HoldMode::Standing && !policy.withdrawn;
    if ours && policy.paused {
        return;
    }
    let victims = if ours { victims(&Situation::new(policy, fleet, observation, memory, now)) } else { Vec::new() };
    // Whoever is ending leaves, whoever else is chosen; and how it came to that is not forgotten.
    let lives = |id| fleet.tasks.get(id).is_some_and(|task| matches!(task.life, Life::Starting | Life::Running));
    for (id, task) in &mut memory.tasks {
        match task.leaving {
            None if victims.contains(id) => task.leaving = Some(Leaving { why: Why::ScaleIn, since: now }),
            Some(Leaving { why: Why::ScaleIn, .. }) if !victims.contains(id) && lives(id) => stay(task),
            _ => {}
        }
    }
}

fn victims(situation: &Situation<'_>) -> Vec<TaskId> {
    let mut current: Vec<&Member<'_>> =
        situation.live().filter(|member| member.task.revision == situation.fleet.current).collect();
    let too_many = count(current.iter()).saturating_sub(situation.fleet.desired);
    if !situation.workers_seen {
        // Nobody can be chosen by its load now; whoever was chosen before stays chosen.
        current.retain(|member| member.leaving == Some(Why::ScaleIn));
    }
    current.sort_by_key(|member| order(member));
    current.into_iter().take(usize::try_from(too_many).unwrap_or(usize::MAX)).map(|member| member.id.clone()).collect()
}

/// Those already on their way first; then those that the scheduler may stop without asking us; then the idlest, and
/// those that do not answer last, because they cannot be drained.
fn order<'a>(member: &'a Member<'_>) -> impl Ord + use<'a> {
    let work = match member.evidence.work {
        Work::Idle => 0,
        Work::Busy => 1,
        Work::Unknown => 2,
    };
    (
        member.memory.permitted.is_none(),
        member.leaving != Some(Why::ScaleIn),
        member.task.hold != HoldState::Free,
        work,
        member.evidence.load(),
        member.id,
    )
}
