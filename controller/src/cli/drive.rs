//! The loop of one drain: observe until ECS and the workers answer, then reconcile until nothing is left to do.
//!
//! It decides nothing about tasks; only when it has seen enough. Dropped at any moment, it leaves every hold as it is.

use std::time::Duration;

use tokio::{
    sync::mpsc::Sender,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use worker_drain_plan::{
    Report,
    observation::{Failure, FailureKind, Observation, Seen},
};

use super::{
    exit::{Exit, UserError},
    progress::{End, Losses, Patience, Progress},
};
use crate::{
    clock::Clock,
    fleet::Fleet,
    reconcile::{Drain, Reconciliation},
    record::Record,
    workers::Workers,
};

/// Between two attempts at memory that cannot be read or written.
const RECORD_RETRY: Duration = Duration::from_secs(5);

/// What happened in a drain.
#[derive(Clone, Debug)]
pub enum Update {
    /// One reconciliation is over.
    Reconciled(Box<Reconciliation>),
    /// The memory could not be read or written.
    Failed(Failure),
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
    let mut progress = Progress::new(patience, began, before);
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
