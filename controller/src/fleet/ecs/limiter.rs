//! The token buckets that keep our ECS calls inside the account's limits.
//!
//! ECS throttles by account and Region, and everybody in the account draws on the same buckets: the console, pipelines,
//! autoscalers, and each of our drains. So all drains of one account and Region share one [`Limiter`], which takes half
//! of what AWS documents ("Request throttling for the Amazon ECS API") and takes less as soon as ECS says that even this
//! is too much.
//!
//! [`Bucket`] is plain arithmetic on whole numbers with the time as an argument. Only [`Limiter::pass`] waits, through
//! tokio's clock, so that it runs on paused time too.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::call::Operation;

/// One token, in the units that a bucket counts in.
const TOKEN: u64 = 1_000_000_000;
/// The lowest rate that throttling can push a bucket to, in thousandths of a token a second: one call every two seconds.
/// Slower would no longer be noticed as working.
const SLOWEST_MILLI: u64 = 500;
/// A burst of calls that are throttled together is one sign, not many: the rate is halved once in this time.
const SHRINK_EVERY: Duration = Duration::from_secs(1);
/// How many calls have to succeed before a rate that was pushed to nothing is whole again.
const RECOVERY_STEPS: u64 = 40;
/// Whoever would have to wait longer for its turn is told so instead: a look that begins this late serves nobody.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// A token bucket. It may go into debt: whoever takes what is not there yet is told how long to wait for it, and whoever
/// comes later waits behind it. A turn that was given stays as it was given, whatever becomes of the rate.
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

    /// Takes `tokens`, and tells how long the taker must wait before using them.
    pub fn take(&mut self, now: Duration, tokens: u32) -> Duration {
        self.refill(now);
        let asked = u64::from(tokens).saturating_mul(TOKEN);
        let missing = asked.saturating_sub(self.saved);
        self.saved = self.saved.saturating_sub(asked);
        self.at = self.at.saturating_add(self.time_for(missing));
        self.at.saturating_sub(now)
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

    fn refill(&mut self, now: Duration) {
        let Some(since) = now.checked_sub(self.at) else { return };
        // Rounded down: never more than the rate.
        let gained = since.as_nanos().saturating_mul(u128::from(self.rate_milli)) / 1000;
        self.saved = self.saved.saturating_add(u64::try_from(gained).unwrap_or(u64::MAX)).min(self.burst);
        self.at = now;
    }

    fn time_for(&self, tokens: u64) -> Duration {
        // Rounded up: never too early.
        let nanos = u128::from(tokens).saturating_mul(1000).div_ceil(u128::from(self.rate_milli));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// The rows of AWS's table that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    /// "Cluster resource read": `ListTasks`, `DescribeTasks`.
    ClusterRead,
    /// "Service read": `DescribeServices`.
    ServiceRead,
    /// "Task protection": `GetTaskProtection`, `UpdateTaskProtection`.
    Protection,
}

impl Row {
    /// What AWS documents for it: burst and sustained rate a second, for all callers of an account and Region together.
    const fn documented(self) -> (u32, u32) {
        match self {
            Self::ClusterRead | Self::ServiceRead => (100, 20),
            Self::Protection => (200, 80),
        }
    }

    /// Our part of it: half, because others draw on the same bucket and must not starve for us.
    fn bucket(self) -> Bucket {
        let (burst, per_second) = self.documented();
        Bucket::new(burst / 2, per_second / 2)
    }
}

/// The buckets of one account and Region.
#[derive(Debug)]
pub struct Limiter {
    origin: Instant,
    buckets: Mutex<BTreeMap<Row, Bucket>>,
}

/// The call was not made: it would have had to wait too long for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}s of other ECS calls are waiting before it", .wait.as_secs())]
pub struct Crowded {
    /// How long it would have had to wait.
    pub wait: Duration,
}

impl Limiter {
    fn new() -> Self {
        let rows = [Row::ClusterRead, Row::ServiceRead, Row::Protection];
        let buckets = rows.into_iter().map(|row| (row, row.bucket())).collect();
        Self { origin: Instant::now(), buckets: Mutex::new(buckets) }
    }

    /// Waits for the turn of one call. Errors: the wait would be longer than a minute, and nothing was taken.
    pub async fn acquire(&self, operation: Operation) -> Result<(), Crowded> {
        let wait = self.with(operation, |bucket, now| {
            let wait = bucket.wait_for(now, 1);
            if wait > LONGEST_WAIT { Err(Crowded { wait }) } else { Ok(bucket.take(now, 1)) }
        })?;
        if !wait.is_zero() {
            tracing::debug!(operation = operation.name(), wait_ms = wait.as_millis(), "waiting for an ECS call's turn");
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// ECS answered a call.
    pub fn answered(&self, operation: Operation) {
        self.with(operation, Bucket::answered);
    }

    /// ECS said that it was asked too often.
    pub fn throttled(&self, operation: Operation) {
        self.with(operation, Bucket::throttled);
    }

    /// The present rate of an operation's bucket, in thousandths of a call a second.
    pub fn rate_milli(&self, operation: Operation) -> u64 {
        self.with(operation, |bucket, _| bucket.rate_milli())
    }

    fn with<T>(&self, operation: Operation, then: impl FnOnce(&mut Bucket, Duration) -> T) -> T {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let row = operation.row();
        then(buckets.entry(row).or_insert_with(|| row.bucket()), self.origin.elapsed())
    }
}

/// The limiters of all accounts and Regions. One value for the whole process, given to every fleet that connects.
#[derive(Clone, Debug, Default)]
pub struct Limiters(Arc<Mutex<ByAccountAndRegion>>);

type ByAccountAndRegion = BTreeMap<(String, String), Arc<Limiter>>;

impl Limiters {
    /// The limiter of this account and Region. An account is whatever tells one from another before AWS is asked: its
    /// number if an ARN tells it, else a profile's name, else nothing (the credentials that this process finds).
    pub fn of(&self, account: &str, region: &str) -> Arc<Limiter> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (account.to_owned(), region.to_owned());
        Arc::clone(all.entry(key).or_insert_with(|| Arc::new(Limiter::new())))
    }
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
    fn drains_of_one_account_and_region_share_and_others_do_not() {
        let limiters = Limiters::default();
        let here = limiters.of("123456789012", "eu-west-1");
        here.throttled(Operation::ListTasks);
        let rate = |account, region, operation| limiters.clone().of(account, region).rate_milli(operation);
        assert_eq!(rate("123456789012", "eu-west-1", Operation::DescribeTasks), 5000, "the same row of the table");
        assert_eq!(rate("123456789012", "eu-west-1", Operation::DescribeServices), 10_000);
        assert_eq!(rate("123456789012", "us-east-1", Operation::ListTasks), 10_000);
        assert_eq!(rate("210987654321", "eu-west-1", Operation::ListTasks), 10_000);
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

    #[tokio::test]
    async fn a_call_waits_for_its_turn_and_is_turned_away_when_that_is_too_far_off() {
        let limiter = Limiter::new();
        let begun = Instant::now();
        for _ in 0..50 {
            limiter.acquire(Operation::ListTasks).await.unwrap();
        }
        limiter.acquire(Operation::ListTasks).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(90), "the 51st call came after {:?}", begun.elapsed());
        limiter.with(Operation::ListTasks, |bucket, now| bucket.take(now, 2000));
        assert!(limiter.acquire(Operation::ListTasks).await.unwrap_err().wait > LONGEST_WAIT);
        limiter.acquire(Operation::GetTaskProtection).await.unwrap();
    }
}
