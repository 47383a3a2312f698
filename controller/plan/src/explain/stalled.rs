//! Whether something is in the way that only a person can fix.

use jiff::SignedDuration;

use crate::{
    memory::{Memory, ObserveError},
    policy::Policy,
    report::{Reason, Verdict},
};

/// For how long what is wrong outside the specification may still be on its way: a Secret, a permission or a service is often made
/// seconds after the drain that needs it, in the same release.
const ON_ITS_WAY: SignedDuration = SignedDuration::from_mins(5);

/// Only what a person must fix. What passes when a job ends or a system comes back is not stalled. For a drain that is withdrawn
/// nothing is made any more.
pub fn stalled(ready: &Verdict, drained: &Verdict, policy: &Policy, memory: &Memory) -> Verdict {
    let lasts = |reason| policy.withdrawn || lasts(reason, memory);
    let needs_a_person =
        |verdict: &&Verdict| verdict.answer != Some(true) && is_a_persons(verdict.reason) && lasts(verdict.reason);
    match [ready, drained].into_iter().find(needs_a_person) {
        Some(verdict) => Verdict { answer: Some(true), ..verdict.clone() },
        None => Verdict {
            answer: Some(false),
            reason: Reason::NotStalled,
            message: String::from("nothing is in the way that only a person can fix"),
        },
    }
}

fn is_a_persons(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::FleetDenied
            | Reason::FleetNotFound
            | Reason::FleetInvalid
            | Reason::WorkersDenied
            | Reason::WorkersInvalid
            | Reason::QueuesInvalid
            | Reason::ActionRefused
            | Reason::Unmapped
            | Reason::Unaccounted
            | Reason::DeadlineExceeded
            | Reason::NoRoom
    )
}

/// It has lasted for long enough that nobody is about to mend it.
fn lasts(reason: Reason, memory: &Memory) -> bool {
    let error = match reason {
        Reason::FleetDenied | Reason::FleetNotFound => &memory.fleet_error,
        Reason::WorkersDenied | Reason::WorkersInvalid => &memory.workers_error,
        _ => return true,
    };
    let lasts = |error: &ObserveError| error.last.duration_since(error.since) >= ON_ITS_WAY;
    error.as_ref().is_none_or(lasts)
}
