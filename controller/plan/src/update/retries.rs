//! What was tried with a task and not done, as long as it matters.

use jiff::Timestamp;

use crate::{
    actions::{Step, Steps},
    memory::Memory,
    observation::{FleetView, HoldState},
    policy::Policy,
};

/// A hold that seemed to fail took effect after all.
pub fn settle(policy: &Policy, fleet: &FleetView, now: Timestamp, memory: &mut Memory) {
    for (id, task) in &fleet.tasks {
        let Some(known) = memory.tasks.get_mut(id) else { continue };
        let is_held =
            matches!(task.hold, HoldState::Until(end) if end.duration_since(now) >= policy.hold.expires_in / 2);
        known.retries.retain(|step, retry| !(is_held && *step == Step::Hold && retry.is_passing()));
    }
}

/// What is not tried again is over. That a hold was refused is not: it waits for its next try.
pub fn keep_tried(memory: &mut Memory, steps: &Steps) {
    for (id, known) in &mut memory.tasks {
        known.retries.retain(|step, _| *step == Step::Hold || steps.contains(*step, id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        memory::Retry,
        observation::{FailureKind, Life},
        update::testing::{Stage, at},
    };

    fn retry(kind: Option<FailureKind>) -> Retry {
        Retry { reason: "refused".into(), kind, since: at(0), at: at(0), times: 1 }
    }

    #[test]
    fn a_failed_hold_that_is_seen_to_hold_is_over_and_a_refused_one_is_not() {
        for (kind, left) in [(Some(FailureKind::Unreachable), 0), (None, 1)] {
            let mut stage = Stage::with_task("t", Life::Running);
            stage.task("t").hold = HoldState::Until(at(7200));
            stage.memory.tasks.entry("t".into()).or_default().retries = [(Step::Hold, retry(kind))].into();
            settle(&stage.policy, &stage.fleet, at(0), &mut stage.memory);
            assert_eq!(stage.memory.tasks[&"t".into()].retries.len(), left, "{kind:?}");
        }
    }

    #[test]
    fn what_is_not_tried_again_is_over_unless_it_is_a_hold() {
        let mut memory = Memory::default();
        let retries = [Step::Hold, Step::Cancel].map(|step| (step, retry(None)));
        memory.tasks.entry("t".into()).or_default().retries = retries.into();
        keep_tried(&mut memory, &Steps::default());
        assert_eq!(memory.tasks[&"t".into()].retries.keys().collect::<Vec<_>>(), [&Step::Hold]);
    }
}
