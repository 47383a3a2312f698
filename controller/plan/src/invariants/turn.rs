//! What must hold while it is not certain which revision is current.

use jiff::SignedDuration;

use super::{Check, Judged, demand};
use crate::Action;

/// An older revision that is shown as current again may be an answer from the past. It is believed when it was seen for
/// some seconds, and no later; until then nothing is done but to hold.
pub fn rule_14(judged: Judged<'_>) -> Check {
    let (Some(fleet), Some(known)) = (judged.observation.fleet.ok(), &judged.plan.memory.current) else {
        return Ok(());
    };
    let since = known.turning.as_ref().filter(|turning| turning.to == fleet.current).map(|turning| turning.since);
    let soon = since.is_some_and(|since| judged.now.duration_since(since) < SignedDuration::from_secs(10));
    demand(14, known.revision == fleet.current || soon, || format!("{known:?}, and {} is current", fleet.current))?;
    let other = judged.plan.actions.iter().find(|action| since.is_some() && !matches!(action, Action::Hold { .. }));
    demand(14, other.is_none(), || format!("{other:?}, and it is not certain that {} is current", fleet.current))
}
