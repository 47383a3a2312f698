//! What is to be written down beside the fleet, for whoever drains it next with an empty memory.

use std::collections::BTreeMap;

use crate::{names::RevisionId, situation::Situation};

/// How many workers a task of each revision has, if that is news to the fleet.
pub fn news(situation: &Situation<'_>) -> Option<BTreeMap<RevisionId, u32>> {
    let memory = situation.memory;
    let numbers = memory.to_remember(situation.policy, situation.fleet);
    let is_due = memory.remembering.as_ref().is_none_or(|retry| retry.next_try() <= situation.now);
    let is_news = situation.fleet.remembered.as_ref().is_some_and(|known| !known.says(&numbers));
    (is_due && is_news).then_some(numbers)
}
