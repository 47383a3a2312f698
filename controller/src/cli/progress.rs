//! What a run is for, what it has seen so far, and whether that is enough to end it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use worker_drain_plan::{
    Action, Plan, Report, RevisionId,
    observation::{FailureKind, HoldState, Life, Seen},
    report::{Cut, PastRollout, Reason, RolloutOutcome},
};

use super::{
    exit::{Exit, UserError},
    target::{Standing, Target, exit_of},
};
use crate::reconcile::Reconciliation;

/// Between two observations while a rollout may begin at any moment.
const EXPECTANT: SignedDuration = SignedDuration::from_secs(2);

/// A settled fleet whose last actions are refused again and again is settled all the same after so many reconciliations.
const SETTLED_PASSES: u32 = 3;

/// For how long ECS must know the service no more before that is believed: its answers may be from the past.
const GONE_FOR: SignedDuration = SignedDuration::from_secs(30);

/// What a run is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// No old task is left, and, unless only rollouts count, nothing else is being drained.
    Drained {
        /// Only rollouts count.
        rollout_only: bool,
    },
    /// This deployment is drained.
    Deployment(Target),
    /// The gate is open, and every task held.
    Gate,
    /// Every task is held.
    Held,
}

/// When a drain has seen enough.
#[derive(Clone, Debug)]
pub struct Patience {
    /// How long ECS and the workers may be unreachable before the first complete observation.
    pub connect: Duration,
    /// How long a rollout is waited for if none is seen; `None`: for as long as it takes.
    pub grace: Option<Duration>,
    /// Go on after the rollout has drained.
    pub watch: bool,
    /// What for.
    pub goal: Goal,
}

/// How a drain ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// How.
    pub exit: Exit,
    /// Why, if something went wrong.
    pub error: Option<UserError>,
}

impl End {
    pub(super) const fn well(exit: Exit) -> Self {
        Self { exit, error: None }
    }
}

/// What was seen so far, as far as the end depends on it.
#[derive(Debug)]
pub(super) struct Progress {
    patience: Patience,
    began: Timestamp,
    before: Losses,
    saw_rollout: bool,
    /// The revision that was last seen rolled out, and not back.
    rolled_out: Option<RevisionId>,
    /// The deployment that is waited for was seen current.
    was_current: bool,
    settled_passes: u32,
    invalid_passes: u32,
}

impl Progress {
    pub(super) fn new(patience: Patience, began: Timestamp, before: Losses) -> Self {
        Self {
            patience,
            began,
            before,
            saw_rollout: false,
            rolled_out: None,
            was_current: false,
            settled_passes: 0,
            invalid_passes: 0,
        }
    }

    /// Learns from a reconciliation. Some: that was enough.
    pub(super) fn learn(&mut self, reconciliation: &Reconciliation, now: Timestamp) -> Option<End> {
        let report = &reconciliation.plan.report;
        if let Some(end) = self.gone(reconciliation) {
            return Some(end);
        }
        if matches!(self.patience.goal, Goal::Gate | Goal::Held) {
            return self.learn_of_holds(reconciliation, now);
        }
        self.saw_rollout |= report.rollout.is_some() || ended_since(report, self.began).next().is_some();
        if let Some(rollout) = reconciliation.plan.memory.rollout.as_ref().filter(|rollout| !rollout.back) {
            self.rolled_out = Some(rollout.to.clone());
        }
        let at_rest = self.is_at_rest(&reconciliation.plan);
        if let Some(end) = self.stuck(report, now) {
            return Some(end);
        }
        if let Goal::Deployment(target) = &self.patience.goal {
            self.was_current |= target.is_current(report);
            return self.learn_of(target, reconciliation, at_rest, now);
        }
        let enough = self.saw_rollout || self.is_late(now);
        (at_rest && enough && !self.patience.watch).then(|| self.rolled_back(report))
    }

    /// Nothing is left to do of what counts.
    fn is_at_rest(&mut self, Plan { report, actions, .. }: &Plan) -> bool {
        let (is_settled, is_idle) = if self.patience.goal == (Goal::Drained { rollout_only: false }) {
            (report.settled, actions.is_empty())
        } else {
            let counts = |action: &Action| matches!(action, Action::Hold { .. } | Action::GiveBack { .. });
            (report.rollout_settled, !actions.iter().any(counts))
        };
        self.settled_passes = if is_settled { self.settled_passes + 1 } else { 0 };
        is_settled && (is_idle || self.settled_passes >= SETTLED_PASSES)
    }

