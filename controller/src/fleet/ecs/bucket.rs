//! A token bucket as plain arithmetic on whole numbers, with the time as an argument.

use std::time::Duration;

/// One token, in the units that a bucket counts in.
const TOKEN: u64 = 1_000_000_000;
/// The lowest rate that throttling can push a bucket to, in thousandths of a token a second: one call every two seconds.
/// Slower would no longer be noticed as working.
const SLOWEST_MILLI: u64 = 500;
/// A burst of calls that are throttled together is one sign, not many: the rate is halved once in this time.
const SHRINK_EVERY: Duration = Duration::from_secs(1);
/// How many calls have to succeed before a rate that was pushed to nothing is whole again.
const RECOVERY_STEPS: u64 = 40;

/// A token bucket. It may go into debt: a call that takes what is not there yet learns how long to wait for it, and later
/// ones wait behind it. A turn that was given stays as it was given, whatever becomes of the rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    burst: u64,
    full_milli: u64,
    rate_milli: u64,
    saved: u64,
    /// Up to when `saved` is reckoned, since whatever the caller counts from. In debt it is the time, yet to come, at
    /// which the debt is paid, and nothing is saved.
    at: Duration,
    shrunk_at: Option<Duration>,
}

impl Bucket {
    /// A full bucket that holds `burst` tokens and gains `per_second` of them a second.
    pub fn new(burst: u32, per_second: u32) -> Self {
        let burst = u64::from(burst).saturating_mul(TOKEN);
        let full_milli = u64::from(per_second).saturating_mul(1000).max(SLOWEST_MILLI);
        Self { burst, full_milli, rate_milli: full_milli, saved: burst, at: Duration::ZERO, shrunk_at: None }
    }

    /// Takes `tokens`. Returns how long the taker must wait before using them.
    pub fn take(&mut self, now: Duration, tokens: u32) -> Duration {
        self.take_units(now, u64::from(tokens).saturating_mul(TOKEN))
    }

    /// How long a taker of `tokens` would have to wait.
    pub fn wait_for(&self, now: Duration, tokens: u32) -> Duration {
        self.clone().take(now, tokens)
    }

    /// ECS said that it was asked too often: what is saved up is worth nothing, and the rate is halved.
    pub fn throttled(&mut self, now: Duration) {
        self.refill(now);
        self.saved = 0;
        if self.shrunk_at.is_none_or(|at| now.saturating_sub(at) >= SHRINK_EVERY) {
            self.rate_milli = (self.rate_milli / 2).max(SLOWEST_MILLI);
            self.shrunk_at = Some(now);
        }
    }

    /// ECS answered: the rate recovers by a step.
    pub fn answered(&mut self, now: Duration) {
        if self.rate_milli < self.full_milli {
            self.refill(now);
            self.rate_milli = (self.rate_milli + self.full_milli.div_ceil(RECOVERY_STEPS)).min(self.full_milli);
        }
    }

    /// The present rate, in thousandths of a token a second.
    pub fn rate_milli(&self) -> u64 {
        self.rate_milli
    }

    /// Counts what was taken from `other` as taken from this one too: both turned out to stand for the same limit. The
    /// slower rate is kept.
    pub fn absorb(&mut self, other: &Self, now: Duration) {
        let mut other = other.clone();
        other.refill(now);
        self.refill(now);
        let owed = gain(other.at.saturating_sub(now), other.rate_milli);
        self.rate_milli = self.rate_milli.min(other.rate_milli);
        self.shrunk_at = self.shrunk_at.max(other.shrunk_at);
        self.take_units(now, other.burst.saturating_sub(other.saved).saturating_add(owed));
    }

    fn take_units(&mut self, now: Duration, units: u64) -> Duration {
        self.refill(now);
        let missing = units.saturating_sub(self.saved);
        self.saved = self.saved.saturating_sub(units);
        self.at = self.at.saturating_add(self.time_for(missing));
        self.at.saturating_sub(now)
    }

    fn refill(&mut self, now: Duration) {
        let Some(since) = now.checked_sub(self.at) else { return };
        self.saved = self.saved.saturating_add(gain(since, self.rate_milli)).min(self.burst);
        self.at = now;
    }

