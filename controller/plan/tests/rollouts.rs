//! Who is counted in a rollout, how it is told when it is over, and whom a scale-in chooses.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(unused_must_use, reason = "what a reconciliation decides is judged and told by the world")]

mod world;

use jiff::SignedDuration;
use worker_drain_plan::{
    Plan,
    actions::Step,
    memory::Why,
    observation::{FailureKind, HoldState, Life},
    policy::{Deadline, DeadlineAction, HoldMode},
    report::{Counts, Phase, Reason, RolloutOutcome},
};
use world::{HOUR, Member, SECOND, World, task_id};

#[test]
fn how_a_rollout_ended_is_told_by_how_its_old_tasks_did() {
    type Event = fn(&mut World);
    let table: [(&str, Event, RolloutOutcome, u32, u32); 5] = [
        ("its jobs end", |_| {}, RolloutOutcome::Drained, 2, 0),
        ("somebody stops t1 while it runs a job", |world| world.stop("t1"), RolloutOutcome::EndedUnpermitted, 2, 1),
        (
            "t1 is lost with its machine, and its scheduler no longer knows it",
            |world| (world.task("t1").life, world.task("t1").started_at) = (Life::Missing, None),
            RolloutOutcome::EndedUnpermitted,
            2,
            1,
        ),
        (
            "a task of the old revision arrives late, and never starts",
            |world| {
                let late = world.start(0);
                (world.task(&late).life, world.task(&late).started_at) = (Life::Starting, None);
                world.reconcile();
                world.stop(&late);
            },
            RolloutOutcome::Drained,
            3,
            0,
        ),
        (
            "its deadline passes",
            |world| {
                world.policy.drain.deadline = Some(Deadline { after: HOUR, action: DeadlineAction::PermitStop });
                world.later(HOUR).reconcile();
            },
            RolloutOutcome::JobsCut,
            2,
            0,
        ),
    ];
    for (what, event, outcome, tasks, unpermitted) in table {
        let mut world = World::of(2).settled();
        world.job("t1").deploy("app:2").schedule().run(3);
        event(world.say(what));
        world.all_jobs_end().run(20);
        let past = &world.memory.past[0];
        assert_eq!((past.outcome, past.tasks, past.ended_unpermitted), (outcome, tasks, unpermitted), "{what}");
        assert_eq!(past.label, "app:2", "{what}");
    }
}

/// Whoever asks a scheduler for a task that has just been made may be told that there is none.
#[test]
fn a_task_that_its_scheduler_does_not_know_for_a_moment_is_of_no_revision() {
    let mut world = World::of(2).settled();
    world.say("one answer leaves t1 out").task("t1").life = Life::Missing;
    let plan = world.reconcile();
    assert!(plan.report.rollout.is_none() && plan.memory.past.is_empty(), "nothing is rolled out");
    world.task("t1").life = Life::Running;
    world.run(2);
    assert!(world.memory.past.is_empty(), "and nothing was");

    world.gate().queued = (1, 0);
    world.job("t1").deploy("app:2").schedule().run(3);
    let young = world.tasks.iter().find(|(_, member)| member.revision == 1).map(|(name, _)| name.clone()).unwrap();
    world.say("one answer leaves a new task out").task(&young).life = Life::Missing;
    let plan = world.reconcile();
    assert_eq!(plan.report.rollout.map(|rollout| rollout.old), Some(2), "it is not an old one");
    world.task(&young).life = Life::Running;
    let plan = world.reconcile();
    assert_eq!(plan.report.phase, Phase::Draining, "nor is the fleet rolled back now that it is known again");
    assert_eq!(plan.report.drained.reason, Reason::QueuesNotEmpty, "so the gate is shut still");
}

/// We were away for longer than ECS remembers tasks.
#[test]
fn whoever_ended_and_was_forgotten_while_we_were_away_ended_in_no_rollout() {
    let mut world = World::of(2).settled();
    for name in ["t1", "t2"] {
        world.stop(name);
        world.task(name).life = Life::Missing;
    }
    world.say("others have taken their place").start_all().later(HOUR).run(10);
    assert!(world.memory.past.is_empty() && world.memory.rollout.is_none(), "{:#?}", world.memory);
}

