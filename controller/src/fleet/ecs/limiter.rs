//! The token buckets that keep our ECS calls inside the account's limits.
//!
//! ECS throttles by account and Region, and everybody in the account draws on the same buckets: the console, pipelines,
//! autoscalers, and each of our drains. So all drains of one account and Region share one [`Limiter`], which takes half
//! of what AWS documents ("Request throttling for the Amazon ECS API") and takes less as soon as ECS says that even this
//! is too much.
//!
//! Which account a drain is of is only spelled by its settings (a role's ARN, a cluster's ARN, nothing at all) until ECS has
//! named the service. Until then its calls draw on a provisional limiter, which is then merged into the account's own
//! ([`Limiters::settle`]).
//!
//! Only [`Limiter::acquire`] and [`Limiter::observe_slot`] wait, the former through tokio's clock, so that it runs on paused
//! time too.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    bucket::Bucket,
    operation::{Operation, Row},
};

/// A call that would have to wait longer for its turn fails instead: an observation that begins this late is of no use.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// So many observations of one account and Region are under way at once. That of a small fleet takes two calls of a kind
/// that we make ten times a second: eight wait for one another for less than two seconds, and the plan's actions are good
/// for ten.
const OBSERVATIONS_AT_ONCE: usize = 8;

impl Row {
    /// Our part of what AWS documents: half, because others draw on the same bucket and must not starve for us.
    fn bucket(self) -> Bucket {
        let (burst, per_second) = self.documented();
        Bucket::new(burst / 2, per_second / 2)
    }
}

/// The permission to observe, until the observation has ended.
pub type ObserveSlot = OwnedSemaphorePermit;

/// The buckets of one account and Region, and the slots for observing it.
#[derive(Debug)]
pub struct Limiter {
    origin: Instant,
    buckets: Mutex<BTreeMap<Row, Bucket>>,
    slots: Arc<Semaphore>,
    /// Where all of it goes since this turned out to be of an account and Region that has a limiter already.
    merged_into: OnceLock<Arc<Limiter>>,
}

/// The call was not made: it would have had to wait too long for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}s of other ECS calls are waiting before it", .wait.as_secs())]
pub struct Crowded {
    /// How long it would have had to wait.
    pub wait: Duration,
}

