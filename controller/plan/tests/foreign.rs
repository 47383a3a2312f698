//! Somebody else at our holds and at our workers' queues: seen, told, and not fought in a loop.

#![allow(unused_must_use, reason = "what a reconciliation decides is judged and told by the world")]

mod world;

use worker_drain_plan::{
    Action, FOREIGN_CONSUMER, FOREIGN_HOLD, Plan,
    actions::Step,
    policy::{Deadline, DeadlineAction},
    report::TaskPhase,
};
use world::{HOUR, SECOND, World, task_id, told};

fn does(plan: &Plan, step: Step) -> bool {
    plan.actions.iter().any(|action| action.step() == step && action.task().as_str() == "t1")
}

fn notes<'a>(plan: &'a Plan, word: &str) -> Vec<&'a str> {
    plan.report.notes.iter().map(String::as_str).filter(|note| note.starts_with(word)).collect()
}

/// An old task, `t1`, that has a job and takes no others, as was read back more than once.
fn cancelled() -> World {
    let mut world = World::of(1).settled();
    world.job("t1").deploy("app:2").schedule().run(5);
    assert!(world.node("t1").queues.is_empty(), "{}", world.story);
    world.story.clear();
    world
}

/// An old task, `t1`, that was let go half a minute ago, and that its scheduler has not stopped yet.
fn let_go() -> World {
    let mut world = World::of(1).settled();
    world.deploy("app:2").schedule();
    while !world.tasks["t1"].permitted {
        world.later(SECOND * 2).reconcile();
    }
    for _ in 0..15 {
        world.later(SECOND * 2).reconcile();
    }
    world.story.clear();
    world
}

#[test]
fn a_worker_that_somebody_has_take_jobs_again_is_told_of_and_cancelled_ever_more_seldom() {
    let mut world = cancelled();
    for times in 1..=3 {
        world.later(SECOND * 2).say("somebody sends add_consumer to t1").add_consumer("t1", "video");
        let plan = world.reconcile();
        assert_eq!(does(&plan, Step::Cancel), times < 3, "time {times}");
        for _ in 0..if times < 3 { 2 } else { 0 } {
            world.later(SECOND).reconcile();
        }
    }
    world.later(SECOND * 14).reconcile();
    world.later(SECOND).say("the pause is over").reconcile();
    world.later(SECOND).reconcile();
    told!(world);
}

#[test]
fn each_time_is_one_note_and_the_pauses_grow() {
    let mut world = cancelled();
    let mut told = Vec::new();
    for times in 1..=9 {
        world.later(SECOND * 2).add_consumer("t1", "video");
        let begun = world.now;
        while !world.node("t1").queues.is_empty() {
            let plan = world.reconcile();
            assert_eq!(notes(&plan, FOREIGN_CONSUMER).len(), 1, "{:?}", plan.report.notes);
            assert!(notes(&plan, FOREIGN_CONSUMER)[0].contains(&format!("({times} time")), "{:?}", plan.report.notes);
            world.later(SECOND);
        }
        told.push(world.now.duration_since(begun).as_secs() - 1);
        world.reconcile();
        world.later(SECOND).reconcile();
    }
    assert_eq!(told, [0, 0, 15, 30, 60, 120, 240, 240, 240]);
    // Nobody sends it any more: the task is drained like any other.
    world.all_jobs_end().run(9);
    assert!(!matches!(world.tasks["t1"].life, worker_drain_plan::observation::Life::Running), "{}", world.story);
}

#[test]
fn a_task_that_may_be_stopped_at_any_moment_is_cancelled_without_a_pause() {
    let mut world = cancelled();
    for _ in 0..4 {
        world.add_consumer("t1", "video").reconcile();
        for _ in 0..2 {
            world.node("t1").queues.clear();
            world.later(SECOND).reconcile();
        }
    }
    world.add_consumer("t1", "video");
    assert!(!does(&world.plan(), Step::Cancel));
    world.policy.drain.deadline = Some(Deadline { after: SECOND, action: DeadlineAction::PermitStop });
    assert!(does(&world.plan(), Step::Cancel));
}

