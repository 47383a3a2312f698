//! What Prometheus is told. Labels are bounded: a drain's name and namespace, and words from lists; never a task's name.
//!
//! The names are what the chart's alerts read, so they are API. What is told of a drain is put together when it is asked
//! for, from what its last pass left here, so that a drain that is gone leaves no series behind; and a process that does
//! not lead tells of none.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder, text},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry,
};
use worker_drain_plan::{
    Action, Memory, Outcome, Report,
    observation::{FailureKind, HoldState},
    report::TaskPhase,
};

/// A drain: its namespace and its name.
pub type Key = (String, String);

/// An outside system that may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum System {
    /// Amazon ECS.
    Ecs,
    /// The broker that workers are asked through.
    Broker,
    /// The Kubernetes API server.
    Kubernetes,
}

/// A kind of action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A hold was set or renewed.
    Hold,
    /// A hold was released.
    Release,
    /// A worker was told to take no more jobs.
    Cancel,
    /// A worker was told to take jobs again.
    GiveBack,
}

impl Kind {
    fn of(action: &Action) -> Self {
        match action {
            Action::Hold { .. } => Self::Hold,
            Action::Permit { .. } | Action::Release { .. } => Self::Release,
            Action::Cancel { .. } => Self::Cancel,
            Action::GiveBack { .. } => Self::GiveBack,
        }
    }
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PassEnd {
    /// Well.
    Ok,
    /// Its memory could not be read or written.
    Error,
    /// It took too long.
    Timeout,
    /// By a bug.
    Panic,
}

macro_rules! words {
    ($($name:ident),*) => {$(
        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                EncodeLabelValue::encode(&format!("{self:?}").to_lowercase().as_str(), encoder)
            }
        }
    )*};
}
words!(System, Kind, PassEnd);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    system: System,
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabels {
    action: Kind,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PassLabels {
    result: PassEnd,
}

/// What one drain's last pass saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    tasks: BTreeMap<TaskPhase, i64>,
    ecs_reachable: bool,
    broker_reachable: Option<bool>,
    blocked: Option<String>,
    oldest_hold: Option<Timestamp>,
    next_expiry: Option<Timestamp>,
    oldest_job: Option<Timestamp>,
    jobs_cut: u64,
    last_pass: Option<Timestamp>,
}

impl Figures {
    /// Of a pass that told and remembers this. `fleet` and `workers`: whether they could be seen; `None`: not asked.
    pub fn of(report: &Report, memory: &Memory, fleet: bool, workers: Option<bool>, now: Timestamp) -> Self {
        let mut tasks = BTreeMap::new();
        for task in &report.tasks {
            *tasks.entry(task.phase).or_insert(0) += 1;
        }
        let held = || report.tasks.iter().filter(|task| matches!(task.hold, HoldState::Until(_)));
        let leaving = held().filter(|task| task.leaving.is_some());
        let until = |hold: &HoldState| match hold {
            HoldState::Until(until) => Some(*until),
            HoldState::Free | HoldState::Unread => None,
        };
        Self {
            tasks,
            ecs_reachable: fleet,
            broker_reachable: workers,
            blocked: super::events::is_blocked(&report.blocked_by).then(|| report.blocked_by.clone()),
            oldest_hold: leaving.filter_map(|task| memory.tasks.get(&task.task)?.leaving).map(|it| it.since).min(),
            next_expiry: held().filter_map(|task| until(&task.hold)).min(),
            oldest_job: report.tasks.iter().filter_map(|task| task.oldest_job.as_ref()?.started_at).min(),
            jobs_cut: u64::from(report.cut.jobs),
            last_pass: Some(now),
        }
    }

    /// What is still known of them when the fleet cannot be seen: holds go on expiring.
    fn or_before(mut self, before: &Self) -> Self {
        if !self.ecs_reachable {
            self.oldest_hold = self.oldest_hold.or(before.oldest_hold);
            self.next_expiry = self.next_expiry.or(before.next_expiry);
        }
        self
    }
}

