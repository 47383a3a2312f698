//! What somebody else did against a drain, as it is remembered: told, and undone ever more seldom. Whoever did it may do it again at
//! once, and two programs that undo each other's work at every observation help nobody.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::names::QueueName;

/// How long to wait after so many vain attempts: 15 s, then twice as long each time, up to 4 minutes.
pub fn pause(times: u32) -> SignedDuration {
    SignedDuration::from_secs(15 << times.saturating_sub(1).min(4))
}

/// A pause of that length goes on. One that began at a time still to come is of a clock that was put back since.
fn goes_on(began: Timestamp, times: u32, now: Timestamp) -> bool {
    began <= now && now.duration_since(began) < pause(times)
}

/// A task that was let go was held again, and not by us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAgain {
    /// How often.
    pub times: u32,
    /// Since when it is held so. `None`: it is not, or not any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When it was last let go all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub let_go: Option<Timestamp>,
    /// How often it was.
    #[serde(default)]
    pub let_go_times: u32,
}

impl HeldAgain {
    /// It may be let go once more: it is held so for sure, and the pause is over.
    pub fn may_be_let_go(&self, now: Timestamp) -> bool {
        let Some(let_go) = self.let_go else { return self.since.is_some() };
        self.since.is_some_and(|since| since > let_go) && !goes_on(let_go, self.let_go_times, now)
    }

    /// It was let go once more.
    pub fn was_let_go(&mut self, now: Timestamp) {
        self.let_go = Some(now);
        self.let_go_times = self.let_go_times.saturating_add(1);
    }
}

/// A node was seen to take jobs from no queue, after queues were taken from it. When it was last seen so is not in it: what changes at
/// each observation is written at each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadBack {
    /// When it was asked for the first time.
    pub since: Timestamp,
    /// It was seen so more than once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// A node took jobs again after its cancel had been read back, and not because of us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenUp {
    /// How often.
    pub times: u32,
    /// When that was last seen to have happened.
    pub at: Timestamp,
    /// From which queues then.
    pub queues: BTreeSet<QueueName>,
}

impl TakenUp {
    /// From this time on it is no longer told to stop at once.
    const PATIENT_FROM: u32 = 3;

    /// When it is told to stop again, if not at once.
    pub fn waits_until(&self, now: Timestamp) -> Option<Timestamp> {
        let times = self.times.checked_sub(Self::PATIENT_FROM)?.saturating_add(1);
        goes_on(self.at, times, now).then(|| self.at.saturating_add(pause(times)).unwrap_or(Timestamp::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
    }

    #[test]
    fn the_first_times_it_is_told_to_stop_at_once_and_then_ever_later() {
        let waits = |times| {
            let taken_up = TakenUp { times, at: at(100), queues: BTreeSet::new() };
            taken_up.waits_until(at(100)).map(|until| until.duration_since(at(100)).as_secs())
        };
        let expected = [None, None, Some(15), Some(30), Some(60), Some(120), Some(240), Some(240)];
        assert_eq!([1, 2, 3, 4, 5, 6, 7, 8].map(waits), expected);
        let third = TakenUp { times: 3, at: at(100), queues: BTreeSet::new() };
        assert_eq!(third.waits_until(at(115)), None, "the pause is over");
        assert_eq!(third.waits_until(at(99)), None, "the clock was put back");
    }

    #[test]
    fn a_hold_of_somebody_else_is_released_once_and_then_after_pauses() {
        let mut again = HeldAgain { times: 1, since: Some(at(100)), ..HeldAgain::default() };
        assert!(again.may_be_let_go(at(100)));
        again.was_let_go(at(101));
        assert!(!again.may_be_let_go(at(200)), "it may be an answer from before that");
        again.since = Some(at(110));
        assert_eq!([115, 116].map(|second| again.may_be_let_go(at(second))), [false, true]);
        again.was_let_go(at(116));
        again.since = Some(at(142));
        assert_eq!([145, 146].map(|second| again.may_be_let_go(at(second))), [false, true]);
        again.since = None;
        assert!(!again.may_be_let_go(at(1000)), "nothing holds it");
    }
}
