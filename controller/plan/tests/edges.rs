//! Edges of single rules that whole histories meet too seldom to be sure of.

#![allow(unused_must_use, reason = "what a reconciliation decides is judged and told by the world")]

mod world;

use jiff::{SignedDuration, Timestamp};
use worker_drain_plan::{
    Action, Ground, Memory, Outcome, Plan, TaskId, absorb,
    memory::{Permitted, TaskMemory},
    observation::{Failure, FailureKind},
};
use world::{SECOND, World};

fn permits(plan: &Plan) -> usize {
    plan.actions.iter().filter(|action| matches!(action, Action::Permit { .. })).count()
}

#[test]
fn drained_tasks_are_kept_while_too_few_others_take_jobs() {
    let mut world = World::of(2).settled();
    world.job("t1").job("t2").deploy("app:2").schedule().run(3);
    world.say("both old ones are cancelled; the workers of the new revision crash; the jobs of the old one end");
    world.task("t3").nodes.clear();
    world.task("t4").nodes.clear();
    world.all_jobs_end();
    for _ in 0..5 {
        let plan = world.later(SECOND * 2).reconcile();
        assert_eq!(permits(&plan), 0, "{}", world.story);
    }
    world.say("one of the new ones comes up: one old one is enough now").come_up("t3");
    let plan = world.later(SECOND * 2).reconcile();
    assert_eq!(permits(&plan), 1, "{}", world.story);
}

fn remembered(task: TaskMemory) -> (TaskId, Memory) {
    let mut memory = Memory::default();
    memory.tasks.insert("t1".into(), task);
    ("t1".into(), memory)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

#[test]
fn a_hold_that_was_refused_and_then_granted_is_refused_no_more() {
    let (task, mut memory) = remembered(TaskMemory::default());
    let hold = Action::Hold { task: task.clone(), lasting: SECOND * 60 };
    let refused = || Outcome::Refused { reason: "DEPLOYMENT_BLOCKED".into() };
    absorb(&mut memory, &[(hold.clone(), refused())], at(1));
    absorb(&mut memory, &[(hold.clone(), refused())], at(2));
    let refusal = memory.tasks[&task].refused().cloned().expect("it was refused");
    assert_eq!((refusal.since, refusal.at, refusal.times), (at(1), at(2), 2));
    absorb(&mut memory, &[(hold, Outcome::Done)], at(3));
    assert_eq!(memory.tasks[&task].refused(), None);
}

#[test]
fn a_hold_that_was_handed_back_is_ours_no_more() {
    let (task, mut memory) = remembered(TaskMemory { held: true, ..TaskMemory::default() });
    absorb(&mut memory, &[(Action::Release { task: task.clone() }, Outcome::Done)], at(1));
    assert!(!memory.tasks[&task].held);
}

#[test]
fn a_permit_is_open_until_it_is_known_what_became_of_it() {
    let permitting = Some(Permitted { at: at(1), ground: Ground::Drained });
    let open = || remembered(TaskMemory { permitting: permitting.clone(), ..TaskMemory::default() });
    let failed = Failure::new(FailureKind::Unreachable, "no answer");
    for (outcome, is_open) in [
        (Outcome::Failed(failed), true),
        // As when it is being stopped already, because an earlier one took effect.
        (Outcome::Refused { reason: "TASK_NOT_VALID".into() }, true),
        (Outcome::Stale, true),
        (Outcome::Done, false),
    ] {
        let (task, mut memory) = open();
        let permit = Action::Permit { task: task.clone(), ground: Ground::Drained };
        absorb(&mut memory, &[(permit, outcome.clone())], at(2));
        assert_eq!(memory.tasks[&task].permitting.is_some(), is_open, "{outcome:?}");
    }
    let (task, mut memory) = open();
    absorb(&mut memory, &[(Action::Release { task: task.clone() }, Outcome::Done)], at(2));
    assert_eq!(memory.tasks[&task].permitting, permitting, "of another step it tells nothing");
}

#[test]
fn a_permit_that_is_given_twice_counts_what_it_cuts_once() {
    let (task, mut memory) = remembered(TaskMemory::default());
    let permit = Action::Permit { task: task.clone(), ground: Ground::Deadline { jobs: Some(3) } };
    for second in [1, 2] {
        absorb(&mut memory, &[(permit.clone(), Outcome::Done)], at(second));
    }
    assert_eq!((memory.cut.tasks, memory.cut.jobs), (1, 3));
    assert_eq!(memory.tasks[&task].permitted.as_ref().map(|permitted| permitted.at), Some(at(1)));
}
