//! To which revision the fleet is said to be drained, and what that waits for.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(unused_must_use, reason = "what a reconciliation decides is judged and told by the world")]

mod world;

use worker_drain_plan::{
    Plan,
    report::{Phase, RolloutOutcome},
};
use world::World;

/// A pipeline waits for this by the revision's name, so it must be said of no revision too early.
#[test]
fn a_revision_is_drained_when_no_task_of_another_is_left_and_not_before() {
    let mut world = World::of(2).settled();
    let drained = |world: &World| {
        let Plan { report, .. } = world.plan();
        let current = report.current.unwrap().label;
        let drained = report.drained_to.map(|drained| (drained.label, drained.outcome));
        assert_eq!(
            report.drained.answer == Some(true),
            drained.as_ref().is_some_and(|(label, _)| *label == current) && report.rollout.is_none(),
            "{}",
            world.story
        );
        (current, drained)
    };
    let told = |current: &str, label: &str, outcome| (current.to_owned(), Some((label.to_owned(), outcome)));
    assert_eq!(drained(&world), told("app:1", "app:1", None), "nothing was ever seen beside it");
    world.job("t1").deploy("app:2").schedule().reconcile();
    assert_eq!(drained(&world), told("app:2", "app:1", None), "in the very pass that sees the deployment");
    world.run(5);
    assert_eq!(drained(&world), told("app:2", "app:1", None), "{}", world.story);
    world.all_jobs_end().run(20);
    assert_eq!(drained(&world), told("app:2", "app:2", Some(RolloutOutcome::Drained)), "{}", world.story);

    world.job("t3").deploy("app:3").schedule().run(3);
    assert_eq!(drained(&world).1, Some(("app:2".into(), Some(RolloutOutcome::Drained))));
    world.roll_back_to(1).all_jobs_end().run(20);
    assert_eq!(drained(&world), told("app:2", "app:2", Some(RolloutOutcome::RolledBack)), "{}", world.story);

    world.say("the fourth fails, and nobody else is left").deploy("app:4").schedule();
    for task in world.tasks.keys().cloned().collect::<Vec<_>>() {
        world.stop(&task);
    }
    world.is_rolling_out = true;
    world.run(5);
    let Plan { report, .. } = world.plan();
    assert_eq!(report.drained.answer, Some(true), "{}", world.story);
    assert!(report.drained.message.contains("has not brought app:4 into place yet"), "{}", report.drained.message);
    assert_eq!(report.drained_to.map(|drained| drained.label).as_deref(), Some("app:2"), "it may still be taken back");
    world.is_rolling_out = false;
    world.run(2);
    assert_eq!(world.plan().report.drained_to.map(|drained| drained.label).as_deref(), Some("app:4"));

    world.say("a task of the first revision is still there after all").start(0);
    world.reconcile();
    assert_eq!(drained(&world), ("app:4".into(), None), "{}", world.story);
}

/// A scale-in of somebody else's is not what a pipeline that deploys waits for.
#[test]
fn a_rollout_is_settled_while_a_scale_in_goes_on() {
    let mut world = World::of(3).settled();
    world.job("t1").job("t2").job("t3").say("one task too many").desired = 2;
    world.run(3);
    let Plan { report, .. } = world.plan();
    assert_eq!((report.phase, report.settled, report.rollout_settled), (Phase::ScalingIn, false, true));
    world.deploy("app:2").schedule().run(2);
    let Plan { report, .. } = world.plan();
    assert_eq!((report.settled, report.rollout_settled), (false, false), "{}", world.story);
}
