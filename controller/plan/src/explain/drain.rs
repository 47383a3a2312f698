//! Puts the whole into words: phase, verdicts and counts, made from the words for each task.

use super::{
    clean, deleted, foreign, gate, notes,
    stalled::stalled,
    unaccounted, withdrawn,
    words::{age, short_names},
};
use crate::{
    actions::Step,
    memory::{Memory, Retry, Rollout, Why},
    observation::{FailureKind, Life, Observation, Seen},
    policy::{Mode, Policy},
    report::{
        Counts, CurrentRevision, Killed, Phase, Reason, Report, RolloutReport, TaskPhase, TaskReport, Verdict,
        Withdrawal,
    },
    rules::{Decision, capacity, give_back, hold},
    situation::{Member, Situation, count},
};

/// The report when the fleet could be seen.
pub fn report(
    situation: &Situation<'_>,
    observation: &Observation,
    mut tasks: Vec<TaskReport>,
    decision: &Decision,
) -> Report {
    tasks.sort_by_key(|task| (task.leaving.is_none(), task.phase, task.since, task.task.clone()));
    let gate = gate::verdict(situation, observation);
    let rest_settled = is_settled(situation);
    let unaccounted = unaccounted::unaccounted(situation, rest_settled);
    let uncertain = unaccounted::verdict(unaccounted.as_ref());
    let drained = unaccounted::unless_uncertain(drained(situation, &tasks, gate.as_ref()), uncertain.as_ref());
    let deleted = deleted::deleted(situation);
    let withdrawal = withdrawn::withdrawal(situation);
    let ready = deleted::verdict(deleted.as_ref())
        .unwrap_or_else(|| ready(situation, observation, &tasks, decision, uncertain, withdrawal.as_ref()));
    let stalled = stalled(&ready, &drained, situation.policy, situation.memory);
    let mut notes = notes::notes(situation, decision, unaccounted.as_ref());
    notes.extend(withdrawn::note(withdrawal.as_ref()));
    Report {
        fleet: situation.fleet.name.clone(),
        phase: phase(situation, &tasks),
        settled: rest_settled && unaccounted.is_none(),
        rollout_settled: is_rollout_settled(situation) && unaccounted.is_none(),
        unaccounted,
        deleted,
        withdrawal,
        blocked_by: blocked_by(&drained, &ready),
        ready,
        drained,
        stalled,
        clean: Some(clean::clean(situation)),
        is_whole: situation.workers_seen || situation.fleet.is_deleted,
        gate,
        current: current(situation),
        drained_to: situation.memory.drained_to.clone(),
        rollout: running(situation),
        past: situation.memory.past.clone(),
        cut: situation.memory.cut,
        killed: killed(situation.memory),
        counts: counts(situation, &tasks, decision),
        tasks,
        unmatched_workers: observation
            .workers
            .ok()
            .map(|seen| seen.unmatched_workers.iter().cloned().collect())
            .unwrap_or_default(),
        notes,
    }
}

/// Nothing leaves, and every queue that was taken from a task that stays was seen to be back.
fn is_settled(situation: &Situation<'_>) -> bool {
    is_rollout_settled(situation) && situation.live().all(|member| member.leaving.is_none())
}

/// No rollout goes on, and every queue that was taken from a task that stays was seen to be back.
fn is_rollout_settled(situation: &Situation<'_>) -> bool {
    let is_over = situation.memory.rollout.is_none() && !situation.memory.is_turning();
    let seen = situation.workers_seen || situation.fleet.is_deleted;
    seen && is_over && situation.live().all(|member| member.leaving.is_some() || is_whole(member))
}

/// Every queue that was taken from it was seen to be back.
fn is_whole(member: &Member<'_>) -> bool {
    let taken = member.memory.nodes.iter().filter(|(_, node)| !node.taken.is_empty());
    let mut answered = taken.map(|(name, _)| member.evidence.queues(name).is_some());
    give_back::missing(member).next().is_none() && answered.all(|answered| answered)
}

