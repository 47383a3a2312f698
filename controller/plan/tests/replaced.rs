//! A scheduler that replaces tasks of the current revision: who is drained for it, and what is told.

#![allow(unused_must_use, reason = "what a reconciliation decides is judged and told by the world")]

mod world;

use worker_drain_plan::{
    Plan,
    observation::Displaced,
    report::{Phase, TaskPhase, Why},
};
use world::{SECOND, World};

fn task<'a>(plan: &'a Plan, name: &str) -> (Option<Why>, TaskPhase, &'a str) {
    let found = plan.report.tasks.iter().find(|task| task.task.as_str() == name).expect("it is told of");
    (found.leaving, found.phase, &found.waiting_for)
}

/// Two tasks are wanted and two live; the floor is two.
#[test]
fn a_task_that_is_wanted_gone_takes_no_more_jobs_before_another_one_is_there() {
    let mut world = World::of(2).settled();
    world.job("t1").task("t1").displaced = Displaced::MachineLeaves;
    let plan = world.reconcile();
    assert_eq!(plan.report.phase, Phase::Replacing);
    let (why, phase, words) = task(&plan, "t1");
    assert_eq!((why, phase), (Some(Why::Replaced), TaskPhase::Cancelling));
    assert!(words.contains("its machine is being emptied") && words.contains("held or not"), "{words}");
    let plan = world.later(SECOND * 2).reconcile();
    let (_, phase, words) = task(&plan, "t1");
    assert!(phase == TaskPhase::Busy && words.contains("being emptied") && words.contains("1 job running"), "{words}");
    assert!(!plan.report.settled, "a run waits for it");
    assert!(world.node("t1").queues.is_empty(), "it takes no more jobs");
    world.all_jobs_end();
    for _ in 0..3 {
        world.later(SECOND * 2).reconcile();
    }
    assert_eq!(task(&world.reconcile(), "t1").1, TaskPhase::Permitted);

    // Its machine stays after all.
    world.task("t1").displaced = Displaced::No;
    let plan = world.later(SECOND * 2).reconcile();
    assert_eq!((plan.report.phase, task(&plan, "t1").0), (Phase::Steady, None));
    for _ in 0..3 {
        world.later(SECOND * 2).reconcile();
    }
    assert!(!world.node("t1").queues.is_empty(), "it takes jobs again");
}

#[test]
fn where_all_are_wanted_gone_somebody_goes_on_taking_jobs() {
    let mut world = World::of(2).settled();
    for name in ["t1", "t2"] {
        world.task(name).displaced = Displaced::MachineLeaves;
    }
    world.reconcile();
    world.later(SECOND * 2).reconcile();
    let takes = |world: &mut World, name: &str| !world.node(name).queues.is_empty();
    assert!(takes(&mut world, "t1") && takes(&mut world, "t2"), "the floor is kept until new ones take jobs");
    world.workers_come_up = true;
    let new = world.start(0);
    world.reconcile();
    world.later(SECOND * 2).reconcile();
    assert!(!takes(&mut world, "t1") && !takes(&mut world, "t2") && takes(&mut world, &new));
}

#[test]
fn the_newcomer_of_a_move_between_zones_keeps_its_queues() {
    let mut world = World::of(4).settled();
    world.balances_zones = true;
    for (name, zone) in [("t1", "a"), ("t2", "a"), ("t3", "a"), ("t4", "b")] {
        world.job(name).task(name).zone = Some(zone.to_owned());
    }
    world.node("t2").active.clear();
    world.reconcile();
    world.workers_come_up = true;
    let new = world.start(0);
    world.task(&new).zone = Some("b".to_owned());
    let plan = world.reconcile();
    assert_eq!((plan.report.phase, task(&plan, &new).0), (Phase::Replacing, None));
    let (why, _, words) = task(&plan, "t2");
    assert!(why == Some(Why::Replaced) && words.contains("out of zone a"), "{words}");
    for _ in 0..4 {
        world.later(SECOND * 2).reconcile();
    }
    assert_eq!(task(&world.reconcile(), "t2").1, TaskPhase::Permitted);
    assert!(!world.node(&new).queues.is_empty());
    world.schedule();
    for _ in 0..2 {
        world.later(SECOND * 2).reconcile();
    }
    let plan = world.reconcile();
    assert!(plan.report.settled && plan.report.phase == Phase::Steady, "{}", world.story);
}

#[test]
fn a_surplus_without_a_sign_is_told_and_drains_nobody() {
    let mut world = World::of(2).settled();
    world.workers_come_up = true;
    world.start(0);
    let plan = world.reconcile();
    assert!(plan.report.tasks.iter().all(|task| task.leaving.is_none()));
    assert!(plan.report.notes.iter().any(|note| note.contains("1 task more than wanted")), "{:?}", plan.report.notes);
    world.desired = 1;
    let plan = world.reconcile();
    let leaving = plan.report.tasks.iter().filter(|task| task.leaving == Some(Why::ScaleIn)).count();
    assert_eq!((leaving, plan.report.phase), (1, Phase::ScalingIn), "the fall is by one");
}
