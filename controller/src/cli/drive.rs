//! The loop of one drain: observe until ECS and the workers answer, then reconcile until nothing is left to do.
//!
//! It decides nothing about tasks; only when it has seen enough. Dropped at any moment, it leaves every hold as it is.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::mpsc::Sender,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use worker_drain_plan::{
    Plan, Report,
    observation::{Failure, FailureKind, HoldState, Life, Observation, Seen},
    report::{Cut, Reason},
};

use super::exit::{Exit, UserError};
use crate::{
    clock::Clock,
    fleet::Fleet,
    reconcile::{Drain, Reconciliation},
    record::Record,
    workers::Workers,
};

/// Between two attempts at memory that cannot be read or written.
const RECORD_RETRY: Duration = Duration::from_secs(5);

/// Between two observations while a rollout may begin at any moment.
const EXPECTANT: SignedDuration = SignedDuration::from_secs(2);

/// A settled fleet whose last actions are refused again and again is settled all the same after so many reconciliations.
const SETTLED_PASSES: u32 = 3;

/// For how long ECS must know the service no more before that is believed: its answers may be from the past.
const GONE_FOR: SignedDuration = SignedDuration::from_secs(30);

/// When a drain has seen enough.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long ECS and the workers may be unreachable before the first complete observation.
    pub connect: Duration,
    /// How long a rollout is waited for if none is seen; `None`: for as long as it takes.
    pub grace: Option<Duration>,
    /// Go on after the rollout has drained.
    pub watch: bool,
    /// Only wait until every task is held and the gate is open.
    pub gate: bool,
}

/// What happened in a drain.
#[derive(Clone, Debug)]
pub enum Update {
    /// One reconciliation is over.
    Reconciled(Box<Reconciliation>),
    /// The memory could not be read or written.
    Failed(Failure),
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
    const fn well(exit: Exit) -> Self {
        Self { exit, error: None }
    }
}

/// Where the updates of one drain are reported.
#[derive(Clone, Debug)]
pub struct Reporter {
    /// Which drain.
    pub index: usize,
    /// Where to.
    pub to: Sender<(usize, Update)>,
}

impl Reporter {
    async fn report(&self, update: Update) {
        // Nobody listens any more only when the program is about to end.
        let _ = self.to.send((self.index, update)).await;
    }
}

/// Drives one drain until it ends, or until `stop` (`None`).
pub async fn drive<F: Fleet, W: Workers, R: Record, C: Clock>(
    drain: &Drain<F, W, R, C>,
    patience: Patience,
    reporter: &Reporter,
    stop: &CancellationToken,
) -> Option<End> {
    let began = drain.clock.now();
    let before = match stop.run_until_cancelled(first_observation(drain, patience.connect, reporter)).await? {
        Ok(report) => Losses::of(&report),
        Err(end) => return Some(end),
    };
    let mut progress = Progress { patience, began, before, saw_rollout: false, settled_passes: 0, invalid_passes: 0 };
    loop {
        let (pause, may_hear) = match drain.reconcile().await {
            Ok(reconciliation) => {
                let pause = progress.pause(&reconciliation);
                let end = progress.learn(&reconciliation, drain.clock.now());
                reporter.report(Update::Reconciled(Box::new(reconciliation))).await;
                if let Some(end) = end {
                    return Some(end);
                }
                (pause, true)
            }
            Err(failure) => {
                reporter.report(Update::Failed(failure)).await;
                // What was heard was not acted on, and would be heard again at once.
                (RECORD_RETRY, false)
            }
        };
        let next = async {
            tokio::select! {
                () = sleep(jittered(pause)) => {}
                () = drain.workers.heard(), if may_hear => {}
            }
        };
        stop.run_until_cancelled(next).await?;
    }
}

