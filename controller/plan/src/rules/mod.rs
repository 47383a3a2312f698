//! What will be done: one rule a file, each a pure function of the joined situation.

pub mod capacity;
pub mod give_back;
pub mod hold;

pub(crate) mod cancel;
mod permit;
mod release;
mod remember;

use std::collections::BTreeMap;

use self::hold::Holds;
use crate::{
    actions::{Action, Steps},
    names::RevisionId,
    situation::Situation,
};

/// What was decided, and what every explanation of it must know.
pub struct Decision {
    /// Who is held, and who cannot be.
    pub holds: Holds,
    /// All that will be done, holds included, in this order.
    pub actions: Vec<Action>,
    /// The same, by step and task.
    pub steps: Steps,
    /// See [`crate::Plan::remember`].
    pub remember: Option<BTreeMap<RevisionId, u32>>,
}

/// All rules, in the order in which their actions are taken: what keeps jobs safe comes first, what lets go comes last.
pub fn decide(situation: &Situation<'_>) -> Decision {
    let holds = Holds::hand_out(situation);
    let mut actions: Vec<Action> = holds.actions().collect();
    let policy = situation.policy;
    let mut remember = None;
    if !policy.paused && !policy.is_gate_awaited() && !situation.memory.is_turning() {
        actions.extend(give_back::give_backs(situation, &holds));
        actions.extend(cancel::cancels(situation, &holds));
        actions.extend(permit::permits(situation, &holds));
        actions.extend(release::releases(situation));
        remember = remember::news(situation);
    }
    let steps = Steps::of(&actions);
    Decision { holds, actions, steps, remember }
}
