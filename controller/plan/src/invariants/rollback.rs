//! What must hold while it is not certain which revision is current.

use jiff::SignedDuration;

use super::judged::{Check, Judged, demand};
use crate::{Action, Memory, RevisionId, memory::Turning, observation::FleetView};

/// An older revision that is shown as current again may be an answer from the past. It is believed when it was seen for
/// ten seconds, and no later; until then nothing is done but to hold. Whoever withdraws does not wait. A fleet that was deleted
/// shows none.
pub fn rule_14(judged: Judged<'_>) -> Check {
    let (Some(fleet), false) = (judged.observation.fleet.ok(), judged.policy.withdrawn) else { return Ok(()) };
    let shown = &fleet.current;
    let believed = |memory: &Memory| memory.current.as_ref().map(|current| current.revision.clone());
    let (was, is) = (believed(judged.before), believed(&judged.plan.memory));
    if fleet.is_deleted {
        let same = is == was && judged.plan.actions.is_empty();
        return demand(14, same, || format!("the fleet was deleted; {was:?} was current, and now {is:?} is"));
    }
    let turning = |memory: &Memory| turning(memory).filter(|turning| turning.to == *shown).cloned();
    let for_long =
        |turning: Turning| judged.observation.fleet.at().duration_since(turning.since) >= SignedDuration::from_secs(10);
    let is_back = was.is_some_and(|was| was != *shown && is_older(fleet, judged.before, shown));
    if is.as_ref() == Some(shown) {
        return demand(14, !is_back || turning(judged.before).is_some_and(for_long), || {
            format!("{shown} is older than what was current, and was believed at once")
        });
    }
    demand(14, is_back && turning(&judged.plan.memory).is_some_and(|turning| !for_long(turning)), || {
        format!("{shown} is current, and {is:?} is still believed to be")
    })?;
    let other = judged.plan.actions.iter().find(|action| !matches!(action, Action::Hold { .. }));
    demand(14, other.is_none(), || format!("{other:?}, and it is not certain that {shown} is current"))
}

fn turning(memory: &Memory) -> Option<&Turning> {
    memory.current.as_ref()?.turning.as_ref()
}

/// It was made before the revision that was believed to be current; both times are known.
fn is_older(fleet: &FleetView, before: &Memory, shown: &RevisionId) -> bool {
    let made = fleet.revisions.get(shown).and_then(|revision| revision.created_at);
    let known = before.current.as_ref().and_then(|current| current.made_at);
    made.zip(known).is_some_and(|(made, known)| made < known)
}
