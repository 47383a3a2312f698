//! The policy, told as situations. Each snapshot reads from top to bottom: what happened, what was seen, what was decided
//! and why, and when the next observation is.

#![allow(unused_must_use, reason = "what a reconciliation decides is judged and told by the world")]

mod world;

use jiff::SignedDuration;
use worker_drain_plan::{
    Action, Outcome,
    actions::Step,
    observation::{Life, Mapping},
    policy::HoldMode,
    report::{Phase, Reason, RolloutOutcome, TaskPhase, Worth},
};
use world::{HOUR, SECOND, World, told};

#[test]
fn standing_holds_are_set_as_soon_as_tasks_run() {
    let mut world = World::of(2);
    world.say("worker-drain sees the service for the first time").reconcile();
    world.later(SECOND).reconcile();
    told!(world);
}

#[test]
fn a_rollout_waits_for_the_jobs_of_the_old_revision() {
    let mut world = World::of(2).settled();
    world.job("t1").say("t1 runs a job; revision 2 is deployed").deploy("app:2").schedule();
    world.reconcile();
    world
        .say("the old ones are told to stop consuming, one for each new one that is seen consuming")
        .later(SECOND)
        .reconcile();
    world.later(SECOND).reconcile();
    world.say("t2 was idle twice; the scheduler may stop it").schedule().later(SECOND).reconcile();
    world.say("the job of t1 ends").jobs_end("t1").later(SECOND * 5).reconcile();
    world.later(SECOND).reconcile();
    world.schedule().later(SECOND * 2).reconcile();
    world.later(SECOND * 15).reconcile();
    assert!(world.plan().report.settled);
    told!(world);
}

#[test]
fn the_last_consumer_of_a_queue_that_would_be_deleted_keeps_it() {
    let mut world = World::of(2).settled();
    world.node("t1").queues.insert("passing".into());
    world.say("t1 also takes jobs from a queue that goes with its last consumer; revision 2 is deployed");
    world.deploy("app:2").schedule().reconcile();
    for _ in 0..4 {
        world.later(SECOND).schedule().reconcile();
    }
    assert_eq!(world.node("t1").queues, ["passing".to_owned()].into());
    world.say("a new task takes jobs from it too").node("t3").queues.insert("passing".into());
    for _ in 0..4 {
        world.later(SECOND * 2).schedule().reconcile();
    }
    assert!(world.plan().report.settled);
    told!(world);
}

#[test]
fn a_forced_deployment_of_the_same_definition_is_a_rollout() {
    let mut world = World::of(2).settled();
    world.say("the same task definition is deployed again").deploy("app:1").schedule();
    let plan = world.reconcile();
    assert_eq!(plan.report.counts.old, 2);
    told!(world);
}

#[test]
fn a_new_revision_that_never_comes_up_costs_the_old_one_nothing() {
    let mut world = World::of(2).settled();
    world.workers_come_up = false;
    world.say("revision 2 is deployed, and its workers never answer").deploy("app:2").schedule();
    world.reconcile();
    world.later(HOUR).reconcile();
    assert_eq!(world.plan().report.counts.consuming, 2);
    told!(world);
}

#[test]
fn a_revision_that_crashes_after_it_came_up_gives_the_old_one_its_queues_back() {
    let mut world = World::of(2).settled();
    world.job("t1").job("t2").deploy("app:2").schedule().run(3);
    world.story.clear();
    world.say("both old ones are cancelled; then the workers of the new revision crash for good");
    world.task("t3").nodes.clear();
    world.task("t4").nodes.clear();
    world.reconcile();
    world.later(SECOND * 61).reconcile();
    world.later(SECOND).reconcile();
    assert_eq!(world.plan().report.counts.consuming, 2);
    told!(world);
}

#[test]
fn a_second_deployment_in_mid_drain_makes_the_middle_one_old_too() {
    let mut world = World::of(2).settled();
    world.job("t1").job("t2").deploy("app:2").schedule().run(4);
    world.story.clear();
    world
        .job("t3")
        .say("t1 and t2 still run jobs when revision 3 is deployed; no hold is left for t3 and t4")
        .deploy("app:3");
    world.reconcile();
    world.later(SECOND).reconcile();
    told!(world);
}

#[test]
fn a_rollback_gives_the_queues_back() {
    let mut world = World::of(2).settled();
    world.job("t1").deploy("app:2").schedule().run(3);
    world.story.clear();
    world.say("the scheduler rolls back to revision 1 in mid-drain").roll_back_to(0);
    let plan = world.reconcile();
    assert_eq!(plan.report.phase, Phase::Draining);
    world.say("that is no answer from the past: it is still so later");
    let plan = world.later(SECOND * 10).reconcile();
    assert_eq!(plan.report.phase, Phase::RollingBack);
    world.later(SECOND).reconcile();
    world.run(12);
    assert!(world.tasks["t1"].nodes.values().all(|node| node.queues.contains("video")));
    assert!(world.plan().report.settled);
    told!(world);
}

