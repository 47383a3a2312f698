//! Who is held, for how long, and who cannot be.

use std::{cmp::Reverse, collections::BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::{
    actions::Action,
    evidence::CLOCKS_APART,
    memory::Retry,
    names::TaskId,
    observation::HoldState,
    policy::DeadlineAction,
    situation::{Member, Situation},
};

/// Holds that will be set or renewed, and who is left without one: the scheduler grants only so many, and that room is
/// handed out once.
pub struct Holds {
    granted: Vec<(TaskId, SignedDuration)>,
    without_room: BTreeSet<TaskId>,
}

impl Holds {
    /// Hands out the room: leaving tasks come first, the busiest first. A renewal takes none, and neither does a task that
    /// asks for no hold now. What was asked for and refused in this reconciliation keeps its room until the next: only then can
    /// anybody else be held in its place, and is at risk until then.
    pub fn hand_out(situation: &Situation<'_>) -> Self {
        let mut members: Vec<&Member<'_>> = situation.running().collect();
        members.sort_by_key(|member| order(member));
        let (mut granted, mut without_room, mut room) = (Vec::new(), BTreeSet::new(), situation.hold_room);
        for member in members {
            let is_held = member.is_held(situation.now);
            let lasting = lasting(situation, member).filter(|_| is_held || room > 0);
            if !is_held && room == 0 && member.leaving.is_some() {
                without_room.insert(member.id.clone());
            }
            if let Some(lasting) = lasting {
                granted.push((member.id.clone(), lasting));
            }
            if lasting.is_some() || was_asked_for_now(situation, member) {
                room = room.saturating_sub(u32::from(!is_held));
            }
        }
        Self { granted, without_room }
    }

    /// To be taken in this order.
    pub fn actions(&self) -> impl Iterator<Item = Action> + use<'_> {
        self.granted.iter().map(|(task, lasting)| Action::Hold { task: task.clone(), lasting: *lasting })
    }

    /// A hold of this task is asked for now.
    pub fn asks_for(&self, task: &TaskId) -> bool {
        self.granted.iter().any(|(asked, _)| asked == task)
    }

    /// The scheduler may stop this task, which runs and will leave, at any moment, and we could not prevent it: nothing (or
    /// not for long) holds it, and a hold was refused or would exceed what the scheduler grants.
    pub fn leave_at_risk(&self, situation: &Situation<'_>, member: &Member<'_>) -> bool {
        match member.task.hold {
            HoldState::Unread => false,
            HoldState::Free => member.memory.refused().is_some() || self.without_room.contains(member.id),
            HoldState::Until(end) => {
                let is_last = end.duration_since(situation.now) < situation.policy.hold.expires_in / LAST_PART;
                self.without_room.contains(member.id) || (is_last && member.memory.refused().is_some())
            }
        }
    }
}

/// A refused renewal puts a task at risk in the last quarter of `expiresIn`: before that, the hold it has is good.
const LAST_PART: i32 = 4;

fn order<'a>(member: &'a Member<'_>) -> impl Ord + use<'a> {
    (member.leaving.is_none(), Reverse(member.evidence.load()), member.task.started_at, member.id)
}

/// Its hold was refused in this reconciliation, of which the report is written now.
fn was_asked_for_now(situation: &Situation<'_>, member: &Member<'_>) -> bool {
    member.memory.refused().is_some_and(|refused| refused.at == situation.now)
}

/// How long this task should be held from now on, if its hold must be set or renewed now.
fn lasting(situation: &Situation<'_>, member: &Member<'_>) -> Option<SignedDuration> {
    let wanted = wanted(situation, member)?;
    // One from a time that is still to come is of a clock that was put back since.
    let waits = |refused: &Retry| refused.at <= situation.now && situation.now < refused.next_try();
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
        let longest = situation.fleet.longest_hold;
        let lasting =
            ends_by_deadline(situation, member).map_or(longest, |at| at.duration_since(situation.now).min(longest));
        return Some(lasting).filter(SignedDuration::is_positive);
    }
    situation.is_standing().then_some(policy.hold.expires_in)
}

/// A hold that must end at a deadline is set once; every other is renewed at half of what it should be, because a
/// renewal may be refused later and then half of it is left to end the jobs or to warn somebody.
fn renew_under(situation: &Situation<'_>, member: &Member<'_>, wanted: SignedDuration) -> SignedDuration {
    match ends_by_deadline(situation, member) {
        Some(_) => wanted.min(situation.fleet.longest_hold / 2),
        None => wanted / 2,
    }
}

/// When the user's deadline lets the hold of this task end. A drain that is paused lets none end: a person may have paused it to
/// save a job.
fn ends_by_deadline(situation: &Situation<'_>, member: &Member<'_>) -> Option<Timestamp> {
    let (at, action) = situation.deadline(member)?;
    (action == DeadlineAction::PermitStop && !situation.policy.paused).then_some(at)
}

/// A task that stays after all keeps the long hold of its drain no longer than needed: a hold is also what bounds how
/// long jobs are protected if we are gone. A clock that is a second behind must not have every hold set again on every observation.
fn is_too_long(situation: &Situation<'_>, member: &Member<'_>, left: SignedDuration) -> bool {
    member.leaving.is_none()
        && situation.memory.rollout.is_none()
        && left > whole_minutes(situation.policy.hold.expires_in).saturating_add(CLOCKS_APART)
}

/// Schedulers count holds in whole minutes; we round up, so that none ends early.
fn whole_minutes(lasting: SignedDuration) -> SignedDuration {
    SignedDuration::from_mins(lasting.as_secs().saturating_add(59).div_euclid(60).max(1))
}
