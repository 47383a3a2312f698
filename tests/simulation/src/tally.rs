//! What occurred how often: a kind that never does is a hole in the proof.

mod expected;

use std::collections::BTreeMap;

use worker_drain_plan::{
    Action, Outcome, Plan,
    report::{Reason, RolloutOutcome},
};

use self::expected::{
    ASSERTIONS, ENDINGS, PHASES, REASONS, STEPS, TASK_PHASES, conditions, ending_name, phase_name, task_phase_name,
};
use crate::fault::Fault;

/// Counts over one run or many.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Faults that took place.
    pub faults: BTreeMap<Fault, u64>,
    /// Actions that were decided.
    pub actions: BTreeMap<&'static str, u64>,
    /// What became of actions: the action, and what.
    pub outcomes: BTreeMap<(&'static str, &'static str), u64>,
    /// Reasons that a report gave: the condition, and why it was so.
    pub reasons: BTreeMap<(&'static str, Reason), u64>,
    /// Phases of the whole.
    pub phases: BTreeMap<&'static str, u64>,
    /// Phases of tasks.
    pub task_phases: BTreeMap<&'static str, u64>,
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
        let report = &plan.report;
        let conditions = [("Ready", &report.ready), ("Drained", &report.drained), ("Stalled", &report.stalled)];
        let clean = report.clean.iter().map(|clean| ("Clean", clean));
        let gate = report.gate.iter().map(|gate| ("Gate", gate));
        for (name, verdict) in conditions.into_iter().chain(clean).chain(gate) {
            *self.reasons.entry((name, verdict.reason)).or_default() += 1;
        }
        *self.phases.entry(phase_name(plan.report.phase)).or_default() += 1;
        for task in &plan.report.tasks {
            *self.task_phases.entry(task_phase_name(task.phase)).or_default() += 1;
        }
    }

    /// A rollout ended.
    pub fn ended(&mut self, outcome: RolloutOutcome) {
        *self.endings.entry(ending_name(outcome)).or_default() += 1;
    }

    /// What became of an action.
    pub fn outcome(&mut self, action: &Action, outcome: &Outcome) {
        let name = match outcome {
            Outcome::Done => "Done",
            Outcome::Refused { .. } => "Refused",
            Outcome::Failed(_) => "Failed",
            Outcome::Stale => "Stale",
        };
        *self.outcomes.entry((action_name(action), name)).or_default() += 1;
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
        let mut miss = |missing: bool, what: String| holes.extend(missing.then_some(what));
        for (action, outcomes) in STEPS {
            miss(!self.actions.contains_key(action), format!("action {action}"));
            for outcome in *outcomes {
                miss(!self.outcomes.contains_key(&(action, outcome)), format!("action {action} that is {outcome}"));
            }
        }
        for reason in REASONS {
            for condition in conditions(*reason) {
                miss(!self.reasons.contains_key(&(condition, *reason)), format!("{condition} because of {reason}"));
            }
        }
        for name in PHASES.iter().map(|phase| phase_name(*phase)) {
            miss(!self.phases.contains_key(name), format!("phase {name}"));
        }
        for name in TASK_PHASES.iter().map(|phase| task_phase_name(*phase)) {
            miss(!self.task_phases.contains_key(name), format!("task phase {name}"));
        }
        for name in ASSERTIONS {
            miss(!self.rules.contains_key(name), format!("assertion {name}"));
        }
        for name in ENDINGS.iter().map(|ending| ending_name(*ending)) {
            miss(!self.endings.contains_key(name), format!("ending {name}"));
        }
        holes
    }
}

/// The kind of an action.
fn action_name(action: &Action) -> &'static str {
    match action {
        Action::Hold { .. } => "Hold",
        Action::Cancel { .. } => "Cancel",
        Action::GiveBack { .. } => "GiveBack",
        Action::Permit { ground: worker_drain_plan::Ground::Drained, .. } => "Permit",
        Action::Permit { .. } => "PermitByDeadline",
        Action::Release { .. } => "Release",
    }
}
