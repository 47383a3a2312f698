//! The queue gate: as long as the queues that the user names are not seen empty, old tasks keep their queues and stay held,
//! so that the old code empties what was sent to it (docs/decisions/0011).
//!
//! What a count proves of a queue is told by [`evidence::queues`](crate::evidence::queues); a gate needs it of all its queues,
//! in two observations that are far enough apart. It says nothing of jobs that run with early acknowledgement: that workers
//! are idle is proven by the drain itself.

use std::collections::BTreeSet;

use super::view::View;
use crate::{
    evidence::queues::QueueEvidence,
    memory::{GateMemory, IdleRun, Memory},
    names::QueueName,
    observation::FleetView,
    policy::Policy,
};

/// The queues that must be counted in an observation that sees this fleet: those of a gate that is in the way and has not opened.
pub fn to_count<'a>(policy: &'a Policy, fleet: &FleetView, memory: &Memory) -> Option<&'a BTreeSet<QueueName>> {
    let gate = policy.gate()?;
    let has_old = fleet.tasks.values().any(|task| fleet.is_old(task));
    let is_back = memory.rollout.as_ref().is_some_and(|rollout| rollout.back);
    let is_wanted = gate.awaited || ((memory.rollout.is_some() || has_old) && !is_back);
    // What opened before a rollout began does not count in it; and a caller that waits wants to know of now.
    let has_opened = memory.rollout.is_some() && !gate.awaited && memory.has_opened(gate);
    (is_wanted && !has_opened).then_some(&gate.queues_empty)
}

/// Follows the gate through a rollout: it opens once, when its queues were seen empty twice, and stays open. One that is
/// awaited is open only as long as they are empty.
pub fn follow(view: &View<'_>, memory: &mut Memory) {
    let (policy, now) = (view.policy, view.now);
    let before = memory.gate.take();
    let is_rollout = memory.is_rolling_forward();
    let Some(gate) = policy.gate().filter(|gate| gate.awaited || is_rollout) else { return };
    let since = |memory: &Memory| memory.rollout.as_ref().map(|rollout| rollout.since);
    let goes_on = since(memory) == since(view.before);
    let known = before.filter(|known| goes_on && known.queues == gate.queues_empty);
    let mut known = known.unwrap_or_else(|| GateMemory {
        queues: gate.queues_empty.clone(),
        since: now,
        empty: None,
        apart: policy.drain.idle_for,
        opened: None,
    });
    if known.opened.is_none() || gate.awaited {
        let queues = QueueEvidence::of(gate, view.observation, memory, now);
        let (idle_for, settles_in) = (policy.drain.idle_for, queues.settles_in);
        known.empty = queues.span_if_empty().map(|span| IdleRun::extend(known.empty, span, queues.counters));
        known.apart = known.empty.map_or(idle_for, |run| run.lasts(idle_for, settles_in));
        let opens = known.empty.is_some_and(|run| run.proves(idle_for, settles_in));
        known.opened = opens.then(|| known.opened.unwrap_or(now));
    }
    memory.gate = Some(known);
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{
        memory::Rollout,
        observation::{Answer, Delivered, Life, Seen},
        policy::Gate,
        update::testing::{Stage, at, idle},
    };

    #[test]
    fn a_gate_opens_when_its_queues_were_seen_empty_twice() {
        let mut stage = Stage::with_task("t", Life::Running);
        stage.policy.drain.gate = Some(Gate { queues_empty: ["slow".into()].into(), awaited: false });
        let mut memory = Memory { rollout: Some(Rollout::to("new".into(), at(0))), ..Memory::default() };
        for (ready, seconds, opened) in [(1, 1, false), (0, 2, false), (0, 3, true), (5, 4, true)] {
            stage.counts("slow", ready, at(seconds));
            stage.memory = memory.clone();
            follow(&stage.view(at(seconds)), &mut memory);
            assert_eq!(memory.gate.as_ref().unwrap().opened.is_some(), opened, "after {seconds} s");
        }
    }
    #[test]
    fn a_gate_opens_when_nobody_begins_a_job_any_more_that_no_list_may_have_shown() {
        let mut stage = Stage::with_task("t", Life::Running);
        stage.policy.drain.gate = Some(Gate { queues_empty: ["slow".into()].into(), awaited: false });
        let mut memory = Memory { rollout: Some(Rollout::to("new".into(), at(0))), ..Memory::default() };
        for (begun, seconds, opened) in [(1, 0, false), (1, 4, false), (2, 6, false), (2, 8, false), (2, 12, true)] {
            let settles_in = SignedDuration::from_secs(5);
            let answer = Answer { begun: Some(begun), settles_in, ..idle(at(seconds)) };
            stage.counts("slow", 0, at(seconds));
            let Some(Seen::Ok { value, .. }) = stage.observation.queues.get_or_insert_default().get_mut(&"slow".into())
            else {
                unreachable!("it was counted")
            };
            value.delivered = Delivered::Told { consumers: 1, nodes: [("w@1".into(), answer)].into() };
            stage.memory = memory.clone();
            follow(&stage.view(at(seconds)), &mut memory);
            assert_eq!(memory.gate.as_ref().unwrap().opened.is_some(), opened, "after {seconds} s");
        }
    }
}
