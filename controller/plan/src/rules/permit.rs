//! Whose stop is permitted: on proof, or when the user's own deadline has passed.

use super::{capacity, hold::Holds};
use crate::{
    actions::{Action, Ground},
    observation::HoldState,
    policy::DeadlineAction,
    situation::{Member, Situation},
};

/// Stops that are permitted now.
pub fn permits(situation: &Situation<'_>, holds: &Holds) -> Vec<Action> {
    let reserve = capacity::reserve(situation, holds);
    situation
        .leaving()
        .filter(|member| member.task.hold != HoldState::Free && member.memory.may_be_let_go(situation.now))
        .filter_map(|member| {
            let ground = ground(situation, member)?;
            (ground != Ground::Drained || !reserve.contains(member.id))
                .then(|| Action::Permit { task: member.id.clone(), ground })
        })
        .collect()
}

fn ground(situation: &Situation<'_>, member: &Member<'_>) -> Option<Ground> {
    if member.is_proven(situation.policy.drain.idle_for) && !situation.is_behind_gate(member) {
        Some(Ground::Drained)
    } else if situation.is_overdue(member, DeadlineAction::PermitStop) {
        let jobs = member.evidence.jobs().map(|jobs| jobs.active.saturating_add(jobs.reserved));
        Some(Ground::Deadline { jobs })
    } else {
        None
    }
}