/// All that is told.
pub struct Metrics {
    registry: Registry,
    drains: Arc<Drains>,
    leader: Gauge,
    errors: Family<ErrorLabels, Counter>,
    actions: Family<ActionLabels, Counter>,
    passes: Family<PassLabels, Counter>,
    seconds: Histogram,
    events_lost: Counter,
    wakes: Counter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Drains(Mutex<BTreeMap<Key, Figures>>);

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("worker_drain");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "This program", version);
        let drains = Arc::<Drains>::default();
        registry.register_collector(Box::new(Arc::clone(&drains)));
        let metrics = Self {
            drains,
            leader: Gauge::default(),
            errors: Family::default(),
            actions: Family::default(),
            passes: Family::default(),
            // From a look at a small fleet to one that waits for its turn at ECS.
            seconds: Histogram::new(exponential_buckets(0.01, 2.0, 14)),
            events_lost: Counter::default(),
            wakes: Counter::default(),
            registry: Registry::default(),
        };
        registry.register("leader", "1 while this process may act", metrics.leader.clone());
        registry.register("errors", "Failures of outside systems", metrics.errors.clone());
        registry.register("actions", "What was done, and what became of it", metrics.actions.clone());
        registry.register("passes", "Passes of all drains", metrics.passes.clone());
        registry.register("pass_duration_seconds", "How long a pass takes", metrics.seconds.clone());
        registry.register("events_lost", "Events that could not be published", metrics.events_lost.clone());
        let help = "Looks that a worker's last job has asked for by its end";
        registry.register("wakes", help, metrics.wakes.clone());
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// An outside system failed.
    pub fn failed(&self, system: System, kind: FailureKind) {
        self.errors.get_or_create(&ErrorLabels { system, kind: format!("{kind:?}") }).inc();
    }

    /// This became of an action, whether it was begun or not.
    pub fn acted(&self, action: &Action, outcome: &Outcome) {
        let outcome = match outcome {
            Outcome::Done => "done",
            Outcome::Refused { .. } => "refused",
            Outcome::Failed(_) => "failed",
            Outcome::Stale => "stale",
        };
        self.actions.get_or_create(&ActionLabels { action: Kind::of(action), outcome }).inc();
    }

    /// A pass has ended so.
    pub fn passed(&self, result: PassEnd, took: Duration) {
        self.passes.get_or_create(&PassLabels { result }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// An event could not be published.
    pub fn event_lost(&self) {
        self.events_lost.inc();
    }

    /// A drain is to be looked at because its workers were heard of.
    pub fn woken(&self) {
        self.wakes.inc();
    }

    /// This is what a drain's pass saw.
    pub fn saw(&self, key: &Key, figures: Figures) {
        let mut drains = self.drains.lock();
        let before = drains.get(key).cloned().unwrap_or_default();
        drains.insert(key.clone(), figures.or_before(&before));
    }

    /// The drain is gone.
    pub fn forget(&self, key: &Key) {
        self.drains.lock().remove(key);
    }

    /// All of it, as Prometheus reads it. `leads`: this process may act; if not, it knows nothing of any drain.
    pub fn tell(&self, leads: bool) -> Result<String, fmt::Error> {
        self.leader.set(i64::from(leads));
        if !leads {
            self.drains.lock().clear();
        }
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

impl Drains {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Figures>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One series of a drain: the labels besides its own, and the value.
type Series = Vec<(Vec<(&'static str, String)>, f64)>;

impl Collector for Drains {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let drains = self.lock();
        let mut gauge = |name: &str, help: &str, series: &dyn Fn(&Figures) -> Series| {
            let value = ConstGauge::new(0.0);
            let mut descriptor = encoder.encode_descriptor(name, help, None, value.metric_type())?;
            for ((namespace, name), figures) in &*drains {
                for (more, value) in series(figures) {
                    let mut labels = vec![("drain_namespace", namespace.clone()), ("drain", name.clone())];
                    labels.extend(more);
                    ConstGauge::new(value).encode(descriptor.encode_family(&labels)?)?;
                }
            }
            Ok(())
        };
        gauge("tasks", "Tasks by where they are", &|figures| {
            figures.tasks.iter().map(|(phase, count)| (vec![("phase", format!("{phase:?}"))], as_f64(*count))).collect()
        })?;
        gauge("reachable", "1 while the outside system can be reached", &|figures| {
            let broker = figures.broker_reachable.map(|yes| ("broker", yes));
            let systems = [Some(("ecs", figures.ecs_reachable)), broker].into_iter().flatten();
            systems.map(|(system, yes)| (vec![("system", system.into())], f64::from(u8::from(yes)))).collect()
        })?;
        gauge("blocked", "1 while the drain waits for something other than the end of a job", &|figures| {
            figures.blocked.iter().map(|reason| (vec![("reason", reason.clone())], 1.0)).collect()
        })?;
        let oldest = "Since when the task is to stop that has been held longest; 0: none is";
        gauge("oldest_hold_timestamp_seconds", oldest, &|figures| time(figures.oldest_hold))?;
        gauge("oldest_job_timestamp_seconds", "When the oldest job began; 0: none runs", &|figures| {
            time(figures.oldest_job)
        })?;
        let expiry = "When the first hold expires if it is not renewed; 0: there is none";
        gauge("next_hold_expiry_timestamp_seconds", expiry, &|figures| time(figures.next_expiry))?;
        gauge("last_pass_timestamp_seconds", "When the drain was last looked at", &|figures| time(figures.last_pass))?;
        let value = ConstGauge::new(i64::try_from(drains.len()).unwrap_or(i64::MAX));
        let help = "WorkerDrains that this replica looks at";
        value.encode(encoder.encode_descriptor("drains", help, None, value.metric_type())?)?;
        let value = ConstCounter::new(0_u64);
        let help = "Jobs that were cut because a deadline had passed";
        let mut descriptor = encoder.encode_descriptor("jobs_cut", help, None, value.metric_type())?;
        for ((namespace, name), figures) in &*drains {
            let labels = [("drain_namespace", namespace.clone()), ("drain", name.clone())];
            ConstCounter::new(figures.jobs_cut).encode(descriptor.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

fn time(at: Option<Timestamp>) -> Series {
    vec![(Vec::new(), at.map_or(0.0, |at| as_f64(at.as_millisecond()) / 1000.0))]
}

#[expect(clippy::cast_precision_loss, reason = "times and counts of tasks are far below 2^52")]
fn as_f64(value: i64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_as_the_charts_alerts_read_it() {
        let metrics = Metrics::default();
        let key = ("media".to_owned(), "transcoder".to_owned());
        let at: Timestamp = "2026-01-01T00:00:00.5Z".parse().unwrap();
        let figures = Figures {
            tasks: [(TaskPhase::Busy, 2)].into(),
            ecs_reachable: true,
            broker_reachable: Some(false),
            blocked: Some("WorkersUnreachable".into()),
            oldest_hold: Some(at),
            next_expiry: Some(at),
            jobs_cut: 3,
            ..Figures::default()
        };
        metrics.saw(&key, figures);
        let undo = Action::GiveBack { task: "task/a".into(), node: "worker@a".into(), queues: Vec::new() };
        metrics.acted(&undo, &Outcome::Done);
        metrics.acted(&undo, &Outcome::Stale);
        metrics.failed(System::Broker, FailureKind::Unreachable);
        metrics.passed(PassEnd::Ok, Duration::from_millis(20));
        let told = metrics.tell(true).unwrap();
        let drain = r#"{drain_namespace="media",drain="transcoder""#;
        for line in [
            format!("worker_drain_tasks{drain},phase=\"Busy\"}} 2.0"),
            format!("worker_drain_reachable{drain},system=\"ecs\"}} 1.0"),
            format!("worker_drain_reachable{drain},system=\"broker\"}} 0.0"),
            format!("worker_drain_blocked{drain},reason=\"WorkersUnreachable\"}} 1.0"),
            format!("worker_drain_oldest_hold_timestamp_seconds{drain}}} 1767225600.5"),
            format!("worker_drain_next_hold_expiry_timestamp_seconds{drain}}} 1767225600.5"),
            format!("worker_drain_jobs_cut_total{drain}}} 3"),
            String::from("worker_drain_leader 1"),
            String::from("worker_drain_actions_total{action=\"giveback\",outcome=\"done\"} 1"),
            String::from("worker_drain_errors_total{system=\"broker\",kind=\"Unreachable\"} 1"),
            String::from("worker_drain_passes_total{result=\"ok\"} 1"),
            format!("worker_drain_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
        ] {
            assert!(told.lines().any(|told| told == line), "{line} is not in\n{told}");
        }
        let told = metrics.tell(false).unwrap();
        assert!(told.contains("worker_drain_leader 0"));
        assert!(!told.contains("drain=\"transcoder\""), "who does not lead knows nothing of drains:\n{told}");
    }

    #[test]
    fn holds_go_on_expiring_while_nobody_can_look() {
        let metrics = Metrics::default();
        let key = ("media".to_owned(), "transcoder".to_owned());
        let seen = Figures {
            next_expiry: Some(Timestamp::from_second(77).unwrap()),
            ecs_reachable: true,
            ..Figures::default()
        };
        metrics.saw(&key, seen);
        metrics.saw(&key, Figures::default());
        assert!(metrics.tell(true).unwrap().contains("drain=\"transcoder\"} 77.0"));
        metrics.forget(&key);
        assert!(!metrics.tell(true).unwrap().contains("next_hold_expiry_timestamp_seconds{"));
    }
}
