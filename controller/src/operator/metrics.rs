//! What Prometheus is told. Labels are bounded: a drain's name and namespace, and words from lists; never a task's name.
//!
//! The names, and the values of labels, are what the chart's alerts read, so they are API. What is told of a drain is put
//! together when it is asked for, from what its last pass left here ([`figures`]), so that a drain that is gone leaves no
//! series behind; and a process that does not lead tells of none.

pub mod figures;

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::Registry,
};
use worker_drain_plan::{Action, Outcome, observation::FailureKind};

use self::figures::Drains;
pub use self::figures::Figures;

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
                EncodeLabelValue::encode(&format!("{self:?}").as_str(), encoder)
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
            Outcome::Done => "Done",
            Outcome::Refused { .. } => "Refused",
            Outcome::Failed(_) => "Failed",
            Outcome::Stale => "Stale",
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

    /// What is told of each drain.
    pub fn drains(&self) -> &Drains {
        &self.drains
    }

    /// All of it, as Prometheus reads it. `leads`: this process may act; if not, it knows nothing of any drain.
    pub fn tell(&self, leads: bool) -> Result<String, fmt::Error> {
        self.leader.set(i64::from(leads));
        if !leads {
            self.drains.leave_to_others();
        }
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
