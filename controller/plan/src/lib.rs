//! The policy of worker-drain: a pure, total function from what was seen to what is to be done.
//!
//! Nothing here reads a clock, draws a random number, waits, or does I/O; nothing depends on hash order. The crate's
//! only dependencies are std, jiff and serde, so Cargo itself proves that policy knows no AWS, no Kubernetes and no
//! Celery.
//!
//! Vocabulary: [`policy`] (what the user asked for), [`observation`] (what was seen), [`memory`] (the little that cannot
//! be seen later), [`actions`] (what is to be done), [`report`] (what a person is told).

pub mod actions;
pub mod awaited;
pub mod evidence;
pub mod invariants;
pub mod memory;
pub mod names;
pub mod observation;
pub mod policy;
pub mod report;

mod drain;
mod gate;
mod hold;
mod intent;
mod pace;
mod remember;
mod rollout;
mod scale_in;
mod situation;
mod summary;
mod tell;
mod turn;
mod undo;
mod wake;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    actions::Step,
    memory::{PhaseSince, Retry},
    policy::Mode,
    report::TaskReport,
    situation::Situation,
};
pub use crate::{
    actions::{Action, Ground, Outcome},
    awaited::Awaited,
    gate::to_count,
    intent::absorb,
    memory::Memory,
    names::{NodeName, QueueName, RevisionId, TaskId},
    observation::Observation,
    policy::Policy,
    report::Report,
    tell::age,
};

/// What one pass decided.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What is to be done, in this order.
    pub actions: Vec<Action>,
    /// The actions are for show only: nothing may be done (mode `Plan`).
    pub dry_run: bool,
    /// No action may be begun after this: what it was decided on is too old then.
    pub good_until: Timestamp,
    /// What a person is told.
    pub report: Report,
    /// What is to be remembered, written down *before* acting.
    pub memory: Memory,
    /// When to look again at the latest, if nothing wakes the loop earlier.
    pub wake_after: SignedDuration,
    /// Whose jobs' ends would make a look worth it before that.
    pub awaited: Awaited,
}

/// For how long decisions may be begun after they were made. Short enough that no decision outlives the evidence it rests
/// on, long enough for a batch of calls that wait for their turn.
const GOOD_FOR: SignedDuration = SignedDuration::from_secs(10);

/// Decides what is to be done.
///
/// Total: every observation, even one of nothing but failures, has a plan. Pure: equal arguments give equal plans. And
/// planning again on the same observation with the plan's own memory gives the same plan.
pub fn plan(policy: &Policy, observation: &Observation, memory: &Memory, now: Timestamp) -> Plan {
    let policy = &in_force(policy);
    let dry_run = policy.mode == Mode::Plan;
    let good_until = now.saturating_add(GOOD_FOR).unwrap_or(Timestamp::MAX);
    let seen = remember::remember(policy, observation, memory, now);
    let Some(fleet) = observation.fleet.ok() else {
        let report = summary::blind(policy, observation, &seen);
        let wake_after = wake::wake_blind(&seen);
        let (actions, awaited) = (Vec::new(), Awaited::new());
        return Plan { actions, dry_run, good_until, report, memory: seen, wake_after, awaited };
    };
    let situation = Situation::new(policy, fleet, observation, &seen, now);
    let actions = decide(&situation);
    let steps = tell::Steps::of(&actions);
    let live = situation.members.values().map(|member| tell::task(&situation, member, &steps));
    let ended = fleet.tasks.keys().filter_map(|id| tell::ended(&situation, id));
    let tasks: Vec<TaskReport> = live.chain(ended).collect();
    let mut memory = seen.clone();
    for task in &tasks {
        // Since when each task has been where it is.
        if let Some(known) = memory.tasks.get_mut(&task.task) {
            known.phase = Some(PhaseSince { phase: task.phase, since: task.since });
        }
    }
    for (id, known) in &mut memory.tasks {
        // What is not tried again is over. That a hold was refused is not: it waits for its next try.
        known.retries.retain(|step, _| *step == Step::Hold || steps.contains(*step, id));
    }
    if !dry_run {
        intent::intend(&mut memory, &situation, &actions);
    }
    let wake_after = wake::wake_after(&situation, !dry_run && actions.iter().any(|action| !is_vain(&seen, action)));
    let awaited = if dry_run { Awaited::new() } else { awaited::awaited(&situation) };
    let report = summary::report(&situation, observation, tasks, &steps);
    Plan { actions, dry_run, good_until, report, memory, wake_after, awaited }
}

/// To withdraw a drain is to want everything back, whatever else was wanted before: a drain that was paused, or only
/// planned, may hold tasks from the time before that.
fn in_force(policy: &Policy) -> Policy {
    if policy.withdrawn { Policy { paused: false, mode: Mode::Enforce, ..policy.clone() } } else { policy.clone() }
}

/// It was tried so often that haste does not help.
fn is_vain(memory: &Memory, action: &Action) -> bool {
    let retry = memory.tasks.get(action.task()).and_then(|task| task.retries.get(&action.step()));
    retry.is_some_and(Retry::is_stubborn)
}

/// All rules, in the order in which their actions are taken: what keeps jobs safe comes first, what lets go comes last.
fn decide(situation: &Situation<'_>) -> Vec<Action> {
    let mut actions = hold::holds(situation);
    if !situation.policy.paused && !gate::is_awaited(situation.policy) && !turn::is_turning(situation.memory) {
        actions.extend(undo::give_backs(situation, &actions));
        actions.extend(pace::cancels(situation));
        actions.extend(drain::permits(situation));
        actions.extend(hold::releases(situation));
    }
    actions
}