/// The report when the fleet could not be seen: what was known is not guessed on.
pub fn blind(policy: &Policy, observation: &Observation, memory: &Memory) -> Report {
    let withdrawal = policy.withdrawn.then(|| withdrawn::unseen(memory));
    let ready = unobservable(observation, memory, withdrawal.as_ref()).unwrap_or_else(all_seen);
    let drained = Verdict { answer: None, ..ready.clone() };
    // Of a fleet that does not exist nothing is held: a drain of it can be withdrawn.
    let nothing_left = policy.withdrawn && ready.reason == Reason::FleetNotFound;
    let phase = match policy.paused {
        _ if nothing_left => Phase::Withdrawn,
        true => Phase::Paused,
        false => Phase::Unknown,
    };
    Report {
        fleet: String::new(),
        phase,
        stalled: stalled(&ready, &drained, policy, memory),
        clean: None,
        is_whole: false,
        blocked_by: ready.reason.to_string(),
        ready,
        drained,
        gate: None,
        settled: false,
        rollout_settled: false,
        unaccounted: None,
        deleted: None,
        withdrawal,
        current: None,
        drained_to: memory.drained_to.clone(),
        rollout: memory.rollout.as_ref().map(|rollout| rollout_report(rollout, rollout.to.to_string())),
        past: memory.past.clone(),
        cut: memory.cut,
        killed: killed(memory),
        counts: Counts::default(),
        tasks: Vec::new(),
        unmatched_workers: Vec::new(),
        notes: Vec::new(),
    }
}

fn phase(situation: &Situation<'_>, tasks: &[TaskReport]) -> Phase {
    let policy = situation.policy;
    if policy.withdrawn {
        // A worker that does not answer may still lack what was taken from it.
        let restoring = !situation.live().all(is_whole);
        return if restoring || may_be_left(situation) { Phase::Withdrawing } else { Phase::Withdrawn };
    }
    match &situation.memory.rollout {
        _ if policy.paused => Phase::Paused,
        Some(rollout) if rollout.back => Phase::RollingBack,
        Some(_) => Phase::Draining,
        None if tasks.iter().any(|task| task.leaving == Some(Why::ScaleIn) && task.phase != TaskPhase::Stopped) => {
            Phase::ScalingIn
        }
        None if tasks.iter().any(|task| task.leaving == Some(Why::Replaced) && task.phase != TaskPhase::Stopped) => {
            Phase::Replacing
        }
        None => Phase::Steady,
    }
}

/// A hold of ours, or a queue that we took, may be left on a task that this answer of the scheduler leaves out, or shows as
/// it was before it ran: the answer may be from the past.
fn may_be_left(situation: &Situation<'_>) -> bool {
    situation.memory.tasks.iter().any(|(id, task)| {
        let life = situation.fleet.tasks.get(id).map(|seen| &seen.life);
        let is_unseen = !task.gone && matches!(life, None | Some(Life::Missing));
        let lives = life.is_some_and(Life::is_live);
        (task.held && (lives || is_unseen)) || (is_unseen && task.nodes.values().any(|node| !node.taken.is_empty()))
    })
}

fn killed(memory: &Memory) -> Killed {
    let tasks = memory.tasks.iter().filter(|(_, task)| task.killed).map(|(id, _)| id.clone());
    Killed { total: memory.killed, tasks: tasks.collect() }
}

/// While the fleet seems to have turned back, the revision that is believed is the one that it turned from.
fn current(situation: &Situation<'_>) -> Option<CurrentRevision> {
    let known = situation.memory.current.as_ref().filter(|_| !situation.fleet.is_deleted)?;
    Some(CurrentRevision {
        id: known.revision.clone(),
        label: situation.fleet.label(&known.revision),
        since: known.made_at,
    })
}

fn running(situation: &Situation<'_>) -> Option<RolloutReport> {
    let rollout = situation.memory.rollout.as_ref()?;
    Some(rollout_report(rollout, situation.fleet.label(&rollout.to)))
}

fn rollout_report(rollout: &Rollout, label: String) -> RolloutReport {
    RolloutReport {
        to: rollout.to.clone(),
        label,
        since: rollout.since,
        old: count(rollout.old.iter()),
        ended: count(rollout.ended.iter()),
        jobs_cut: rollout.jobs_cut,
    }
}

fn counts(situation: &Situation<'_>, tasks: &[TaskReport], decision: &Decision) -> Counts {
    let leaving = || tasks.iter().filter(|task| task.leaving.is_some());
    let is_busy = |task: &&TaskReport| task.jobs.is_some_and(|jobs| jobs.active + jobs.reserved > 0);
    Counts {
        desired: situation.fleet.desired,
        live: count(situation.live()),
        old: count(situation.live().filter(|member| member.leaving == Some(Why::Rollout))),
        consuming: situation.consuming(),
        floor: situation.floor(),
        held: count(situation.live().filter(|member| member.is_held(situation.now))),
        unheld: count(notes::unheld(situation, decision)),
        busy: count(leaving().filter(is_busy)),
        unknown: count(tasks.iter().filter(|task| matches!(task.phase, TaskPhase::Unknown | TaskPhase::Unmapped))),
        permitted: count(leaving().filter(|task| task.phase == TaskPhase::Permitted)),
        jobs: leaving().filter_map(|task| task.jobs).map(|jobs| jobs.active + jobs.reserved).sum(),
    }
}

