//! Advice that is neither a failure nor a reason to wait. Nothing in it changes only because time has passed: each new note is
//! told as news.

use super::words::{age, counted};
use crate::{
    evidence::MAX_ANSWER_LAG,
    memory::Why,
    policy::HoldMode,
    report::Unaccounted,
    situation::{Member, Situation, count},
};

/// All of them.
pub fn notes(situation: &Situation<'_>, unaccounted: Option<&Unaccounted>) -> Vec<String> {
    let turns = situation.memory.is_turning().then(|| turns(situation));
    // What is certain stands in `ready`.
    let unsure = unaccounted.filter(|tasks| !tasks.certain).map(|tasks| tasks.message.clone());
    let told = [races(situation), turns, unsure, moves(situation)].into_iter().flatten();
    told.chain(situation.fleet.unread.iter().cloned()).collect()
}

fn races(situation: &Situation<'_>) -> Option<String> {
    let (policy, fleet) = (situation.policy, situation.fleet);
    let races = policy.hold.mode == HoldMode::OnRollout && fleet.minimum_healthy_percent < 100;
    races.then(|| {
        format!(
            "hold.mode is OnRollout and the service's minimumHealthyPercent is {}: it may stop old tasks before they are held; set it to 100 or use hold.mode Standing",
            fleet.minimum_healthy_percent,
        )
    })
}

/// More tasks live than ever were wanted, and it is not known which of them the scheduler replaces.
fn moves(situation: &Situation<'_>) -> Option<String> {
    let wanted = situation.memory.wanted.as_ref()?.most.max(situation.fleet.desired);
    let stays =
        |member: &&Member<'_>| member.task.revision == *situation.current() && member.leaving != Some(Why::Replaced);
    let surplus = count(situation.live().filter(stays)).saturating_sub(wanted);
    (surplus > 0 && situation.is_standing() && !situation.memory.is_turning()).then(|| {
        format!(
            "{} more than wanted and no fewer are wanted than before, so the scheduler replaces one and does not tell which: nothing is drained for it, and a hold on that one may delay it",
            counted(surplus, "task"),
        )
    })
}

/// An older revision is shown as current again.
pub fn turns(situation: &Situation<'_>) -> String {
    format!(
        "the service shows {} as current again, which may be a rollback or an answer from the past: tasks are held, and nothing else is done, until it has been seen for {}",
        situation.fleet.label(&situation.fleet.current),
        age(MAX_ANSWER_LAG),
    )
}
