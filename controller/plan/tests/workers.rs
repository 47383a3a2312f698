//! How many workers a task has: where that is known from, and what follows where fewer answer.

#![allow(unused_must_use, reason = "what a reconciliation decides is judged and told by the world")]

mod world;

use worker_drain_plan::{
    Action, Outcome, RevisionId,
    observation::{Failure, FailureKind, Remembered},
    policy::Mode,
    report::TaskPhase,
};
use world::{HOUR, SECOND, World};

/// One task of an old revision whose one known worker is idle, and one of the new revision; both were seen.
fn rolling(change: impl FnOnce(&mut World)) -> World {
    let mut world = World::of(1);
    change(&mut world);
    let mut world = world.settled();
    world.deploy("app:2").schedule().reconcile();
    world
}

fn is_permitted(world: &mut World) -> bool {
    world.run(6);
    world.story.contains("permit task t1 to stop")
}

fn waits_for(world: &World, task: &str) -> (TaskPhase, String) {
    let report = world.plan().report;
    let told = report.tasks.into_iter().find(|told| told.task.as_str() == task).expect("it is told of");
    (told.phase, told.waiting_for)
}

fn says(numbers: &[(&str, u32)]) -> Remembered {
    let numbers = numbers.iter().map(|(revision, number)| (RevisionId::from(*revision), *number));
    Remembered { workers_per_task: numbers.collect(), ..Remembered::default() }
}

/// Adds a second worker to a task.
fn second_worker(world: &mut World, task: &str) {
    let first = world.node(task).clone();
    world.task(task).nodes.insert(format!("heavy@{task}"), first);
}

#[test]
fn what_an_earlier_one_wrote_down_is_known_to_one_with_an_empty_memory() {
    let mut world = rolling(|world| world.remembered = says(&[("ecs-svc/1", 2)]));
    assert!(!is_permitted(&mut world), "{}", world.story);
    let (phase, why) = waits_for(&world, "t1");
    assert_eq!(phase, TaskPhase::Unknown);
    assert!(why.contains("1 of its 2 workers is silent") && why.contains("workersPerTask"), "{why}");
    second_worker(&mut world, "t1");
    assert!(is_permitted(&mut world), "{}", world.story);
}

#[test]
fn parts_of_one_program_may_each_be_a_worker() {
    let parts = || vec![String::from("worker"), String::from("heavy")];
    let made_of_two = |world: &mut World| {
        world.task("t1").alike = parts();
    };
    let mut world = rolling(made_of_two);
    assert!(!is_permitted(&mut world), "{}", world.story);
    let (phase, why) = waits_for(&world, "t1");
    assert_eq!(phase, TaskPhase::Unknown);
    assert!(why.contains("worker, heavy run from one image") && why.contains("workersPerTask to 1"), "{why}");
    world.policy.drain.workers_per_task = Some(1);
    assert!(is_permitted(&mut world), "the user knows better: {}", world.story);
    let mut world = rolling(|world| {
        made_of_two(world);
        second_worker(world, "t1");
    });
    assert!(is_permitted(&mut world), "both are workers: {}", world.story);
}

#[test]
fn a_task_that_will_not_be_permitted_to_stop_is_told_before_it_leaves() {
    let mut world = World::of(1);
    world.task("t1").alike = vec!["worker".into(), "web".into()];
    let mut world = world.settled();
    let notes = |world: &World| world.plan().report.notes;
    assert!(notes(&world).iter().any(|note| note.contains("of a task of app:1 worker, web run from one image")));
    world.policy.drain.workers_per_task = Some(1);
    assert_eq!(notes(&world), Vec::<String>::new());
}

#[test]
fn a_number_is_written_down_once_by_whoever_acts_and_replaced_when_its_revision_is_gone() {
    let mut world = World::of(1);
    second_worker(&mut world, "t1");
    for (mode, paused) in [(Mode::Plan, false), (Mode::Enforce, true)] {
        (world.policy.mode, world.policy.paused) = (mode, paused);
        world.reconcile();
        assert_eq!(world.remembered, Remembered::default(), "{mode:?}, paused: {paused}");
    }
    (world.policy.mode, world.policy.paused) = (Mode::Enforce, false);
    world.reconcile();
    assert_eq!(world.remembered, says(&[("ecs-svc/1", 2)]));
    assert_eq!(world.plan().remember, None, "it is no news");
    world.remembered.is_outdated = true;
    world.later(SECOND).reconcile();
    assert_eq!(world.remembered, says(&[("ecs-svc/1", 2)]));
    // The new revision has one worker a task.
    world.deploy("app:2").schedule();
    let settled = std::iter::repeat_with(|| {
        let plan = world.reconcile();
        world.schedule();
        world.later(plan.wake_after);
        plan.report.settled
    });
    assert!(settled.take(40).any(|settled| settled), "it ends");
    assert_eq!(world.remembered, Remembered::default(), "a run that ends now leaves nothing of what is gone");
}

#[test]
fn what_the_user_says_need_not_be_written_down_and_a_drain_that_is_withdrawn_leaves_nothing() {
    for (per_task, withdrawn) in [(Some(2), false), (None, true)] {
        let mut world = World::of(1);
        second_worker(&mut world, "t1");
        world.run(2);
        assert_eq!(world.remembered, says(&[("ecs-svc/1", 2)]));
        (world.policy.drain.workers_per_task, world.policy.withdrawn) = (per_task, withdrawn);
        world.run(2);
        assert_eq!(world.remembered, Remembered::default());
    }
}

#[test]
fn that_nothing_can_be_written_down_is_told_once_and_stops_nothing() {
    let mut world = World::of(1);
    second_worker(&mut world, "t1");
    let denied = Failure::new(FailureKind::Denied, "ecs:TagResource is not allowed");
    world.refuses_to_remember = Some(Outcome::Failed(denied));
    world.reconcile();
    let notes = world.plan().report.notes;
    assert!(notes.len() == 1 && notes[0].contains("ecs:TagResource is not allowed"), "{notes:?}");
    assert_eq!(world.later(SECOND).plan().remember, None, "it is not tried again at once");
    assert_eq!(world.plan().report.notes, notes);
    assert!(world.later(HOUR).plan().remember.is_some(), "and it is in the end");
    world.reconcile();
    assert_eq!(world.plan().report.notes, notes, "the same note is no news");
    world.deploy("app:2").schedule().run(4);
    let permits = |world: &World| world.story.contains("permit task t1 to stop");
    assert!(permits(&world), "{}", world.story);
    world.policy.drain.workers_per_task = Some(2);
    assert_eq!(world.later(SECOND).reconcile().report.notes, Vec::<String>::new());
    let hold = |action: &Action| matches!(action, Action::Hold { .. });
    assert!(world.plan().actions.iter().all(hold));
}
