//! Brings the memory up to date with what was seen, before anything is decided.
//!
//! All of it is idempotent: the same look remembered twice is remembered once.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::{
    actions::{Ground, Step},
    evidence::{Evidence, Intake, Work},
    gate,
    intent::count_cut,
    memory::{IdleRun, Leaving, Memory, ObserveError, Permitted, TaskMemory, Why},
    names::TaskId,
    observation::{FleetView, HoldState, Life, Mapping, Observation, Seen, Task, WorkersView},
    policy::Policy,
    rollout, scale_in,
    situation::Situation,
    turn,
};

/// Two idle looks further apart than this are no unbroken run: anything may have happened in between (we were down).
const UNBROKEN: SignedDuration = SignedDuration::from_secs(60);

/// For how long the scheduler must not know a task before it counts as ended, unless its stop was permitted: a fresh
/// task may be missing from one answer and be there in the next.
const MISSING_FOR: SignedDuration = SignedDuration::from_secs(60);

/// The memory after this look, and before anything is done.
pub fn remember(policy: &Policy, observation: &Observation, memory: &Memory, now: Timestamp) -> Memory {
    let mut memory = memory.clone();
    memory.fleet_error = trouble(memory.fleet_error.take(), &observation.fleet);
    let Some(fleet) = observation.fleet.ok() else { return memory };
    // How long something has been so is told by looks: the time that passes between a look and its decision is none.
    let observed_at = observation.fleet.at();
    let ended_before = ended_tasks(&memory);
    memory.workers_error = trouble(memory.workers_error.take(), &observation.workers);

    for (id, task) in &fleet.tasks {
        // What ended before we ever saw it is no business of ours.
        if !memory.tasks.contains_key(id) && ended(task) {
            continue;
        }
        let known = memory.tasks.entry(id.clone()).or_default();
        life(known, task, observed_at);
        held(policy, task, known, now);
    }
    for (_, task) in memory.tasks.iter_mut().filter(|(id, _)| !fleet.tasks.contains_key(id)) {
        missing(task, observed_at);
    }
    if let Some(workers) = observation.workers.ok() {
        nodes(&mut memory, workers);
    }
    turn::follow(policy, fleet, &mut memory, observed_at);
    let is_certain = !turn::is_turning(&memory);
    if is_certain {
        leaving(policy, fleet, &ended_before, &mut memory, now);
        scale_in::choose(policy, fleet, observation, &mut memory, now);
    }
    proofs(policy, fleet, observation, &mut memory, now);
    if is_certain {
        let rollout = memory.rollout.as_ref().map(|rollout| rollout.since);
        rollout::follow(fleet, &mut memory, now);
        gate::follow(policy, observation, rollout, &mut memory, now);
    }
    forget(fleet, &mut memory, observed_at);
    memory.short_since = shortage(policy, fleet, observation, &memory, now);
    memory
}

fn ended_tasks(memory: &Memory) -> BTreeSet<TaskId> {
    memory.tasks.iter().filter(|(_, task)| task.gone).map(|(id, _)| id.clone()).collect()
}

fn ended(task: &Task) -> bool {
    matches!(task.life, Life::Stopped { .. } | Life::Missing)
}

fn trouble<T>(before: Option<ObserveError>, seen: &Seen<T>) -> Option<ObserveError> {
    let Seen::Err { at, .. } = seen else { return None };
    match before {
        Some(before) if before.last == *at => Some(before),
        Some(before) => {
            Some(ObserveError { since: before.since.min(*at), last: *at, times: before.times.saturating_add(1) })
        }
        None => Some(ObserveError { since: *at, last: *at, times: 1 }),
    }
}

fn life(memory: &mut TaskMemory, task: &Task, observed_at: Timestamp) {
    match task.life {
        Life::Stopped { .. } => memory.gone = true,
        Life::Missing => missing(memory, observed_at),
        Life::Starting | Life::Running | Life::Stopping => memory.missing_since = None,
    }
}

