//! Events: what changed between two reports, for a person who reads `kubectl describe` afterwards. Pure.
//!
//! Only transitions make events; a fleet of thousands causes one event of each kind in a reconciliation, with the first names and a count.
//! The reasons here are for people and may change; programs read the conditions.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{Debug, Write as _},
};

use worker_drain_plan::{
    Action, FOREIGN_CONSUMER, FOREIGN_HOLD, Outcome, Report, TaskId,
    actions::Ground,
    age, counted,
    report::{Phase, RolloutOutcome, TaskPhase},
};

use crate::api::{
    WorkerDrainStatus,
    status::{PastRolloutStatus, condition},
};

/// So many tasks are named in one event; the others are counted.
const MOST_NAMES: usize = 3;

/// The longest note that the API server takes.
const LONGEST_NOTE: usize = 1000;

/// An event of a drain, as Kubernetes has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainEvent {
    /// Whether it is something to worry about.
    pub warning: bool,
    /// What, in one word.
    pub reason: &'static str,
    /// Events of the same reason and subject within minutes are counted as one.
    pub subject: String,
    /// For a person.
    pub note: String,
}

impl DrainEvent {
    /// Nothing to worry about.
    pub fn normal(reason: &'static str, subject: impl Into<String>, note: impl Into<String>) -> Self {
        Self { warning: false, reason, subject: subject.into(), note: clipped(note.into()) }
    }

    /// Something to look at.
    pub fn warning(reason: &'static str, subject: impl Into<String>, note: impl Into<String>) -> Self {
        Self { warning: true, ..Self::normal(reason, subject, note) }
    }
}

/// What was reported last, as far as events follow from its changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    phase: String,
    /// By the short name of the task: where it is, and whether its hold was refused.
    tasks: BTreeMap<String, (String, bool)>,
    /// There are tasks that are not in `tasks`.
    partly: bool,
    killed: u32,
    rollout: Option<String>,
    ended: Option<(String, String)>,
    blocked: Option<String>,
    ready: Option<bool>,
    /// What somebody else did: the notes that tell of it. Each is about one task or worker and says how often.
    foreign: BTreeSet<String>,
}

impl Reported {
    /// What a status reports: of its tasks, those that it shows.
    pub fn of_status(status: &WorkerDrainStatus) -> Self {
        let ready = status.conditions.iter().find(|condition| condition.type_ == condition::READY);
        Self {
            phase: status.phase.clone().unwrap_or_default(),
            tasks: status
                .tasks
                .iter()
                .map(|task| (task.task.clone(), (task.phase.clone(), task.hold_refused.is_some())))
                .collect(),
            partly: status.tasks_omitted > 0,
            killed: status.killed,
            rollout: status.rollout.as_ref().map(|rollout| rollout.id.clone()),
            ended: status.past_rollouts.first().map(|PastRolloutStatus { id, ended_at, .. }| {
                // Statuses have whole seconds.
                (id.clone(), ended_at.0.as_second().to_string())
            }),
            blocked: status.blocked_by.clone().filter(|reason| is_blocked(reason)),
            ready: ready.map(|ready| ready.status == "True"),
            foreign: foreign_notes(&status.notes),
        }
    }

    /// What a report says.
    pub fn of_report(report: &Report) -> Self {
        Self {
            phase: word(&report.phase),
            tasks: report
                .tasks
                .iter()
                .map(|task| (task.task.short().to_owned(), (word(&task.phase), task.hold_refused.is_some())))
                .collect(),
            partly: false,
            killed: report.killed.total,
            rollout: report.rollout.as_ref().map(|rollout| rollout.to.to_string()),
            ended: report.past.first().map(|past| (past.to.to_string(), past.until.as_second().to_string())),
            blocked: Some(report.blocked_by.clone()).filter(|reason| is_blocked(reason)),
            ready: Some(report.ready.answer == Some(true)),
            foreign: foreign_notes(&report.notes),
        }
    }
}

/// Words that are events too, where a note begins with one of them.
const FOREIGN: [&str; 2] = [FOREIGN_HOLD, FOREIGN_CONSUMER];

fn foreign_notes(notes: &[String]) -> BTreeSet<String> {
    let is_foreign = |note: &&String| FOREIGN.iter().any(|word| note.starts_with(word));
    notes.iter().filter(is_foreign).cloned().collect()
}