#[test]
fn neither_a_restart_nor_an_undo_of_ours_is_somebody_elses() {
    let mut restarted = cancelled();
    let plan = restarted.later(SECOND * 2).restart("t1").reconcile();
    assert!(notes(&plan, FOREIGN_CONSUMER).is_empty() && does(&plan, Step::Cancel), "{:?}", plan.report.notes);

    // A rollback gives the queues back, and that is not heard; another deployment makes the task old again; then it is heard.
    let mut late = cancelled();
    late.roll_back_to(0).reconcile();
    let mut gave = false;
    for _ in 0..8 {
        late.node("t1").queues.clear();
        late.node("t1").added.clear();
        gave |= does(&late.later(SECOND * 2).reconcile(), Step::GiveBack);
    }
    assert!(gave, "{}", late.story);
    late.node("t1").queues.clear();
    late.deploy("app:3").schedule().run(4);
    let plan = late.later(SECOND * 2).add_consumer("t1", "video").reconcile();
    assert!(notes(&plan, FOREIGN_CONSUMER).is_empty() && does(&plan, Step::Cancel), "{:?}", plan.report.notes);
}

#[test]
fn a_task_that_somebody_holds_after_it_was_let_go_is_told_of_and_let_go_on_another_proof() {
    let mut world = let_go();
    world.say("somebody holds t1 for an hour").hold_by_hand("t1", HOUR).reconcile();
    world.later(SECOND).say("the proof is another one").reconcile();
    world.later(SECOND).reconcile();
    world.later(SECOND).reconcile();
    world.later(SECOND * 2).say("somebody holds it again").hold_by_hand("t1", HOUR).reconcile();
    told!(world);
}

#[test]
fn it_is_let_go_ever_more_seldom_and_never_without_a_proof_that_is_younger_than_the_hold() {
    let mut world = let_go();
    let (mut pauses, mut last) = (Vec::new(), world.now);
    while pauses.len() < 7 {
        if world.tasks["t1"].held_until.is_none() {
            world.hold_by_hand("t1", HOUR);
        }
        let plan = world.reconcile();
        if does(&plan, Step::Permit) {
            let known = &plan.memory.tasks[&task_id("t1")];
            let since = known.held_again.and_then(|again| again.since).unwrap();
            assert!(known.idle.unwrap().first >= since, "{known:?}");
            pauses.push(world.now.duration_since(last).as_secs());
            last = world.now;
        }
        world.later(SECOND);
    }
    assert_eq!(pauses[1..], [27, 30, 60, 120, 240, 240], "{}", world.story);
    let plan = world.reconcile();
    let task = plan.report.tasks.iter().find(|task| task.task.as_str() == "t1").unwrap();
    assert_eq!(task.phase, TaskPhase::Permitted);
    assert_eq!(notes(&plan, FOREIGN_HOLD).len(), 1, "{:?}", plan.report.notes);

    // Work that it gets meanwhile is waited for, under a hold of ours.
    world.job("t1").reconcile();
    let known = &world.memory.tasks[&task_id("t1")];
    assert_eq!((&known.permitted, known.held_again.and_then(|again| again.since)), (&None, None));
    // Whatever holds it then, it leaves when nobody else does any more.
    world.all_jobs_end();
    for _ in 0..40 {
        world.later(SECOND * 2).reconcile();
    }
    world.schedule();
    assert!(!matches!(world.tasks["t1"].life, worker_drain_plan::observation::Life::Running), "{}", world.story);
}

#[test]
fn a_hold_of_somebody_else_that_ends_by_itself_costs_no_more() {
    let mut world = let_go();
    world.node("t1").unseen = Some("jobs of app.batch".into());
    world.hold_by_hand("t1", SECOND * 30).run(2);
    assert!(!world.plan().actions.iter().any(|action| matches!(action, Action::Permit { .. })));
    world.later(SECOND * 30).reconcile();
    let known = &world.memory.tasks[&task_id("t1")];
    assert!(known.permitted.is_some() && known.held_again.is_some_and(|again| again.since.is_none()), "{known:?}");
}