#[test]
fn whoever_was_being_stopped_when_the_fleet_turned_back_is_counted() {
    let mut world = World::of(2).settled();
    world.job("t1").deploy("app:2").schedule().run(3);
    world.say("t1 is being stopped, with a job, when the scheduler rolls back").task("t1").life = Life::Stopping;
    world.roll_back_to(0).run(12);
    assert_eq!(world.memory.past, [], "t1 has not ended: {}", world.story);
    world.stop("t1");
    world.run(3);
    let past = &world.memory.past[0];
    assert_eq!((past.outcome, past.ended_unpermitted), (RolloutOutcome::EndedUnpermitted, 1), "{}", world.story);
}

#[test]
fn jobs_that_a_deadline_cut_in_a_scale_in_are_told_by_the_rollout_that_counts_their_task() {
    let mut world = World::of(2).settled();
    world.policy.drain.deadline = Some(Deadline { after: HOUR, action: DeadlineAction::PermitStop });
    world.job("t1").job("t2").say("one task too many").desired = 1;
    world.reconcile();
    world.later(HOUR).reconcile();
    let leaving = world.memory.tasks.iter().find(|(_, known)| known.permitted.is_some()).unwrap().0.short().to_owned();
    world.all_jobs_end().task(&leaving).life = Life::Stopping;
    world.say("it is being stopped when the next revision is deployed").deploy("app:2").schedule().run(3);
    world.stop(&leaving);
    world.run(15);
    assert_eq!(world.memory.past[0].outcome, RolloutOutcome::JobsCut, "{}", world.story);
}

#[test]
fn what_had_ended_before_a_rollout_is_counted_by_none() {
    let mut world = World::of(2);
    world.shows_ended = true;
    world.say("t2 ends before we ever look").stop("t2");
    let mut world = world.settled();
    world.schedule().run(2);
    world.say("t3 crashes while nothing is rolled out").stop("t3");
    world.run(2).deploy("app:2").schedule().run(15);
    let past = &world.memory.past[0];
    assert_eq!((past.outcome, past.tasks), (RolloutOutcome::Drained, 2), "t1 and t4: {}", world.story);
}

#[test]
fn a_rollout_is_told_by_where_it_goes_now() {
    let told = |plan: Plan| plan.report.rollout.map(|rollout| (rollout.label, rollout.old, plan.report.phase));
    let mut world = World::of(2).settled();
    world.job("t1").job("t2").deploy("app:2").schedule();
    assert_eq!(told(world.reconcile()), Some(("app:2".into(), 2, Phase::Draining)));
    world.later(SECOND * 5).deploy("app:3");
    assert_eq!(told(world.reconcile()), Some(("app:3".into(), 4, Phase::Draining)), "the middle one is old too");
    world.roll_back_to(0).reconcile();
    world.later(SECOND * 10);
    assert_eq!(told(world.reconcile()), Some(("app:1".into(), 2, Phase::RollingBack)));
    world.later(SECOND * 5).deploy("app:4");
    let Some((label, _, phase)) = told(world.reconcile()) else { panic!("{}", world.story) };
    assert_eq!((label.as_str(), phase), ("app:4", Phase::Draining), "a way out of a rollback is no rollback");
}

/// Whether an older revision is shown as current and not believed yet.
fn waits(plan: &Plan) -> bool {
    plan.report.notes.iter().any(|note| note.contains("may be a rollback or an answer from the past"))
}

fn at_revision_3() -> World {
    let mut world = World::of(1).settled();
    world.deploy("app:2").schedule().run(12).deploy("app:3").schedule().run(12);
    assert_eq!(world.memory.past.len(), 2);
    world
}

#[test]
fn an_older_revision_is_believed_when_it_was_shown_on_end_for_ten_seconds() {
    let mut world = at_revision_3();
    for (shown, later, expected, why) in [
        (1, 0, true, "it is shown for the first time"),
        (1, 6, true, "for 6 seconds"),
        (0, 1, true, "another one is shown for the first time"),
        (0, 9, true, "for 9 seconds"),
        (0, -60, true, "our clock is set back: for how long, nobody knows"),
        (0, 9, true, "for 9 seconds by the new time"),
        (0, 1, false, "for 10 seconds"),
    ] {
        world.current = shown;
        assert_eq!(waits(&world.later(SECOND * later).reconcile()), expected, "{why}: {}", world.story);
    }
}

