//! Whether the fleet turned back to an older revision. Whoever asks a scheduler may be answered with what was true some
//! seconds ago (the API of Amazon ECS is eventually consistent, Amazon ECS API Reference), so an older revision that is
//! current again may be a rollback, or the past. It is believed when it was seen for [`BELIEVED_AFTER`]. Until then nothing
//! is done but to hold, and nobody is told to leave or to stay (docs/decisions/0017).

use jiff::{SignedDuration, Timestamp};

use crate::{
    memory::{Current, Memory, Turning},
    observation::FleetView,
    policy::Policy,
};

/// Longer than any answer is old; short beside the time in which new tasks of a rollback come up.
pub const BELIEVED_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// Follows which revision is current. A newer one is believed at once. Whoever withdraws wants everything back, whichever
/// is current.
pub fn follow(policy: &Policy, fleet: &FleetView, memory: &mut Memory, observed_at: Timestamp) {
    let made_at = fleet.revisions.get(&fleet.current).and_then(|revision| revision.created_at);
    let shown = || Current { revision: fleet.current.clone(), made_at, turning: None };
    memory.current = Some(match memory.current.take() {
        Some(known) if known.revision == fleet.current => Current { turning: None, ..known },
        Some(known) if made_at < known.made_at && made_at.is_some() && !policy.withdrawn => {
            let before = known.turning.clone();
            let turning = before.filter(|turning| turning.to == fleet.current && turning.since <= observed_at);
            let turning = turning.unwrap_or_else(|| Turning { to: fleet.current.clone(), since: observed_at });
            if observed_at.duration_since(turning.since) >= BELIEVED_AFTER {
                shown()
            } else {
                Current { turning: Some(turning), ..known }
            }
        }
        _ => shown(),
    });
}

/// The fleet shows an older revision as current, and that is not believed yet.
pub fn is_turning(memory: &Memory) -> bool {
    memory.current.as_ref().is_some_and(|current| current.turning.is_some())
}
