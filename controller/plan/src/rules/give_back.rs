//! Who gets queues back: every task that stays and from which we took some. It is checked on every observation for as long as
//! the task lives, because some workers forget what was added when they reconnect (celery#10352), and a cancel that was
//! sent late may arrive late. An old task behind a shut gate gets them back too: it is there to empty them.

use std::collections::BTreeSet;

use super::{capacity, hold::Holds};
use crate::{
    actions::{Action, Step},
    evidence::MAX_ANSWER_LAG,
    names::NodeName,
    observation::{HoldState, Queue},
    situation::{Member, Situation},
};

/// Queues that will be given back.
pub fn give_backs(situation: &Situation<'_>, holds: &Holds) -> Vec<Action> {
    let reserve = if capacity::is_short(situation) { capacity::reserve(situation, holds) } else { BTreeSet::new() };
    situation
        .running()
        .filter(|member| !may_be_stopping(situation, member, holds))
        .filter(|member| member.leaving.is_none() || reserve.contains(member.id) || is_kept(situation, holds, member))
        .flat_map(|member| {
            missing(member).map(|(node, queues)| Action::GiveBack {
                task: member.id.clone(),
                node: node.clone(),
                queues: queues.into_iter().cloned().collect(),
            })
        })
        .collect()
}

/// The scheduler may have decided to stop it already, and would cut off whatever it begins: nothing holds it, and it is asked
/// to be held in this reconciliation; or that was refused, and what is seen of it may be older than the reason; or it was let
/// go, and the hold that is seen may be older than that.
fn may_be_stopping(situation: &Situation<'_>, member: &Member<'_>, holds: &Holds) -> bool {
    match (member.task.hold, member.memory.retries.get(&Step::Hold)) {
        (HoldState::Free, Some(retry)) => situation.now.duration_since(retry.since) < MAX_ANSWER_LAG,
        (HoldState::Free, None) => holds.asks_for(member.id),
        (HoldState::Until(_), _) => member.memory.released.is_some(),
        (HoldState::Unread, _) => false,
    }
}

/// The gate is shut, and this old task lacks what it would empty.
pub fn is_kept(situation: &Situation<'_>, holds: &Holds, member: &Member<'_>) -> bool {
    situation.is_behind_gate(member) && capacity::may_take_again(situation, holds, member)
}

/// Queues of its own that we took from each node of a task and that it is seen not to take jobs from. A node that does not answer
/// is not in it: there is nothing to be known of it now.
pub fn missing<'a>(member: &'a Member<'_>) -> impl Iterator<Item = (&'a NodeName, Vec<&'a Queue>)> {
    member.memory.nodes.iter().filter_map(|(name, node)| {
        let consumed = member.evidence.queues(name)?;
        let is_missing = |taken: &&Queue| consumed.iter().all(|queue| queue.name != taken.name);
        let missing: Vec<&Queue> =
            node.taken.iter().filter(|taken| node.owns(&taken.name)).filter(is_missing).collect();
        (!missing.is_empty()).then_some((name, missing))
    })
}