/// What cannot be seen outside, if anything.
fn unobservable(observation: &Observation, memory: &Memory, withdrawal: Option<&Withdrawal>) -> Option<Verdict> {
    let (failure, error, reason) = match (&observation.fleet, &observation.workers) {
        (Seen::Err { failure, .. }, _) => (failure, &memory.fleet_error, fleet_reason(failure.kind)),
        (_, Seen::Err { failure, .. }) => (failure, &memory.workers_error, workers_reason(failure.kind)),
        _ => return None,
    };
    let kept = match withdrawal {
        // Of what does not exist nothing is held.
        _ if reason == Reason::FleetNotFound => String::new(),
        None => String::from("; every hold is kept"),
        Some(Withdrawal { left, .. }) => format!("; {left}"),
    };
    let lasting = error
        .as_ref()
        .map_or(String::new(), |error| format!(" (for {}{kept})", age(error.last.duration_since(error.since))));
    Some(Verdict { answer: Some(false), reason, message: format!("{}{lasting}", failure.message) })
}

fn fleet_reason(kind: FailureKind) -> Reason {
    match kind {
        FailureKind::Unreachable => Reason::FleetUnreachable,
        FailureKind::Throttled => Reason::FleetThrottled,
        FailureKind::Denied => Reason::FleetDenied,
        FailureKind::NotFound => Reason::FleetNotFound,
        FailureKind::Invalid => Reason::FleetInvalid,
    }
}

fn workers_reason(kind: FailureKind) -> Reason {
    match kind {
        FailureKind::Unreachable | FailureKind::Throttled => Reason::WorkersUnreachable,
        FailureKind::Denied => Reason::WorkersDenied,
        FailureKind::NotFound | FailureKind::Invalid => Reason::WorkersInvalid,
    }
}

fn all_seen() -> Verdict {
    let message = String::from("the fleet and its workers are reachable, and every task is mapped");
    Verdict { answer: Some(true), reason: Reason::AllSeen, message }
}

fn ready(
    situation: &Situation<'_>,
    observation: &Observation,
    tasks: &[TaskReport],
    decision: &Decision,
    uncertain: Option<Verdict>,
    withdrawal: Option<&Withdrawal>,
) -> Verdict {
    unobservable(observation, situation.memory, withdrawal)
        .or(uncertain)
        .or_else(|| retried(situation, tasks, decision))
        .or_else(|| blocking(tasks, TaskPhase::Unmapped, Reason::Unmapped))
        .unwrap_or_else(all_seen)
}

/// What is tried with a task again and again in vain, with the words of the first such task. That the scheduler refuses to
/// hold one task is nothing that is out of order: such a task is at risk.
fn retried(situation: &Situation<'_>, tasks: &[TaskReport], decision: &Decision) -> Option<Verdict> {
    let counts = |member: &Member<'_>, step: Step, retry: &Retry| {
        let goes_on = if step == Step::Hold {
            hold::is_wanted(situation, member)
        } else {
            decision.steps.contains(step, member.id)
        };
        goes_on
            && match retry.kind {
                None if step == Step::Hold => false,
                Some(_) if !retry.is_passing() => true,
                _ => retry.is_stubborn(),
            }
    };
    let mut retries = tasks.iter().filter_map(|told| {
        let member = situation.members.get(&told.task)?;
        let mut known = member.memory.retries.iter();
        let (step, retry) = known.find(|(step, retry)| counts(member, **step, retry))?;
        Some((told, *step, retry))
    });
    let (told, step, retry) = retries.next()?;
    let reason = match (retry.kind, step) {
        (None, _) => Reason::ActionRefused,
        (Some(kind), Step::Cancel | Step::GiveBack) => workers_reason(kind),
        (Some(kind), Step::Hold | Step::Permit | Step::Release) => fleet_reason(kind),
    };
    let others = short_names(retries.map(|(told, ..)| &told.task));
    let others = if others.is_empty() { others } else { format!(" (also {others})") };
    let message = format!("task {}: {}{others}", told.task.short(), told.waiting_for);
    Some(Verdict { answer: Some(false), reason, message })
}

/// A verdict about all tasks in this phase, with the words of the first of them.
fn blocking(tasks: &[TaskReport], phase: TaskPhase, reason: Reason) -> Option<Verdict> {
    let first = tasks.iter().find(|task| task.phase == phase)?;
    let others = short_names(tasks.iter().filter(|task| task.phase == phase).skip(1).map(|task| &task.task));
    let others = if others.is_empty() { others } else { format!(" (also {others})") };
    let message = format!("task {}: {}{others}", first.task.short(), first.waiting_for);
    Some(Verdict { answer: Some(false), reason, message })
}

