//! The series of each drain, from its last reconciliation; and those of a drain that has not been reconciled yet.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use serde_json::Value;
use worker_drain_plan::{
    Memory, Policy, Report,
    memory::TaskMemory,
    observation::HoldState,
    policy::{Deadline, DeadlineAction, HoldMode, Mode},
    report::{TaskPhase, TaskReport},
};

use super::labels::{Key, System};
use crate::operator::events::is_blocked;

/// A hold that ends this shortly before a deadline, or later, is not renewed. Holds last for whole minutes, and the
/// scheduler's clock may differ from ours.
const AT_THE_DEADLINE: SignedDuration = SignedDuration::from_mins(2);

/// What one drain's last reconciliation observed. A `None` before the first reconciliation has no series: an alert must not
/// take a replica's ignorance for an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    tasks: BTreeMap<TaskPhase, i64>,
    ecs_reachable: Option<bool>,
    broker_reachable: Option<bool>,
    blocked: Option<String>,
    oldest_hold: Option<Timestamp>,
    next_expiry: Option<Timestamp>,
    /// The holds of some tasks could not be read.
    unread: bool,
    /// How long the hold of a staying task lasts.
    expires_in: Option<SignedDuration>,
    oldest_job: Option<Timestamp>,
    jobs_cut: Option<u64>,
    /// Tasks that were drained and permitted to stop, and ended by SIGKILL.
    killed: u64,
    /// Tasks that should be held and are not.
    unheld: Option<u32>,
    /// Old tasks that ended without a permit, by the time at which their rollout began.
    unpermitted: BTreeMap<Timestamp, u64>,
    last_reconcile: Option<Timestamp>,
}

impl Figures {
    /// Of a reconciliation with this report and memory. `fleet` and `workers`: whether they answered; `None`: not asked.
    pub fn of(
        policy: &Policy,
        report: &Report,
        memory: &Memory,
        (fleet, workers): (bool, Option<bool>),
        now: Timestamp,
    ) -> Self {
        let mut tasks = BTreeMap::new();
        for task in &report.tasks {
            *tasks.entry(task.phase).or_insert(0) += 1;
        }
        let leaving =
            report.tasks.iter().filter(|task| task.leaving.is_some() && matches!(task.hold, HoldState::Until(_)));
        let past = memory.past.iter().map(|past| (past.since, u64::from(past.ended_unpermitted)));
        let running =
            memory.rollout.iter().map(|it| (it.since, it.ended_unpermitted.len().try_into().unwrap_or(u64::MAX)));
        Self {
            tasks,
            ecs_reachable: Some(fleet),
            broker_reachable: workers,
            blocked: is_blocked(&report.blocked_by).then(|| report.blocked_by.clone()),
            oldest_hold: leaving.filter_map(|task| memory.tasks.get(&task.task)?.leaving).map(|it| it.since).min(),
            next_expiry: report.tasks.iter().filter_map(|task| to_be_renewed(policy, task, memory)).min(),
            unread: report.tasks.iter().any(|task| task.hold == HoldState::Unread && !is_over(task.phase)),
            expires_in: Some(policy.hold.expires_in),
            oldest_job: report.tasks.iter().filter_map(|task| task.oldest_job.as_ref()?.started_at).min(),
            jobs_cut: Some(u64::from(report.cut.jobs)),
            killed: u64::from(report.killed.total),
            // Of a fleet that could not be seen nobody knows.
            unheld: fleet.then_some(report.counts.unheld),
            unpermitted: past.chain(running).collect(),
            last_reconcile: Some(now),
        }
    }

    /// What is still known of holds that could not be seen: they go on expiring.
    fn or_before(mut self, before: &Self) -> Self {
        if self.ecs_reachable == Some(false) {
            self.oldest_hold = self.oldest_hold.or(before.oldest_hold);
            self.next_expiry = self.next_expiry.or(before.next_expiry);
        } else if self.unread {
            self.next_expiry = self.next_expiry.into_iter().chain(before.next_expiry).min();
        }
        self
    }
}

/// Until when this task is held, if its hold must be renewed before its end. Not so where the hold ends on purpose: on a task
/// that may stop, at a deadline with `PermitStop`, or because the drain is withdrawn; nor where the hold is not ours.
fn to_be_renewed(policy: &Policy, task: &TaskReport, memory: &Memory) -> Option<Timestamp> {
    let HoldState::Until(until) = task.hold else { return None };
    let TaskMemory { leaving, permitted, .. } = memory.tasks.get(&task.task)?;
    let is_wanted = leaving.is_some() || policy.hold.mode == HoldMode::Standing;
    if policy.mode == Mode::Plan || policy.withdrawn || permitted.is_some() || is_over(task.phase) || !is_wanted {
        return None;
    }
    let ends_on_purpose = match (policy.drain.deadline, leaving) {
        (Some(Deadline { after, action: DeadlineAction::PermitStop }), Some(leaving)) => {
            let deadline = leaving.since.saturating_add(after).unwrap_or(Timestamp::MAX);
            deadline.duration_since(until) <= AT_THE_DEADLINE
        }
        _ => false,
    };
    (!ends_on_purpose).then_some(until)
}