#[test]
fn when_the_current_revision_was_made_is_not_forgotten_when_it_is_not_told() {
    let mut world = at_revision_3();
    let made_at = world.revisions[2].0.created_at.take();
    assert!(!waits(&world.reconcile()));
    world.revisions[2].0.created_at = made_at;
    world.current = 1;
    assert!(waits(&world.later(SECOND).reconcile()), "{}", world.story);
}

#[test]
fn counts_are_of_what_people_mean_by_them() {
    let mut world = World::of(3).settled();
    let waiting = world.new_job();
    world.job("t1").job("t1").node("t1").reserved.push(waiting);
    world.job("t2").deploy("app:2").start_all();
    for _ in 0..4 {
        world.later(SECOND * 2).reconcile();
    }
    world.say(
        "t3 is permitted to stop and has not; another old task arrives late, and takes a job; a new worker freezes",
    );
    let late = world.start(0);
    world.job(&late).later(SECOND * 121).node("t6").frozen = true;
    let plan = world.reconcile();
    let expected = Counts {
        desired: 3,
        live: 7,
        old: 4,
        consuming: 3,
        floor: 3,
        held: 3,
        unheld: 2,
        busy: 3,
        unknown: 1,
        permitted: 1,
        jobs: 5,
    };
    assert_eq!(plan.report.counts, expected, "{}", world.story);
}

fn chosen(plan: &Plan) -> Vec<&str> {
    let tasks = plan.report.tasks.iter();
    tasks.filter(|task| task.leaving == Some(Why::ScaleIn)).map(|task| task.task.as_str()).collect()
}

#[test]
fn a_surplus_is_drained_only_where_holds_stand_in_its_way_and_the_user_wants_it() {
    for (mode, scale_in, withdrawn, expected) in [
        (HoldMode::Standing, true, false, 1),
        (HoldMode::Standing, false, false, 0),
        (HoldMode::OnRollout, true, false, 0),
        (HoldMode::Standing, true, true, 0),
    ] {
        let mut world = World::of(2).settled();
        (world.policy.hold.mode, world.policy.drain.scale_in, world.policy.withdrawn) = (mode, scale_in, withdrawn);
        world.desired = 1;
        assert_eq!(chosen(&world.reconcile()).len(), expected, "{mode:?}, scaleIn {scale_in}, withdrawn {withdrawn}");
    }
}

#[test]
fn nobody_is_chosen_by_its_load_while_nobody_tells_of_it() {
    let mut world = World::of(3).settled();
    world.job("t1").job("t2");
    (world.desired, world.broker_down) = (2, Some(FailureKind::Unreachable));
    assert_eq!(chosen(&world.reconcile()), Vec::<&str>::new());
    world.broker_down = None;
    assert_eq!(chosen(&world.later(SECOND).reconcile()), ["t3"], "the idle one");
    world.broker_down = Some(FailureKind::Unreachable);
    assert_eq!(chosen(&world.later(SECOND).reconcile()), ["t3"], "whoever was chosen stays chosen");
}

#[test]
fn whoever_may_be_stopped_without_asking_us_is_the_one_that_leaves() {
    let mut world = World::of(3).settled();
    world.job("t3").say("t3 has lost its hold when two are wanted: the scheduler will stop that one").desired = 2;
    world.task("t3").held_until = None;
    assert_eq!(chosen(&world.reconcile()), ["t3"]);
}

#[test]
fn a_task_that_is_being_stopped_is_no_surplus() {
    let mut world = World::of(2).settled();
    world.task("t2").life = Life::Stopping;
    world.say("one is wanted, and one of two is on its way out").desired = 1;
    let plan = world.reconcile();
    assert_eq!((chosen(&plan), plan.report.counts.live), (Vec::new(), 1));
}

/// ECS may have decided to stop it, and what is seen may be older than that.
#[test]
fn whoever_was_let_go_gets_its_queues_back_when_it_is_held_again() {
    let given_back = |plan: &Plan| plan.actions.iter().any(|action| action.step() == Step::GiveBack);
    let mut world = World::of(2).settled();
    world.desired = 1;
    while !world.tasks["t1"].permitted {
        world.later(SECOND * 2).reconcile();
    }
    let released = world.now;
    world.desired = 2;
    let mut refused = world.clone();
    let plan = world.say("it is wanted again after all").later(SECOND).reconcile();
    assert!(plan.actions.iter().any(|action| action.step() == Step::Hold) && !given_back(&plan), "{}", world.story);
    // The hold that is seen may be older than the release, and be none.
    let held = |world: &World| world.tasks["t1"].held_until.is_some();
    while world.now < released + SECOND * 10 {
        assert!(held(&world) && !given_back(&world.plan()), "{}", world.story);
        world.later(SECOND).reconcile();
    }
    assert!(given_back(&world.plan()) || world.node("t1").queues.contains("video"), "{}", world.story);

    refused.refuse_holds = Some("TASK_NOT_VALID".into());
    refused.say("it is being stopped, which is not seen yet").later(SECOND).reconcile();
    for _ in 0..4 {
        assert!(!given_back(&refused.later(SECOND * 2).reconcile()), "{}", refused.story);
    }
    refused.say("it runs still: its hold was refused for another reason");
    assert!(given_back(&refused.later(SECOND * 2).reconcile()), "{}", refused.story);
}

