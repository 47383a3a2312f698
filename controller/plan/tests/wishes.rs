//! What a person may ask for, told as situations: deadlines, when holds begin, pauses, mode `Plan`, withdrawal; and what becomes of it
//! when nobody can be asked. Snapshots read as those of `scenarios.rs` do.

#![allow(unused_must_use, reason = "what a reconciliation decides is judged and told by the world")]

mod world;

use jiff::SignedDuration;
use worker_drain_plan::{
    Action, Plan,
    observation::{FailureKind, Life},
    policy::{Deadline, DeadlineAction, HoldMode, Mode, Policy, Scheduled},
    report::{Phase, Reason, TaskPhase},
};
use world::{HOUR, SECOND, World, told};

#[test]
fn a_deadline_with_hold_only_speaks() {
    let mut world = World::of(1).settled();
    world.policy.drain.deadline = Some(Deadline { after: HOUR, action: DeadlineAction::Hold });
    world.job("t1").deploy("app:2").schedule().run(3);
    world.story.clear();
    let plan = world.say("an hour passes").later(HOUR).reconcile();
    assert_eq!(plan.report.drained.reason, Reason::DeadlineExceeded);
    told!(world);
}

#[test]
fn a_deadline_with_permit_stop_counts_the_jobs_it_cuts() {
    let mut world = World::of(1).settled();
    world.policy.drain.deadline = Some(Deadline { after: HOUR, action: DeadlineAction::PermitStop });
    world.job("t1").say("the hold is set to end at the deadline").deploy("app:2").schedule().run(2);
    world.say("an hour passes").later(HOUR - SECOND * 2).reconcile();
    world.schedule().later(SECOND * 2).reconcile();
    assert_eq!(world.memory.past[0].jobs_cut, 1);
    told!(world);
}

#[test]
fn scheduled_jobs_are_waited_for_if_the_user_says_so() {
    let mut world = World::of(1).settled();
    world.policy.drain.scheduled = Scheduled::Wait;
    let job = world.new_job();
    world.node("t1").scheduled.push(job);
    world.say("t1 holds a job for later, and drain.scheduled is Wait").deploy("app:2").schedule().run(3);
    told!(world);
}

#[test]
fn a_paused_drain_keeps_holds_and_does_nothing_else() {
    let mut world = World::of(1).settled();
    world.policy.paused = true;
    world.say("the drain is paused, and revision 2 is deployed").deploy("app:2").schedule().reconcile();
    world.later(HOUR * 25).reconcile();
    told!(world);
}

#[test]
fn plan_mode_shows_and_does_nothing() {
    let mut world = World::of(1);
    world.policy.mode = Mode::Plan;
    let plan = world.say("mode is Plan").deploy("app:2").schedule().reconcile();
    assert!(plan.dry_run);
    assert_eq!(world.tasks["t1"].life, Life::Running);
    told!(world);
}

#[test]
fn on_rollout_holds_begin_and_end_with_the_rollout() {
    let mut world = World::of(2);
    world.policy.hold.mode = HoldMode::OnRollout;
    world.minimum_percent = 50;
    world.job("t1").say("hold.mode is OnRollout: nothing is held before").reconcile();
    world.say("revision 2 is deployed").deploy("app:2").start_all();
    world.later(SECOND).reconcile();
    world
        .say("rolled back: t1 and t2 stay, and are handed back to the scheduler when the rollout is over")
        .roll_back_to(0);
    world.run(10);
    told!(world);
}

#[test]
fn a_broker_that_is_gone_releases_nothing() {
    let mut world = World::of(1).settled();
    world.deploy("app:2").schedule().run(2);
    world.story.clear();
    world.say("the broker is gone").broker_down = Some(FailureKind::Unreachable);
    world.reconcile();
    world.later(SECOND).reconcile();
    world.later(SignedDuration::from_mins(10)).reconcile();
    world.say("it is back").broker_down = None;
    world.later(SECOND).reconcile();
    told!(world);
}

#[test]
fn a_fleet_that_cannot_be_seen_is_left_alone() {
    let mut world = World::of(1).settled();
    world.say("the scheduler does not answer").fleet_down = Some(FailureKind::Throttled);
    world.reconcile();
    world.later(SECOND).reconcile();
    told!(world);
}

#[test]
fn a_withdrawn_drain_gives_everything_back() {
    let mut world = World::of(2).settled();
    world.job("t1").job("t2").deploy("app:2").schedule().run(3);
    world.story.clear();
    world.say("the resource is deleted in mid-drain").policy.withdrawn = true;
    world.reconcile();
    let plan = world.later(SECOND).reconcile();
    assert_eq!(plan.report.phase, Phase::Withdrawn);
    told!(world);
}

#[test]
fn a_paused_or_planned_drain_gives_everything_back_too_when_it_is_withdrawn() {
    for (paused, mode) in [(true, Mode::Enforce), (false, Mode::Plan)] {
        let mut world = World::of(2).settled();
        world.job("t1").job("t2").deploy("app:2").schedule().run(3);
        (world.policy.paused, world.policy.mode, world.policy.withdrawn) = (paused, mode, true);
        world.reconcile();
        assert_eq!(world.later(SECOND).reconcile().report.phase, Phase::Withdrawn);
        assert!(world.tasks.values().all(|member| member.held_until.is_none()), "every hold is released");
    }
}

