//! What must occur in a run of many seeds. The tables are made with the enums' own variants and without a wildcard: what
//! is added to one of them cannot be left out here.

use worker_drain_plan::report::{Phase, Reason, RolloutOutcome, TaskPhase};

macro_rules! table {
    ($(#[$doc:meta])* $name:ident, $value:ident: $kind:ident => $type:ty { $($variant:ident: $what:expr),* $(,)? }) => {
        $(#[$doc])*
        pub const $name: &[$kind] = &[$($kind::$variant),*];

        /// What belongs to one of them.
        pub fn $value(one: $kind) -> $type {
            match one { $($kind::$variant => $what),* }
        }
    };
}

table! {
    /// Every reason, with the conditions that can have it.
    REASONS, conditions: Reason => &'static [&'static str] {
        AllSeen: &["Ready"],
        FleetUnreachable: &["Ready", "Drained"],
        FleetThrottled: &["Ready", "Drained"],
        FleetDenied: &["Ready", "Drained", "Stalled"],
        FleetNotFound: &["Ready", "Drained", "Stalled"],
        FleetInvalid: &["Ready", "Drained", "Stalled"],
        WorkersUnreachable: &["Ready"],
        WorkersDenied: &["Ready", "Stalled"],
        WorkersInvalid: &["Ready", "Stalled"],
        ActionRefused: &["Ready", "Stalled"],
        Unmapped: &["Ready", "Drained", "Stalled"],
        Unaccounted: &["Ready", "Drained", "Stalled"],
        AtRisk: &["Drained"],
        NoOldTasks: &["Drained"],
        NothingLost: &["Clean"],
        JobsCut: &["Clean", "Drained"],
        EndedUnpermitted: &["Clean", "Drained"],
        Killed: &["Clean", "Drained"],
        JobsRunning: &["Drained"],
        NodeSilent: &["Drained"],
        WaitingForCapacity: &["Drained"],
        InProgress: &["Drained"],
        DeadlineExceeded: &["Drained", "Stalled"],
        Paused: &["Drained"],
        PlanOnly: &["Drained"],
        NotStalled: &["Stalled"],
        NoRoom: &["Drained", "Stalled"],
        QueuesEmpty: &["Gate"],
        QueuesNotEmpty: &["Gate", "Drained"],
        QueuesUnknown: &["Gate", "Drained"],
        QueuesInvalid: &["Gate", "Drained"],
    }
}

table! {
    /// Every phase of the whole, with its name.
    PHASES, phase_name: Phase => &'static str {
        Unknown: "Unknown",
        Steady: "Steady",
        Draining: "Draining",
        RollingBack: "RollingBack",
        ScalingIn: "ScalingIn",
        Replacing: "Replacing",
        Paused: "Paused",
        Withdrawing: "Withdrawing",
        Withdrawn: "Withdrawn",
    }
}

table! {
    /// Every phase of a task, with its name.
    TASK_PHASES, task_phase_name: TaskPhase => &'static str {
        AtRisk: "AtRisk",
        Unmapped: "Unmapped",
        Unknown: "Unknown",
        Overdue: "Overdue",
        Held: "Held",
        Cancelling: "Cancelling",
        Busy: "Busy",
        Idle: "Idle",
        Permitted: "Permitted",
        Stopping: "Stopping",
        Restoring: "Restoring",
        Starting: "Starting",
        Serving: "Serving",
        Stopped: "Stopped",
    }
}

table! {
    /// Every ending of a rollout, with its name.
    ENDINGS, ending_name: RolloutOutcome => &'static str {
        Drained: "Drained",
        RolledBack: "RolledBack",
        JobsCut: "JobsCut",
        EndedUnpermitted: "EndedUnpermitted",
        Killed: "Killed",
    }
}

/// Every action with what becomes of it often enough to be demanded of the fixed seeds. (That a permit is too old to be
/// begun, or that giving back fails, occurs about once in a thousand histories.)
pub const STEPS: &[(&str, &[&str])] = &[
    ("Hold", &["Done", "Refused", "Failed", "Stale"]),
    ("Cancel", &["Done", "Failed"]),
    ("GiveBack", &["Done"]),
    ("Permit", &["Done", "Refused", "Failed"]),
    ("PermitByDeadline", &["Done"]),
    ("Release", &["Done"]),
];

/// Assertions over whole histories, each of which must have been made, and not only been excused.
pub const ASSERTIONS: &[&str] = &[
    "rules 1 to 10 of one pass",
    "no job dies by our permit",
    "no task is let go with a job in it",
    "every death was announced",
    "no hold is cut short under a job",
    "holds within the desired count",
    "consuming workers stay above the floor",
    "11: calls stay few",
    "11: calls stay inside the token bucket",
    "requests are what Celery reads",
    "others' workers are asked for no more than their counts",
    "no worker is given a queue that was not its own",
    "every job is accounted for",
    "what was taken is never forgotten",
    "7: done means seen",
    "every refused hold is told",
    "a rollout is told as it went",
    "another hand is told of only if there was one",
    "another hand at a worker's queues is told of only if there was one",
    "nothing is begun that was not written down",
    "nothing is begun on an old plan",
    "nothing is tried on an old plan",
    "a paused drain, or one in mode Plan, does nothing",
    "a withdrawn drain leaves nothing behind",
    "at rest every task is held",
    "4: what was taken is given back",
    "12: every rollout ends",
    "14: a fleet that turns back is believed later",
];
