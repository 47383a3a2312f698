//! The specification, parsed once: real durations, one-of as enums. The planner never sees a raw string.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::{names::QueueName, observation::FleetView};

/// What the user asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// When tasks are held, and for how long at a time.
    pub hold: HoldPolicy,
    /// How a leaving task is drained.
    pub drain: DrainPolicy,
    /// Whether steps are taken, or only shown.
    pub mode: Mode,
    /// Holds are kept and renewed; nothing is cancelled, permitted or given back.
    pub paused: bool,
    /// The drain is being withdrawn (the resource is being deleted): queues are given back and holds are released.
    pub withdrawn: bool,
}

impl Policy {
    /// What is in force. To withdraw a drain is to want everything back, whatever else was wanted before: a drain that was
    /// paused, or only planned, may hold tasks from the time before that.
    #[must_use]
    pub fn in_force(&self) -> Self {
        if self.withdrawn { Self { paused: false, mode: Mode::Enforce, ..self.clone() } } else { self.clone() }
    }

    /// The queue gate, if one is in the way: a drain that is withdrawn has none.
    pub fn gate(&self) -> Option<&Gate> {
        self.drain.gate.as_ref().filter(|_| !self.withdrawn)
    }

    /// Somebody waits for the gate before deploying: tasks are held, and nothing else is done.
    pub fn is_gate_awaited(&self) -> bool {
        self.gate().is_some_and(|gate| gate.awaited)
    }

    /// The floor, in tasks.
    pub fn floor(&self, fleet: &FleetView) -> u32 {
        let own = MinConsuming::Percent(fleet.minimum_healthy_percent);
        self.drain.min_consuming.unwrap_or(own).of(fleet.desired)
    }
}

/// When tasks are held, and for how long at a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldPolicy {
    /// When a task is held.
    pub mode: HoldMode,
    /// How long jobs are safe if we die; holds are renewed at half of it.
    pub expires_in: SignedDuration,
}

/// When a task is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldMode {
    /// From the moment it runs, so that no deployment can race us.
    Standing,
    /// From the moment that a rollout is seen.
    OnRollout,
}

/// How a leaving task is drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainPolicy {
    /// The floor: how many tasks must be seen consuming before we cancel another consumer. `None`: the fleet's own minimum.
    pub min_consuming: Option<MinConsuming>,
    /// Idleness must be seen at least twice, this far apart.
    pub idle_for: SignedDuration,
    /// What becomes of jobs with a later start time that a worker holds.
    pub scheduled: Scheduled,
    /// How long a leaving task may take. `None`: as long as its jobs do.
    pub deadline: Option<Deadline>,
    /// Whether a scale-in is drained too.
    pub scale_in: bool,
    /// How many workers each task has. `None`: as many as were seen to answer together in a task of its revision.
    #[serde(default)]
    pub workers_per_task: Option<u32>,
    /// For how long after its start a task's workers may be silent before that is a fault. `None`: as long as is usual in this fleet.
    #[serde(default)]
    pub start_timeout: Option<SignedDuration>,
    /// What must be empty before an old task loses its queues. `None`: nothing.
    #[serde(default)]
    pub gate: Option<Gate>,
}

/// How many tasks must go on consuming.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MinConsuming {
    /// This share of the desired count, in percent.
    Percent(u32),
    /// So many tasks; never more than are desired.
    Tasks(u32),
}

impl MinConsuming {
    /// In tasks, of so many desired: a percentage is rounded up, as Amazon ECS rounds its minimum
    /// (Amazon ECS Developer Guide, "Deploy Amazon ECS services by replacing tasks").
    pub fn of(self, desired: u32) -> u32 {
        match self {
            Self::Percent(percent) => percent_of(desired, percent, true),
            Self::Tasks(tasks) => tasks.min(desired),
        }
    }
}

/// A share of a count, rounded as asked.
pub fn percent_of(count: u32, percent: u32, round_up: bool) -> u32 {
    let product = u64::from(count) * u64::from(percent);
    let share = if round_up { product.div_ceil(100) } else { product / 100 };
    u32::try_from(share).unwrap_or(u32::MAX)
}

/// The queue gate: as long as it is shut, old tasks keep their queues and stay held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// The queues that must be seen empty, twice.
    pub queues_empty: BTreeSet<QueueName>,
    /// A caller waits for it before deploying: it is followed without a rollout too, and until the caller goes on,
    /// tasks are held and nothing else is done.
    pub awaited: bool,
}

/// What becomes of jobs with a later start time (Celery: `eta`, `countdown`) that a worker holds in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scheduled {
    /// They go back to the broker when the worker ends, so they need not be waited for.
    Ignore,
    /// They count as work: the worker is idle when it holds none.
    Wait,
}

/// How long a leaving task may take, and what then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// From the moment that the task was first seen leaving.
    pub after: SignedDuration,
    /// What is done then.
    pub action: DeadlineAction,
}

/// What is done when a deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeadlineAction {
    /// Go on holding, and say so.
    Hold,
    /// Permit the stop though jobs run. They are counted and named as jobs cut.
    PermitStop,
}

/// Whether steps are taken, or only shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Steps are taken.
    Enforce,
    /// Nothing at all is done, holds included; the report shows what would be.
    Plan,
}
