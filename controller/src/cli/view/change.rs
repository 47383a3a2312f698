//! What differs between two reports, in the order in which people want to know it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use worker_drain_plan::{
    Report, TaskId,
    observation::HoldState,
    report::{PastRollout, Phase, RolloutReport, TaskPhase, TaskReport, Verdict},
};

/// One thing that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The fleet was seen for the first time.
    Seen {
        /// How people call it.
        fleet: String,
        /// Live tasks, and how many of them are old.
        live: u32,
        /// Of an old revision.
        old: u32,
    },
    /// What goes on as a whole is another thing now.
    Phase {
        /// What it was; `None` at first sight.
        from: Option<Phase>,
        /// What it is.
        to: Phase,
    },
    /// A rollout began, or was found going on.
    Began(RolloutReport),
    /// A rollout ended.
    Ended(PastRollout),
    /// An answer to one of the questions that conditions answer: which one, and the answer.
    Verdict(&'static str, Verdict),
    /// A task is elsewhere, or was seen for the first time.
    Task {
        /// Where it was.
        from: Option<String>,
        /// Where it is.
        to: String,
        /// All of it.
        task: Box<TaskReport>,
    },
    /// Every running task is held, as far as the scheduler grants holds: a deployment may begin.
    Held {
        /// How many.
        tasks: u32,
        /// When the first of these holds ends.
        until: Timestamp,
    },
    /// Advice.
    Note(String),
    /// The memory could not be read or written.
    Error(String),
    /// It can again.
    Recovered,
}

/// What differs. Nothing differs only because time has passed.
pub fn between(before: Option<&Report>, after: &Report) -> Vec<Change> {
    let mut changes = Vec::new();
    let was_seen = before.is_some_and(|before| !before.fleet.is_empty());
    if !was_seen && !after.fleet.is_empty() {
        let counts = after.counts;
        changes.push(Change::Seen { fleet: after.fleet.clone(), live: counts.live, old: counts.old });
    }
    let from = before.map(|before| before.phase);
    if from != Some(after.phase) {
        changes.push(Change::Phase { from, to: after.phase });
    }
    rollouts(before, after, &mut changes);
    verdicts(before, after, &mut changes);
    if let Some((tasks, until)) = all_held(after).filter(|_| before.is_none_or(|before| all_held(before).is_none())) {
        changes.push(Change::Held { tasks, until });
    }
    let known = before.map(|before| &before.notes);
    let notes = after.notes.iter().filter(|note| known.is_none_or(|known| !known.contains(note)));
    changes.extend(notes.cloned().map(Change::Note));
    tasks(before, after, &mut changes);
    changes
}

/// How many tasks are held and until when the first, if that is every one that a deployment could stop.
fn all_held(report: &Report) -> Option<(u32, Timestamp)> {
    let holds = report.tasks.iter().filter_map(|task| match task.hold {
        HoldState::Until(until) => Some(until),
        HoldState::Free | HoldState::Unread => None,
    });
    let until = holds.min()?;
    let counts = report.counts;
    let is_all = report.rollout.is_none() && counts.unheld == 0 && counts.held >= counts.live.min(counts.desired);
    is_all.then_some((counts.held, until))
}

fn rollouts(before: Option<&Report>, after: &Report, changes: &mut Vec<Change>) {
    let running = before.and_then(|before| before.rollout.as_ref());
    if let Some(before) = before {
        let is_new =
            |past: &&PastRollout| !before.past.iter().any(|known| known.to == past.to && known.since == past.since);
        changes.extend(after.past.iter().filter(is_new).cloned().map(Change::Ended));
    }
    if let Some(rollout) = &after.rollout
        && running.is_none_or(|running| running.to != rollout.to)
    {
        changes.push(Change::Began(rollout.clone()));
    }
}

fn verdicts(before: Option<&Report>, after: &Report, changes: &mut Vec<Change>) {
    let pairs = [
        ("ready", before.map(|before| &before.ready), &after.ready),
        ("drained", before.map(|before| &before.drained), &after.drained),
        ("stalled", before.map(|before| &before.stalled), &after.stalled),
    ];
    let clean = after.clean.iter().map(|clean| ("clean", before.and_then(|before| before.clean.as_ref()), clean));
    let gate = after.gate.iter().map(|gate| ("gate", before.and_then(|before| before.gate.as_ref()), gate));
    for (name, before, after) in pairs.into_iter().chain(clean).chain(gate) {
        let is_news = match before {
            Some(before) => (before.answer, before.reason) != (after.answer, after.reason),
            // At first only what is not as everybody would wish, and that all is well.
            None => name == "ready" || after.answer != Some(name != "stalled"),
        };
        if is_news {
            changes.push(Change::Verdict(name, after.clone()));
        }
    }
}

fn tasks(before: Option<&Report>, after: &Report, changes: &mut Vec<Change>) {
    let tasks = before.map(|before| before.tasks.as_slice()).unwrap_or_default();
    let known: BTreeMap<&TaskId, String> = tasks.iter().map(|task| (&task.task, label(task))).collect();
    for task in &after.tasks {
        let (from, to) = (known.get(&task.task).cloned(), label(task));
        let is_news = match &from {
            Some(from) => *from != to,
            None => task.leaving.is_some() || (before.is_some() && !known.is_empty()) || is_error(task.phase),
        };
        if is_news {
            changes.push(Change::Task { from, to, task: Box::new(task.clone()) });
        }
    }
}

pub(super) const fn is_error(phase: TaskPhase) -> bool {
    matches!(phase, TaskPhase::AtRisk | TaskPhase::Unmapped | TaskPhase::Unknown | TaskPhase::Overdue)
}

/// Where a task is, with the number of jobs where that is what counts.
pub(super) fn label(task: &TaskReport) -> String {
    match (task.phase, task.jobs) {
        (TaskPhase::Busy, Some(jobs)) => format!("busy({})", jobs.active + jobs.reserved),
        (phase, _) => phase.to_string(),
    }
}
