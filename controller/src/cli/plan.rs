//! `worker-drain plan`: what would be done next, and why. It observes once, changes nothing, and writes nothing.

use std::{fmt::Write, time::Duration};

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use worker_drain_plan::{
    Action, NodeName, Observation, age,
    evidence::MAX_ANSWER_LAG,
    observation::{Answer, Failure, HoldState, Job},
    report::{NodeReport, TaskReport, Unaccounted, Verdict, Worth},
};

use super::{
    connect::{ConnectArgs, Refusal},
    drive::failure,
    exit::{Exit, UserError, print_errors},
    manifest::{Manifest, ManifestArgs},
    view::{Output, task_object, verdict_object},
};
use crate::{
    clock::{Clock, SystemClock},
    fleet::{Fleet, ecs::Limiters},
    reconcile::{Drain, Reconciliation},
    record::Record,
    workers::Workers,
};

/// Show each task, its node, its evidence, and what would be done next and why; change nothing
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    manifest: ManifestArgs,

    #[command(flatten)]
    connect: ConnectArgs,

    /// How the plan is shown
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,

    /// End with exit code 1 if the drain is not ready: service or workers cannot be reached, or a task is not mapped
    #[arg(long)]
    exit_code: bool,
}

impl PlanArgs {
    /// Runs it.
    pub async fn run(&self) -> Exit {
        let manifests = match self.manifest.read() {
            Ok(manifests) => manifests,
            Err(errors) => {
                print_errors(&errors);
                return Exit::BadInput;
            }
        };
        if let Err(error) = self.connect.check(manifests.len()) {
            print_errors(&[error]);
            return Exit::BadInput;
        }
        let limiters = Limiters::default();
        let mut worst = Exit::Done;
        for (index, manifest) in manifests.iter().enumerate() {
            match Box::pin(self.preview(manifest, &limiters)).await {
                Ok((text, error)) => {
                    print(index, &text, self.output);
                    if let Some(error) = error {
                        print_errors(&[error]);
                        worst = worst.max(Exit::CouldNotRun);
                    }
                }
                Err((exit, error)) => {
                    print_errors(&[error]);
                    worst = worst.max(exit);
                }
            }
        }
        worst
    }

    async fn preview(&self, manifest: &Manifest, limiters: &Limiters) -> Result<Preview, Refusal> {
        let name = manifest.drain.full_name();
        let drain = self.connect.peek(manifest, limiters).await?;
        let observed = Box::pin(add_up(&drain)).await;
        drain.workers.close().await;
        let cannot = |message: &str| (Exit::CouldNotRun, UserError::new(format!("{name}: {message}")));
        let reconciliation = observed.map_err(|failure| cannot(&failure.message))?;
        if let Some(failure) = failure(&reconciliation.observation) {
            return Err(cannot(&failure.message));
        }
        let now = SystemClock.now();
        let report = &reconciliation.plan.report;
        let unaccounted = report.unaccounted.as_ref().map(|tasks| &tasks.message);
        let unready = Some(&report.ready).filter(|ready| self.exit_code && ready.answer != Some(true));
        let error = unaccounted.or_else(|| unready.map(|ready| &ready.message));
        let error = error.map(|message| UserError::new(format!("{name}: {message}")));
        let shown = match self.output {
            Output::Text => text(&name, &reconciliation, now),
            Output::Json => object(&name, &reconciliation, now),
        };
        Ok((shown, error))
    }
}

/// What is shown, and what makes it no success although it could be shown.
type Preview = (String, Option<UserError>);

