//! Who is held, and for how long.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::{
    actions::Action,
    memory::Retry,
    names::TaskId,
    observation::{HoldState, Life},
    policy::DeadlineAction,
    situation::{Member, Situation},
};

/// Holds that are to be set or renewed: those of leaving tasks first, the busiest first, and never more in all than the
/// scheduler grants.
pub fn holds(situation: &Situation<'_>) -> Vec<Action> {
    let mut wanting: Vec<(&Member<'_>, SignedDuration)> =
        situation.running().filter_map(|member| Some((member, lasting(situation, member)?))).collect();
    wanting.sort_by_key(|(member, _)| order(member));
    let mut room = situation.hold_room;
    wanting
        .into_iter()
        .filter(|(member, _)| {
            let renewal = member.is_held(situation.now);
            let fits = renewal || room > 0;
            room = if fits && !renewal { room - 1 } else { room };
            fits
        })
        .map(|(member, lasting)| Action::Hold { task: member.id.clone(), lasting })
        .collect()
}

fn order<'a>(member: &'a Member<'_>) -> impl Ord + use<'a> {
    (member.leaving.is_none(), std::cmp::Reverse(member.evidence.load()), member.task.started_at, member.id)
}

/// Leaving tasks that nothing holds and that the scheduler has no room to hold, after those that come before them.
pub fn without_room(situation: &Situation<'_>) -> BTreeSet<TaskId> {
    let is_free = |member: &&Member<'_>| !member.is_held(situation.now);
    let mut wanting: Vec<&Member<'_>> = situation.leaving().filter(is_free).collect();
    wanting.sort_by_key(|member| order(member));
    let mut room = situation.hold_room;
    wanting
        .into_iter()
        .filter(|member| {
            let fits = room > 0;
            // Whoever wants no hold takes no room from those behind it; whoever waits out a refusal does.
            room -= u32::from(fits && is_wanted(situation, member));
            !fits
        })
        .map(|member| member.id.clone())
        .collect()
}

/// How long this task should be held from now on, if its hold must be set or renewed now.
fn lasting(situation: &Situation<'_>, member: &Member<'_>) -> Option<SignedDuration> {
    let wanted = wanted(situation, member)?;
    // One from a time that is still to come is of a clock that was put back since.
    let waits = |refused: &Retry| refused.at <= situation.now && situation.now < retry_at(refused);
    if member.memory.refused().is_some_and(waits) {
        return None;
    }
    let due = match member.task.hold {
        HoldState::Unread => false,
        HoldState::Free => !member.is_proven(situation.policy.drain.idle_for),
        HoldState::Until(end) => {
            let left = end.duration_since(situation.now);
            left < renew_under(situation, member, wanted) || is_too_long(situation, member, left)
        }
    };
    due.then(|| whole_minutes(wanted))
}

/// A hold of ours is wanted on it.
pub fn is_wanted(situation: &Situation<'_>, member: &Member<'_>) -> bool {
    wanted(situation, member).is_some()
}

/// How long this task's hold should last if it were set now; `None` if it should have none from us.
fn wanted(situation: &Situation<'_>, member: &Member<'_>) -> Option<SignedDuration> {
    let policy = situation.policy;
    if policy.withdrawn || member.memory.permitted.is_some() {
        return None;
    }
    if member.leaving.is_some() {
        return Some(match situation.deadline(member) {
            Some((at, DeadlineAction::PermitStop)) => {
                at.duration_since(situation.now).min(situation.fleet.longest_hold)
            }
            _ => situation.fleet.longest_hold,
        })
        .filter(SignedDuration::is_positive);
    }
    situation.is_standing().then_some(policy.hold.expires_in)
}

/// A hold that is to end at a deadline is set once; every other is renewed at half of what it should be, because a
/// renewal may be refused later and then half of it is left to end the jobs or to warn somebody.
fn renew_under(situation: &Situation<'_>, member: &Member<'_>, wanted: SignedDuration) -> SignedDuration {
    match situation.deadline(member) {
        Some((_, DeadlineAction::PermitStop)) => wanted.min(situation.fleet.longest_hold / 2),
        _ => wanted / 2,
    }
}

/// So much may our clock and the scheduler's be apart without anybody having set a hold that is too long. Without it a
/// clock that is a second behind would have every hold set again on every look.
const CLOCKS_APART: SignedDuration = SignedDuration::from_mins(5);

/// A task that stays after all keeps the long hold of its drain no longer than needed: a hold is also what bounds how
/// long jobs are protected if we are gone.
fn is_too_long(situation: &Situation<'_>, member: &Member<'_>, left: SignedDuration) -> bool {
    member.leaving.is_none()
        && situation.memory.rollout.is_none()
        && left > whole_minutes(situation.policy.hold.expires_in).saturating_add(CLOCKS_APART)
}

/// Schedulers count holds in whole minutes; we round up, so that none ends early.
fn whole_minutes(lasting: SignedDuration) -> SignedDuration {
    SignedDuration::from_mins(lasting.as_secs().saturating_add(59).div_euclid(60).max(1))
}

/// When a refused hold is asked for again: after 15 s, then twice as long each time, up to 4 minutes.
pub fn retry_at(refused: &Retry) -> Timestamp {
    let wait = SignedDuration::from_secs(15 << refused.times.saturating_sub(1).min(4));
    refused.at.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

/// Holds that the specification wants no more, on tasks that stay: after a rollout in `OnRollout` mode, and all of ours
/// when the drain is withdrawn; then also those that are not seen, because nobody will look again, and to release what is not
/// held does no harm.
pub fn releases(situation: &Situation<'_>) -> Vec<Action> {
    let withdrawn = situation.policy.withdrawn;
    let over = withdrawn || (!situation.is_standing() && situation.memory.rollout.is_none());
    let is_seen = |member: &Member<'_>| withdrawn || member.is_held(situation.now);
    let ours = |member: &&Member<'_>| member.memory.held && member.leaving.is_none() && is_seen(member);
    let release = |id: &TaskId| Action::Release { task: id.clone() };
    situation
        .members
        .values()
        .filter(|member| over && member.task.life == Life::Running)
        .filter(ours)
        .map(|member| release(member.id))
        .collect()
}