#[test]
fn an_answer_from_the_past_turns_nothing_back() {
    let mut world = World::of(2).settled();
    world.job("t1").deploy("app:2").schedule().run(3);
    world.story.clear();
    world.say("a stale answer shows revision 1 as current").current = 0;
    let plan = world.later(SECOND * 2).reconcile();
    assert!(plan.actions.iter().all(|action| matches!(action, Action::Hold { .. })), "{}", world.story);
    world.say("the next one is of now").current = 1;
    world.later(SECOND * 2).reconcile();
    world.all_jobs_end().run(12);
    let past = &world.plan().report.past;
    assert_eq!(past.iter().map(|past| past.outcome).collect::<Vec<_>>(), [RolloutOutcome::Drained]);
    world.say("another stale answer, when all is over").current = 0;
    let plan = world.later(SECOND * 2).reconcile();
    assert_eq!((plan.report.phase, plan.actions.len()), (Phase::Steady, 0), "{}", world.story);
    world.current = 1;
    let plan = world.later(SECOND * 2).reconcile();
    assert_eq!((plan.report.past.len(), plan.report.settled), (1, true), "{}", world.story);
}

#[test]
fn what_was_permitted_and_ended_unseen_ended_by_our_permit_though_the_drain_is_withdrawn() {
    let mut world = World::of(1).settled();
    world.deploy("app:2").schedule();
    while !world.tasks["t1"].permitted {
        world.later(SECOND * 2).reconcile();
    }
    world.say("t1 stops, and the drain is withdrawn, before anybody looks again").schedule();
    world.policy.withdrawn = true;
    let plan = world.later(SECOND * 2).reconcile();
    assert_eq!(plan.report.past[0].outcome, RolloutOutcome::Drained, "{}", world.story);
}

#[test]
fn whoever_was_let_go_in_a_scale_in_that_was_called_off_too_late_ended_by_our_permit() {
    let mut world = World::of(2).settled();
    world.say("one task too many").desired = 1;
    let permitted = |world: &World| world.tasks.iter().find(|(_, task)| task.permitted).map(|(name, _)| name.clone());
    let name = loop {
        world.later(SECOND * 2).reconcile();
        if let Some(name) = permitted(&world) {
            break name;
        }
    };
    world.say("it is wanted again, when the scheduler has decided to stop it and does not show that yet").desired = 2;
    world.set_back.insert(Step::Hold, Outcome::Refused { reason: "TASK_NOT_VALID".into() });
    world.later(SECOND).reconcile();
    world.task(&name).life = Life::Stopping;
    world.say("and a deployment begins while it stops").later(SECOND).reconcile();
    world.set_back.clear();
    world.deploy("app:2").start_all().later(SECOND).reconcile();
    world.stop(&name);
    world.run(12);
    let past = &world.plan().report.past[0];
    assert_eq!((past.outcome, past.tasks), (RolloutOutcome::Drained, 2), "{}", world.story);
}

#[test]
fn workers_that_crashed_before_their_revision_failed_are_counted_by_no_rollout() {
    let mut world = World::of(2).settled();
    world.job("t1").deploy("app:2").start_all().run(3);
    for crashed in ["t3", "t4"] {
        world.stop(crashed);
    }
    world.say("both new workers crash").reconcile();
    world.say("the scheduler rolls back to revision 1").roll_back_to(0).run(12);
    let past = &world.plan().report.past[0];
    assert_eq!((past.outcome, past.ended_unpermitted), (RolloutOutcome::RolledBack, 0));
}

#[test]
fn a_queue_that_was_given_back_and_lost_again_is_given_back_again() {
    let mut world = World::of(1).settled();
    world.job("t1").deploy("app:2").schedule().run(2);
    world.roll_back_to(0).run(12);
    assert!(world.plan().report.settled);
    world.story.clear();
    world.say("the worker reconnects and forgets what was added to it").node("t1").queues.clear();
    let plan = world.reconcile();
    assert!(!plan.report.settled);
    world.later(SECOND).reconcile();
    told!(world);
}

#[test]
fn a_scale_in_drains_the_idlest() {
    let mut world = World::of(3).settled();
    world.job("t1").job("t3").say("three tasks, t2 is idle; one is wanted now").desired = 1;
    world.schedule().reconcile();
    world.later(SECOND).reconcile();
    world.later(SECOND).reconcile();
    world.schedule().later(SECOND * 2).reconcile();
    told!(world);
}

#[test]
fn a_scale_in_that_is_taken_back_gives_the_queues_back() {
    let mut world = World::of(2).settled();
    world.job("t1").job("t2").desired = 1;
    world.run(2);
    world.story.clear();
    world.say("two are wanted again").desired = 2;
    world.reconcile();
    world.later(SECOND).reconcile();
    assert!(world.plan().report.settled);
    told!(world);
}

