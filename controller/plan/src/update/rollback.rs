//! Whether the fleet turned back to an older revision. An answer of the scheduler may be from the past, so an older revision
//! that is current again may be a rollback, or an answer that is late. It is believed when it was seen for
//! [`MAX_ANSWER_LAG`]. Until then nothing is done but to hold, and no task will leave or stay for it (docs/decisions/0017).

use super::view::View;
use crate::{
    evidence::MAX_ANSWER_LAG,
    memory::{Current, Memory, Turning},
};

/// Follows which revision is current. A newer one is believed at once. A drain that is withdrawn wants everything back,
/// whichever is current.
pub fn follow(view: &View<'_>, memory: &mut Memory) {
    let (fleet, observed_at) = (view.fleet, view.observed_at);
    let made_at = fleet.revisions.get(&fleet.current).and_then(|revision| revision.created_at);
    let shown = || Current { revision: fleet.current.clone(), made_at, turning: None };
    memory.current = Some(match memory.current.take() {
        Some(known) if known.revision == fleet.current => Current { turning: None, ..known },
        Some(known) if made_at < known.made_at && made_at.is_some() && !view.policy.withdrawn => {
            let before = known.turning.clone();
            let turning = before.filter(|turning| turning.to == fleet.current && turning.since <= observed_at);
            let turning = turning.unwrap_or_else(|| Turning { to: fleet.current.clone(), since: observed_at });
            if observed_at.duration_since(turning.since) >= MAX_ANSWER_LAG {
                shown()
            } else {
                Current { turning: Some(turning), ..known }
            }
        }
        _ => shown(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        observation::{Life, Revision},
        update::testing::{Stage, at},
    };

    #[test]
    fn a_newer_revision_is_believed_at_once_and_an_older_one_after_ten_seconds() {
        let mut stage = Stage::with_task("t", Life::Running);
        let revision = |created_at| Revision { label: String::new(), created_at: Some(created_at) };
        stage.fleet.revisions = [("old".into(), revision(at(0))), ("new".into(), revision(at(1)))].into();
        let mut memory = Memory::default();
        for (current, seconds, believed) in
            [("old", 2, "old"), ("new", 3, "new"), ("old", 4, "new"), ("old", 13, "new"), ("old", 14, "old")]
        {
            stage.fleet.current = current.into();
            follow(&stage.view(at(seconds)), &mut memory);
            let known = memory.current.as_ref().unwrap();
            assert_eq!((known.revision.as_str(), memory.is_turning()), (believed, current != believed), "{seconds} s");
        }
    }
}