#[test]
fn whoever_was_permitted_in_a_scale_in_was_permitted_though_a_deployment_overtakes_its_end() {
    let mut world = World::of(2).settled();
    world.desired = 1;
    while !world.tasks["t1"].permitted {
        world.later(SECOND * 2).reconcile();
    }
    world.task("t1").life = Life::Stopping;
    world.later(SECOND * 2).reconcile();
    world.say("somebody deploys before it has ended").deploy("app:2").start_all().later(SECOND).reconcile();
    world.stop("t1");
    world.run(20);
    let past = &world.memory.past[0];
    assert_eq!((past.outcome, past.ended_unpermitted), (RolloutOutcome::Drained, 0), "{}", world.story);
}

#[test]
fn an_answer_from_the_past_begins_no_rollout_again() {
    let mut world = World::of(1).settled();
    world.deploy("app:2").schedule();
    while !world.tasks["t1"].permitted {
        world.later(SECOND * 2).reconcile();
    }
    world.stop("t1");
    world.later(SECOND * 2).reconcile();
    let ended = world.tasks["t1"].clone();
    world.say("it has ended, and is not listed any more").tasks.remove("t1");
    world.later(SECOND * 2).reconcile();
    world.tasks.insert("t1".to_owned(), Member { life: Life::Running, ..ended });
    let plan = world.say("one answer shows it as it was").later(SECOND * 2).reconcile();
    assert_eq!((plan.report.rollout, plan.report.past.len()), (None, 1), "{}", world.story);
    world.tasks.remove("t1");
    world.later(SECOND * 2).reconcile();
    let plan = world.later(SECOND * 10).reconcile();
    assert!(!plan.memory.tasks.contains_key(&task_id("t1")), "it is forgotten in the end");
}

/// A container that does not pass SIGTERM on, or a worker that does not end in time: ECS kills it after `stopTimeout`.
#[test]
fn whoever_was_drained_and_is_killed_all_the_same_is_counted_and_named() {
    for (exit_code, outcome, killed) in [(137, RolloutOutcome::Killed, 1), (0, RolloutOutcome::Drained, 0)] {
        let mut world = World::of(2).settled();
        world.deploy("app:2").schedule();
        while !world.tasks["t1"].permitted {
            world.later(SECOND * 2).reconcile();
        }
        world.stop("t1");
        world.task("t1").life = Life::Stopped { reason: "Scaling activity".into(), exit_code: Some(exit_code) };
        let plan = world.say("t1 ends").later(SECOND).reconcile();
        assert_eq!((plan.report.killed.total, plan.report.killed.tasks.len()), (killed, killed as usize));
        let told = &plan.report.tasks.iter().find(|task| task.task == "t1".into()).unwrap().waiting_for;
        assert_eq!(told.starts_with("it was drained and permitted to stop, and was killed"), killed == 1, "{told}");
        world.run(12);
        let report = world.plan().report;
        assert_eq!(
            (report.past[0].outcome, report.past[0].killed, report.past[0].ended_unpermitted),
            (outcome, killed, 0)
        );
        assert_eq!(report.killed.total, killed, "it is remembered after the rollout");
    }
}

#[test]
fn a_task_of_a_scale_in_that_is_drained_and_killed_is_counted_too() {
    let mut world = World::of(2).settled();
    world.say("one task too many").desired = 1;
    let name = loop {
        world.later(SECOND * 2).reconcile();
        if let Some((name, _)) = world.tasks.iter().find(|(_, task)| task.permitted) {
            break name.clone();
        }
    };
    world.stop(&name);
    world.task(&name).life = Life::Stopped { reason: "Scaling activity".into(), exit_code: Some(137) };
    world.run(3);
    assert_eq!(world.plan().report.killed.total, 1, "{}", world.story);
}

