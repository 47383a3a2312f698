//! The proof of idleness, as it is remembered: an unbroken run of observations.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::observation::Answer;

/// An unbroken run of observations in which a task was idle, or all queues of a gate were empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdleRun {
    /// When the last answer of the first of them had come.
    pub first: Timestamp,
    /// When the first question of the last of them was sent.
    pub last: Timestamp,
    /// How many observations.
    pub observations: u32,
    /// How many jobs had been begun, where that is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<u64>,
    /// For how long the youngest worker had been running in the first and in the last of them, by its own clock, where that is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_for: Option<(SignedDuration, SignedDuration)>,
}

/// What workers say of themselves together, besides their jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// How many jobs they have begun, those that say so. `None`: none does.
    pub begun: Option<u64>,
    /// For how long the youngest of those that say so had been running.
    pub up_for: Option<SignedDuration>,
}

impl Counters {
    /// Of these workers.
    pub fn of<'a>(answers: impl Iterator<Item = &'a Answer>) -> Self {
        answers.fold(Self::default(), |sum, answer| Self {
            begun: either(sum.begun, answer.begun, u64::saturating_add),
            up_for: either(sum.up_for, answer.up_for, SignedDuration::min),
        })
    }
}

fn either<T>(a: Option<T>, b: Option<T>, both: fn(T, T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(both(a, b)),
        (a, b) => a.or(b),
    }
}

impl IdleRun {
    /// Two observations further apart than this are no unbroken run: anything may have happened in between (we were down).
    const UNBROKEN: SignedDuration = SignedDuration::from_secs(60);
    /// Two uptimes are told in whole seconds: between them lies no more than this less than they say.
    const UPTIME_IS_EXACT_TO: SignedDuration = SignedDuration::from_secs(1);

    /// The run with one more observation in it, or a new run if it was broken, or began by a clock that was put back since, or
    /// if a job was begun meanwhile. The span is from the first question of the observation to its last answer.
    pub fn extend(run: Option<Self>, (asked, answered): (Timestamp, Timestamp), now: Counters) -> Self {
        let unbroken = |run: &Self| asked.duration_since(run.last).abs() <= Self::UNBROKEN && run.begun == now.begun;
        match run.filter(unbroken) {
            Some(run) if run.last >= asked => run,
            Some(run) => {
                let first = run.up_for.map(|(first, _)| first);
                let up_for = first.or(now.up_for).zip(now.up_for).or(run.up_for);
                Self { last: asked, observations: run.observations.saturating_add(1), up_for, ..run }
            }
            None => {
                let up_for = now.up_for.map(|now| (now, now));
                Self { first: answered, last: asked, observations: 1, begun: now.begun, up_for }
            }
        }
    }

    /// It was seen at least twice, and the last observation began long enough after the first had ended. The time in which a job
    /// may wait unseen (`settles_in`) must have passed by the workers' clock too, where they tell it: ours may have been put forward.
    pub fn proves(&self, idle_for: SignedDuration, settles_in: SignedDuration) -> bool {
        let by_their_clock = self.up_for.is_none_or(|(first, last)| {
            settles_in.is_zero() || last.saturating_sub(first) >= settles_in.saturating_add(Self::UPTIME_IS_EXACT_TO)
        });
        let elapsed = self.last.duration_since(self.first);
        self.observations >= 2 && elapsed >= self.lasts(idle_for, settles_in) && by_their_clock
    }

    /// How long it must last to prove something.
    pub fn lasts(&self, idle_for: SignedDuration, settles_in: SignedDuration) -> SignedDuration {
        match self.up_for {
            Some(_) if !settles_in.is_zero() => idle_for.max(settles_in.saturating_add(Self::UPTIME_IS_EXACT_TO)),
            _ => idle_for.max(settles_in),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
    }

    fn seconds(seconds: i64) -> SignedDuration {
        SignedDuration::from_secs(seconds)
    }

    /// A run of two observations: when each was, and how long the youngest worker was up.
    fn run(observations: [(i64, Option<i64>); 2]) -> IdleRun {
        let [first, second] = observations
            .map(|(when, up_for)| ((at(when), at(when)), Counters { begun: None, up_for: up_for.map(seconds) }));
        IdleRun::extend(Some(IdleRun::extend(None, first.0, first.1)), second.0, second.1)
    }

    #[test]
    fn time_in_which_a_job_may_wait_unseen_passes_by_the_workers_clock_too() {
        for (up_for, elapsed, proven, what) in [
            ([Some(100), Some(133)], 33, true, "both clocks agree"),
            ([Some(100), Some(132)], 33, false, "an uptime in whole seconds may say one too many"),
            ([Some(100), Some(105)], 50, false, "our clock was put forward"),
            ([Some(100), Some(133)], 31, false, "our clock was put back"),
            ([Some(100), None], 50, false, "it did not say the second time"),
            ([None, Some(133)], 50, false, "it did not say the first time"),
            ([Some(100), Some(1)], 50, false, "it is another start of the worker"),
            ([None, None], 32, true, "it does not tell"),
        ] {
            let run = run([(0, up_for[0]), (elapsed, up_for[1])]);
            assert_eq!(run.proves(seconds(2), seconds(32)), proven, "{what}");
        }
        assert!(run([(0, Some(100)), (2, Some(101))]).proves(seconds(2), SignedDuration::ZERO), "nothing waits unseen");
    }

    #[test]
    fn the_youngest_worker_tells_the_time_and_jobs_are_counted_together() {
        let answer =
            |begun, up_for: Option<i64>| Answer { begun, up_for: up_for.map(seconds), ..Answer::new(at(0), at(0)) };
        let answers = [answer(Some(2), Some(50)), answer(None, None), answer(Some(3), Some(7))];
        assert_eq!(Counters::of(answers.iter()), Counters { begun: Some(5), up_for: Some(seconds(7)) });
        assert_eq!(Counters::of([].into_iter()), Counters::default());
    }
}
