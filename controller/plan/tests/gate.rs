//! The queue gate: when its queues are counted at all, what a caller that waits for it is spared, and what waits for it.

#![allow(unused_must_use, reason = "what a reconciliation decides is judged and told by the world")]

mod world;

use worker_drain_plan::{
    Action,
    observation::FailureKind,
    policy::{Deadline, DeadlineAction, Gate, HoldMode},
    report::{Reason, TaskPhase},
};
use world::{Counting, HOUR, SECOND, World, told};

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
    world.reconcile();
    assert!(is_counted(&world), "they are not empty");

    let mut back = world.clone();
    back.roll_back_to(0).reconcile();
    back.later(SECOND * 10).reconcile();
    assert!(!is_counted(&back), "a rollback waits for no queue");

    world.queued = (0, 0);
    for _ in 0..3 {
        world.later(SECOND * 2).reconcile();
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
            let plan = world.later(SECOND * 2).reconcile();
            let is_hold = |action: &Action| matches!(action, Action::Hold { .. });
            assert!(plan.actions.iter().all(is_hold), "the queues are empty, and all the same: {}", world.story);
        }
        *awaited(&mut world) = false;
        let is_cancel = |action: &Action| matches!(action, Action::Cancel { .. });
        let goes_on = (0..3).any(|_| world.later(SECOND * 2).reconcile().actions.iter().any(is_cancel));
        assert!(goes_on, "{}", world.story);
    }
}

#[test]
fn a_gate_keeps_old_tasks_at_their_queues_until_those_are_empty() {
    let mut world = World::of(2).settled();
    world.gate().job("t1").queued = (12, 3);
    world.say("drain.gate names the queue video, and 15 jobs are in it when revision 2 is deployed");
    world.deploy("app:2").schedule().reconcile();
    let plan = world.later(SECOND).reconcile();
    assert_eq!(plan.report.drained.reason, Reason::QueuesNotEmpty);
    assert_eq!(plan.report.counts.consuming, 4);
    world.say("nothing more is sent, and the queue is emptied").queue_drains().later(SECOND * 2).reconcile();
    world.later(SECOND).reconcile();
    world.say("it opened; the rest is as without a gate").later(SECOND).reconcile();
    world.say("more is sent: the gate does not shut again").later(SECOND).queued = (5, 0);
    world.reconcile();
    let story = world.story.clone();
    world.jobs_end("t1").run(12);
    assert!(world.plan().report.settled);
    world.story = story;
    told!(world);
}

#[test]
fn a_queue_that_is_empty_only_once_opens_nothing() {
    let mut world = World::of(1).settled();
    world.gate().deploy("app:2").schedule().reconcile();
    world.say("empty once; then a job is in it again").later(SECOND / 2).reconcile();
    world.queued = (0, 1);
    let plan = world.later(SECOND).reconcile();
    assert_eq!(plan.report.drained.reason, Reason::QueuesNotEmpty);
    world.queued = (0, 0);
    let plan = world.later(SECOND).reconcile();
    assert!(plan.actions.is_empty() && plan.report.gate.as_ref().unwrap().answer == Some(false), "it begins anew");
    told!(world);
}

#[test]
fn a_queue_that_cannot_be_counted_is_not_empty() {
    let mut world = World::of(1).settled();
    world.gate().counting = Counting::Fails(FailureKind::Denied);
    world.say("the broker does not let us count").deploy("app:2").schedule().reconcile();
    let plan = world.later(HOUR).reconcile();
    assert_eq!(plan.report.drained.reason, Reason::QueuesInvalid);
    assert_eq!(plan.report.stalled.answer, Some(true), "a person must mend it");
    world.counting = Counting::Fails(FailureKind::Unreachable);
    let plan = world.say("the broker does not answer the question").later(SECOND * 10).reconcile();
    assert_eq!(plan.report.drained.reason, Reason::QueuesUnknown);
    told!(world);
}

#[test]
fn where_the_broker_does_not_tell_the_workers_words_count() {
    let mut world = World::of(1).settled();
    world.gate().job("t1").counting = Counting::Ready;
    world
        .say("the broker does not count unacknowledged messages; t1 runs a job")
        .deploy("app:2")
        .schedule()
        .reconcile();
    world.jobs_end("t1").say("it ends, and t1 freezes").node("t1").frozen = true;
    let plan = world.later(SECOND * 2).reconcile();
    assert_eq!(plan.report.drained.reason, Reason::QueuesUnknown);
    world.say("it thaws").node("t1").frozen = false;
    world.later(SECOND * 2).reconcile();
    let plan = world.later(SECOND).reconcile();
    assert_eq!(plan.report.gate.as_ref().unwrap().answer, Some(true));
    told!(world);
}