fn is_over(phase: TaskPhase) -> bool {
    matches!(phase, TaskPhase::Permitted | TaskPhase::Stopping | TaskPhase::Stopped)
}

/// When the first of the holds in the status of this resource expires.
fn told_expiry(resource: &Value) -> Option<Timestamp> {
    if resource.pointer("/spec/mode").is_some_and(|mode| mode == "Plan") {
        return None;
    }
    let over = [TaskPhase::Permitted, TaskPhase::Stopping, TaskPhase::Stopped].map(|phase| format!("{phase:?}"));
    let tasks = resource.pointer("/status/tasks").and_then(Value::as_array).into_iter().flatten();
    let held = tasks.filter(|task| !over.iter().any(|over| task["phase"] == over.as_str()));
    held.filter_map(|task| task["heldUntil"].as_str()?.parse().ok()).min()
}

/// How many old tasks have ended without a permit. Rollouts are forgotten, so the number is carried on from reconciliation to
/// reconciliation; a process that begins takes it from the rollouts in memory.
#[derive(Debug, Default)]
struct Unpermitted {
    total: u64,
    by_rollout: BTreeMap<Timestamp, u64>,
}

impl Unpermitted {
    fn count(&mut self, by_rollout: &BTreeMap<Timestamp, u64>) {
        for (rollout, count) in by_rollout {
            let before = self.by_rollout.get(rollout).copied().unwrap_or_default();
            self.total = self.total.saturating_add(count.saturating_sub(before));
        }
        self.by_rollout.clone_from(by_rollout);
    }
}

/// What is known of a drain.
#[derive(Debug, Default)]
struct Known {
    /// `None`: another replica may reconcile it.
    figures: Option<Figures>,
    unpermitted: Unpermitted,
}

/// Every drain that this process has reconciled.
#[derive(Debug, Default)]
pub struct Drains(Mutex<BTreeMap<Key, Known>>);

impl Drains {
    /// A reconciliation is about to begin.
    pub fn expect(&self, key: &Key, now: Timestamp) {
        let mut drains = self.lock();
        let figures = &mut drains.entry(key.clone()).or_default().figures;
        figures.get_or_insert_with(|| Figures { last_reconcile: Some(now), ..Figures::default() });
    }

    /// Until a reconciliation has observed the holds, they are taken from the drain's status, which another process may have
    /// written.
    pub fn resume(&self, key: &Key, resource: &Value) {
        let mut drains = self.lock();
        let figures = drains.entry(key.clone()).or_default().figures.get_or_insert_default();
        if figures.ecs_reachable.is_none() {
            figures.next_expiry = told_expiry(resource);
        }
    }

    /// A reconciliation observed this.
    pub fn saw(&self, key: &Key, figures: Figures) {
        let mut drains = self.lock();
        let known = drains.entry(key.clone()).or_default();
        known.unpermitted.count(&figures.unpermitted);
        let before = known.figures.take().unwrap_or_default();
        known.figures = Some(figures.or_before(&before));
    }

    /// The drain could not be reconciled, for this reason. What was observed before stays: its holds are not renewed.
    /// `read`: the reconciliation succeeded all the same.
    pub fn failure_status(&self, key: &Key, reason: &str, read: Option<Timestamp>) {
        let mut drains = self.lock();
        let figures = drains.entry(key.clone()).or_default().figures.get_or_insert_default();
        figures.blocked = Some(reason.into());
        figures.last_reconcile = read.or(figures.last_reconcile);
    }

    /// Another drain is in charge of the service and has the series of its tasks and holds; this one says why it is not.
    pub fn stands_by(&self, key: &Key, reason: &str, now: Timestamp) {
        let figures = Figures { blocked: Some(reason.into()), last_reconcile: Some(now), ..Figures::default() };
        self.lock().entry(key.clone()).or_default().figures = Some(figures);
    }