/// Observes, without acting, until fleet and workers were both seen once. Errors: they cannot be.
async fn first_observation<F: Fleet, W: Workers, R: Record, C: Clock>(
    drain: &Drain<F, W, R, C>,
    bound: Duration,
    reporter: &Reporter,
) -> Result<Report, End> {
    let deadline = Instant::now() + bound;
    let mut pause = Duration::from_millis(500);
    loop {
        let (failure, may_pass) = match drain.observe_and_plan().await {
            Ok(reconciliation) => {
                let (failure, report) =
                    (failure(&reconciliation.observation).cloned(), reconciliation.plan.report.clone());
                reporter.report(Update::Reconciled(Box::new(reconciliation))).await;
                match failure {
                    None => return Ok(report),
                    Some(failure) => (failure.clone(), may_pass(failure.kind)),
                }
            }
            Err(failure) => (failure, false),
        };
        if !may_pass || Instant::now() + pause >= deadline {
            let tried = if may_pass { format!(" (tried for {}s)", bound.as_secs()) } else { String::new() };
            let error = UserError::new(format!("{}{tried}", failure.message));
            return Err(End { exit: Exit::CouldNotRun, error: Some(error) });
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// What could not be seen, if anything. The fleet comes first: without it nobody knows whose workers to ask for.
pub fn failure(observation: &Observation) -> Option<&Failure> {
    match (&observation.fleet, &observation.workers) {
        (Seen::Err { failure, .. }, _) | (_, Seen::Err { failure, .. }) => Some(failure),
        _ => None,
    }
}

/// Whether waiting may help; otherwise a person must fix it.
const fn may_pass(kind: FailureKind) -> bool {
    match kind {
        FailureKind::Unreachable | FailureKind::Throttled => true,
        FailureKind::Denied | FailureKind::NotFound | FailureKind::Invalid => false,
    }
}

/// Up to a tenth more or less, so that many drains do not ask all at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.9..1.1))
}

/// What was seen so far, as far as the end depends on it.
#[derive(Debug)]
struct Progress {
    patience: Patience,
    began: Timestamp,
    before: Losses,
    saw_rollout: bool,
    settled_passes: u32,
    invalid_passes: u32,
}

impl Progress {
    /// Learns from a reconciliation. Some: that was enough.
    fn learn(&mut self, reconciliation: &Reconciliation, now: Timestamp) -> Option<End> {
        let report = &reconciliation.plan.report;
        if let Some(end) = self.gone(reconciliation) {
            return Some(end);
        }
        if self.patience.gate {
            return self.learn_of_gate(reconciliation, now);
        }
        self.saw_rollout |= report.rollout.is_some() || ended_since(report, self.began).next().is_some();
        self.settled_passes = if report.settled { self.settled_passes + 1 } else { 0 };
        if let Some(end) = self.stuck(report, now) {
            return Some(end);
        }
        let at_rest =
            report.settled && (reconciliation.plan.actions.is_empty() || self.settled_passes >= SETTLED_PASSES);
        if !at_rest || self.patience.watch {
            return None;
        }
        let enough = self.saw_rollout || self.patience.grace.is_some_and(|grace| self.waited(now) >= grace);
        enough.then(|| End::well(so_far(report, self.began, self.before)))
    }

    /// All is done that can be done, and not every task is accounted for: to wait does not help, and this is no success.
    fn stuck(&self, report: &Report, now: Timestamp) -> Option<End> {
        let unaccounted = report.unaccounted.as_ref().filter(|tasks| tasks.certain && tasks.rest_settled)?;
        let enough = self.saw_rollout || self.patience.grace.is_some_and(|grace| self.waited(now) >= grace);
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

    /// Learns whether the gate is open and every task held, as far as the scheduler grants holds. What only a person can
    /// fix is not waited for.
    fn learn_of_gate(&mut self, reconciliation: &Reconciliation, now: Timestamp) -> Option<End> {
        let gate = reconciliation.plan.report.gate.as_ref()?;
        let is_invalid = gate.reason == Reason::QueuesInvalid;
        self.invalid_passes = if is_invalid { self.invalid_passes + 1 } else { 0 };
        if self.invalid_passes >= SETTLED_PASSES {
            return Some(End { exit: Exit::CouldNotRun, error: Some(UserError::new(gate.message.clone())) });
        }
        let fleet = reconciliation.observation.fleet.ok()?;
        let running = || fleet.tasks.values().filter(|task| task.life == Life::Running);
        let held = running().filter(|task| matches!(task.hold, HoldState::Until(end) if end > now)).count();
        let wanted = running().count().min(usize::try_from(fleet.desired).unwrap_or(usize::MAX));
        let done = gate.answer == Some(true) && held >= wanted;
        match &reconciliation.plan.report.unaccounted {
            None => done.then(|| End::well(Exit::Done)),
            // Who is not placed is not held.
            Some(tasks) if done && tasks.certain => {
                Some(End { exit: Exit::CouldNotRun, error: Some(UserError::new(tasks.message.clone())) })
            }
            Some(_) => None,
        }
    }

    /// How long to wait before the next reconciliation.
    fn pause(&self, reconciliation: &Reconciliation) -> Duration {
        let wake = reconciliation.plan.wake_after;
        let expectant = !self.saw_rollout && !self.patience.watch;
        let wake = if expectant { wake.min(EXPECTANT) } else { wake };
        Duration::try_from(wake).unwrap_or_default()
    }
}

/// The rollouts that ended after `began`.
pub fn ended_since(report: &Report, began: Timestamp) -> impl Iterator<Item = &worker_drain_plan::report::PastRollout> {
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