fn drained(situation: &Situation<'_>, all: &[TaskReport], gate: Option<&Verdict>) -> Verdict {
    let Some(rollout) = &situation.memory.rollout else {
        if situation.memory.is_turning() {
            return Verdict { answer: None, reason: Reason::InProgress, message: notes::turns(situation) };
        }
        let message = format!("no task of an old revision is left{}", unfinished(situation));
        return match clean::clean(situation) {
            Verdict { answer: Some(false), reason, message: lost } => {
                Verdict { answer: Some(true), reason, message: format!("{message}, but {lost}") }
            }
            _ => Verdict { answer: Some(true), reason: Reason::NoOldTasks, message },
        };
    };
    let is_old = |task: &&TaskReport| task.leaving == Some(Why::Rollout) && task.phase != TaskPhase::Stopped;
    let old: Vec<TaskReport> = all.iter().filter(is_old).cloned().collect();
    let of = |phase, reason| blocking(&old, phase, reason);
    if let Some(verdict) = of(TaskPhase::AtRisk, Reason::AtRisk) {
        return verdict;
    }
    let policy = situation.policy;
    if policy.paused || policy.mode == Mode::Plan {
        let (reason, why) = if policy.paused {
            (Reason::Paused, "the drain is paused: holds are kept, nothing else is done")
        } else {
            (Reason::PlanOnly, "mode is Plan: nothing is done, holds included")
        };
        return Verdict { answer: Some(false), reason, message: String::from(why) };
    }
    of(TaskPhase::Unmapped, Reason::Unmapped)
        .or_else(|| of(TaskPhase::Overdue, Reason::DeadlineExceeded))
        .or_else(|| gate.filter(|_| situation.gate_shut).map(|gate| Verdict { answer: Some(false), ..gate.clone() }))
        .or_else(|| of(TaskPhase::Unknown, Reason::NodeSilent))
        .or_else(|| of(TaskPhase::Busy, Reason::JobsRunning))
        .or_else(|| others(situation, &old))
        .or_else(|| capacity(situation, &old))
        .unwrap_or_else(|| Verdict {
            answer: Some(false),
            reason: Reason::InProgress,
            message: format!("{} of {} old tasks have ended", rollout.ended.len(), rollout.old.len()),
        })
}

/// Old tasks that somebody else keeps from going.
fn others(situation: &Situation<'_>, old: &[TaskReport]) -> Option<Verdict> {
    let mut members = old.iter().filter_map(|told| Some((told, situation.members.get(&told.task)?)));
    let words = |member: &Member<'_>| foreign::feeds(situation, member).or_else(|| foreign::holds(situation, member));
    let (told, why) = members.find_map(|(told, member)| Some((told, words(member)?)))?;
    let message = format!("task {}: {why}", told.task.short());
    Some(Verdict { answer: Some(false), reason: Reason::InProgress, message })
}

/// Why a revision without others beside it is not drained to yet.
fn unfinished(situation: &Situation<'_>) -> String {
    let fleet = situation.fleet;
    if !fleet.is_rolling_out {
        return String::new();
    }
    format!(
        "; the scheduler has not brought {} into place yet, and may still take it back",
        fleet.label(&fleet.current)
    )
}

/// Old tasks that may not go yet, and nothing else goes on.
fn capacity(situation: &Situation<'_>, old: &[TaskReport]) -> Option<Verdict> {
    let under_way = |task: &TaskReport| task.phase != TaskPhase::Held;
    let waiting = old.iter().filter(|task| task.phase == TaskPhase::Held);
    let (keep, consuming) = (capacity::keep(situation), situation.consuming());
    if old.is_empty() || old.iter().any(under_way) {
        return None;
    }
    let names = short_names(waiting.map(|task| &task.task));
    let fleet = situation.fleet;
    Some(if capacity::has_no_room(situation) && keep >= fleet.desired {
        let message = format!(
            "old tasks cannot go ({names}): the floor is {keep} of {} tasks and the service's maximumPercent of {} leaves no room for a new one; lower drain.minConsuming or raise maximumPercent",
            fleet.desired, fleet.maximum_percent,
        );
        Verdict { answer: Some(false), reason: Reason::NoRoom, message }
    } else {
        let message = format!(
            "old tasks keep their queues ({names}): {consuming} are seen consuming, and {keep} must be when one goes; check whether tasks of the new revision come up",
        );
        Verdict { answer: Some(false), reason: Reason::WaitingForCapacity, message }
    })
}

fn blocked_by(drained: &Verdict, ready: &Verdict) -> String {
    let blocks = |verdict: &&Verdict| verdict.answer != Some(true) && verdict.reason != Reason::InProgress;
    [ready, drained].into_iter().find(blocks).map(|verdict| verdict.reason.to_string()).unwrap_or_default()
}