#[test]
fn old_tasks_that_had_ended_before_the_first_look_ended_without_our_permit() {
    for (minimum, stopped, unseen) in [(0, &["t1"][..], 1), (0, &["t1", "t2", "t3"], 3), (0, &[], 0), (100, &["t1"], 1)]
    {
        let mut world = World::of(3);
        world.minimum_percent = minimum;
        world.deploy("app:2").start_all();
        if minimum < 100 {
            // It stops old tasks before new ones are there.
            world.tasks.retain(|_, task| task.revision == 0);
        }
        for name in stopped {
            world.stop(name);
        }
        let plan = world.later(SECOND * 5).reconcile();
        let says = plan.report.notes.iter().any(|note| note.contains("before worker-drain first saw this service"));
        assert_eq!(says, unseen > 0 && unseen < 3, "{minimum}, {stopped:?}: {:?}", plan.report.notes);
        world.start_all().all_jobs_end().run(20);
        let past = world.plan().report.past[0].clone();
        let outcome = if unseen > 0 { RolloutOutcome::EndedUnpermitted } else { RolloutOutcome::Drained };
        assert_eq!((past.outcome, past.unseen, past.ended_unpermitted), (outcome, unseen, unseen), "{}", world.story);
    }
}

#[test]
fn a_service_that_was_deployed_long_ago_or_is_new_had_no_tasks_that_nobody_saw() {
    for (minutes, left, unseen) in [(10, true, 0), (9, true, 2), (2, false, 0), (1, false, 3)] {
        let mut world = World::of(3);
        world.minimum_percent = 0;
        world.deploy("app:2").tasks.retain(|name, _| left && name == "t1");
        world.start_all().later(SignedDuration::from_mins(minutes)).run(12);
        let seen: u32 = world.plan().report.past.iter().map(|past| past.unseen).sum();
        assert_eq!(seen, unseen, "the deployment is {minutes} minutes old, and an old task is left: {left}");
    }
    let mut new = World::of(3);
    new.now = new.revisions[0].0.created_at.unwrap();
    new.run(3);
    assert_eq!(new.plan().report.past, [], "it is the first deployment of the service");
}

#[test]
fn current_tasks_for_which_no_hold_is_left_are_told_until_old_ones_have_ended() {
    let note = |plan: &Plan| plan.report.notes.iter().find(|note| note.contains("not held")).cloned();
    let mut world = World::of(2).settled();
    world.job("t1").job("t2").deploy("app:2").start_all().later(SECOND).reconcile();
    let plan = world.later(SECOND * 2).reconcile();
    assert_eq!(plan.report.counts.unheld, 2, "{}", world.story);
    let says = "2 current tasks are not held: another deployment, or a lower desired count, cuts their jobs";
    assert!(note(&plan).is_some_and(|note| note.starts_with(says)), "{:?}", plan.report.notes);
    world.all_jobs_end().run(12);
    let plan = world.plan();
    assert_eq!((plan.report.counts.unheld, note(&plan)), (0, None), "{}", world.story);
}

#[test]
fn a_lower_desired_count_in_mid_rollout_stops_only_what_was_told_not_to_be_held() {
    let mut world = World::of(3).settled();
    world.job("t1").job("t2").job("t3").deploy("app:2").start_all().later(SECOND).reconcile();
    let plan = world.later(SECOND * 2).reconcile();
    let is_free = |task: &&worker_drain_plan::report::TaskReport| task.hold == HoldState::Free;
    let free: Vec<String> = plan.report.tasks.iter().filter(is_free).map(|task| task.task.to_string()).collect();
    assert_eq!((plan.report.counts.unheld as usize, free.len()), (3, 3), "{}", world.story);
    world.desired = 2;
    world.say("one task fewer is wanted").schedule();
    let ended = |world: &World| {
        let ended = world.tasks.iter().filter(|(_, task)| matches!(task.life, Life::Stopped { .. }));
        ended.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    let stopped = ended(&world);
    assert!(!stopped.is_empty() && stopped.iter().all(|name| free.contains(name)), "{stopped:?}\n{}", world.story);
    world.all_jobs_end().run(20);
    let plan = world.plan();
    assert_eq!((plan.report.settled, plan.report.counts.unheld), (true, 0), "{}", world.story);
}
