//! What occurred how often: a kind that never does is a hole in the proof.

use std::collections::BTreeMap;

use worker_drain_plan::{
    Action, Outcome, Plan,
    report::{Phase, Reason, TaskPhase},
};

use crate::fault::Fault;

/// Counts over one run or many.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Faults that took place.
    pub faults: BTreeMap<Fault, u64>,
    /// Actions that were decided.
    pub actions: BTreeMap<&'static str, u64>,
    /// What became of actions.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Reasons that a report gave.
    pub reasons: BTreeMap<Reason, u64>,
    /// Phases of the whole.
    pub phases: BTreeMap<&'static str, u64>,
    /// Phases of tasks.
    pub task_phases: BTreeMap<TaskPhase, u64>,
    /// How rollouts ended.
    pub endings: BTreeMap<&'static str, u64>,
    /// Jobs that were cut off, by the reason that excuses it.
    pub deaths: BTreeMap<&'static str, u64>,
    /// How often each rule was checked.
    pub rules: BTreeMap<&'static str, u64>,
    /// Passes that ended.
    pub passes: u64,
    /// Passes that failed, or were killed.
    pub broken_off: u64,
    /// Jobs that ran to their end.
    pub jobs: u64,
    /// Virtual time, in milliseconds.
    pub virtual_ms: u64,
    /// Histories.
    pub histories: u64,
}

impl Tally {
    /// A fault took place.
    pub fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// A rule was checked.
    pub fn rule(&mut self, rule: &'static str) {
        *self.rules.entry(rule).or_default() += 1;
    }

    /// A job was cut off.
    pub fn death(&mut self, why: &'static str) {
        *self.deaths.entry(why).or_default() += 1;
    }

    /// A plan was made.
    pub fn planned(&mut self, plan: &Plan) {
        for action in &plan.actions {
            *self.actions.entry(action_name(action)).or_default() += 1;
        }
        for verdict in [&plan.report.ready, &plan.report.drained, &plan.report.stalled] {
            *self.reasons.entry(verdict.reason).or_default() += 1;
        }
        *self.phases.entry(phase_name(plan.report.phase)).or_default() += 1;
        for task in &plan.report.tasks {
            *self.task_phases.entry(task.phase).or_default() += 1;
        }
    }

    /// What became of an action.
    pub fn outcome(&mut self, outcome: &Outcome) {
        let name = match outcome {
            Outcome::Done => "Done",
            Outcome::Refused { .. } => "Refused",
            Outcome::Failed(_) => "Failed",
            Outcome::Stale => "Stale",
        };
        *self.outcomes.entry(name).or_default() += 1;
    }

    /// Adds another run's counts.
    pub fn add(&mut self, other: &Self) {
        fn sum<K: Ord + Copy>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
            for (key, count) in from {
                *into.entry(*key).or_default() += count;
            }
        }
        sum(&mut self.faults, &other.faults);
        sum(&mut self.actions, &other.actions);
        sum(&mut self.outcomes, &other.outcomes);
        sum(&mut self.reasons, &other.reasons);
        sum(&mut self.phases, &other.phases);
        sum(&mut self.task_phases, &other.task_phases);
        sum(&mut self.endings, &other.endings);
        sum(&mut self.deaths, &other.deaths);
        sum(&mut self.rules, &other.rules);
        self.passes += other.passes;
        self.broken_off += other.broken_off;
        self.jobs += other.jobs;
        self.virtual_ms += other.virtual_ms;
        self.histories += other.histories;
    }

    /// What never occurred though it can: for a run of many seeds, a failure.
    pub fn holes(&self) -> Vec<String> {
        let mut holes: Vec<String> = Fault::ALL
            .iter()
            .filter(|fault| !self.faults.contains_key(fault))
            .map(|fault| format!("fault {}", fault.name()))
            .collect();
        let named = |kind: &str, names: &[&str], seen: &BTreeMap<&'static str, u64>| -> Vec<String> {
            names.iter().filter(|name| !seen.contains_key(*name)).map(|name| format!("{kind} {name}")).collect()
        };
        holes.extend(named(
            "action",
            &["Hold", "Cancel", "GiveBack", "Permit", "PermitByDeadline", "Release"],
            &self.actions,
        ));
        holes.extend(named("outcome", &["Done", "Refused", "Failed", "Stale"], &self.outcomes));
        holes.extend(named("phase", &PHASES, &self.phases));
        holes.extend(named("ending", &["Drained", "RolledBack", "JobsCut", "EndedUnpermitted"], &self.endings));
        holes.extend(REASONS.iter().filter(|reason| !self.reasons.contains_key(reason)).map(|r| format!("reason {r}")));
        let phases = TASK_PHASES.iter().filter(|phase| !self.task_phases.contains_key(phase));
        holes.extend(phases.map(|phase| format!("task phase {phase}")));
        holes
    }
}

const PHASES: [&str; 8] =
    ["Unknown", "Steady", "Draining", "RollingBack", "ScalingIn", "Paused", "Withdrawing", "Withdrawn"];

const REASONS: [Reason; 23] = [
    Reason::AllSeen,
    Reason::FleetUnreachable,
    Reason::FleetThrottled,
    Reason::FleetDenied,
    Reason::FleetNotFound,
    Reason::FleetInvalid,
    Reason::WorkersUnreachable,
    Reason::WorkersDenied,
    Reason::WorkersInvalid,
    Reason::Unmapped,
    Reason::AtRisk,
    Reason::NoOldTasks,
    Reason::JobsRunning,
    Reason::NodeSilent,
    Reason::WaitingForCapacity,
    Reason::InProgress,
    Reason::DeadlineExceeded,
    Reason::Paused,
    Reason::PlanOnly,
    Reason::NotStalled,
    Reason::NoRoom,
    Reason::QueuesNotEmpty,
    Reason::QueuesUnknown,
];

const TASK_PHASES: [TaskPhase; 14] = [
    TaskPhase::AtRisk,
    TaskPhase::Unmapped,
    TaskPhase::Unknown,
    TaskPhase::Overdue,
    TaskPhase::Held,
    TaskPhase::Cancelling,
    TaskPhase::Busy,
    TaskPhase::Idle,
    TaskPhase::Permitted,
    TaskPhase::Stopping,
    TaskPhase::Restoring,
    TaskPhase::Starting,
    TaskPhase::Serving,
    TaskPhase::Stopped,
];

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Unknown => "Unknown",
        Phase::Steady => "Steady",
        Phase::Draining => "Draining",
        Phase::RollingBack => "RollingBack",
        Phase::ScalingIn => "ScalingIn",
        Phase::Paused => "Paused",
        Phase::Withdrawing => "Withdrawing",
        Phase::Withdrawn => "Withdrawn",
    }
}

/// The kind of an action.
pub fn action_name(action: &Action) -> &'static str {
    match action {
        Action::Hold { .. } => "Hold",
        Action::Cancel { .. } => "Cancel",
        Action::GiveBack { .. } => "GiveBack",
        Action::Permit { ground: worker_drain_plan::Ground::Drained, .. } => "Permit",
        Action::Permit { .. } => "PermitByDeadline",
        Action::Release { .. } => "Release",
    }
}