/// Between two observations while the scheduler's count and its list differ.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Observes once; or, while what ECS counts and what it lists differ, until one of the two can be no answer from the past.
async fn add_up<F: Fleet, W: Workers, R: Record, C: Clock>(
    drain: &Drain<F, W, R, C>,
) -> Result<Reconciliation, Failure> {
    let deadline = Instant::now() + Duration::try_from(MAX_ANSWER_LAG).unwrap_or_default();
    loop {
        let seen = drain.observe_and_plan().await?;
        let may_pass = seen.plan.report.unaccounted.as_ref().is_some_and(|tasks| !tasks.certain);
        if !may_pass || Instant::now() >= deadline {
            return Ok(seen);
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn print(index: usize, text: &str, output: Output) {
    use std::io::Write as _;
    let between = if index > 0 && output == Output::Text { "\n" } else { "" };
    // A reader that has gone away has read enough.
    let _ = write!(std::io::stdout().lock(), "{between}{text}");
}

/// The plan for people.
pub fn text(name: &str, reconciliation: &Reconciliation, now: Timestamp) -> String {
    let report = &reconciliation.plan.report;
    let counts = report.counts;
    let mut text = format!("{name}: ECS service {}, {:?}\n", report.fleet, report.phase);
    let _ = writeln!(
        text,
        "  {} tasks desired, {} live, {} of an old revision; {} consuming, floor {}; {} held",
        counts.desired, counts.live, counts.old, counts.consuming, counts.floor, counts.held
    );
    if let Some(rollout) = &report.rollout {
        let ago = age(now.duration_since(rollout.since));
        let _ = writeln!(
            text,
            "  rollout of {}, seen for {ago}: {} of {} old tasks ended",
            rollout.label, rollout.ended, rollout.old
        );
    }
    for (question, verdict) in [("ready", &report.ready), ("drained", &report.drained), ("stalled", &report.stalled)] {
        let Verdict { reason, message, .. } = verdict;
        let _ = writeln!(text, "  {question}: {} {reason}: {message}", answer(verdict));
    }
    for task in &report.tasks {
        task_text(&mut text, task, reconciliation, now);
    }
    if !report.unmatched_workers.is_empty() {
        let names: Vec<&str> = report.unmatched_workers.iter().map(NodeName::as_str).collect();
        let _ = writeln!(text, "\nworkers that answered and belong to no task of this service: {}", names.join(", "));
    }
    for note in &report.notes {
        let _ = writeln!(text, "\nnote: {note}");
    }
    let last = match (reconciliation.plan.actions.len(), reconciliation.plan.dry_run) {
        (0, _) => "Nothing would be done now.",
        (_, false) => "`worker-drain run` would take these steps now. Nothing was done.",
        (_, true) => "While mode is Plan, none of this would be done. Nothing was done.",
    };
    let _ = writeln!(text, "\n{last}");
    text
}

const fn answer(verdict: &Verdict) -> &'static str {
    match verdict.answer {
        Some(true) => "yes,",
        Some(false) => "no,",
        None => "unknown,",
    }
}

fn task_text(text: &mut String, task: &TaskReport, reconciliation: &Reconciliation, now: Timestamp) {
    let TaskReport { task: id, revision, leaving, phase, since: _, nodes, hold, hold_refused, waiting_for, .. } = task;
    let going = leaving.map_or(String::from("stays"), |why| format!("leaves ({why:?})"));
    let _ = writeln!(text, "\ntask {}  {revision}  {going}  {phase}", id.short());
    let hold = match hold {
        HoldState::Until(until) => format!("held for another {}", age(until.duration_since(now))),
        HoldState::Free => "not held".into(),
        HoldState::Unread => "not known".into(),
    };
    let refused = hold_refused.as_ref().map_or(String::new(), |reason| format!("; refused: {reason}"));
    let _ = writeln!(text, "  hold: {hold}{refused}");
    for node in nodes {
        let _ = writeln!(text, "  node {}: {}", node.name, evidence(node, &reconciliation.observation, now));
    }
    if nodes.is_empty() {
        let _ = writeln!(text, "  node: none known");
    }
    if !waiting_for.is_empty() {
        let _ = writeln!(text, "  why: {waiting_for}");
    }
    for action in steps(id, reconciliation) {
        let _ = writeln!(text, "  next: {action}");
    }
}

/// Tasks with which nothing can be done.
fn unaccounted_object(unaccounted: &Unaccounted) -> Value {
    let Unaccounted { tasks, placed, counted, certain: _, rest_settled: _, message } = unaccounted;
    json!({"tasks": tasks, "placed": placed, "counted": counted, "message": message})
}

fn steps<'a>(
    task: &'a worker_drain_plan::TaskId,
    reconciliation: &'a Reconciliation,
) -> impl Iterator<Item = &'a Action> {
    reconciliation.plan.actions.iter().filter(move |action| action.task() == task)
}

/// What a node answered, and what that is worth.
fn evidence(node: &NodeReport, observation: &Observation, now: Timestamp) -> String {
    let answer = observation.workers.ok().and_then(|workers| workers.nodes.get(&node.name));
    let (Some(answer), Some(worth)) = (answer, node.worth.filter(|worth| *worth != Worth::None)) else {
        return if node.doubt.is_empty() { String::from("is asked no more") } else { node.doubt.clone() };
    };
    let Answer { queues, reserved, active, scheduled, unlisted, .. } = answer;
    let queues = match queues.as_deref() {
        None => String::from("does not say what it consumes from"),
        Some([]) => String::from("consumes from no queue"),
        Some(queues) => {
            let names: Vec<&str> = queues.iter().map(|queue| queue.name.as_str()).collect();
            format!("consumes from {}", names.join(", "))
        }
    };
    let count = |jobs: &Option<Vec<Job>>| jobs.as_ref().map_or_else(|| "?".into(), |jobs| jobs.len().to_string());
    let mut text =
        format!("{queues}; {} running, {} waiting, {} for later", count(active), count(reserved), count(scheduled));
    if *unlisted > 0 {
        let _ = write!(text, ", {unlisted} without a name");
    }
    text += match worth {
        Worth::Account => "; it accounts for every job",
        Worth::Lists => "; by Celery's lists",
        Worth::Incomplete | Worth::None => "",
    };
    if !node.doubt.is_empty() {
        let _ = write!(text, "; {}", node.doubt);
    }
    let oldest = active.iter().flatten().filter_map(|job| Some((job.started_at?, job))).min_by_key(|(at, _)| *at);
    if let Some((started_at, job)) = oldest {
        let _ = write!(text, "; oldest {} {}, for {}", job.name, job.id, age(now.duration_since(started_at)));
    }
    text
}

/// The plan for programs.
fn object(name: &str, reconciliation: &Reconciliation, now: Timestamp) -> String {
    let report = &reconciliation.plan.report;
    let tasks = report.tasks.iter().map(|task| {
        let mut object = task_object(task);
        object["next"] = json!(steps(&task.task, reconciliation).map(ToString::to_string).collect::<Vec<_>>());
        object
    });
    let mut text = json!({
        "time": now, "drain": name, "event": "plan", "fleet": report.fleet, "phase": format!("{:?}", report.phase),
        "ready": verdict_object(&report.ready), "drained": verdict_object(&report.drained),
        "stalled": verdict_object(&report.stalled),
        "counts": report.counts, "tasks": tasks.collect::<Vec<_>>(),
        "unaccounted": report.unaccounted.as_ref().map(unaccounted_object), "unmatchedWorkers": report.unmatched_workers, "notes": report.notes, "dryRun": reconciliation.plan.dry_run,
    })
    .to_string();
    text.push('\n');
    text
}