    fn time_for(&self, tokens: u64) -> Duration {
        // Rounded up: never too early.
        let nanos = u128::from(tokens).saturating_mul(1000).div_ceil(u128::from(self.rate_milli));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// What a rate gains in this time, rounded down: never more than the rate.
fn gain(time: Duration, rate_milli: u64) -> u64 {
    let gained = time.as_nanos().saturating_mul(u128::from(rate_milli)) / 1000;
    u64::try_from(gained).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_burst_is_free_and_then_the_rate_counts() {
        let mut bucket = Bucket::new(3, 2);
        for _ in 0..3 {
            assert_eq!(bucket.take(secs(0), 1), Duration::ZERO);
        }
        assert_eq!(bucket.take(secs(0), 1), Duration::from_millis(500));
        assert_eq!(bucket.take(secs(0), 1), secs(1), "who comes later waits behind");
        assert_eq!(bucket.take(secs(100), 3), Duration::ZERO, "no more than the burst is saved up");
        assert_eq!(bucket.take(secs(100), 1), Duration::from_millis(500));
    }

    #[test]
    fn throttling_halves_once_a_second_and_success_restores() {
        let mut bucket = Bucket::new(50, 10);
        for _ in 0..7 {
            bucket.throttled(secs(5));
        }
        assert_eq!(bucket.rate_milli(), 5000);
        assert_eq!(bucket.take(secs(5), 1), Duration::from_millis(200), "nothing saved up is left");
        for second in 6..60 {
            bucket.throttled(secs(second));
        }
        assert_eq!(bucket.rate_milli(), SLOWEST_MILLI, "it never stands still");
        for _ in 0..RECOVERY_STEPS {
            bucket.answered(secs(60));
        }
        assert_eq!(bucket.rate_milli(), 10_000);
    }

    #[test]
    fn what_is_absorbed_was_taken_here() {
        let (mut one, mut other) = (Bucket::new(10, 10), Bucket::new(10, 10));
        one.take(secs(0), 4);
        other.take(secs(0), 13);
        other.throttled(secs(0));
        one.absorb(&other, secs(0));
        assert_eq!(one.rate_milli(), 5000);
        // Ten was saved up; 4, 13 and what throttling took away are gone.
        assert!(one.take(secs(0), 1) >= Duration::from_millis(1200), "{one:?}");
        let mut full = Bucket::new(10, 10);
        full.absorb(&Bucket::new(10, 10), secs(5));
        assert_eq!(full.take(secs(5), 10), Duration::ZERO, "of a full bucket nothing was taken");
    }

    #[derive(Clone, Debug)]
    enum Event {
        Take(u32),
        Throttled,
        Answered,
    }

    fn events() -> impl Strategy<Value = Vec<(Duration, Event)>> {
        let event = prop_oneof![
            4 => (1u32..5).prop_map(Event::Take),
            1 => Just(Event::Throttled),
            3 => Just(Event::Answered),
        ];
        prop::collection::vec(((0u64..2_000_000_000).prop_map(Duration::from_nanos), event), 1..80)
    }

    proptest! {
        /// In no window are more tokens used than the burst and what the full rate gives in it.
        #[test]
        fn no_window_sees_more_than_burst_and_rate(burst in 1u32..50, rate in 1u32..50, events in events()) {
            let mut bucket = Bucket::new(burst, rate);
            let (mut now, mut used) = (Duration::ZERO, Vec::new());
            for (pause, event) in events {
                now += pause;
                match event {
                    Event::Take(tokens) => used.push((now + bucket.take(now, tokens), tokens)),
                    Event::Throttled => bucket.throttled(now),
                    Event::Answered => bucket.answered(now),
                }
                prop_assert!((SLOWEST_MILLI..=bucket.full_milli).contains(&bucket.rate_milli()));
            }
            used.sort_unstable();
            for from in 0..used.len() {
                let mut sum = 0u128;
                for (at, tokens) in &used[from..] {
                    sum += u128::from(*tokens);
                    // In billionths of a token; the first of the window was paid for before it.
                    let gained = at.saturating_sub(used[from].0).as_nanos() * u128::from(rate);
                    let paid_before = u128::from(used[from].1) * 1_000_000_000;
                    prop_assert!(sum * 1_000_000_000 <= u128::from(burst) * 1_000_000_000 + gained + paid_before + 1000);
                }
            }
        }

        /// A clock that stands still or steps back grants nothing and breaks nothing.
        #[test]
        fn a_clock_that_steps_back_grants_nothing(later in 1u64..1000, earlier in 0u64..1000) {
            let mut bucket = Bucket::new(1, 1);
            let first = bucket.take(secs(later), 1);
            let second = bucket.take(secs(earlier.min(later)), 1);
            prop_assert_eq!(first, Duration::ZERO);
            prop_assert!(second >= secs(1));
        }

        /// Nothing overflows at the extremes.
        #[test]
        fn it_is_total(burst: u32, rate: u32, takes in prop::collection::vec((any::<u64>(), any::<u32>()), 0..20)) {
            let mut bucket = Bucket::new(burst, rate);
            for (at, tokens) in takes {
                bucket.take(Duration::from_nanos(at), tokens);
                bucket.throttled(Duration::from_nanos(at));
            }
        }
    }
}
