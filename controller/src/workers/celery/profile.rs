//! What is asked of each start of a node once: whether it has the worker package, and what its own lists would not show.
//!
//! A worker without the package answers with lists, and three kinds of job are in none of them (docs/idleness.md): those
//! that are rate-limited, those of a custom strategy, and those that cannot be put into a reply. Which of them a node may
//! hold is known from the kinds of job that are registered with it, and from its configuration.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

/// How much later than a token bucket should have let a job go that is noticed: Celery's event loop fires timers up to a second
/// late, that of gevent up to two (`celery/worker/loops.py`).
const TIMERS_ARE_LATE_BY: SignedDuration = SignedDuration::from_secs(2);
/// Two starts of one process id, by their uptimes, that differ by no more are one: an uptime has whole seconds.
const UPTIME_IS_EXACT_TO: SignedDuration = SignedDuration::from_secs(3);
/// The strategy of jobs that shows them in Celery's lists.
const DEFAULT_STRATEGY: &str = "celery.worker.strategy:default";
/// From this version on a job that cannot be put into a reply costs the reply, and not the worker's hearing.
const HEARS_ON_FROM: (u32, u32) = (5, 7);

/// The answer to `stats`, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stats {
    /// Which start of the node answers.
    pub(super) start: Start,
    /// For how long it had been running, by its own clock.
    pub(super) up_for: SignedDuration,
    /// How many jobs it has begun.
    pub(super) begun: u64,
    /// Its pool runs jobs where it listens, so that it may be silent while it runs one.
    pub(super) between_jobs: bool,
    /// What the worker package adds, if the worker has it.
    pub(super) package: Option<Package>,
}

/// One start of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pid: i64,
    at: Timestamp,
}

impl Start {
    /// It is the same.
    pub(super) fn is(self, other: Self) -> bool {
        self.pid == other.pid && self.at.duration_since(other.at).abs() <= UPTIME_IS_EXACT_TO
    }
}

/// A worker with the package `celery-worker-drain` (docs/celery-package.md).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    /// The id of the task that it runs in, if it knows.
    pub(super) task: Option<String>,
}

/// What is known of one start of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) start: Start,
    pub(super) between_jobs: bool,
    pub(super) kind: Kind,
}

/// How a node is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It accounts for everything at once.
    Package(Package),
    /// By Celery's own lists.
    Lists(Gaps),
    /// It is no worker of this fleet: it is not asked.
    Stranger,
}

/// What the lists of a node would not show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gaps {
    /// A job that waits for a rate limit begins within this time.
    pub(super) settles_in: SignedDuration,
    /// Jobs that may wait for any length of time.
    pub(super) unseen: Option<String>,
    /// `reserved` and `scheduled` are not asked: with a job that cannot be put into a reply it would hear no request any
    /// more, and take no jobs (seen on Celery 5.3 to 5.6 over Redis; celery#7601).
    pub(super) is_fragile: bool,
    /// Rate limits are not respected (`worker_disable_rate_limits`).
    ignores_limits: bool,
}

/// Reads the answer to `stats` that came at this time.
pub(super) fn parse_stats(answer: &str, answered_at: Timestamp) -> Option<Stats> {
    #[derive(Deserialize)]
    struct Told {
        pid: i64,
        uptime: f64,
        total: BTreeMap<String, u64>,
        #[serde(default)]
        pool: Value,
        worker_drain: Option<Value>,
    }

    let Told { pid, uptime, total, pool, worker_drain } = serde_json::from_str(answer).ok()?;
    let up_for = SignedDuration::try_from(Duration::try_from_secs_f64(uptime).ok()?).ok()?;
    let at = answered_at.checked_sub(up_for).ok()?;
    let begun = total.into_values().try_fold(0, u64::checked_add)?;
    let package = worker_drain.filter(|package| package["contract"] == 1);
    let package = package.map(|package| Package { task: package["task"].as_str().map(str::to_owned) });
    let between_jobs = pool["implementation"].as_str().is_some_and(listens_between_jobs);
    Some(Stats { start: Start { pid, at }, up_for, begun, between_jobs, package })
}

/// Whether this is a pool that runs jobs in the thread that listens: `celery.concurrency.solo:TaskPool` (Celery's `stats`, 5.3 to 5.7). Of
/// greenlets those that compute without waiting keep it from listening.
fn listens_between_jobs(implementation: &str) -> bool {
    ["solo", "gevent", "eventlet"].iter().any(|pool| implementation.starts_with(&format!("celery.concurrency.{pool}:")))
}