/// Whether what a drain waits for is something other than the end of a job, and nobody asked for it.
pub fn is_blocked(reason: &str) -> bool {
    !matches!(reason, "" | "JobsRunning" | "InProgress" | "Paused" | "PlanOnly")
}

/// What happened between what was reported before and this report, which includes these outcomes.
pub fn events_between(before: &Reported, report: &Report, outcomes: &[(Action, Outcome)]) -> Vec<DrainEvent> {
    let after = Reported::of_report(report);
    let mut events = Vec::new();
    events.extend(rollout_seen(before, report, &after));
    events.extend(tasks(before, &after));
    events.extend(cut(outcomes));
    events.extend(killed(before, report));
    events.extend(foreign(before, &after));
    if after.blocked.is_some() && after.blocked != before.blocked {
        let verdict = if report.ready.answer == Some(true) { &report.drained } else { &report.ready };
        events.push(DrainEvent::warning("DrainBlocked", &report.blocked_by, &verdict.message));
    }
    if after.ready == Some(true) && before.ready == Some(false) {
        events.push(DrainEvent::normal("Ready", "Ready", &report.ready.message));
    }
    events.extend(rollout_ended(before, report, &after));
    events
}

fn rollout_seen(before: &Reported, report: &Report, after: &Reported) -> Option<DrainEvent> {
    let rollout = report.rollout.as_ref().filter(|_| after.rollout != before.rollout)?;
    let (reason, what) = match report.phase {
        Phase::RollingBack => ("RollbackSeen", "going back to"),
        _ => ("RolloutSeen", "rolling out"),
    };
    let note = format!("{what} {}: {} will be drained", rollout.label, counted(rollout.old, "old task"));
    Some(DrainEvent::normal(reason, rollout.to.to_string(), note))
}

/// What happened to tasks: for each kind of step one event that names some of them.
fn tasks(before: &Reported, after: &Reported) -> Vec<DrainEvent> {
    let mut cancelled = Vec::new();
    let mut permitted = Vec::new();
    let mut restored = Vec::new();
    let mut refused = Vec::new();
    for (task, (phase, is_refused)) in &after.tasks {
        let known = before.tasks.get(task);
        if known.is_none() && before.partly {
            // It may have been reported long ago.
            continue;
        }
        let (was, was_refused) = known.map_or(("", false), |(was, refused)| (was.as_str(), *refused));
        let takes_none = |phase: &str| [TaskPhase::Busy, TaskPhase::Idle].iter().any(|none| word(none) == phase);
        let is = |phase: &str, wanted: TaskPhase| phase == word(&wanted);
        let gone = [TaskPhase::Permitted, TaskPhase::Stopping, TaskPhase::Stopped].iter().any(|gone| is(was, *gone));
        // Silence and a deadline come and go; that a worker stopped consuming was reported before them.
        let interrupted = [TaskPhase::Unknown, TaskPhase::Overdue].iter().any(|phase| is(was, *phase));
        if takes_none(phase) && !takes_none(was) && !gone && !interrupted {
            cancelled.push(task);
        }
        if is(phase, TaskPhase::Permitted) && !gone {
            permitted.push(task);
        }
        if is(was, TaskPhase::Restoring) && is(phase, TaskPhase::Serving) {
            restored.push(task);
        }
        if *is_refused && !was_refused {
            refused.push(task);
        }
    }
    let mut out = Vec::new();
    let mut add = |names: &[&String], warning: bool, reason, what: &str| {
        if let Some(first) = names.first() {
            let note = format!("{}: {what}", listed(names));
            out.push(DrainEvent { warning, ..DrainEvent::normal(reason, first.as_str(), note) });
        }
    };
    let risk = "the scheduler refused to hold it; unless an earlier hold lasts, it may be stopped at any moment";
    add(&refused, true, "HoldRefused", risk);
    add(
        &cancelled,
        false,
        "ConsumersCancelled",
        "stopped consuming (cancel_consumer); the jobs that it has are waited for",
    );
    add(&permitted, false, "TaskPermitted", "may be stopped now");
    add(&restored, false, "UndoDone", "consumes again");
    out
}