    /// A rollout that this run saw begin or go on, and that was taken back, is no success.
    fn rolled_back(&self, report: &Report) -> End {
        let exit = so_far(report, self.began, self.before);
        let last = ended_since(report, self.began).next().filter(|past| past.outcome == RolloutOutcome::RolledBack);
        match (last, &self.rolled_out) {
            (Some(past), Some(to)) if *to != past.to => {
                let message = format!("deployment {to} was rolled back to {} ({})", past.label, past.to);
                End { exit: exit.max(Exit::Superseded), error: Some(UserError::new(message)) }
            }
            _ => End::well(exit),
        }
    }

    /// Learns what became of the deployment that the run is for. One whose place was taken ends the run only when nothing is left
    /// to do: workers that stay may lack their queues.
    fn learn_of(&self, target: &Target, reconciliation: &Reconciliation, at_rest: bool, now: Timestamp) -> Option<End> {
        let report = &reconciliation.plan.report;
        let so_far = so_far(report, self.began, self.before);
        match target.standing(reconciliation.observation.fleet.ok(), report, self.was_current, self.is_late(now)) {
            // What goes on is another rollout, if one does.
            Standing::Drained(outcome) if at_rest || !target.is_current(report) => {
                Some(End::well(exit_of(outcome).max(so_far)))
            }
            Standing::Replaced { message } if at_rest => {
                Some(End { exit: so_far.max(Exit::Superseded), error: Some(UserError::new(message)) })
            }
            Standing::Unseen | Standing::Current | Standing::Drained(_) | Standing::Replaced { .. } => None,
        }
    }

    /// A deployment that was begun before the run would be seen by now.
    fn is_late(&self, now: Timestamp) -> bool {
        self.patience.grace.is_some_and(|grace| self.waited(now) >= grace)
    }

    /// All is done that can be done, and not every task is accounted for: to wait does not help, and this is no success.
    fn stuck(&self, report: &Report, now: Timestamp) -> Option<End> {
        let unaccounted = report.unaccounted.as_ref().filter(|tasks| tasks.certain && tasks.rest_settled)?;
        let enough = self.saw_rollout || self.is_late(now);
        let error = Some(UserError::new(unaccounted.message.clone()));
        (enough && !self.patience.watch).then_some(End { exit: Exit::CouldNotRun, error })
    }

    /// The service was deleted: nothing of it is left to wait for, and this is no success.
    fn gone(&self, reconciliation: &Reconciliation) -> Option<End> {
        let Plan { report, memory, .. } = &reconciliation.plan;
        let lasts = memory.fleet_error.as_ref().is_some_and(|error| error.last.duration_since(error.since) >= GONE_FOR);
        let (message, unpermitted) = match (&reconciliation.observation.fleet, &report.deleted) {
            (_, Some(deleted)) if report.settled => (&deleted.message, !deleted.unpermitted.is_empty()),
            (Seen::Err { failure, .. }, _) if failure.kind == FailureKind::NotFound && lasts => {
                (&failure.message, false)
            }
            _ => return None,
        };
        let exit = match so_far(report, self.began, self.before) {
            Exit::Done if unpermitted => Exit::EndedUnpermitted,
            Exit::Done => Exit::CouldNotRun,
            worse => worse,
        };
        (!self.patience.watch).then(|| End { exit, error: Some(UserError::new(message.clone())) })
    }

    fn waited(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.began)).unwrap_or_default()
    }

    /// Learns whether every task is held, as far as the scheduler grants holds, and the gate open if that is waited for. What only a
    /// person can fix is not waited for.
    fn learn_of_holds(&mut self, reconciliation: &Reconciliation, now: Timestamp) -> Option<End> {
        let report = &reconciliation.plan.report;
        let (is_open, is_invalid, why) = if self.patience.goal == Goal::Gate {
            let gate = report.gate.as_ref()?;
            (gate.answer == Some(true), gate.reason == Reason::QueuesInvalid, &gate.message)
        } else {
            // Whose worker is not found is held all the same.
            let is_refused =
                matches!(report.ready.reason, Reason::FleetDenied | Reason::FleetNotFound | Reason::FleetInvalid);
            (true, is_refused, &report.ready.message)
        };
        self.invalid_passes = if is_invalid { self.invalid_passes + 1 } else { 0 };
        if self.invalid_passes >= SETTLED_PASSES {
            return Some(End { exit: Exit::CouldNotRun, error: Some(UserError::new(why.clone())) });
        }
        let fleet = reconciliation.observation.fleet.ok()?;
        let running = || fleet.tasks.values().filter(|task| task.life == Life::Running);
        let held = running().filter(|task| matches!(task.hold, HoldState::Until(end) if end > now)).count();
        let wanted = running().count().min(usize::try_from(fleet.desired).unwrap_or(usize::MAX));
        let done = is_open && held >= wanted;
        match &report.unaccounted {
            None => done.then(|| End::well(Exit::Done)),
            // Who is not placed is not held.
            Some(tasks) if done && tasks.certain => {
                Some(End { exit: Exit::CouldNotRun, error: Some(UserError::new(tasks.message.clone())) })
            }
            Some(_) => None,
        }
    }

    /// How long to wait before the next reconciliation.
    pub(super) fn pause(&self, reconciliation: &Reconciliation) -> Duration {
        let wake = reconciliation.plan.wake_after;
        let expectant = !self.saw_rollout && !self.patience.watch;
        let wake = if expectant { wake.min(EXPECTANT) } else { wake };
        Duration::try_from(wake).unwrap_or_default()
    }
}