fn missing(memory: &mut TaskMemory, observed_at: Timestamp) {
    let since = memory.missing_since.map_or(observed_at, |since| since.min(observed_at));
    memory.missing_since = Some(since);
    if memory.permitted.is_some() || observed_at.duration_since(since) >= MISSING_FOR {
        memory.gone = true;
    }
}

fn nodes(memory: &mut Memory, workers: &WorkersView) {
    for (id, mapping) in &workers.tasks {
        if let (Mapping::Nodes(nodes), Some(task)) = (mapping, memory.tasks.get_mut(id)) {
            for node in nodes {
                task.nodes.entry(node.clone()).or_default();
            }
        }
    }
}

/// A task leaves from the moment that its revision is seen to be old. One whose revision became current again (a
/// rollback) stays, and all that was proven or permitted for its leaving is void. One that had ended before that (a
/// worker that crashed, which made the rollout fail) was never drained, and is counted by no rollout.
fn leaving(policy: &Policy, fleet: &FleetView, ended_before: &BTreeSet<TaskId>, memory: &mut Memory, now: Timestamp) {
    for (id, task) in fleet.tasks.iter().filter(|(id, task)| !(ended(task) && ended_before.contains(id))) {
        let Some(memory) = memory.tasks.get_mut(id) else { continue };
        let old = fleet.is_old(task);
        let lives = matches!(task.life, Life::Starting | Life::Running);
        match memory.leaving {
            // Whoever was to leave and is ending does, whatever is wanted now; and how it came to that is not forgotten.
            Some(_) if !lives && (policy.withdrawn || !old) => {}
            _ if policy.withdrawn => stay(memory),
            Some(Leaving { why: Why::Rollout, .. }) if !old => stay(memory),
            Some(Leaving { why: Why::ScaleIn, since }) if old => {
                memory.leaving = Some(Leaving { why: Why::Rollout, since });
            }
            None if old => memory.leaving = Some(Leaving { why: Why::Rollout, since: now }),
            _ => {}
        }
    }
}

/// The task is not to leave any more.
pub fn stay(memory: &mut TaskMemory) {
    memory.leaving = None;
    memory.idle = None;
    memory.permitted = None;
    memory.permitting = None;
}

/// A hold that seemed to fail took effect after all.
fn held(policy: &Policy, task: &Task, memory: &mut TaskMemory, now: Timestamp) {
    let is_held = matches!(task.hold, HoldState::Until(end) if end.duration_since(now) >= policy.hold.expires_in / 2);
    memory.retries.retain(|step, retry| !(is_held && *step == Step::Hold && retry.is_passing()));
}

/// Idle runs grow while a leaving task is seen drained, and end as soon as it is not. A permit is void when the task is
/// seen at work again: its worker restarted or was given work by somebody else, and the scheduler has not stopped it.
fn proofs(policy: &Policy, fleet: &FleetView, observation: &Observation, memory: &mut Memory, now: Timestamp) {
    let (workers, observed_at) = (observation.workers.ok(), observation.fleet.at());
    let mut let_go = Vec::new();
    for (id, task) in &fleet.tasks {
        let Some(memory) = memory.tasks.get_mut(id) else { continue };
        let evidence = Evidence::of(id, memory, workers, policy.drain.scheduled, now);
        let at_work = evidence.intake == Intake::Consuming || evidence.work == Work::Busy;
        if at_work && task.life == Life::Running && !memory.permitted.as_ref().is_some_and(by_deadline) {
            memory.permitted = None;
        }
        match memory.permitting.as_ref().map(|permitting| took_effect(task, permitting, at_work, observed_at)) {
            Some(Effect::Seen) if memory.permitted.is_none() => {
                let_go.extend(memory.permitting.as_ref().map(|permitting| permitting.ground.clone()));
                memory.permitted = memory.permitting.take();
            }
            Some(Effect::Seen | Effect::None) => memory.permitting = None,
            Some(Effect::Unknown) | None => {}
        }
        // What was proven of a worker is not proven of the one that took its place.
        let restarted = evidence.restarted(memory);
        let run = memory.idle.filter(|_| !restarted);
        let idle = match evidence.span {
            Some(span) if memory.leaving.is_some() && evidence.is_drained() => Some(prolong(run, span)),
            _ => None,
        };
        let instances = evidence.instances();
        memory.idle = idle;
        // Drained and held by nothing: it may stop, whether we are the ones who released it or were killed meanwhile.
        let free = task.life == Life::Running && task.hold == HoldState::Free;
        if free && memory.permitted.is_none() && memory.idle.is_some_and(|run| run.proves(policy.drain.idle_for)) {
            memory.permitted = Some(Permitted { at: now, ground: Ground::Drained });
        }
        for (node, instance) in instances {
            memory.nodes.entry(node).or_default().instance = Some(instance);
        }
    }
    for ground in &let_go {
        count_cut(memory, ground);
    }
}