fn cut(outcomes: &[(Action, Outcome)]) -> Option<DrainEvent> {
    let cut = outcomes.iter().filter_map(|(action, outcome)| match (action, outcome) {
        (Action::Permit { task, ground: Ground::Deadline { jobs } }, Outcome::Done) => Some((task.short(), *jobs)),
        _ => None,
    });
    let (names, jobs): (Vec<_>, Vec<_>) = cut.unzip();
    let first = names.first()?;
    let sum: u32 = jobs.iter().flatten().sum();
    let unknown = if jobs.contains(&None) { " or more" } else { "" };
    let note = format!("{}: the deadline has passed; jobs cut: {sum}{unknown}", listed(&names));
    Some(DrainEvent::warning("JobsCut", *first, note))
}

fn killed(before: &Reported, report: &Report) -> Option<DrainEvent> {
    let more = report.killed.total.checked_sub(before.killed).filter(|more| *more > 0)?;
    // Of those that are remembered nobody knows which were told before; there are more of them only for a while.
    let names: Vec<&str> = report.killed.tasks.iter().map(TaskId::short).collect();
    let subject = names.last().copied().unwrap_or("killed");
    let note = format!(
        "{}: {} drained and permitted to stop, and ended by SIGKILL (exit code 137); what was taken since may be lost. Does the container pass SIGTERM on to the worker, and is stopTimeout long enough?",
        listed(&names),
        if more == 1 { String::from("one was") } else { format!("{more} were") },
    );
    Some(DrainEvent::warning("TaskKilled", subject, note))
}

/// What somebody else did since, of each kind one event. It tells of the first such thing, and how many more there are.
fn foreign(before: &Reported, after: &Reported) -> Vec<DrainEvent> {
    let of_kind = |word: &'static str| {
        let begins = |note: &&String| note.starts_with(word);
        let news: Vec<&String> = after.foreign.difference(&before.foreign).filter(begins).collect();
        let first = news.first()?.trim_start_matches(word).trim_start_matches(": ");
        let note = match news.len() - 1 {
            0 => first.to_owned(),
            more => format!("{first} (and {more} more of this kind)"),
        };
        Some(DrainEvent::warning(word, word, note))
    };
    FOREIGN.into_iter().filter_map(of_kind).collect()
}

fn rollout_ended(before: &Reported, report: &Report, after: &Reported) -> Option<DrainEvent> {
    let past = report.past.first().filter(|_| after.ended != before.ended)?;
    let took = age(past.until.duration_since(past.since));
    let mut note = format!("{}: {} ended in {took}", past.label, counted(past.tasks, "old task"));
    let warning = match past.outcome {
        RolloutOutcome::Drained => false,
        RolloutOutcome::RolledBack => {
            note.push_str("; the deployment was rolled back");
            false
        }
        RolloutOutcome::JobsCut => {
            let _ = write!(note, "; {} cut", counted(past.jobs_cut, "job"));
            true
        }
        RolloutOutcome::EndedUnpermitted => {
            let _ = write!(note, "; {} of them without permission", past.ended_unpermitted);
            true
        }
        RolloutOutcome::Killed => {
            let _ = write!(note, "; {} of them killed after they were permitted to stop", past.killed);
            true
        }
    };
    Some(DrainEvent { warning, ..DrainEvent::normal("RolloutDrained", past.to.to_string(), note) })
}

/// The first names, and how many more there are.
pub fn listed<T: AsRef<str>>(names: &[T]) -> String {
    let shown: Vec<&str> = names.iter().take(MOST_NAMES).map(AsRef::as_ref).collect();
    let what = if names.len() == 1 { "task" } else { "tasks" };
    match names.len().saturating_sub(MOST_NAMES) {
        0 => format!("{what} {}", shown.join(", ")),
        more => format!("{what} {} and {more} more", shown.join(", ")),
    }
}

fn word(variant: &impl Debug) -> String {
    format!("{variant:?}")
}

/// Not longer than the API server takes it.
pub fn clipped(mut note: String) -> String {
    if note.len() > LONGEST_NOTE {
        let end = (0..=LONGEST_NOTE - '…'.len_utf8()).rev().find(|end| note.is_char_boundary(*end)).unwrap_or(0);
        note.truncate(end);
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests;