/// The rollouts that ended after `began`.
pub fn ended_since(report: &Report, began: Timestamp) -> impl Iterator<Item = &PastRollout> {
    report.past.iter().filter(move |past| past.until >= began)
}

/// What had been lost, ever, by a drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// What deadlines have cut.
    pub cut: Cut,
    /// Tasks that were drained and permitted to stop, and ended by SIGKILL.
    pub killed: u32,
}

impl Losses {
    /// As this report tells it.
    pub fn of(report: &Report) -> Self {
        Self { cut: report.cut, killed: report.killed.total }
    }
}

/// How a run that began then would end if it ended with this report and well otherwise, having found so much lost at its
/// beginning. A task that did not answer when it was permitted to stop counts: it may have had jobs.
pub fn so_far(report: &Report, began: Timestamp, before: Losses) -> Exit {
    if report.cut.tasks > before.cut.tasks {
        Exit::JobsCut
    } else if report.killed.total > before.killed {
        Exit::Killed
    } else if ended_since(report, began).any(|past| past.ended_unpermitted > 0) {
        Exit::EndedUnpermitted
    } else {
        Exit::Done
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::target::tests::{planned, report},
        *,
    };

    fn progress(rollout_only: bool) -> Progress {
        let goal = Goal::Drained { rollout_only };
        let patience = Patience { connect: Duration::ZERO, grace: None, watch: false, goal };
        Progress::new(patience, Timestamp::UNIX_EPOCH, Losses::default())
    }

    #[test]
    fn a_rollout_that_this_run_saw_and_that_was_rolled_back_is_no_success() {
        let mut report = report(Some("1"));
        report.past = vec![PastRollout {
            to: "ecs-svc/1".into(),
            label: "transcoder:41".into(),
            since: Timestamp::UNIX_EPOCH,
            until: Timestamp::UNIX_EPOCH,
            tasks: 2,
            outcome: RolloutOutcome::RolledBack,
            jobs_cut: 0,
            ended_unpermitted: 0,
            unseen: 0,
            killed: 0,
        }];
        let mut progress = progress(false);
        assert_eq!(progress.rolled_back(&report), End::well(Exit::Done), "it began in the rollback");
        progress.rolled_out = Some("ecs-svc/2".into());
        let End { exit, error } = progress.rolled_back(&report);
        assert_eq!((exit, exit.code()), (Exit::Superseded, 6));
        assert_eq!(error.unwrap().message, "deployment ecs-svc/2 was rolled back to transcoder:41 (ecs-svc/1)");
        report.past[0].ended_unpermitted = 1;
        assert_eq!(progress.rolled_back(&report).exit, Exit::EndedUnpermitted, "lost jobs are worse");
        report.past[0] =
            PastRollout { to: "ecs-svc/2".into(), outcome: RolloutOutcome::Drained, ..report.past[0].clone() };
        report.past[0].ended_unpermitted = 0;
        assert_eq!(progress.rolled_back(&report), End::well(Exit::Done));
    }

    #[test]
    fn whoever_waits_for_rollouts_only_does_not_wait_for_a_scale_in() {
        let mut plan = planned(Some("1"));
        (plan.report.settled, plan.report.rollout_settled) = (false, true);
        let hold = Action::Hold { task: "t".into(), lasting: SignedDuration::from_hours(1) };
        let queues = vec!["slow".into()];
        plan.actions = vec![Action::Cancel { task: "t".into(), node: "w".into(), queues }];
        assert!(progress(true).is_at_rest(&plan) && !progress(false).is_at_rest(&plan));
        plan.actions.push(hold);
        assert!(!progress(true).is_at_rest(&plan), "a task that stays is about to be held");
        plan.report.rollout_settled = false;
        assert!(!progress(true).is_at_rest(&plan));
    }
}
