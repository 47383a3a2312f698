//! The queue gate: when its queues are counted at all, and what whoever waits for it is spared.

#![allow(unused_must_use, reason = "what a pass decides is judged and told by the world")]

mod world;

use worker_drain_plan::{Action, policy::Gate};
use world::{SECOND, World};

fn awaited(world: &mut World) -> &mut bool {
    let gate: &mut Gate = world.policy.drain.gate.as_mut().expect("a gate");
    &mut gate.awaited
}

#[test]
fn queues_are_counted_only_as_long_as_somebody_waits_for_them_to_be_empty() {
    let is_counted = |world: &World| world.observe().queues.is_some();
    let mut world = World::of(2).settled();
    world.gate().queued = (7, 0);
    assert!(!is_counted(&world), "nothing is rolled out");
    world.job("t1").deploy("app:2").schedule();
    assert!(is_counted(&world), "the first look at a rollout tells of its queues already");
    world.pass();
    assert!(is_counted(&world), "they are not empty");

    let mut back = world.clone();
    back.roll_back_to(0).pass();
    back.later(SECOND * 10).pass();
    assert!(!is_counted(&back), "a rollback waits for no queue");

    world.queued = (0, 0);
    for _ in 0..3 {
        world.later(SECOND * 2).pass();
    }
    assert!(!is_counted(&world), "the gate is open, and stays so for this rollout");
    *awaited(&mut world) = true;
    assert!(is_counted(&world), "whoever waits wants to know of now");
}

#[test]
fn while_somebody_waits_for_the_gate_a_rollout_and_a_scale_in_stand_still() {
    let rollout: fn(&mut World) = |world| {
        world.deploy("app:2").schedule();
    };
    let scale_in: fn(&mut World) = |world| world.desired = 1;
    for begin in [rollout, scale_in] {
        let mut world = World::of(2).settled();
        *awaited(world.gate()) = true;
        begin(&mut world);
        for _ in 0..4 {
            let plan = world.later(SECOND * 2).pass();
            let is_hold = |action: &Action| matches!(action, Action::Hold { .. });
            assert!(plan.actions.iter().all(is_hold), "the queues are empty, and all the same: {}", world.story);
        }
        *awaited(&mut world) = false;
        let is_cancel = |action: &Action| matches!(action, Action::Cancel { .. });
        let goes_on = (0..3).any(|_| world.later(SECOND * 2).pass().actions.iter().any(is_cancel));
        assert!(goes_on, "{}", world.story);
    }
}
