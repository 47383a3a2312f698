//! The metrics for Prometheus. Labels are bounded: a drain's name and namespace, and words from lists; never a task's name.
//!
//! The names, and the values of labels, are what the chart's alerts read, so they are API. The series of a drain are put
//! together when they are scraped, from what its last reconciliation left here ([`figures`]), so a drain that is gone leaves
//! no series behind; and a process that does not lead has none.

pub mod figures;
mod labels;

use std::{fmt, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
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
pub use self::{
    figures::Figures,
    labels::{Key, Kind, PassEnd, System},
};

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

/// All metrics.
pub struct Metrics {
    registry: Registry,
    drains: Arc<Drains>,
    leader: Gauge,
    errors: Family<ErrorLabels, Counter>,
    actions: Family<ActionLabels, Counter>,
    reconciliations: Family<PassLabels, Counter>,
    seconds: Histogram,
    events_lost: Counter,
    wakeups: Counter,
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
        registry.register("build", "The version of worker-drain", version);
        let drains = Arc::<Drains>::default();
        registry.register_collector(Box::new(Arc::clone(&drains)));
        let metrics = Self {
            drains,
            leader: Gauge::default(),
            errors: Family::default(),
            actions: Family::default(),
            reconciliations: Family::default(),
            // From a small fleet to a call that waits for ECS' rate limit.
            seconds: Histogram::new(exponential_buckets(0.01, 2.0, 14)),
            events_lost: Counter::default(),
            wakeups: Counter::default(),
            registry: Registry::default(),
        };
        let help = "1 while this replica leads, or acts without leader election; 0 while it stands by";
        registry.register("leader", help, metrics.leader.clone());
        registry.register("errors", "Failed calls of ECS, brokers and the API server", metrics.errors.clone());
        registry.register("actions", "Holds, releases, cancels and undos, by outcome", metrics.actions.clone());
        let help = "Reconciliations of all WorkerDrains, by result";
        registry.register("reconciliations", help, metrics.reconciliations.clone());
        let help = "How long a reconciliation takes";
        registry.register("reconcile_duration_seconds", help, metrics.seconds.clone());
        registry.register("events_lost", "Events that could not be published", metrics.events_lost.clone());
        let help = "Reconciliations that began early because a worker's last job was heard to end";
        registry.register("wakeups", help, metrics.wakeups.clone());
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// An outside system failed.
    pub fn failed(&self, system: System, kind: FailureKind) {
        self.errors.get_or_create(&ErrorLabels { system, kind: format!("{kind:?}") }).inc();
    }

    /// The outcome of an action, whether it was begun or not.
    pub fn acted(&self, action: &Action, outcome: &Outcome) {
        let outcome = match outcome {
            Outcome::Done => "Done",
            Outcome::Refused { .. } => "Refused",
            Outcome::Failed(_) => "Failed",
            Outcome::Stale => "Stale",
        };
        self.actions.get_or_create(&ActionLabels { action: Kind::of(action), outcome }).inc();
    }

    /// A reconciliation has ended with this result.
    pub fn passed(&self, result: PassEnd, took: Duration) {
        self.reconciliations.get_or_create(&PassLabels { result }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// An event could not be published.
    pub fn event_lost(&self) {
        self.events_lost.inc();
    }

    /// A drain will be reconciled early because its workers were heard of.
    pub fn woken(&self) {
        self.wakeups.inc();
    }

    /// The series of each drain.
    pub fn drains(&self) -> &Drains {
        &self.drains
    }

    /// All metrics in Prometheus' text format. `leads`: this process may act; if not, it has no series of any drain.
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