#[test]
fn a_drain_is_not_withdrawn_while_a_worker_cannot_be_asked() {
    let mut world = World::of(2).settled();
    world.job("t1").job("t2").deploy("app:2").schedule().run(2);
    world.start_all().run(3);
    assert!(world.tasks.values().any(|member| member.nodes.values().any(|node| node.queues.is_empty())));
    world.policy.withdrawn = true;
    world.broker_down = Some(FailureKind::Unreachable);
    world.reconcile();
    assert_eq!(world.later(SECOND).reconcile().report.phase, Phase::Withdrawing);
    world.broker_down = None;
    world.later(SECOND).reconcile();
    assert_eq!(world.later(SECOND).reconcile().report.phase, Phase::Withdrawn);
}

/// Two old tasks lack their queues, and the drain is withdrawn while nobody can ask their workers.
fn withdrawn_and_blind(fleet_down: bool) -> Plan {
    let mut world = World::of(2).settled();
    world.job("t1").job("t2").deploy("app:2").schedule().run(2);
    world.start_all().run(3);
    world.policy.withdrawn = true;
    if fleet_down {
        world.fleet_down = Some(FailureKind::Unreachable);
    } else {
        world.broker_down = Some(FailureKind::NotFound);
    }
    world.reconcile();
    world.later(SECOND).reconcile()
}

#[test]
fn a_drain_that_cannot_give_everything_back_says_what_is_left_and_claims_no_hold() {
    let plan = withdrawn_and_blind(false);
    assert_eq!((plan.report.phase, plan.report.ready.reason), (Phase::Withdrawing, Reason::WorkersInvalid));
    let told = &plan.report.ready.message;
    let left = "not given back yet, as far as is known: video to t1, t2; no hold of ours is left";
    assert!(told.contains(left) && !told.contains("hold is kept"), "{told}");
    assert_eq!(plan.report.withdrawal.as_ref().map(|withdrawal| withdrawal.left.as_str()), Some(left));
    for task in plan.report.tasks.iter().filter(|task| task.phase == TaskPhase::Unknown) {
        assert!(!task.waiting_for.contains("no hold is released"), "{}", task.waiting_for);
    }
    let lacks =
        plan.report.tasks.iter().filter(|task| task.waiting_for.contains("video cannot be given back to it yet"));
    assert_eq!(lacks.count(), 2);

    let told = withdrawn_and_blind(true).report.ready.message;
    let left = "not given back yet, as far as is known: video to t1, t2; not released yet: the holds of t1, t2";
    assert!(told.contains(left) && !told.contains("hold is kept"), "{told}");
}

#[test]
fn a_withdrawal_tells_before_it_lets_go_which_jobs_the_scheduler_may_cut() {
    let mut world = World::of(2).settled();
    world.job("t1").job("t1").job("t2").deploy("app:2").schedule().run(3);
    world.policy.withdrawn = true;
    let plan = world.reconcile();
    assert!(plan.actions.iter().any(|action| matches!(action, Action::Release { .. })), "{:?}", plan.actions);
    let told = "nothing keeps 2 old tasks with 3 jobs (t1, t2) from being stopped in the middle of jobs";
    assert!(plan.report.notes.iter().any(|note| note.contains(told)), "{:?}", plan.report.notes);

    // Nothing leaves, or what leaves has no jobs: nothing is to be told.
    for deploys in [false, true] {
        let mut world = World::of(2).settled();
        if deploys {
            world.deploy("app:2").schedule().run(1);
        } else {
            world.job("t1");
        }
        world.policy.withdrawn = true;
        let withdrawal = world.reconcile().report.withdrawal.expect("it is withdrawn");
        assert!(withdrawal.exposed.is_empty(), "{withdrawal:?}");
    }
}

#[test]
fn only_jobs_that_a_stop_waits_for_are_awaited() {
    let ends = |world: &World| -> Vec<(String, u32)> {
        world.plan().awaited.iter().map(|(node, ends)| (node.to_string(), ends.get())).collect()
    };
    let awaited = |of: &[(&str, u32)]| -> Vec<(String, u32)> {
        of.iter().map(|(task, ends)| (format!("celery@{task}"), *ends)).collect()
    };
    let mut world = World::of(2).settled();
    world.job("t1").job("t1").job("t2");
    assert_eq!(ends(&world), [], "nothing leaves");
    world.deploy("app:2").schedule();
    let plan = world.reconcile();
    assert!(plan.awaited.is_empty(), "both old ones still took jobs: they are cancelled first");
    world.later(SECOND).reconcile();
    assert_eq!(ends(&world), awaited(&[("t1", 2), ("t2", 1)]));

    let policy = world.policy.clone();
    world.policy.paused = true;
    assert_eq!(ends(&world), [], "nothing is permitted while it is paused");
    world.policy = Policy { mode: Mode::Plan, ..policy.clone() };
    assert_eq!(ends(&world), [], "nothing is done in mode Plan");
    world.policy = policy;

    world.jobs_end("t1").later(SECOND).reconcile();
    assert_eq!(ends(&world), awaited(&[("t2", 1)]), "t1 is idle: the next look at it has its time");
    world.node("t2").frozen = true;
    world.jobs_end("t2").later(SECOND * 2).reconcile();
    assert_eq!(ends(&world), awaited(&[("t2", 1)]), "it is silent, and may answer after a job");
    world.node("t2").frozen = false;
    world.later(SECOND * 2).reconcile();
    assert_eq!(ends(&world), []);
}
