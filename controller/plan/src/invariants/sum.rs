//! What must hold where the scheduler's count, its list and what can be placed do not add up.

use jiff::SignedDuration;

use super::judged::{Check, Judged, demand};

/// What we see adds up with what the scheduler counts; what does not is told, and never taken for done. A count or a list may be
/// ten seconds old, so of the two that is told as certain only when it has lasted.
pub fn rule_19(judged: Judged<'_>) -> Check {
    let Some(fleet) = judged.observation.fleet.ok() else { return Ok(()) };
    let report = &judged.plan.report;
    let unplaced = fleet.unplaced.iter().find(|(_, task)| task.life.is_live());
    let miscount = fleet.discrepancy();
    demand(19, !report.settled || (unplaced.is_none() && miscount.is_none()), || {
        format!("settled, and {unplaced:?} is not placed, or {miscount:?} does not add up")
    })?;
    let since = judged.before.miscount.map(|known| known.since);
    let lasts = |since| judged.observation.fleet.at().duration_since(since) >= SignedDuration::from_secs(10);
    let certain = unplaced.is_some() || (miscount.is_some() && since.is_some_and(lasts));
    demand(19, !certain || (report.ready.answer == Some(false) && report.drained.answer != Some(true)), || {
        format!("ready or drained, and {unplaced:?} is not placed, or {miscount:?} does not add up")
    })
}