#[test]
fn a_late_arrival_on_an_old_revision_is_drained_too() {
    let mut world = World::of(2).settled();
    world.job("t1").deploy("app:2").schedule().run(8);
    world.story.clear();
    world.say("the scheduler replaces a lost task of the old revision");
    let late = world.start(0);
    world.reconcile();
    world.later(SECOND).reconcile();
    assert_eq!(late, "t5");
    told!(world);
}

#[test]
fn a_worker_that_restarts_is_cancelled_again() {
    let mut world = World::of(2).settled();
    world.job("t1").job("t2").deploy("app:2").schedule().run(3);
    world.story.clear();
    world.say("the worker of t1 restarts, and takes jobs from every queue again").restart("t1").reconcile();
    world.later(SECOND).reconcile();
    told!(world);
}

#[test]
fn without_room_for_new_tasks_old_ones_go_in_steps() {
    let mut world = World::of(4);
    (world.minimum_percent, world.maximum_percent) = (50, 100);
    let mut world = world.settled();
    world.say("maximumPercent is 100, the floor is 50 %").deploy("app:2").schedule();
    world.reconcile();
    world.later(SECOND).reconcile();
    world.later(SECOND).reconcile();
    world.schedule().later(SECOND * 2).reconcile();
    told!(world);
}

#[test]
fn no_room_and_no_step_is_said() {
    let mut world = World::of(2);
    (world.minimum_percent, world.maximum_percent) = (100, 100);
    let mut world = world.settled();
    let plan =
        world.say("minimumHealthyPercent and maximumPercent are both 100").deploy("app:2").schedule().reconcile();
    assert_eq!(plan.report.drained.reason, Reason::NoRoom);
    assert_eq!(plan.report.stalled.answer, Some(true));
    told!(world);
}

#[test]
fn a_refused_hold_outranks_the_floor() {
    let mut world = World::of(2);
    world.policy.hold.mode = HoldMode::OnRollout;
    world.refuse_holds = Some("DEPLOYMENT_BLOCKED".into());
    world.job("t1").say("the scheduler refuses every hold").deploy("app:2").reconcile();
    world.later(SECOND).reconcile();
    told!(world);
}

#[test]
fn a_refused_renewal_is_no_danger_while_the_hold_lasts() {
    let mut world = World::of(1).settled();
    world.workers_come_up = false;
    world.say("the extension at the beginning of the rollout is refused").refuse_holds =
        Some("DEPLOYMENT_BLOCKED".into());
    let plan = world.deploy("app:2").schedule().reconcile();
    assert_eq!(plan.report.tasks[0].phase, TaskPhase::Held);
    world.later(SECOND).reconcile();
    let left = SignedDuration::from_mins(95);
    world.say("only the last quarter of the hold is left").later(left).reconcile();
    told!(world);
}

#[test]
fn the_strength_of_each_nodes_evidence_is_told() {
    let mut world = World::of(3).settled();
    world.node("t1").accounts = true;
    world.node("t2").unseen = Some("jobs of app.batch are kept by a strategy of their own".into());
    world.node("t3").frozen = true;
    world.say("t1 accounts for its jobs, t2 may hold some unseen, t3 is silent; revision 2 is deployed");
    world.deploy("app:2").schedule().reconcile();
    for _ in 0..2 {
        world.later(SECOND).reconcile();
    }
    let report = world.plan().report;
    let worth = |task: &str| report.tasks.iter().find(|of| of.task.as_str() == task).unwrap().nodes[0].worth;
    let expected = [Some(Worth::Account), Some(Worth::Incomplete), Some(Worth::None), Some(Worth::Lists)];
    assert_eq!(["t1", "t2", "t3", "t4"].map(worth), expected);
    told!(world);
}

#[test]
fn silence_is_not_idleness() {
    let mut world = World::of(1).settled();
    world.deploy("app:2").schedule().run(1);
    world.story.clear();
    world.say("the old worker freezes").node("t1").frozen = true;
    world.reconcile();
    world.later(SignedDuration::from_mins(30)).reconcile();
    world.say("it thaws").node("t1").frozen = false;
    world.later(SECOND).reconcile();
    world.later(SECOND).reconcile();
    told!(world);
}

#[test]
fn a_task_without_a_node_is_unknown_and_held() {
    let mut world = World::of(1).settled();
    world.say("a second task claims the node of t1");
    world.task("t1").unmapped = Some(Mapping::Ambiguous { why: "celery@worker could be of t1 or of t2".into() });
    world.deploy("app:2").schedule().reconcile();
    world.later(SECOND * 5).reconcile();
    told!(world);
}

#[test]
fn every_node_of_a_task_must_be_idle() {
    let mut world = World::of(1).settled();
    world.task("t1").nodes.insert("second@t1".into(), world::Node::default());
    let job = world.new_job();
    world.task("t1").nodes.get_mut("second@t1").unwrap().active.push(job);
    world.run(1);
    world.story.clear();
    world.say("the task holds two workers; the second one runs a job").deploy("app:2").schedule().run(3);
    told!(world);
}