    /// The drain is gone.
    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// Somebody else leads. What was counted is kept: it goes on from there if this process leads again.
    pub fn leave_to_others(&self) {
        self.lock().values_mut().for_each(|known| known.figures = None);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The labels of a drain's series besides its own, and the value.
type Series<T> = Vec<(Vec<(&'static str, String)>, T)>;

impl Collector for Drains {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let drains = self.lock();
        let drains: Vec<_> =
            drains.iter().filter_map(|(key, it)| Some((key, it.figures.as_ref()?, &it.unpermitted))).collect();
        let mut gauge = |name: &str, help: &str, series: &dyn Fn(&Figures) -> Series<f64>| {
            let value = ConstGauge::new(0.0);
            let mut descriptor = encoder.encode_descriptor(name, help, None, value.metric_type())?;
            for (key, figures, _) in &drains {
                for (more, value) in series(figures) {
                    ConstGauge::new(value).encode(descriptor.encode_family(&labels(key, more))?)?;
                }
            }
            Ok(())
        };
        gauge("tasks", "Tasks by phase", &|figures| {
            figures.tasks.iter().map(|(phase, count)| (vec![("phase", format!("{phase:?}"))], as_f64(*count))).collect()
        })?;
        gauge("reachable", "1 if the last call of the system was answered, else 0", &|figures| {
            let systems = [(System::Ecs, figures.ecs_reachable), (System::Broker, figures.broker_reachable)];
            let asked = systems.into_iter().filter_map(|(system, answer)| Some((system, answer?)));
            asked.map(|(system, yes)| (vec![("system", format!("{system:?}"))], f64::from(u8::from(yes)))).collect()
        })?;
        gauge("blocked", "1 while the drain waits for something other than the end of a job, by reason", &|figures| {
            figures.blocked.iter().map(|reason| (vec![("reason", reason.clone())], 1.0)).collect()
        })?;
        let unheld =
            "Tasks of the current revision that should be held and are not: another deployment cuts their jobs";
        gauge("unheld_tasks", unheld, &|figures| {
            figures.unheld.iter().map(|it| (Vec::new(), f64::from(*it))).collect()
        })?;
        let oldest = "When the longest held of the leaving tasks began to leave; 0 if there is none";
        gauge("oldest_hold_timestamp_seconds", oldest, &|figures| time(figures.oldest_hold))?;
        gauge("oldest_job_timestamp_seconds", "When the oldest running job began; 0 if none runs", &|figures| {
            time(figures.oldest_job)
        })?;
        let expiry = "When the first of the holds that must be renewed expires; 0 if there is none";
        gauge("next_hold_expiry_timestamp_seconds", expiry, &|figures| time(figures.next_expiry))?;
        gauge("hold_expires_in_seconds", "How long the hold of a staying task lasts: hold.expiresIn", &|figures| {
            figures.expires_in.iter().map(|lasting| (Vec::new(), lasting.as_secs_f64())).collect()
        })?;
        let last =
            "When the last successful reconciliation ended; before the first, when this replica first saw the drain";
        gauge("last_reconcile_timestamp_seconds", last, &|figures| time(figures.last_reconcile))?;
        let value = ConstGauge::new(i64::try_from(drains.len()).unwrap_or(i64::MAX));
        let help = "WorkerDrains that this replica reconciles";
        value.encode(encoder.encode_descriptor("drains", help, None, value.metric_type())?)?;
        let mut counter = |name: &str, help: &str, value: &dyn Fn(&Figures, &Unpermitted) -> u64| {
            let mut descriptor = encoder.encode_descriptor(name, help, None, ConstCounter::new(0_u64).metric_type())?;
            // Before a reconciliation knows the number, a 0 would look like a number from which it has risen.
            for (key, figures, unpermitted) in drains.iter().filter(|(_, figures, _)| figures.jobs_cut.is_some()) {
                let labels = labels(key, Vec::new());
                ConstCounter::new(value(figures, unpermitted)).encode(descriptor.encode_family(&labels)?)?;
            }
            Ok(())
        };
        counter("jobs_cut", "Jobs that were cut because a deadline had passed", &|figures, _| {
            figures.jobs_cut.unwrap_or_default()
        })?;
        counter("killed_tasks", "Drained tasks that ended by SIGKILL after their permit", &|figures, _| {
            figures.killed
        })?;
        counter("ended_unpermitted", "Old tasks that ended without a permit", &|_, unpermitted| unpermitted.total)
    }
}

fn labels((namespace, name): &Key, more: Vec<(&'static str, String)>) -> Vec<(&'static str, String)> {
    [("drain_namespace", namespace.clone()), ("drain", name.clone())].into_iter().chain(more).collect()
}

fn time(at: Option<Timestamp>) -> Series<f64> {
    vec![(Vec::new(), at.map_or(0.0, |at| as_f64(at.as_millisecond()) / 1000.0))]
}

#[expect(clippy::cast_precision_loss, reason = "times and counts of tasks are far below 2^52")]
fn as_f64(value: i64) -> f64 {
    value as f64
}