#[test]
fn behind_a_shut_gate_a_task_at_risk_and_a_deadline_go_first() {
    let mut world = World::of(2);
    world.policy.hold.mode = HoldMode::OnRollout;
    world.policy.drain.deadline = Some(Deadline { after: HOUR, action: DeadlineAction::PermitStop });
    world.gate().queued = (7, 0);
    world.refuse_holds = Some("DEPLOYMENT_BLOCKED".into());
    world.say("the scheduler refuses every hold").deploy("app:2").reconcile();
    world.later(SECOND).reconcile();
    world.refuse_holds = None;
    world.say("it grants them again, so that the old tasks are there for the queue after all");
    world.later(SECOND * 20).reconcile();
    world.later(SECOND).reconcile();
    world.later(SECOND).reconcile();
    world.say("an hour passes, and the deadline with it").later(HOUR).reconcile();
    told!(world);
}

#[test]
fn a_rollback_waits_for_no_gate() {
    let mut world = World::of(1).settled();
    world.desired = 2;
    world.gate().queued = (7, 0);
    world.deploy("app:2").schedule().run(2);
    assert_eq!(world.plan().report.drained.reason, Reason::QueuesNotEmpty);
    world.story.clear();
    world.say("the scheduler rolls back to revision 1, and jobs are still in the queue").roll_back_to(0);
    world.reconcile();
    world.later(SECOND * 10).schedule().reconcile();
    let plan = world.later(SECOND).reconcile();
    assert!(plan.report.tasks.iter().any(|task| task.phase == TaskPhase::Idle), "what failed is drained at once");
    told!(world);
}

#[test]
fn a_scale_in_waits_for_no_gate() {
    let mut world = World::of(2).settled();
    world.gate().queued = (7, 0);
    world.desired = 1;
    world.run(4);
    assert_eq!(world.plan().report.counts.live, 1);
}

#[test]
fn whoever_waits_for_the_gate_before_deploying_has_every_task_held_and_nothing_else_done() {
    let mut world = World::of(2);
    world.gate().policy.drain.gate.as_mut().unwrap().awaited = true;
    world.queued = (1, 0);
    world.say("somebody waits for the queue to be empty, and then deploys").reconcile();
    world.queue_drains().later(SECOND * 2).reconcile();
    let plan = world.later(SECOND).reconcile();
    assert_eq!(plan.report.gate.as_ref().unwrap().answer, Some(true));
    world.queued = (1, 0);
    let plan = world.later(SECOND).plan();
    assert_eq!(plan.report.gate.unwrap().answer, Some(false), "another time it is not taken for empty unseen");
    world.policy.drain.gate.as_mut().unwrap().awaited = false;
    let plan = world.say("deployed; the gate is shut again, for this rollout").deploy("app:2").schedule().reconcile();
    assert_eq!(plan.report.drained.reason, Reason::QueuesNotEmpty);
    told!(world);
}

/// Nobody takes jobs any more, and no new task has room.
fn stuck() -> World {
    let mut world = World::of(1);
    (world.minimum_percent, world.maximum_percent) = (0, 100);
    let mut world = world.settled();
    world.deploy("app:2").schedule().run(2);
    world
}

#[test]
fn a_gate_that_comes_late_gives_old_tasks_back_what_they_are_to_empty() {
    let mut world = stuck();
    assert!(world.node("t1").queues.is_empty());
    world.story.clear();
    world.gate().queued = (3, 0);
    world
        .say("nobody takes jobs any more, no new task has room, and drain.gate is added with jobs in the queue")
        .reconcile();
    world.later(SECOND).reconcile();
    assert!(world.node("t1").queues.contains("video"), "else nothing would ever go on");
    let story = world.story.clone();
    world.queue_drains().run(12);
    assert!(world.plan().report.settled);
    world.story = story;
    told!(world);
}

#[test]
fn what_a_worker_behind_a_gate_forgot_is_given_back_though_it_took_up_another_queue() {
    let mut world = stuck();
    world.gate().queued = (3, 0);
    world.reconcile();
    world.later(SECOND).reconcile();
    assert!(world.node("t1").queues.contains("video"));
    // It reconnects: it forgets what was added, and takes jobs from a queue that it only sends to (celery#10352).
    world.node("t1").queues = ["audio".into()].into();
    world.later(SECOND).reconcile();
    assert!(world.node("t1").queues.contains("video"), "nobody else empties it");
}