impl Limiter {
    /// Times are counted from `origin`, which limiters that may be merged have in common.
    fn new(origin: Instant) -> Self {
        Self {
            origin,
            buckets: Mutex::new(Row::ALL.into_iter().map(|row| (row, row.bucket())).collect()),
            slots: Arc::new(Semaphore::new(OBSERVATIONS_AT_ONCE)),
            merged_into: OnceLock::new(),
        }
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

    /// Waits for a slot to observe, in the order of coming.
    ///
    /// An observation that had begun and then waited for its calls would be too old to act on when it ends. So it waits
    /// before it begins, and few observations share the calls: each is young when it ends, however many drains there are.
    pub async fn observe_slot(&self) -> Option<ObserveSlot> {
        if let Some(limiter) = self.merged_into.get() {
            return Box::pin(limiter.observe_slot()).await;
        }
        // Fails only if it were closed, which it never is.
        Arc::clone(&self.slots).acquire_owned().await.ok()
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
        let mut buckets = self.lock();
        // Under the lock: once it is set, nothing more is counted here.
        if let Some(limiter) = self.merged_into.get() {
            drop(buckets);
            return limiter.with(operation, then);
        }
        let row = operation.row();
        then(buckets.entry(row).or_insert_with(|| row.bucket()), self.origin.elapsed())
    }

    /// Everything that was counted here counts there, and so does everything from now on.
    fn merge_into(&self, limiter: &Arc<Self>) {
        let mut buckets = self.lock();
        if self.merged_into.set(Arc::clone(limiter)).is_err() {
            return;
        }
        let counted = mem::take(&mut *buckets);
        drop(buckets);
        let now = self.origin.elapsed();
        let mut buckets = limiter.lock();
        for (row, bucket) in counted {
            buckets.entry(row).or_insert_with(|| row.bucket()).absorb(&bucket, now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Row, Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The limiters of all accounts and Regions. One value for the whole process, given to every fleet that connects.
#[derive(Clone, Debug)]
pub struct Limiters {
    origin: Instant,
    all: Arc<Mutex<BTreeMap<Place, Arc<Limiter>>>>,
}

/// An account, or what stands for one before ECS has named it, and a Region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The account's number if an ARN names it, else a profile's name, else nothing: the credentials that this process
    /// finds.
    pub account: String,
    /// The Region.
    pub region: String,
}

impl Default for Limiters {
    fn default() -> Self {
        Self { origin: Instant::now(), all: Arc::default() }
    }
}

impl Limiters {
    /// The limiter of this account and Region, as far as they are known.
    pub fn of(&self, place: &Place) -> Arc<Limiter> {
        let mut all = self.lock();
        Arc::clone(all.entry(place.clone()).or_insert_with(|| Arc::new(Limiter::new(self.origin))))
    }

    /// ECS has named the account and Region that the settings spell as `spelled`. From now on everyone who was given the
    /// limiter of either place shares one.
    pub fn settle(&self, spelled: &Place, named: &Place) {
        let mut all = self.lock();
        let Some(provisional) = all.get(spelled).cloned() else { return };
        let own = Arc::clone(all.entry(named.clone()).or_insert_with(|| Arc::clone(&provisional)));
        if !Arc::ptr_eq(&own, &provisional) {
            provisional.merge_into(&own);
            for limiter in all.values_mut().filter(|limiter| Arc::ptr_eq(limiter, &provisional)) {
                *limiter = Arc::clone(&own);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Place, Arc<Limiter>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn place(account: &str, region: &str) -> Place {
        Place { account: account.into(), region: region.into() }
    }

    #[test]
    fn drains_of_one_account_and_region_share_and_others_do_not() {
        let limiters = Limiters::default();
        let here = limiters.of(&place("123456789012", "eu-west-1"));
        here.throttled(Operation::ListTasks);
        let rate = |account, region, operation| limiters.clone().of(&place(account, region)).rate_milli(operation);
        assert_eq!(rate("123456789012", "eu-west-1", Operation::DescribeTasks), 5000, "the same row of the table");
        assert_eq!(rate("123456789012", "eu-west-1", Operation::DescribeServices), 10_000);
        assert_eq!(rate("123456789012", "us-east-1", Operation::ListTasks), 10_000);
        assert_eq!(rate("210987654321", "eu-west-1", Operation::ListTasks), 10_000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_spelled_in_several_ways_is_one_once_ecs_has_named_it() {
        let limiters = Limiters::default();
        let named = place("123456789012", "eu-west-1");
        let spelled = [place("", "eu-west-1"), place("staging", "eu-west-1"), named.clone()];
        let given = spelled.clone().map(|place| limiters.of(&place));
        // Each has used up half of a burst of 50 before ECS has named anything.
        for limiter in &given {
            for _ in 0..25 {
                limiter.acquire(Operation::ListTasks).now_or_never().expect("the burst is free").unwrap();
            }
        }
        given[0].throttled(Operation::DescribeServices);
        for place in &spelled {
            limiters.settle(place, &named);
        }
        assert!(spelled.iter().all(|place| Arc::ptr_eq(&limiters.of(place), &limiters.of(&named))));
        for limiter in &given {
            assert_eq!(limiter.rate_milli(Operation::DescribeServices), 5000, "the slowest rate is everybody's");
            let begun = Instant::now();
            limiter.acquire(Operation::ListTasks).await.unwrap();
            assert!(begun.elapsed() >= Duration::from_millis(90), "75 of 50 are used: what is over is paid back first");
        }
        let elsewhere = limiters.of(&place("", "us-east-1"));
        elsewhere.acquire(Operation::ListTasks).now_or_never().expect("another Region is another bucket").unwrap();
        limiters.settle(&named, &spelled[0]);
        assert_eq!(given[1].rate_milli(Operation::DescribeServices), 5000, "the other way round is no circle");
    }

    #[tokio::test]
    async fn few_observe_at_once_and_other_regions_are_not_waited_for() {
        let limiters = Limiters::default();
        let (here, elsewhere) = (limiters.of(&place("", "eu-west-1")), limiters.of(&place("", "us-east-1")));
        let mut observing = Vec::new();
        for _ in 0..OBSERVATIONS_AT_ONCE {
            observing.push(here.observe_slot().await);
        }
        assert!(here.observe_slot().now_or_never().is_none());
        assert!(elsewhere.observe_slot().now_or_never().is_some());
        observing.pop();
        assert!(here.observe_slot().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_call_waits_for_its_turn_and_is_turned_away_when_that_is_too_far_off() {
        let limiter = Limiter::new(Instant::now());
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
