//! Puts the situation into words: one phase, one time and one sentence for each task.

use std::fmt::Write;

use jiff::{SignedDuration, Timestamp};

use super::{
    foreign, nodes, withdrawn,
    words::{age, counted, names},
    workers,
};
use crate::{
    actions::Step,
    evidence::{Intake, Mapped, Work},
    memory::{Retry, Why},
    names::TaskId,
    observation::{Displaced, HoldState, Life},
    policy::DeadlineAction,
    report::{TaskPhase, TaskReport},
    rules::{Decision, cancel, give_back, hold},
    situation::{Member, Situation},
};

/// What a person is told of one task.
pub fn task(situation: &Situation<'_>, member: &Member<'_>, decision: &Decision) -> TaskReport {
    let phase = phase(situation, member, decision);
    let since = match member.memory.phase {
        Some(before) if before.phase == phase => before.since,
        _ => situation.now,
    };
    TaskReport {
        task: member.id.clone(),
        revision: situation.fleet.label(&member.task.revision),
        leaving: member.leaving,
        phase,
        since,
        nodes: nodes::asked(&member.evidence, situation.policy.drain.scheduled),
        jobs: member.evidence.jobs(),
        oldest_job: member.evidence.oldest_job().cloned(),
        hold: member.task.hold,
        hold_refused: member.memory.refused().map(|refused| refused.reason.clone()),
        waiting_for: waiting_for(situation, member, phase, since, decision),
    }
}

/// What a person is told of a task that was seen to end.
pub fn ended(situation: &Situation<'_>, id: &TaskId) -> Option<TaskReport> {
    let (task, memory) = (situation.fleet.tasks.get(id)?, situation.memory.tasks.get(id)?);
    let waiting_for = match &task.life {
        Life::Stopped { reason, .. } if memory.killed => format!(
            "it was drained and permitted to stop, and was killed (exit code 137, SIGKILL); what it had taken since may be lost; its container may not pass SIGTERM on to the worker (let its entrypoint exec it), its stopTimeout may be too short for the worker to end, or it had too little memory: {reason}"
        ),
        Life::Stopped { reason, exit_code: Some(code) } => format!("it ended with exit code {code}: {reason}"),
        Life::Stopped { reason, exit_code: None } => format!("it ended: {reason}"),
        Life::Missing => String::from("its scheduler no longer knows it"),
        Life::Starting | Life::Running | Life::Stopping => return None,
    };
    let known = memory.phase.filter(|known| known.phase == TaskPhase::Stopped);
    Some(TaskReport {
        task: id.clone(),
        revision: situation.fleet.label(&task.revision),
        leaving: memory.leaving.map(|leaving| leaving.why),
        phase: TaskPhase::Stopped,
        since: known.map_or(situation.now, |known| known.since),
        nodes: nodes::asked_no_more(memory),
        jobs: None,
        oldest_job: None,
        hold: HoldState::Free,
        hold_refused: None,
        waiting_for,
    })
}

fn phase(situation: &Situation<'_>, member: &Member<'_>, decision: &Decision) -> TaskPhase {
    match member.task.life {
        Life::Stopped { .. } | Life::Missing => TaskPhase::Stopped,
        Life::Stopping => TaskPhase::Stopping,
        Life::Starting => TaskPhase::Starting,
        Life::Running if member.leaving.is_some() => leaving(situation, member, decision),
        Life::Running => staying(situation, member),
    }
}

