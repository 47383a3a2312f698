//! Advice that is neither a failure nor a reason to wait. Nothing in it changes only because time has passed: each new note is
//! told as news.

use super::words::age;
use crate::{evidence::MAX_ANSWER_LAG, policy::HoldMode, report::Unaccounted, situation::Situation};

/// All of them.
pub fn notes(situation: &Situation<'_>, unaccounted: Option<&Unaccounted>) -> Vec<String> {
    let turns = situation.memory.is_turning().then(|| turns(situation));
    // What is certain stands in `ready`.
    let unsure = unaccounted.filter(|tasks| !tasks.certain).map(|tasks| tasks.message.clone());
    races(situation).into_iter().chain(turns).chain(unsure).collect()
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

/// An older revision is shown as current again.
pub fn turns(situation: &Situation<'_>) -> String {
    format!(
        "the service shows {} as current again, which may be a rollback or an answer from the past: tasks are held, and nothing else is done, until it has been seen for {}",
        situation.fleet.label(&situation.fleet.current),
        age(MAX_ANSWER_LAG),
    )
}
