//! What is known of one drain in a run.

use std::collections::BTreeMap;

use jiff::Timestamp;
use worker_drain_plan::{Action, Outcome, Report, TaskId, observation::HoldState, report::PastRollout};

use super::change::{Change, between};
use crate::{
    cli::{
        drive::Update,
        exit::Exit,
        progress::{Goal, Losses, ended_since, so_far},
    },
    reconcile::Reconciliation,
};

/// What is known of one drain in this run.
#[derive(Clone, Debug)]
pub struct Watched {
    /// How people call the drain.
    pub name: String,
    /// When the run began.
    pub began: Timestamp,
    /// What had been lost when it began.
    pub lost_before: Option<Losses>,
    /// The last report.
    pub report: Option<Report>,
    /// Until when tasks are held: as read back, and as granted since then.
    pub held: BTreeMap<TaskId, Timestamp>,
    /// Why the last reconciliation failed, if it did.
    pub error: Option<String>,
    /// How it ended by itself, if it has.
    pub ended: Option<Exit>,
    /// What the run is for.
    pub goal: Goal,
}

impl Watched {
    /// A drain of which nothing was seen yet.
    pub fn new(name: String, began: Timestamp) -> Self {
        Self {
            name,
            began,
            lost_before: None,
            report: None,
            held: BTreeMap::new(),
            error: None,
            ended: None,
            goal: Goal::Drained { rollout_only: false },
        }
    }

    /// Takes in an update. Returns what it changes.
    pub fn take_in(&mut self, update: Update) -> Vec<Change> {
        match update {
            Update::Reconciled(reconciliation) => {
                self.held = held(&reconciliation);
                let report = reconciliation.plan.report;
                let mut changes = between(self.report.as_ref(), &report);
                if self.error.take().is_some() {
                    changes.insert(0, Change::Recovered);
                }
                if !report.fleet.is_empty() {
                    self.lost_before.get_or_insert_with(|| Losses::of(&report));
                }
                self.report = Some(report);
                changes
            }
            Update::Failed(failure) => {
                let is_new = self.error.as_ref() != Some(&failure.message);
                self.error = Some(failure.message.clone());
                if is_new { vec![Change::Error(failure.message)] } else { Vec::new() }
            }
        }
    }

    /// How the run would end for this drain if it ended now and well.
    pub fn so_far(&self) -> Exit {
        let so_far = |report: &Report| so_far(report, self.began, self.lost_before(report));
        self.report.as_ref().map_or(Exit::Done, so_far)
    }

    /// Nothing is left to do in it.
    pub fn is_settled(&self) -> bool {
        let report = self.report.as_ref();
        let is_settled = match self.goal {
            Goal::Drained { rollout_only: true } => report.is_some_and(|report| report.rollout_settled),
            Goal::Drained { rollout_only: false } => report.is_some_and(|report| report.settled),
            Goal::Deployment(_) | Goal::Gate | Goal::Held => false,
        };
        self.ended.is_some() || is_settled
    }

    /// Tasks of its fleet are known with which nothing can be done.
    pub(super) fn is_unaccounted(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report.unaccounted.is_some())
    }

    /// What came of it so far.
    pub(super) fn balance(&self) -> Balance {
        let Some(report) = &self.report else { return Balance::default() };
        let past = || ended_since(report, self.began);
        let ended = report.rollout.iter().map(|rollout| rollout.ended);
        Balance {
            ended: past().map(|past| past.tasks).chain(ended).sum(),
            unpermitted: past().map(|past| past.ended_unpermitted).sum(),
            cut: report.cut.jobs.saturating_sub(self.lost_before(report).cut.jobs),
            killed: report.killed.total.saturating_sub(self.lost_before(report).killed),
        }
    }

    fn lost_before(&self, report: &Report) -> Losses {
        self.lost_before.unwrap_or_else(|| Losses::of(report))
    }

    /// The rollout that ended last in this run.
    pub(super) fn last_rollout(&self) -> Option<&PastRollout> {
        self.report.as_ref().and_then(|report| ended_since(report, self.began).next())
    }
}

/// What came of one drain in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Balance {
    /// Old tasks that ended.
    pub(super) ended: u32,
    /// How many of them without our permit, as far as their rollouts are over.
    pub(super) unpermitted: u32,
    /// Jobs that were cut.
    pub(super) cut: u32,
    /// Tasks that were drained and permitted to stop, and ended by SIGKILL.
    pub(super) killed: u32,
}

/// Until when tasks are held after this reconciliation.
fn held(reconciliation: &Reconciliation) -> BTreeMap<TaskId, Timestamp> {
    let read_back = reconciliation.plan.report.tasks.iter().filter_map(|task| match task.hold {
        HoldState::Until(until) => Some((task.task.clone(), until)),
        HoldState::Free | HoldState::Unread => None,
    });
    let mut held: BTreeMap<TaskId, Timestamp> = read_back.collect();
    let done = reconciliation.outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::Done);
    for (action, _) in done {
        match action {
            // Counted from the observation, which is a little too early: better than promising too much.
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
