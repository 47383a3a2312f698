//! What a worker with the package `celery-worker-drain` says of itself: everything at once, from inside
//! (docs/celery-package.md; contrib/celery has the package).

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use worker_drain_plan::{
    QueueName,
    observation::{Answer, Job, Strength},
};

use super::pidbox::{parse_jobs, parse_queues};

/// The form of the answer that is understood.
const CONTRACT: u64 = 1;

#[derive(Deserialize)]
struct Account {
    contract: u64,
    instance: String,
    pool: Option<String>,
    queues: Box<RawValue>,
    own_queues: Option<BTreeSet<QueueName>>,
    active: Box<RawValue>,
    reserved: Box<RawValue>,
    limited: Box<RawValue>,
    scheduled: Box<RawValue>,
    counts: Counts,
}

#[derive(Deserialize)]
struct Counts {
    active: u32,
    reserved: u32,
    /// All that the pool has, as it counts itself.
    pool: Option<u32>,
    /// Messages whose job is in none of the lists.
    unlisted: Option<u32>,
}

impl Counts {
    /// Jobs that are in none of its lists. What the pool has runs or is reserved: so many more are counted as there are too many,
    /// which is none only if there is none.
    fn unlisted(&self) -> u32 {
        let listed = self.active.saturating_add(self.reserved);
        self.pool.unwrap_or_default().saturating_sub(listed).max(self.unlisted.unwrap_or_default())
    }
}

/// Reads the account that was asked for and came at these times. `None`: it is none, or of another contract.
pub(super) fn take_in(told: &str, (asked_at, answered_at): (Timestamp, Timestamp)) -> Option<Answer> {
    let account = serde_json::from_str(told).ok().filter(|account: &Account| account.contract == CONTRACT)?;
    let reserved: Vec<Job> = [parse_jobs(account.reserved.get())?, parse_jobs(account.limited.get())?].concat();
    let unseen = (account.counts.pool.is_none() || account.counts.unlisted.is_none()).then(|| {
        let pool = account.pool.as_deref().unwrap_or("unknown");
        format!("its pool ({pool}) is not one that celery-worker-drain can count")
    });
    Some(Answer {
        instance: Some(account.instance.clone()),
        own_queues: account.own_queues,
        queues: parse_queues(account.queues.get()),
        active: parse_jobs(account.active.get()),
        scheduled: parse_jobs(account.scheduled.get()),
        reserved: Some(reserved),
        unlisted: account.counts.unlisted(),
        unseen,
        strength: Strength::Account,
        hears_later: true,
        ..Answer::new(asked_at, answered_at)
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use rstest::rstest;
    use serde_json::{Value, json};
    use worker_drain_plan::observation::Answer;

    use super::take_in;

    fn account() -> Value {
        json!({
            "contract": 1, "version": "0.1.0", "instance": "9f", "pid": 7, "started_at": 1_767_225_600.5, "celery": "5.7.0",
            "pool": "threads", "task": null, "connection_losses": 1,
            "queues": [{"name": "slow", "routing_key": "slow", "exchange": {"name": "slow", "type": "direct"}, "auto_delete": false}],
            "own_queues": ["slow"], "active": [], "reserved": [], "limited": [], "scheduled": [],
            "counts": {
                "active": 0, "reserved": 0, "limited": 0, "scheduled": 0, "pool": 0, "unacknowledged": 0, "unlisted": 0,
                "queues": 1, "own_queues": 1,
            },
        })
    }

    fn taken(told: &Value) -> Option<Answer> {
        take_in(&told.to_string(), (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH))
    }

    #[rstest]
    #[case::a_batch_that_waits("unlisted", 3, "active", 0, 3)]
    #[case::a_pool_after_a_reconnect("pool", 4, "active", 1, 3)]
    #[case::what_runs_is_in_the_pool("pool", 1, "active", 1, 0)]
    #[case::what_is_scheduled_is_not_acknowledged("unacknowledged", 2, "scheduled", 2, 0)]
    fn what_is_counted_and_not_listed_is_work(
        #[case] count: &str,
        #[case] counted: u32,
        #[case] list: &str,
        #[case] listed: u32,
        #[case] expected: u32,
    ) {
        let mut told = account();
        told["counts"][count] = counted.into();
        told["counts"][list] = listed.into();
        assert_eq!(taken(&told).unwrap().unlisted, expected);
    }

    #[test]
    fn limited_jobs_wait_like_reserved_ones() {
        let mut told = account();
        told["limited"] = json!([{"id": "j", "name": "app.limited"}]);
        assert_eq!(taken(&told).unwrap().reserved.unwrap().len(), 1);
    }

    #[test]
    fn a_pool_that_cannot_be_counted_proves_nothing() {
        let mut told = account();
        told["counts"]["pool"] = Value::Null;
        assert!(taken(&told).unwrap().unseen.unwrap().contains("threads"));
    }

    #[rstest]
    #[case("contract", json!(2))]
    #[case("counts", json!({}))]
    #[case("reserved", json!(null))]
    #[case("instance", json!(null))]
    fn another_shape_is_no_account(#[case] field: &str, #[case] value: Value) {
        let mut told = account();
        told[field] = value;
        assert_eq!(taken(&told), None);
    }
}
