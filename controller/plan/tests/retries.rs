//! What is tried and not done: a person is told of it, it is tried again, and not in haste.

#![allow(unused_must_use, reason = "what a reconciliation decides is judged and told by the world")]

mod world;

use worker_drain_plan::{
    Outcome, Plan,
    actions::Step,
    observation::{Failure, FailureKind},
    report::{Reason, TaskPhase, TaskReport},
};
use world::{SECOND, World, told};

fn failed(kind: FailureKind) -> Outcome {
    Outcome::Failed(Failure::new(kind, "Grant ecs:UpdateTaskProtection"))
}

fn of<'a>(plan: &'a Plan, task: &str) -> &'a TaskReport {
    plan.report.tasks.iter().find(|told| told.task.as_str() == task).expect("it is told of")
}

#[test]
fn a_hold_that_is_not_allowed_is_told_before_a_deployment_comes() {
    let mut world = World::of(2);
    world.set_back.insert(Step::Hold, failed(FailureKind::Denied));
    world.say("holds may not be set").reconcile();
    world.later(SECOND).reconcile();
    world.say("somebody deploys").job("t1").deploy("app:2").start_all().later(SECOND).reconcile();
    world.later(SECOND).reconcile();
    world.set_back.clear();
    world.say("the permission is granted").later(SECOND * 15).reconcile();
    world.later(SECOND).reconcile();
    told!(world);
}

#[test]
fn a_hold_that_fails_once_is_tried_again_at_once_and_is_told_if_it_goes_on() {
    let mut world = World::of(1);
    world.set_back.insert(Step::Hold, failed(FailureKind::Throttled));
    world.job("t1").deploy("app:2").start_all().reconcile();
    let plan = world.later(SECOND).reconcile();
    assert_ne!(of(&plan, "t1").phase, TaskPhase::AtRisk, "once may be an accident");
    let plan = world.later(SECOND).reconcile();
    assert_eq!(of(&plan, "t1").phase, TaskPhase::AtRisk, "{}", world.story);
    assert_eq!(plan.report.ready.reason, Reason::AllSeen);
    let tries =
        |plan: &Plan| plan.actions.iter().any(|action| action.step() == Step::Hold && action.task().as_str() == "t1");
    assert!(!tries(&plan), "it is not tried in haste");
    assert!(tries(&world.later(SECOND * 30).reconcile()));
    let plan = world.later(SECOND).plan();
    assert_eq!(plan.report.ready.reason, Reason::FleetThrottled);
    world.set_back.clear();
    world.later(SECOND * 60).reconcile();
    let plan = world.later(SECOND).plan();
    assert_eq!(plan.report.ready.reason, Reason::AllSeen);
    assert_eq!(of(&plan, "t1").hold_refused, None);
}

#[test]
fn a_hold_that_seemed_to_fail_and_took_effect_is_not_told_as_refused() {
    let mut world = World::of(1);
    world.set_back.insert(Step::Hold, failed(FailureKind::Unreachable));
    world.reconcile();
    world.later(SECOND).reconcile();
    assert!(of(&world.later(SECOND).plan(), "t1").hold_refused.is_some());
    world.task("t1").held_until = Some(world.now + SECOND * 7200);
    assert_eq!(of(&world.reconcile(), "t1").hold_refused, None);
}

#[test]
fn orders_that_a_worker_refuses_are_told_and_are_not_given_in_haste() {
    let mut world = World::of(1).settled();
    world.job("t1").deploy("app:2").schedule();
    let refused = Outcome::Refused { reason: "the worker says: no such command".into() };
    world.set_back.insert(Step::Cancel, refused);
    world.run(3);
    let plan = world.reconcile();
    assert_eq!((plan.report.ready.reason, plan.report.stalled.answer), (Reason::ActionRefused, Some(true)));
    assert!(plan.report.ready.message.contains("no such command"), "{}", plan.report.ready.message);
    assert!(plan.wake_after > SECOND, "{:#}", plan.wake_after);
    world.set_back.clear();
    world.run(1);
    let plan = world.reconcile();
    assert_eq!(plan.report.ready.reason, Reason::AllSeen);
}

#[test]
fn a_permit_that_cannot_be_given_is_told() {
    let mut world = World::of(1).settled();
    world.deploy("app:2").schedule();
    world.set_back.insert(Step::Permit, failed(FailureKind::Denied));
    world.run(5);
    let plan = world.reconcile();
    assert_eq!(plan.report.ready.reason, Reason::FleetDenied, "{}", world.story);
    assert!(of(&plan, "t1").waiting_for.contains("releasing its hold failed"), "{}", world.story);
    assert_eq!(plan.report.blocked_by, "FleetDenied");
}
