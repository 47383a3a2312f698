//! Which holds are released on tasks that stay.

use crate::{
    actions::Action,
    situation::{Member, Situation},
};

/// Holds that the specification wants no more, on tasks that stay: after a rollout in `OnRollout` mode, and all of ours
/// when the drain is withdrawn; then also those that are not seen, because nobody will observe again, and to release what is not
/// held does no harm.
pub fn releases(situation: &Situation<'_>) -> Vec<Action> {
    let withdrawn = situation.policy.withdrawn;
    let over = withdrawn || (!situation.is_standing() && situation.memory.rollout.is_none());
    let is_seen = |member: &Member<'_>| withdrawn || member.is_held(situation.now);
    let ours = |member: &&Member<'_>| member.memory.held && member.leaving.is_none() && is_seen(member);
    let running = situation.running().filter(|_| over).filter(ours);
    running.map(|member| Action::Release { task: member.id.clone() }).collect()
}
