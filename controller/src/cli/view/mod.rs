//! What a person, or a program, sees of a run. Everything here is a function of the planner's reports; the words for
//! reasons are the reports' own.

mod change;
mod json;
mod lines;
mod live;
mod terminal;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use worker_drain_plan::{
    Action, Outcome, Report, TaskId,
    observation::HoldState,
    report::{Cut, PastRollout, TaskPhase, TaskReport},
};

pub use self::{change::Change, json::task_object, terminal::Size};
use super::{
    drive::{Happening, ended_since, so_far},
    exit::Exit,
};
use crate::reconcile::Reconciliation;

/// How a run is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people: a table that is drawn anew on a terminal, one line for each change elsewhere.
    #[default]
    Text,
    /// For programs: one JSON object for each change.
    Json,
}

/// What is known of one drain in this run.
#[derive(Clone, Debug)]
pub struct Watched {
    /// How people call the drain.
    pub name: String,
    /// When the run began.
    pub began: Timestamp,
    /// What had been cut when it began.
    pub cut_before: Option<Cut>,
    /// The last report.
    pub report: Option<Report>,
    /// Until when tasks are held: as read back, and as granted since then.
    pub held: BTreeMap<TaskId, Timestamp>,
    /// Why the last pass could not be made, if it could not.
    pub error: Option<String>,
    /// How it ended by itself, if it has.
    pub ended: Option<Exit>,
    /// Nothing is drained: tasks are held until queues are empty.
    pub awaits_gate: bool,
}

impl Watched {
    /// A drain of which nothing was seen yet.
    pub fn new(name: String, began: Timestamp) -> Self {
        Self {
            name,
            began,
            cut_before: None,
            report: None,
            held: BTreeMap::new(),
            error: None,
            ended: None,
            awaits_gate: false,
        }
    }

    /// Takes in what happened, and tells what that changes.
    pub fn take_in(&mut self, happening: Happening) -> Vec<Change> {
        match happening {
            Happening::Passed(reconciliation) => {
                self.held = held(&reconciliation);
                let report = reconciliation.plan.report;
                let mut changes = change::between(self.report.as_ref(), &report);
                if self.error.take().is_some() {
                    changes.insert(0, Change::Recovered);
                }
                if !report.fleet.is_empty() {
                    self.cut_before.get_or_insert(report.cut);
                }
                self.report = Some(report);
                changes
            }
            Happening::Failed(failure) => {
                let is_new = self.error.as_ref() != Some(&failure.message);
                self.error = Some(failure.message.clone());
                if is_new { vec![Change::Error(failure.message)] } else { Vec::new() }
            }
        }
    }

    /// How the run would end for this drain if it ended now and well.
    pub fn so_far(&self) -> Exit {
        let so_far = |report: &Report| so_far(report, self.began, self.cut_before.unwrap_or(report.cut));
        self.report.as_ref().map_or(Exit::Done, so_far)
    }

    /// Nothing is left to do in it.
    pub fn is_settled(&self) -> bool {
        let is_settled = || self.report.as_ref().is_some_and(|report| report.settled);
        self.ended.is_some() || (!self.awaits_gate && is_settled())
    }

    fn balance(&self) -> Balance {
        let Some(report) = &self.report else { return Balance::default() };
        let past = || ended_since(report, self.began);
        let ended = report.rollout.iter().map(|rollout| rollout.ended);
        Balance {
            ended: past().map(|past| past.tasks).chain(ended).sum(),
            unpermitted: past().map(|past| past.ended_unpermitted).sum(),
            cut: report.cut.jobs.saturating_sub(self.cut_before.unwrap_or(report.cut).jobs),
        }
    }

    fn last_rollout(&self) -> Option<&PastRollout> {
        self.report.as_ref().and_then(|report| ended_since(report, self.began).next())
    }
}

/// What came of one drain in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Balance {
    /// Old tasks that ended.
    ended: u32,
    /// How many of them without our permit, as far as their rollouts are over.
    unpermitted: u32,
    /// Jobs that were cut.
    cut: u32,
}

/// Until when tasks are held after this pass.
fn held(reconciliation: &Reconciliation) -> BTreeMap<TaskId, Timestamp> {
    let read_back = reconciliation.plan.report.tasks.iter().filter_map(|task| match task.hold {
        HoldState::Until(until) => Some((task.task.clone(), until)),
        HoldState::Free | HoldState::Unread => None,
    });
    let mut held: BTreeMap<TaskId, Timestamp> = read_back.collect();
    let done = reconciliation.outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::Done);
    for (action, _) in done {
        match action {
            // Counted from the look, which is a little too early: better than to promise too much.
            Action::Hold { task, lasting } => {
                let until = reconciliation.observation.fleet.at().saturating_add(*lasting).unwrap_or(Timestamp::MAX);
                held.insert(task.clone(), until);
            }
            Action::Permit { task, .. } | Action::Release { task } => drop(held.remove(task)),
            Action::Cancel { .. } | Action::GiveBack { .. } => {}
        }
    }
    held
}

/// Where a task is, with the number of jobs where that is what counts.
fn label(task: &TaskReport) -> String {
    match (task.phase, task.jobs) {
        (TaskPhase::Busy, Some(jobs)) => format!("busy({})", jobs.active + jobs.reserved),
        (phase, _) => phase.to_string(),
    }
}

/// Where changes are shown.
#[derive(Debug)]
pub enum View {
    /// A table on a terminal.
    Live(terminal::Live),
    /// A line for each change.
    Lines,
    /// An object for each change.
    Json,
}

impl View {
    /// What fits: a table needs a terminal to itself.
    pub fn new(output: Output, logs: bool) -> Self {
        match output {
            Output::Json => Self::Json,
            Output::Text if !logs && terminal::is_fit() => Self::Live(terminal::Live::start()),
            Output::Text => Self::Lines,
        }
    }

    /// Shows what changed in one drain.
    pub fn changed(&mut self, drains: &[Watched], index: usize, changes: &[Change], now: Timestamp) {
        match self {
            Self::Live(live) => live.draw(drains, now),
            Self::Lines => print(changes.iter().map(|change| lines::line(&drains[index].name, change, now))),
            Self::Json => print(changes.iter().map(|change| json::line(&drains[index].name, change, now))),
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, drains: &[Watched], now: Timestamp) {
        if let Self::Live(live) = self {
            live.draw(drains, now);
        }
    }

    /// Shows how it ended, and gives the terminal back.
    pub fn end(self, drains: &[Watched], exits: &[Exit], now: Timestamp) {
        match self {
            Self::Live(mut live) => {
                live.draw(drains, now);
                drop(live);
                print(drains.iter().zip(exits).map(|(drain, exit)| lines::summary(drain, *exit, now)));
            }
            Self::Lines => print(drains.iter().zip(exits).map(|(drain, exit)| lines::summary(drain, *exit, now))),
            Self::Json => print(drains.iter().zip(exits).map(|(drain, exit)| json::summary(drain, *exit, now))),
        }
    }
}

/// Prints lines. A reader that has gone away is no reason to stop draining.
fn print(lines: impl Iterator<Item = String>) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    for line in lines {
        let _ = writeln!(out, "{line}");
    }
    let _ = out.flush();
}
