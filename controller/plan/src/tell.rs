//! Puts the situation into words: one phase, one time and one sentence for each task.

use std::{collections::BTreeSet, fmt::Write};

use jiff::{SignedDuration, Timestamp, Unit};

use crate::{
    actions::{Action, Step},
    evidence::{Intake, Mapped, Work},
    gate, hold,
    memory::Retry,
    names::{RevisionId, TaskId},
    observation::{HoldState, Life},
    policy::DeadlineAction,
    report::{TaskPhase, TaskReport},
    situation::{Member, Situation},
    undo,
};

/// What is about to be done with which task, in the same pass.
pub struct Steps<'a>(BTreeSet<(Step, &'a TaskId)>);

impl<'a> Steps<'a> {
    /// Of these actions.
    pub fn of(actions: &'a [Action]) -> Self {
        Self(actions.iter().map(|action| (action.step(), action.task())).collect())
    }

    /// This is about to be done with that task.
    pub fn contains(&self, step: Step, task: &TaskId) -> bool {
        self.0.contains(&(step, task))
    }
}

/// What a person is told of one task.
pub fn task(situation: &Situation<'_>, member: &Member<'_>, steps: &Steps<'_>) -> TaskReport {
    let phase = phase(situation, member, steps);
    let since = match member.memory.phase {
        Some(before) if before.phase == phase => before.since,
        _ => situation.now,
    };
    TaskReport {
        task: member.id.clone(),
        revision: label(situation, &member.task.revision),
        leaving: member.leaving,
        phase,
        since,
        nodes: member.evidence.nodes.keys().cloned().collect(),
        jobs: member.evidence.jobs(),
        oldest_job: member.evidence.oldest_job().cloned(),
        hold: member.task.hold,
        hold_refused: member.memory.refused().map(|refused| refused.reason.clone()),
        waiting_for: waiting_for(situation, member, phase, since, steps),
    }
}

/// What a person is told of a task that was seen to end in this look.
pub fn ended(situation: &Situation<'_>, id: &TaskId) -> Option<TaskReport> {
    let (task, memory) = (situation.fleet.tasks.get(id)?, situation.memory.tasks.get(id)?);
    let waiting_for = match &task.life {
        Life::Stopped { reason, exit_code: Some(code) } => format!("it ended with exit code {code}: {reason}"),
        Life::Stopped { reason, exit_code: None } => format!("it ended: {reason}"),
        Life::Missing => String::from("its scheduler knows it no more"),
        Life::Starting | Life::Running | Life::Stopping => return None,
    };
    let known = memory.phase.filter(|known| known.phase == TaskPhase::Stopped);
    Some(TaskReport {
        task: id.clone(),
        revision: label(situation, &task.revision),
        leaving: memory.leaving.map(|leaving| leaving.why),
        phase: TaskPhase::Stopped,
        since: known.map_or(situation.now, |known| known.since),
        nodes: memory.nodes.keys().cloned().collect(),
        jobs: None,
        oldest_job: None,
        hold: HoldState::Free,
        hold_refused: None,
        waiting_for,
    })
}

/// How people call a revision.
pub fn label(situation: &Situation<'_>, revision: &RevisionId) -> String {
    situation.fleet.revisions.get(revision).map_or_else(|| revision.to_string(), |known| known.label.clone())
}

fn phase(situation: &Situation<'_>, member: &Member<'_>, steps: &Steps<'_>) -> TaskPhase {
    match member.task.life {
        Life::Stopped { .. } | Life::Missing => TaskPhase::Stopped,
        Life::Stopping => TaskPhase::Stopping,
        Life::Starting => TaskPhase::Starting,
        Life::Running if member.leaving.is_some() => leaving(situation, member, steps),
        Life::Running => staying(situation, member),
    }
}

fn leaving(situation: &Situation<'_>, member: &Member<'_>, steps: &Steps<'_>) -> TaskPhase {
    if member.memory.permitted.is_some() {
        TaskPhase::Permitted
    } else if situation.is_at_risk(member) {
        TaskPhase::AtRisk
    } else if !situation.workers_seen {
        TaskPhase::Unknown
    } else if member.evidence.mapped != Mapped::Yes {
        TaskPhase::Unmapped
    } else if situation.is_overdue(member, DeadlineAction::Hold) {
        TaskPhase::Overdue
    } else {
        match (member.evidence.intake, member.evidence.work) {
            (Intake::Consuming, _) if steps.contains(Step::Cancel, member.id) => TaskPhase::Cancelling,
            (Intake::Consuming, _) => TaskPhase::Held,
            (Intake::Unknown, _) | (_, Work::Unknown) => TaskPhase::Unknown,
            (Intake::Cancelled, _) if undo::is_kept(situation, member) => TaskPhase::Restoring,
            (Intake::Cancelled, Work::Busy) => TaskPhase::Busy,
            (Intake::Cancelled, Work::Idle) => TaskPhase::Idle,
        }
    }
}

