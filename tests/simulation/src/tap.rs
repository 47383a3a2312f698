//! What goes in and out of one pass, listened to at the doors: so that its plan can be judged even if the pass is killed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use worker_drain_plan::{
    Memory, Observation, Plan, Policy, QueueName,
    observation::{FleetView, QueueCount, Seen},
};

/// When every history begins: 2026-01-01.
const BEGINNING_MS: i64 = 1_767_225_600_000;

/// Virtual milliseconds as a time.
pub fn stamp(ms: u64) -> Timestamp {
    Timestamp::from_millisecond(BEGINNING_MS + i64::try_from(ms).unwrap_or(0)).unwrap_or(Timestamp::MAX)
}

/// What is known of the pass that an operator is in.
#[derive(Clone, Debug, Default)]
pub struct Tap {
    /// The policy that it works by.
    pub policy: Option<Policy>,
    /// The memory as it was read, and its version.
    pub before: Option<Memory>,
    /// The version of the memory that this operator read or wrote last.
    pub version: u64,
    /// What the last write of this pass wrote.
    pub written: Option<Memory>,
    /// The memory with the intents was written, or was the same as before.
    pub saved: bool,
    /// The fleet as it was seen.
    pub fleet: Option<Seen<FleetView>>,
    /// The queues of a gate as they were counted, if there is one.
    pub queues: Option<BTreeMap<QueueName, Seen<QueueCount>>>,
    /// All that was seen.
    pub observation: Option<Observation>,
    /// What was decided on that.
    pub plan: Option<Plan>,
    /// When that was, on the operator's clock.
    pub planned_at: Timestamp,
    /// When that was, in truth.
    pub planned_ms: u64,
    /// When the workers were asked, in truth.
    pub asked_ms: u64,
    /// When the look at the fleet began, in the same.
    pub looked_ms: u64,
}

impl Tap {
    /// A pass begins.
    pub fn begin(&mut self, policy: Policy) {
        *self = Self { policy: Some(policy), ..Self::default() };
    }

    /// This has been decided.
    pub fn decided(&mut self, plan: &Plan, now: Timestamp, now_ms: u64) {
        (self.planned_at, self.planned_ms) = (now, now_ms);
        self.plan = Some(plan.clone());
    }
}
