//! What somebody else does against a drain, in words. Each note begins with the word by which its event is called, is about one task or
//! worker, and says how often: it is news each time that happens, and at no other time.

use std::cmp::Reverse;

use super::words::{age, counted, names};
use crate::{
    observation::HoldState,
    situation::{Member, Situation},
};

/// The word of notes and events about holds that somebody else sets or releases.
pub const HOLD: &str = "ForeignHold";
/// The word of notes and events about queues that somebody else has a worker take jobs from.
pub const CONSUMER: &str = "ForeignConsumer";
/// So many of each kind are told, those that happened most often.
const MOST: usize = 3;

/// All of them.
pub fn notes(situation: &Situation<'_>) -> Vec<String> {
    [most(released(situation)), most(held_again(situation)), most(taken_up(situation))].concat()
}

fn most(notes: impl Iterator<Item = (u32, String)>) -> Vec<String> {
    let mut notes: Vec<(u32, String)> = notes.collect();
    notes.sort_by_key(|(times, _)| Reverse(*times));
    notes.into_iter().take(MOST).map(|(_, note)| note).collect()
}

fn released(situation: &Situation<'_>) -> impl Iterator<Item = (u32, String)> {
    let released = situation.live().filter(|member| member.memory.released_by_others > 0);
    released.map(|member| {
        let times = member.memory.released_by_others;
        let note = format!(
            "{HOLD}: somebody else released the hold of {} ({}): an application that sets task protection itself, another tool, or a person; \
             it is held again when that is seen, and a deployment in between cuts its jobs; leave protection to worker-drain alone",
            member.id.short(),
            counted(times, "time"),
        );
        (times, note)
    })
}

fn held_again(situation: &Situation<'_>) -> impl Iterator<Item = (u32, String)> {
    situation.live().filter_map(|member| {
        let times = member.memory.held_again?.times;
        let note = format!(
            "{HOLD}: somebody else held {} again after it was let go ({}): an application that sets task protection itself, another tool, or a \
             person; the scheduler stops no task that is held; it is let go again once it is proven idle again, ever more seldom; leave \
             protection to worker-drain alone",
            member.id.short(),
            counted(times, "time"),
        );
        Some((times, note))
    })
}

fn taken_up(situation: &Situation<'_>) -> impl Iterator<Item = (u32, String)> {
    let leaving = situation.live().filter(|member| member.leaving.is_some());
    leaving.flat_map(|member| &member.memory.nodes).filter_map(|(name, node)| {
        let taken_up = node.taken_up.as_ref()?;
        let note = format!(
            "{CONSUMER}: {name} took jobs from {} again after that was cancelled and read back ({}): somebody sends it add_consumer (an \
             autoscaler, Flower, a person), or it began anew by itself; it is cancelled again, ever more seldom; keep others from workers \
             that leave",
            names(taken_up.queues.iter()),
            counted(taken_up.times, "time"),
        );
        Some((taken_up.times, note))
    })
}

/// What a task waits for that somebody else holds after it was let go.
pub fn holds(situation: &Situation<'_>, member: &Member<'_>) -> Option<String> {
    let again = member.memory.held_again.filter(|again| again.since.is_some())?;
    let HoldState::Until(end) = member.task.hold else { return None };
    Some(format!(
        "it was let go, and somebody else holds it again ({}), for {} from now: the scheduler does not stop it meanwhile; it is let go \
         again once it is proven idle again, ever more seldom; does its application set task protection itself?",
        counted(again.times, "time"),
        age(end.duration_since(situation.now)),
    ))
}

/// What a task waits for that somebody has take jobs again and again.
pub fn feeds(situation: &Situation<'_>, member: &Member<'_>) -> Option<String> {
    let of_node = |(name, node): (_, &crate::memory::NodeMemory)| {
        Some((name, node.taken_up.clone()?, node.waits_until(situation.now)?))
    };
    let (name, taken_up, until) = member.memory.nodes.iter().find_map(of_node)?;
    Some(format!(
        "somebody has {name} take jobs from {} again and again ({}): it is told to stop again in {}; who sends it add_consumer? (an \
         autoscaler, Flower, a person)",
        names(taken_up.queues.iter()),
        counted(taken_up.times, "time"),
        age(until.duration_since(situation.now)),
    ))
}