/// What is seen of a permit that was about to be given.
enum Effect {
    Seen,
    None,
    Unknown,
}

/// A permit is given and then written down; between the two its reply may be lost, or we may be killed.
fn took_effect(task: &Task, permitting: &Permitted, at_work: bool, observed_at: Timestamp) -> Effect {
    match (&task.life, task.hold) {
        (Life::Stopping | Life::Stopped { .. }, _) => Effect::Seen,
        // One on proof is given again if the proof is good still.
        (Life::Running, HoldState::Free) if by_deadline(permitting) => Effect::Seen,
        (Life::Running, _) if at_work && !by_deadline(permitting) => Effect::None,
        // A hold that is seen may be older than the permit.
        (Life::Running, HoldState::Until(_)) if observed_at.duration_since(permitting.at) >= turn::BELIEVED_AFTER => {
            Effect::None
        }
        (Life::Running | Life::Starting | Life::Missing, _) => Effect::Unknown,
    }
}

/// The user's deadline had passed.
pub fn by_deadline(permitted: &Permitted) -> bool {
    matches!(permitted.ground, Ground::Deadline { .. })
}

/// The run with one more look in it, or a new run if it was broken, or began by a clock that was put back since.
pub fn prolong(run: Option<IdleRun>, (asked, answered): (Timestamp, Timestamp)) -> IdleRun {
    match run.filter(|run| asked.duration_since(run.last).abs() <= UNBROKEN) {
        Some(run) if run.last >= asked => run,
        Some(run) => IdleRun { last: asked, observations: run.observations.saturating_add(1), ..run },
        None => IdleRun { first: answered, last: asked, observations: 1 },
    }
}

fn shortage(
    policy: &Policy,
    fleet: &FleetView,
    observation: &Observation,
    memory: &Memory,
    now: Timestamp,
) -> Option<Timestamp> {
    let situation = Situation::new(policy, fleet, observation, memory, now);
    if !situation.workers_seen {
        return memory.short_since;
    }
    (situation.consuming() < situation.floor()).then(|| memory.short_since.map_or(now, |since| since.min(now)))
}

/// Forgets what ended, is counted by no rollout, and is not even seen any more: for longer than an answer may be old, or one
/// from the past would make it a task that nobody knows.
fn forget(fleet: &FleetView, memory: &mut Memory, observed_at: Timestamp) {
    let Memory { rollout, tasks, .. } = memory;
    let counted = |id: &TaskId| rollout.as_ref().is_some_and(|rollout| rollout.old.contains(id));
    let missed = |task: &TaskMemory| {
        task.missing_since.is_some_and(|since| observed_at.duration_since(since) >= turn::BELIEVED_AFTER)
    };
    tasks.retain(|id, task| !task.gone || counted(id) || fleet.tasks.contains_key(id) || !missed(task));
}