fn staying(situation: &Situation<'_>, member: &Member<'_>) -> TaskPhase {
    if !situation.workers_seen {
        TaskPhase::Unknown
    } else if member.evidence.mapped != Mapped::Yes {
        let found_none = matches!(member.evidence.mapped, Mapped::No(_));
        if found_none && situation.is_booting(member) { TaskPhase::Starting } else { TaskPhase::Unmapped }
    } else if undo::missing(member).next().is_some() {
        TaskPhase::Restoring
    } else if member.evidence.silent().next().is_some() {
        if situation.is_booting(member) { TaskPhase::Starting } else { TaskPhase::Unknown }
    } else {
        TaskPhase::Serving
    }
}

/// What it waits for; that nothing holds it, or that this cannot be known, whatever else is the matter; and what was tried in
/// vain.
fn waiting_for(
    situation: &Situation<'_>,
    member: &Member<'_>,
    phase: TaskPhase,
    since: Timestamp,
    steps: &Steps<'_>,
) -> String {
    let words = words(situation, member, phase, since);
    let wants_hold = member.task.life == Life::Running && hold::is_wanted(situation, member);
    let unheld = match member.task.hold {
        HoldState::Free if wants_hold && phase != TaskPhase::AtRisk => unheld(member, steps),
        HoldState::Unread if wants_hold => String::from("whether it is held could not be read"),
        _ => String::new(),
    };
    let parts = [words, unheld].into_iter().chain(set_back(situation, member, steps));
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

/// What is tried with it again and has failed more than once, or is not allowed; of its hold other words tell.
fn set_back(situation: &Situation<'_>, member: &Member<'_>, steps: &Steps<'_>) -> Option<String> {
    let mut retries = member
        .memory
        .retries
        .iter()
        .filter(|(step, retry)| **step != Step::Hold && retry.is_lasting() && steps.contains(**step, member.id));
    let (step, retry) = retries.next()?;
    let what = match step {
        Step::Hold => "hold it",
        Step::Cancel => "tell it to take no more jobs",
        Step::GiveBack => "give its queues back",
        Step::Permit | Step::Release => "release its hold",
    };
    let since = age(situation.now.duration_since(retry.since));
    Some(format!("to {what} was tried {} time(s) in vain, for {since}: {}", retry.times, retry.reason))
}

fn words(situation: &Situation<'_>, member: &Member<'_>, phase: TaskPhase, since: Timestamp) -> String {
    let ago = || age(situation.now.duration_since(since));
    match phase {
        TaskPhase::AtRisk => at_risk(situation, member),
        TaskPhase::Unmapped => unmapped(member),
        TaskPhase::Unknown if !situation.workers_seen => {
            String::from("its workers cannot be asked, so nothing is known of its jobs; no hold is released meanwhile")
        }
        TaskPhase::Unknown => format!(
            "{} does not answer for {}; silence is not idleness, so it stays held; {}",
            names(member.evidence.silent()),
            ago(),
            member.evidence.why_silent.unwrap_or(
                "see whether the worker is frozen or cut off (one with the solo pool answers between jobs only)"
            ),
        ),
        TaskPhase::Overdue => format!(
            "its deadline has passed and {}; it stays held because deadline.action is Hold",
            jobs(situation, member)
        ),
        TaskPhase::Held if situation.policy.paused => String::from("the drain is paused"),
        TaskPhase::Held if gate::is_awaited(situation.policy) => String::from(
            "it is held and keeps its queues; whoever waits for the queues of drain.gate goes on after that",
        ),
        TaskPhase::Held if situation.is_behind_gate(member) => {
            String::from("it keeps its queues until those of drain.gate are empty")
        }
        TaskPhase::Held => String::from("it keeps its queues until more tasks are seen consuming"),
        TaskPhase::Cancelling => String::from("it was told to take no more jobs; that is read back next"),
        TaskPhase::Busy => jobs(situation, member),
        TaskPhase::Idle if situation.is_behind_gate(member) => {
            String::from("it has no jobs; it stays held until the queues of drain.gate are empty")
        }
        TaskPhase::Idle => String::from("it has no jobs; it is looked at again to be sure"),
        TaskPhase::Permitted => format!("its hold was released {} ago; the scheduler stops it at its own pace", ago()),
        TaskPhase::Stopping => String::from("the scheduler is stopping it"),
        TaskPhase::Restoring => format!(
            "it gets {} back",
            names(undo::missing(member).flat_map(|(_, queues)| queues).map(|queue| &queue.name)),
        ),
        TaskPhase::Starting if member.leaving.is_some() => {
            String::from("it has not started; it is drained when it runs")
        }
        TaskPhase::Starting => String::from("its worker has not answered yet"),
        TaskPhase::Serving if member.evidence.intake == Intake::Cancelled => {
            String::from("it takes jobs from no queue, and not because of us; see its worker's own settings")
        }
        TaskPhase::Serving | TaskPhase::Stopped => String::new(),
    }
}

fn at_risk(situation: &Situation<'_>, member: &Member<'_>) -> String {
    let jobs = member.evidence.jobs().map_or(0, |jobs| jobs.active + jobs.reserved);
    match member.memory.refused() {
        Some(refused) => format!(
            "{} and may stop it at any moment with {jobs} job(s); it takes no more jobs; next try in {}",
            match refused.kind {
                None => format!("the scheduler refused its hold ({})", refused.reason),
                Some(_) => format!("the scheduler cannot be told to hold it ({})", refused.reason),
            },
            age(hold::retry_at(refused).duration_since(situation.now).max(SignedDuration::ZERO)),
        ),
        None => format!(
            "as many tasks are held as are wanted ({}), so it cannot be, and may be stopped at any moment with {jobs} job(s); it takes no more jobs; raising the desired count makes room",
            situation.fleet.desired,
        ),
    }
}

fn unmapped(member: &Member<'_>) -> String {
    let why = match &member.evidence.mapped {
        Mapped::Yes => "",
        Mapped::No(hint) => hint,
        Mapped::Ambiguous(why) => why,
    };
    format!("it cannot be told which node is its own, so it stays as it is: {why}")
}

fn unheld(member: &Member<'_>, steps: &Steps<'_>) -> String {
    match member.memory.refused() {
        Some(Retry { kind: None, reason, .. }) => format!("its hold was refused ({reason}); it is asked for again"),
        Some(Retry { reason, .. }) => format!("its hold cannot be set ({reason}); it is tried again"),
        None if steps.contains(Step::Hold, member.id) => String::from("it is about to be held"),
        None => String::from("it is held as soon as an old task is released"),
    }
}

/// Its jobs, and the one that began first.
fn jobs(situation: &Situation<'_>, member: &Member<'_>) -> String {
    let Some(counts) = member.evidence.jobs() else { return String::from("nothing is known of its jobs") };
    let mut text = format!("{} job(s) run", counts.active);
    if counts.reserved > 0 {
        let _ = write!(text, ", {} wait in it", counts.reserved);
    }
    if counts.scheduled > 0 {
        let _ = write!(text, ", {} are scheduled", counts.scheduled);
    }
    if let Some(job) = member.evidence.oldest_job() {
        let _ = write!(text, "; the oldest is {} {}", job.name, job.id);
        if let Some(start) = job.started_at {
            let _ = write!(text, ", for {}", age(situation.now.duration_since(start)));
        }
    }
    text
}

/// At most three names, then how many more.
pub fn names<T: std::fmt::Display>(items: impl Iterator<Item = T>) -> String {
    const SHOWN: usize = 3;
    let all: Vec<String> = items.map(|item| item.to_string()).collect();
    match all.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{} and {more} more", all[..SHOWN].join(", ")),
        _ => all.join(", "),
    }
}

/// Short names of tasks, at most three.
pub fn tasks<'a>(items: impl Iterator<Item = &'a TaskId>) -> String {
    names(items.map(TaskId::short))
}

/// A time span as people say it: its two largest units, such as `1h 5m`.
pub fn age(span: SignedDuration) -> String {
    let seconds = span.round(Unit::Second).unwrap_or(span).as_secs().max(0);
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m {rest}s"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}
