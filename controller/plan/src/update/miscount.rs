//! Since when what the scheduler counts and what it shows cannot both be true. One of the two may be an answer from the past,
//! so it means something only if it lasts for longer than [`MAX_ANSWER_LAG`](crate::evidence::MAX_ANSWER_LAG).

use super::view::View;
use crate::memory::{Memory, Miscount};

/// Counted from one observation of the fleet to another.
pub fn follow(view: &View<'_>, memory: &mut Memory) {
    let at = view.observed_at;
    let since = memory.miscount.map_or(at, |known| known.since.min(at));
    memory.miscount = view.fleet.discrepancy().map(|_| Miscount { since, last: at });
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{
        observation::{Counted, Life},
        update::testing::{Stage, at},
    };

    #[test]
    fn a_miscount_lasts_from_its_first_observation_to_the_first_without_it() {
        let mut stage = Stage::with_task("t", Life::Running);
        for (running, seconds, lasts) in [(2, 1, Some(0)), (2, 12, Some(11)), (1, 13, None), (2, 14, Some(0))] {
            stage.fleet.counted = Some(Counted { running, starting: 0, stopping: 0 });
            let mut memory = stage.memory.clone();
            follow(&stage.view(at(seconds)), &mut memory);
            stage.memory = memory;
            let expected = lasts.map(SignedDuration::from_secs);
            assert_eq!(stage.memory.miscount.map(|known| known.lasts()), expected, "at {seconds} s");
        }
    }

    #[test]
    fn tasks_on_their_way_may_be_counted_or_not() {
        for (life, counted, adds_up) in [
            (Life::Running, (1, 0, 0), true),
            (Life::Running, (0, 1, 0), true),
            (Life::Running, (0, 0, 0), false),
            (Life::Running, (2, 0, 0), false),
            (Life::Running, (2, 0, 1), true),
            (Life::Starting, (0, 0, 0), true),
            (Life::Starting, (1, 0, 0), true),
            (Life::Starting, (1, 1, 0), false),
            (Life::Stopping, (1, 0, 0), true),
            (Life::Stopping, (0, 0, 0), true),
            (Life::Missing, (1, 0, 0), false),
        ] {
            let mut stage = Stage::with_task("t", life.clone());
            let (running, starting, stopping) = counted;
            stage.fleet.counted = Some(Counted { running, starting, stopping });
            assert_eq!(stage.fleet.discrepancy().is_none(), adds_up, "{life:?}, {counted:?}");
        }
    }
}
