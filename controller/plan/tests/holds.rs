//! When a hold is set, renewed, asked for again, cut short and handed back, and when it is left alone.

#![allow(unused_must_use, reason = "what a reconciliation decides is judged and told by the world")]

mod world;

use jiff::SignedDuration;
use worker_drain_plan::{
    Action, Plan,
    observation::Life,
    policy::{Deadline, DeadlineAction, HoldMode},
    report::{Phase, TaskPhase},
};
use world::{HOUR, SECOND, World, task_id};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// For how long this task is to be held from now on, if its hold is to be set.
fn hold(plan: &Plan, wanted: &str) -> Option<SignedDuration> {
    plan.actions.iter().find_map(|action| match action {
        Action::Hold { task, lasting } if task.as_str() == wanted => Some(*lasting),
        _ => None,
    })
}

#[test]
fn a_standing_hold_is_renewed_at_half_and_cut_back_only_if_it_is_far_too_long() {
    let world = World::of(1).settled();
    let slack = HOUR * 2 + MINUTE * 5;
    for (left, is_set) in [
        (SECOND, true),
        (HOUR - SECOND, true),
        (HOUR, false),
        (HOUR * 2, false),
        // Not because the scheduler's clock is a little ahead of ours.
        (slack, false),
        (slack + SECOND, true),
        (HOUR * 48, true),
    ] {
        let mut world = world.clone();
        world.task("t1").held_until = Some(world.now + left);
        assert_eq!(hold(&world.plan(), "t1"), is_set.then_some(HOUR * 2), "{left:#} are left");
    }
}

#[test]
fn a_refused_hold_is_asked_for_again_ever_more_seldom() {
    let mut world = World::of(1);
    world.refuse_holds = Some("DEPLOYMENT_BLOCKED".into());
    world.reconcile();
    for seconds in [15, 30, 60, 120, 240, 240, 240] {
        let plan = world.later(SECOND * (seconds - 1)).plan();
        assert_eq!(hold(&plan, "t1"), None, "not {seconds} s yet");
        let plan = world.later(SECOND).reconcile();
        assert_eq!(hold(&plan, "t1"), Some(HOUR * 2), "after {seconds} s");
    }
}

/// Seed 1004458: the report that is written after acting called the second one safe, and it was stopped with its jobs before the
/// next observation.
#[test]
fn behind_a_hold_that_was_just_refused_nobody_is_safe_before_the_next_observation() {
    let mut world = World::of(2);
    world.policy.hold.mode = HoldMode::OnRollout;
    let mut world = world.settled();
    world.job("t1").job("t1").job("t2");
    world.desired = 1;
    world.refuse_holds = Some("DEPLOYMENT_BLOCKED".into());
    world.deploy("app:2").reconcile();
    let at_risk = |plan: &Plan| {
        let tasks = plan.report.tasks.iter().filter(|told| told.phase == TaskPhase::AtRisk);
        tasks.map(|told| told.task.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(at_risk(&world.plan()), ["t1", "t2"], "after acting: {}", world.story);
    let plan = world.later(SECOND * 2).reconcile();
    assert!(hold(&plan, "t2").is_some(), "{}", world.story);
}

/// Each hold that is set for `t1`, looking at it every half hour from the moment that it will leave: after how many half
/// hours, and for how many.
fn holds_until_deadline(hours: i64) -> Vec<(i64, i64)> {
    let half = MINUTE * 30;
    let mut world = World::of(1).settled();
    let after = SignedDuration::from_hours(hours);
    world.policy.drain.deadline = Some(Deadline { after, action: DeadlineAction::PermitStop });
    world.job("t1").deploy("app:2").schedule();
    let mut holds = Vec::new();
    for number in 0..hours * 2 {
        let plan = world.reconcile();
        holds.extend(hold(&plan, "t1").map(|lasting| (number, lasting.as_secs() / half.as_secs())));
        world.later(half);
    }
    holds
}

#[test]
fn a_paused_drain_holds_beyond_a_deadline_that_permits_the_stop() {
    let mut world = World::of(1).settled();
    world.policy.drain.deadline = Some(Deadline { after: HOUR, action: DeadlineAction::PermitStop });
    world.job("t1").deploy("app:2").schedule().reconcile();
    world.policy.paused = true;
    let plan = world.later(MINUTE * 30).reconcile();
    assert_eq!(hold(&plan, "t1"), Some(SignedDuration::from_hours(48)), "its hold would have ended by the deadline");
    world.later(HOUR * 20).reconcile();
    assert!(world.task("t1").life == Life::Running && world.later(HOUR).reconcile().actions.is_empty());
}

#[test]
fn the_hold_of_a_leaving_task_is_extended_once_and_early_to_its_deadline() {
    assert_eq!(holds_until_deadline(3), [(0, 6)], "a renewal may be refused later");
    assert_eq!(holds_until_deadline(72), [(0, 96), (49, 95)], "one that is further away than holds last is renewed");
}

#[test]
fn a_hold_that_somebody_else_set_is_not_released() {
    let on_rollout: fn(&mut World) = |world| world.policy.hold.mode = HoldMode::OnRollout;
    let withdrawn: fn(&mut World) = |world| world.policy.withdrawn = true;
    for (wants_no_holds, is_last) in [(on_rollout, false), (withdrawn, true)] {
        let mut world = World::of(1);
        world.task("t1").held_until = Some(world.now + HOUR);
        let mut ours = world.clone().settled();
        wants_no_holds(&mut world);
        assert_eq!(world.reconcile().actions, []);

        // One that we set is, for as long as it is there.
        ours.task("t1").held_until = Some(ours.now + MINUTE);
        ours.reconcile();
        wants_no_holds(&mut ours);
        assert_eq!(ours.later(SECOND).plan().actions, [Action::Release { task: "t1".into() }]);
        ours.task("t1").held_until = None;
        // It ran out by itself, or one answer lacks it. Whoever looks again need not know which.
        let plan = ours.plan();
        assert_eq!(plan.actions.len(), usize::from(is_last), "{:?}", plan.actions);
        assert_eq!(plan.report.phase == Phase::Withdrawing, is_last, "{:?}", plan.report.phase);
        assert_eq!(ours.reconcile().actions.len(), usize::from(is_last));
        assert_eq!(ours.later(SECOND).reconcile().actions, [], "it was released, and that is enough");
    }
}

#[test]
fn a_hold_that_has_run_out_by_our_clock_holds_nothing() {
    let mut world = World::of(1).settled();
    world.job("t1").deploy("app:2").start_all().later(SECOND).reconcile();
    let new = world.tasks.keys().find(|name| *name != "t1").cloned().unwrap();
    world.task(&new).held_until = Some(world.now);
    let report = world.plan().report;
    let told = report.tasks.iter().find(|told| told.task == task_id(&new)).unwrap();
    assert!(told.waiting_for.contains("held as soon as an old task is released"), "{told:?}");
    assert_eq!(report.counts.unheld, 1);
}
