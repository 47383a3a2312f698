//! Whose consumers are cancelled now.

use super::{
    capacity::{self, may_not_wait, order},
    hold::Holds,
};
use crate::{
    actions::Action,
    situation::{Member, Situation, count},
};

/// Consumers that will be cancelled.
pub fn cancels(situation: &Situation<'_>, holds: &Holds) -> Vec<Action> {
    let (mut chosen, mut patient): (Vec<&Member<'_>>, Vec<&Member<'_>>) = situation
        .leaving()
        .filter(|member| member.is_consuming())
        .partition(|member| may_not_wait(situation, holds, member));
    patient.retain(|member| !situation.is_behind_gate(member));
    patient.sort_by_key(|member| order(situation, member));
    let left = situation.consuming().saturating_sub(count(chosen.iter()));
    let spare = left.saturating_sub(capacity::keep(situation));
    chosen.extend(patient.into_iter().take(usize::try_from(spare).unwrap_or(usize::MAX)));
    // What is cancelled now stands in front of the queue next time; the order of the steps must not depend on it.
    chosen.sort_by_key(|member| member.id);
    chosen.into_iter().flat_map(cancel).collect()
}

fn cancel<'a>(member: &'a Member<'_>) -> impl Iterator<Item = Action> + use<'a> {
    member.evidence.nodes.keys().filter_map(|node| {
        let queues = member.evidence.queues(node).filter(|queues| !queues.is_empty())?;
        Some(Action::Cancel {
            task: member.id.clone(),
            node: node.clone(),
            queues: queues.iter().map(|queue| queue.name.clone()).collect(),
        })
    })
}