/// Reads Celery's version in the answer to `report`: `software -> celery:5.7.0 (collider) kombu:5.7.0 …`.
pub(super) fn parse_version(answer: &Value) -> Option<(u32, u32)> {
    let (_, version) = answer["ok"].as_str()?.split_once("celery:")?;
    let mut numbers = version.split(|sign: char| !sign.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The settings that matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conf {
    /// It takes jobs whose arguments came in something else than JSON, so that they may not fit into a reply.
    pub(super) takes_more_than_json: bool,
    limits_rates: bool,
}

/// Reads the answer to `conf`, in which what has its default is left out: JSON alone is accepted, and rates are limited.
pub(super) fn parse_conf(answer: &Value) -> Option<Conf> {
    let answer = answer.as_object()?;
    let is_json = |kind: &Value| kind.as_str().is_some_and(|kind| ["json", "application/json"].contains(&kind));
    let takes_more = |accepted: &Value| !accepted.as_array().is_some_and(|kinds| kinds.iter().all(is_json));
    Some(Conf {
        takes_more_than_json: answer.get("accept_content").is_some_and(takes_more),
        limits_rates: answer.get("worker_disable_rate_limits").and_then(Value::as_bool) != Some(true),
    })
}

/// A kind of job whose jobs may wait where no list shows them.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Hidden {
    /// They wait for a token, of which there is one every so many seconds.
    Limited { name: String, rate: String, seconds: f64 },
    /// A strategy of its own keeps them, as celery-batches does.
    Strategy { name: String },
}

/// Reads the answer to `registered`: `name [rate_limit=2/m Strategy=celery.worker.strategy:default]`.
pub(super) fn parse_registered(answer: &Value) -> Option<Vec<Hidden>> {
    let mut hidden = Vec::new();
    for entry in answer.as_array()? {
        let entry = entry.as_str()?;
        let (name, items) = entry.split_once(" [").unwrap_or((entry, ""));
        let items = items.strip_suffix(']').unwrap_or(items);
        let (rest, strategy) = items.split_once("Strategy=").unwrap_or((items, DEFAULT_STRATEGY));
        if strategy != DEFAULT_STRATEGY {
            hidden.push(Hidden::Strategy { name: name.to_owned() });
        }
        let rate = rest.trim().strip_prefix("rate_limit=").unwrap_or_default();
        if let Some(seconds) = interval(rate) {
            hidden.push(Hidden::Limited { name: name.to_owned(), rate: rate.to_owned(), seconds });
        }
    }
    Some(hidden)
}

/// How many seconds lie between two tokens of this rate limit, as Celery reads it (`celery/utils/time.py`); `None`: it is none.
fn interval(rate: &str) -> Option<f64> {
    let (operations, unit) = rate.split_once('/').unwrap_or((rate, "s"));
    let unit = match unit {
        "h" => 3600.0,
        "m" => 60.0,
        _ => 1.0,
    };
    let operations: f64 = operations.trim().parse().ok()?;
    (operations > 0.0).then(|| unit / operations)
}

impl Gaps {
    /// What follows from what a node said. Its version need not be known.
    pub(super) fn of(version: Option<(u32, u32)>, conf: &Conf, registered: &[Hidden]) -> Self {
        let mut gaps = Self { ignores_limits: !conf.limits_rates, ..Self::default() };
        gaps.widen(registered);
        if conf.takes_more_than_json && version.is_none_or(|version| version < HEARS_ON_FROM) {
            gaps.is_fragile = true;
            gaps.unseen = Some(String::from(
                "its accept_content allows more than JSON, and before Celery 5.7 a worker that is asked for jobs which JSON cannot \
                 hold may go deaf, so it is not asked; add celery-worker-drain to the worker (docs/celery-package.md)",
            ));
        }
        gaps
    }

    /// What is registered now counts too. A limit may be set while the worker runs (`celery control rate_limit`), and jobs that
    /// waited when one was changed or taken away go on waiting by the old one (seen on Celery 5.3 and 5.7;
    /// findings/celery-rate-limit-is-not-for-those-who-wait.sh).
    pub(super) fn widen(&mut self, registered: &[Hidden]) {
        for hidden in registered {
            match hidden {
                Hidden::Limited { .. } if self.ignores_limits => {}
                Hidden::Limited { name, rate, seconds } => self.limited(name, rate, *seconds),
                Hidden::Strategy { name } => {
                    self.unseen = Some(format!(
                        "jobs of {name} are kept by a strategy of their own (as with celery-batches), and Celery does not tell of \
                         them; add celery-worker-drain to the worker (docs/celery-package.md)"
                    ));
                }
            }
        }
    }

    fn limited(&mut self, name: &str, rate: &str, seconds: f64) {
        match SignedDuration::try_from_secs_f64(seconds).map(|interval| interval.saturating_add(TIMERS_ARE_LATE_BY)) {
            Ok(settles_in) => self.settles_in = self.settles_in.max(settles_in),
            Err(_) => self.unseen = Some(format!("jobs of {name} may wait for their rate limit of {rate}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::{Gaps, Hidden, interval, parse_conf, parse_registered, parse_stats, parse_version};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
    }

    #[test]
    fn a_start_is_known_by_its_process_and_its_time() {
        let stats = |pid: i64, uptime: i64, answered: i64| {
            let answer = json!({"pid": pid, "uptime": uptime, "total": {"app.a": 2, "app.b": 3}});
            parse_stats(&answer.to_string(), at(answered)).unwrap()
        };
        assert_eq!(stats(7, 10, 100).begun, 5);
        assert!(stats(7, 10, 100).start.is(stats(7, 19, 110).start), "an uptime has whole seconds");
        assert!(!stats(7, 10, 100).start.is(stats(8, 20, 110).start));
        assert!(!stats(7, 10, 100).start.is(stats(7, 3, 110).start), "the same number in another container");
    }

    /// Captured from Celery 5.3.6 to 5.7.0.
    #[rstest]
    #[case("celery.concurrency.prefork:TaskPool", false)]
    #[case("celery.concurrency.thread:TaskPool", false)]
    #[case("celery.concurrency.solo:TaskPool", true)]
    #[case("celery.concurrency.gevent:TaskPool", true)]
    #[case("celery.concurrency.eventlet:TaskPool", true)]
    fn a_pool_that_works_where_it_listens_is_known(#[case] implementation: &str, #[case] expected: bool) {
        let pool = json!({"implementation": implementation, "max-concurrency": 1});
        let answer = json!({"pid": 7, "uptime": 1, "total": {}, "pool": pool});
        assert_eq!(parse_stats(&answer.to_string(), at(1)).unwrap().between_jobs, expected);
    }

    #[rstest]
    #[case(json!({"pid": 7, "uptime": 1}))]
    #[case(json!({"pid": 7, "uptime": -1, "total": {}}))]
    #[case(json!({"pid": 7, "uptime": 1e300, "total": {}}))]
    #[case(json!({"pid": "7", "uptime": 1, "total": {}}))]
    #[case(json!({"pid": 7, "uptime": 1, "total": {"a": -1}}))]
    #[case(json!([]))]
    fn junk_is_no_stats(#[case] answer: Value) {
        assert_eq!(parse_stats(&answer.to_string(), at(0)), None);
    }

    /// Captured from Celery 5.3.6.
    #[test]
    fn the_version_is_in_the_report() {
        let report = json!({"ok": "\nsoftware -> celery:5.3.6 (emerald-rush) kombu:5.3.7 py:3.11.7\n            billiard:4.2.4"});
        assert_eq!(parse_version(&report), Some((5, 3)));
        assert_eq!(parse_version(&json!({"ok": "nothing"})), None);
    }

    /// Captured from Celery 5.7.0 with celery-batches 0.11.
    #[test]
    fn what_may_be_hidden_is_known_from_what_is_registered() {
        let registered = json!([
            "app.a [Strategy=celery.worker.strategy:default]",
            "app.b [rate_limit=2/m Strategy=celery.worker.strategy:default]",
            "app.c [Strategy=<bound method Batches.Strategy of <@task: app.c of app at 0x7f>>]",
            "app.d",
        ]);
        let limited = Hidden::Limited { name: "app.b".into(), rate: "2/m".into(), seconds: 30.0 };
        assert_eq!(parse_registered(&registered), Some(vec![limited, Hidden::Strategy { name: "app.c".into() }]));
        assert_eq!(parse_registered(&json!([5])), None);
    }

    #[rstest]
    #[case("", None)]
    #[case("0", None)]
    #[case("0/m", None)]
    #[case("10", Some(0.1))]
    #[case("0.5", Some(2.0))]
    #[case("100/h", Some(36.0))]
    #[case("3/s", Some(1.0 / 3.0))]
    fn a_rate_limit_is_read_as_celery_reads_it(#[case] rate: &str, #[case] seconds: Option<f64>) {
        assert_eq!(interval(rate), seconds);
    }

    #[test]
    fn a_limit_that_was_changed_is_remembered() {
        let registered = |rate: &str| parse_registered(&json!([format!("b [rate_limit={rate}]")])).unwrap();
        let mut gaps = Gaps::default();
        for (rate, seconds) in [("0", 0), ("2/m", 32), ("1/s", 32), ("0", 32), ("1/m", 62)] {
            gaps.widen(&registered(rate));
            assert_eq!(gaps.settles_in, SignedDuration::from_secs(seconds), "{rate}");
        }
    }

    #[test]
    fn what_lists_would_not_show_follows_from_limits_and_contents() {
        let conf = |accepted: Value, disabled: bool| {
            parse_conf(&json!({"accept_content": accepted, "worker_disable_rate_limits": disabled})).unwrap()
        };
        let limited = parse_registered(&json!(["b [rate_limit=2/m]"]));
        let plain = || conf(json!(["application/json"]), false);
        let limited = limited.unwrap();
        assert_eq!(Gaps::of(None, &plain(), &[]), Gaps::default());
        assert_eq!(Gaps::of(None, &plain(), &limited).settles_in, SignedDuration::from_secs(32));
        let ignoring = Gaps { ignores_limits: true, ..Gaps::default() };
        assert_eq!(Gaps::of(None, &conf(json!(["json"]), true), &limited), ignoring, "limits are disabled");
        for (version, is_fragile) in [(None, true), (Some((5, 6)), true), (Some((5, 7)), false), (Some((5, 10)), false)]
        {
            let gaps = Gaps::of(version, &conf(json!(["json", "pickle"]), false), &[]);
            assert_eq!((gaps.is_fragile, gaps.unseen.is_some()), (is_fragile, is_fragile), "{version:?}");
        }
    }
}
