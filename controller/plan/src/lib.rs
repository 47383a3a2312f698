//! The policy of worker-drain: a pure, total function from what was seen to what will be done.
//!
//! Nothing here reads a clock, draws a random number, waits, or does I/O; nothing depends on hash order. The crate's
//! only dependencies are std, jiff and serde, so Cargo itself proves that policy knows no AWS, no Kubernetes and no
//! Celery.
//!
//! Vocabulary: [`policy`] (what the user asked for), [`observation`] (what was seen), [`memory`] (the little that cannot
//! be seen later), [`actions`] (what will be done), [`report`] (what a person is told).

pub mod actions;
pub mod evidence;
pub mod invariants;
pub mod memory;
pub mod names;
pub mod observation;
pub mod policy;
pub mod report;

mod explain;
mod rules;
mod situation;
mod skip;
mod update;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use crate::{
    actions::{Action, Ground, Outcome},
    explain::{
        foreign::{CONSUMER as FOREIGN_CONSUMER, HOLD as FOREIGN_HOLD},
        wake::Awaited,
        words::{age, counted},
    },
    memory::Memory,
    names::{NodeName, QueueName, RevisionId, TaskId},
    observation::Observation,
    policy::Policy,
    report::Report,
    update::{
        gate::to_count,
        intent::{absorb, absorb_remembering},
    },
};
use crate::{
    explain::{Explanation, drain, wake},
    policy::Mode,
    rules::Decision,
    situation::Situation,
    update::{Updated, deleted, intent, retries},
};

/// What one reconciliation decided.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What will be done, in this order.
    pub actions: Vec<Action>,
    /// What is to be written down beside the fleet after that: how many workers a task of each revision has, which replaces what is
    /// written there. `None`: nothing new. Nothing rests on it, so it is no [`Action`]: if it fails, that is told, and no more.
    pub remember: Option<BTreeMap<RevisionId, u32>>,
    /// All of this is for show only: nothing may be done (mode `Plan`).
    pub dry_run: bool,
    /// No action may be begun after this: what it was decided on is too old then.
    pub good_until: Timestamp,
    /// What a person is told.
    pub report: Report,
    /// What must be remembered, written down *before* acting.
    pub memory: Memory,
    /// When to observe again at the latest, if nothing wakes the loop earlier.
    pub wake_after: SignedDuration,
    /// Whose jobs' ends would make an observation worth it before that.
    pub awaited: Awaited,
}

/// For how long decisions may be begun after they were made. Short enough that no decision outlives the evidence it rests
/// on, long enough for a batch of calls that wait for their turn.
const GOOD_FOR: SignedDuration = SignedDuration::from_secs(10);

/// Decides what will be done.
///
/// Total: every observation, even one of nothing but failures, has a plan. Pure: equal arguments give equal plans. And
/// planning again on the same observation with the plan's own memory gives the same plan.
pub fn plan(policy: &Policy, observation: &Observation, memory: &Memory, now: Timestamp) -> Plan {
    let policy = &policy.in_force();
    let observation = &*deleted::as_it_was(observation, memory);
    let Updated { mut memory, evidence } = update::update(policy, observation, memory, now);
    let dry_run = policy.mode == Mode::Plan;
    let good_until = now.saturating_add(GOOD_FOR).unwrap_or(Timestamp::MAX);
    let Some(fleet) = observation.fleet.ok() else {
        let report = drain::blind(policy, observation, &memory);
        let wake_after = wake::wake_blind(&memory);
        return Plan {
            actions: Vec::new(),
            remember: None,
            dry_run,
            good_until,
            report,
            memory,
            wake_after,
            awaited: Awaited::new(),
        };
    };
    let workers = observation.workers.ok();

    let situation = Situation::new(policy, fleet, &memory, evidence, workers.is_some(), now);
    let decision = rules::decide(&situation);
    let Explanation { report, wake_after, awaited } = explain::explain(&situation, observation, &decision);

    let Decision { actions, steps, remember, .. } = decision;
    intent::note_phases(&mut memory, &report.tasks);
    retries::keep_tried(&mut memory, &steps);
    if !dry_run {
        intent::intend(&mut memory, &actions, workers, now);
    }

    Plan { actions, remember, dry_run, good_until, report, memory, wake_after, awaited }
}