fn leaving(situation: &Situation<'_>, member: &Member<'_>, decision: &Decision) -> TaskPhase {
    if member.memory.permitted.is_some() {
        TaskPhase::Permitted
    } else if decision.holds.leave_at_risk(situation, member) {
        TaskPhase::AtRisk
    } else if !situation.workers_seen {
        TaskPhase::Unknown
    } else if member.evidence.mapped != Mapped::Yes {
        TaskPhase::Unmapped
    } else if situation.is_overdue(member, DeadlineAction::Hold) {
        TaskPhase::Overdue
    } else {
        match (member.evidence.intake, member.evidence.work) {
            (Intake::Consuming, _) if decision.steps.contains(Step::Cancel, member.id) => TaskPhase::Cancelling,
            (Intake::Consuming, _) => TaskPhase::Held,
            (Intake::Unknown, _) | (_, Work::Unknown) => TaskPhase::Unknown,
            (Intake::Cancelled, _) if give_back::is_kept(situation, &decision.holds, member) => TaskPhase::Restoring,
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
        if found_none && situation.is_starting_up(member) { TaskPhase::Starting } else { TaskPhase::Unmapped }
    } else if give_back::missing(member).next().is_some() {
        TaskPhase::Restoring
    } else if member.evidence.silent().next().is_some() {
        if situation.is_starting_up(member) { TaskPhase::Starting } else { TaskPhase::Unknown }
    } else {
        TaskPhase::Serving
    }
}

/// What it waits for; that nothing holds it, or that this cannot be known, whatever else is the matter; and what failed again and
/// again.
fn waiting_for(
    situation: &Situation<'_>,
    member: &Member<'_>,
    phase: TaskPhase,
    since: Timestamp,
    decision: &Decision,
) -> String {
    let words = words(situation, member, phase, since);
    let wants_hold = member.task.life == Life::Running && hold::is_wanted(situation, member);
    let unheld = match member.task.hold {
        HoldState::Unread if wants_hold => String::from("whether it is held could not be read"),
        _ if wants_hold && phase != TaskPhase::AtRisk && member.is_free(situation.now) => unheld(member, decision),
        _ => String::new(),
    };
    let cancelled = if phase == TaskPhase::Unknown && decision.steps.contains(Step::Cancel, member.id) {
        String::from("it is told to take no more jobs, which it heeds when it hears it")
    } else {
        String::new()
    };
    let told = [displaced(member), words, cancelled, unheld];
    let parts = told.into_iter().chain(retried(situation, member, decision));
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Why its scheduler wants it gone: no hold keeps such a task for sure.
fn displaced(member: &Member<'_>) -> String {
    match (member.task.displaced, member.leaving, &member.task.zone) {
        _ if member.task.life != Life::Running => String::new(),
        (Displaced::MachineLeaves, ..) => {
            String::from("its machine is being emptied, and it ends with it at the latest, held or not")
        }
        (Displaced::Unhealthy, ..) => String::from("its scheduler finds it unhealthy and replaces it, held or not"),
        (Displaced::Unread, Some(Why::Replaced), _) => {
            String::from("whether its scheduler still wants it gone could not be read")
        }
        (Displaced::No, Some(Why::Replaced), Some(zone)) => {
            format!("its scheduler moves a task out of zone {zone}, which has most")
        }
        (Displaced::Unread | Displaced::No, ..) => String::new(),
    }
}

/// What is tried again and has failed more than once, or is not allowed. Its hold has words of its own.
fn retried(situation: &Situation<'_>, member: &Member<'_>, decision: &Decision) -> Option<String> {
    let mut retries = member.memory.retries.iter().filter(|(step, retry)| {
        **step != Step::Hold && retry.is_lasting() && decision.steps.contains(**step, member.id)
    });
    let (step, retry) = retries.next()?;
    let what = match step {
        Step::Hold => "holding it",
        Step::Cancel => "cancelling its consumers",
        Step::GiveBack => "giving its queues back",
        Step::Permit | Step::Release => "releasing its hold",
    };
    let since = age(situation.now.duration_since(retry.since));
    Some(format!("{what} failed {} in {since}: {}", counted(retry.times, "time"), retry.reason))
}

fn words(situation: &Situation<'_>, member: &Member<'_>, phase: TaskPhase, since: Timestamp) -> String {
    let ago = || age(situation.now.duration_since(since));
    match phase {
        TaskPhase::AtRisk => at_risk(situation, member),
        TaskPhase::Unmapped => unmapped(situation, member),
        TaskPhase::Unknown if situation.policy.withdrawn => withdrawn::unknown(situation, member),
        TaskPhase::Unknown if !situation.workers_seen => {
            String::from("its workers cannot be asked, so nothing is known of its jobs; no hold is released meanwhile")
        }
        TaskPhase::Unknown if member.evidence.unseen().is_some() || member.evidence.silent().next().is_none() => {
            may_hold_unseen(situation, member)
        }
        TaskPhase::Unknown => silent(situation, member, &ago()),
        TaskPhase::Overdue => format!(
            "its deadline has passed and {}; it stays held because deadline.action is Hold",
            jobs(situation, member)
        ),
        TaskPhase::Held if situation.policy.paused => String::from("the drain is paused"),
        TaskPhase::Held if situation.policy.is_gate_awaited() => {
            String::from("it is held and keeps its queues; what waits for the queues of drain.gate goes on after that")
        }
        TaskPhase::Held if situation.is_behind_gate(member) => {
            String::from("it keeps its queues until those of drain.gate are empty")
        }
        TaskPhase::Held if !cancel::last_consumed(situation, &[member]).is_empty() => format!(
            "it is the last that takes jobs from {}, which the broker would delete with the jobs in it (auto_delete): let another \
             worker take jobs from it, or declare it without auto_delete",
            names(cancel::last_consumed(situation, &[member]).into_iter()),
        ),
        TaskPhase::Held if member.is_left_for_now(situation.now) => {
            foreign::feeds(situation, member).unwrap_or_default()
        }
        TaskPhase::Held => String::from("it keeps its queues until more tasks are seen consuming"),
        TaskPhase::Cancelling => String::from("it was told to stop consuming; that is read back next"),
        TaskPhase::Busy => jobs(situation, member),
        TaskPhase::Idle if situation.is_behind_gate(member) => {
            String::from("it has no jobs; it stays held until the queues of drain.gate are empty")
        }
        TaskPhase::Idle => match member.evidence.settles_in() {
            settles_in if settles_in > situation.policy.drain.idle_for => format!(
                "it shows no jobs; it may hold some that are rate-limited, of which the next would begin within {}: it is held until then",
                age(settles_in),
            ),
            _ => String::from("it has no jobs; it is checked again to be sure"),
        },
        TaskPhase::Permitted if foreign::holds(situation, member).is_some() => {
            foreign::holds(situation, member).unwrap_or_default()
        }
        TaskPhase::Permitted if !member.memory.held => {
            format!("nothing held it, and its stop was permitted {} ago; the scheduler stops it at its own pace", ago())
        }
        TaskPhase::Permitted => format!("its hold was released {} ago; the scheduler stops it at its own pace", ago()),
        TaskPhase::Stopping => String::from("the scheduler is stopping it"),
        TaskPhase::Restoring => format!(
            "it gets {} back",
            names(give_back::missing(member).flat_map(|(_, queues)| queues).map(|queue| &queue.name)),
        ),
        TaskPhase::Starting if member.leaving.is_some() => {
            String::from("it has not started; it is drained when it runs")
        }
        TaskPhase::Starting => String::from("its worker has not answered yet"),
        TaskPhase::Serving if member.evidence.intake == Intake::Cancelled => {
            String::from("it consumes from no queue, and not because of worker-drain; check its worker's own settings")
        }
        TaskPhase::Serving | TaskPhase::Stopped => String::new(),
    }
}

/// Who is silent, and why as far as that is known.
fn silent(situation: &Situation<'_>, member: &Member<'_>, since: &str) -> String {
    let stays = if member.is_held(situation.now) { ", so it stays held" } else { "" };
    let is_working = member.quiet().any(|(_, node)| node.between_jobs);
    let known = || member.evidence.silences.values().next().copied();
    let why = if is_working {
        "a worker of its pool answers between jobs only, so it runs one, most likely"
    } else {
        known().unwrap_or("check whether the worker is frozen or cut off")
    };
    format!("{} does not answer for {since}; silence is not idleness{stays}; {why}", names(member.evidence.silent()))
}

fn may_hold_unseen(situation: &Situation<'_>, member: &Member<'_>) -> String {
    if let Some((node, unseen)) = member.evidence.unseen() {
        return format!("{node} tells of no job, and may hold some: {unseen}; it stays held");
    }
    if workers::may_be_alike(situation, member) {
        return workers::alike(member, "it stays held");
    }
    let (missing, all) = (member.evidence.unknown_workers, member.evidence.expected_workers());
    format!(
        "{missing} of its {all} workers {} silent and may run jobs: as many are expected because {}; it stays held \
         (spec.workers.celery.workersPerTask says how many a task has)",
        if missing == 1 { "is" } else { "are" },
        if situation.policy.drain.workers_per_task.is_some() {
            String::from("the specification says so")
        } else {
            format!("a task of {} was seen with them", situation.fleet.label(&member.task.revision))
        }
    )
}

fn at_risk(situation: &Situation<'_>, member: &Member<'_>) -> String {
    let jobs = counted(member.evidence.load(), "job");
    match member.memory.refused() {
        Some(refused) => format!(
            "{} and may stop it at any moment with {jobs}; its consumers are cancelled; next try in {}",
            match refused.kind {
                None => format!("the scheduler refused its hold ({})", refused.reason),
                Some(_) => format!("the scheduler cannot be asked to hold it ({})", refused.reason),
            },
            age(refused.next_try().duration_since(situation.now).max(SignedDuration::ZERO)),
        ),
        None => format!(
            "as many tasks are held as are desired ({}), so it cannot be held and may be stopped at any moment with {jobs}; its consumers are cancelled; raising the desired count makes room",
            situation.fleet.desired,
        ),
    }
}

fn unmapped(situation: &Situation<'_>, member: &Member<'_>) -> String {
    let why = match &member.evidence.mapped {
        Mapped::Yes => "",
        Mapped::No(hint) => hint,
        Mapped::Ambiguous(why) => why,
    };
    let starts = match member.evidence.mapped {
        Mapped::No(_) if !member.memory.has_worker() => format!(
            "; if its worker takes longer than {} to start, set spec.workers.startTimeout",
            age(situation.start_timeout())
        ),
        _ => String::new(),
    };
    format!("its node cannot be determined, so it stays as it is: {why}{starts}")
}

fn unheld(member: &Member<'_>, decision: &Decision) -> String {
    match member.memory.refused() {
        Some(Retry { kind: None, reason, .. }) => format!("its hold was refused ({reason}); it is asked for again"),
        Some(Retry { reason, .. }) => format!("its hold cannot be set ({reason}); it is tried again"),
        None if decision.steps.contains(Step::Hold, member.id) => String::from("it is about to be held"),
        None => String::from("it is held as soon as an old task is released"),
    }
}

/// Its jobs, and the one that began first.
fn jobs(situation: &Situation<'_>, member: &Member<'_>) -> String {
    let Some(counts) = member.evidence.jobs() else { return String::from("nothing is known of its jobs") };
    let mut text = format!("{} running", counted(counts.active, "job"));
    if counts.reserved > 0 {
        let _ = write!(text, ", {} reserved", counts.reserved);
    }
    if counts.scheduled > 0 {
        let _ = write!(text, ", {} scheduled", counts.scheduled);
    }
    if let Some(job) = member.evidence.oldest_job() {
        let _ = write!(text, "; the oldest is {} {}", job.name, job.id);
        if let Some(start) = job.started_at {
            let _ = write!(text, ", for {}", age(situation.now.duration_since(start)));
        }
    }
    text
}
