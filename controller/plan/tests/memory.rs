//! What is remembered of a task from one observation to the next: its permit, its end, what was taken from it.

#![allow(unused_must_use, reason = "what a reconciliation decides is judged and told by the world")]

mod world;

use jiff::SignedDuration;
use worker_drain_plan::{
    Action, Ground, Outcome, Plan, absorb,
    actions::Step,
    memory::{Permitted, TaskMemory},
    observation::{Answer, Failure, FailureKind, Life, Seen, Task},
    plan,
    policy::{Deadline, DeadlineAction, Scheduled},
    report::RolloutOutcome,
};
use world::{HOUR, SECOND, World, queue, task_id};

/// An old task, `t1`, whose stop was permitted a moment ago, and which the scheduler has not stopped yet.
fn permitted() -> World {
    let mut world = World::of(1).settled();
    world.deploy("app:2").schedule();
    while !world.tasks["t1"].permitted {
        world.later(SECOND * 2).reconcile();
    }
    world
}

fn known<'a>(plan: &'a Plan, task: &str) -> &'a TaskMemory {
    &plan.memory.tasks[&task_id(task)]
}

fn given_back(plan: &Plan) -> Vec<&str> {
    let given = plan.actions.iter().filter(|action| matches!(action, Action::GiveBack { .. }));
    given.map(|action| action.task().as_str()).collect()
}

#[test]
fn a_permit_is_void_when_its_task_is_seen_at_work_and_no_sooner() {
    let (drained, deadline) = (Ground::Drained, Ground::Deadline { jobs: Some(1) });
    let nothing: fn(&World, &mut Task, &mut Answer) = |_, _, _| {};
    let takes: fn(&World, &mut Task, &mut Answer) = |_, _, answer| answer.queues = Some(vec![queue("video")]);
    let works: fn(&World, &mut Task, &mut Answer) =
        |world, _, answer| answer.active = Some(vec![world.clone().new_job()]);
    let silent: fn(&World, &mut Task, &mut Answer) = |_, _, answer| answer.active = None;
    let stops: fn(&World, &mut Task, &mut Answer) = |_, task, answer| {
        answer.queues = Some(vec![queue("video")]);
        task.life = Life::Stopping;
    };
    for (what, change, ground, stands) in [
        ("it is as it was", nothing, &drained, true),
        ("its worker restarted, or somebody else gave it a queue", takes, &drained, false),
        ("somebody else gave it a job", works, &drained, false),
        ("it does not answer, and that is not work", silent, &drained, true),
        ("the scheduler stops it at last, whatever it does now", stops, &drained, true),
        ("it was let go because its deadline had passed, jobs or not", takes, &deadline, true),
        ("the same, with a job", works, &deadline, true),
    ] {
        let mut world = permitted();
        world.later(SECOND * 2);
        let before = world.memory.tasks[&task_id("t1")].permitted.clone().expect("it is permitted");
        let before = Permitted { ground: ground.clone(), ..before };
        world.memory.tasks.get_mut(&task_id("t1")).unwrap().permitted = Some(before.clone());
        let mut observation = world.observe();
        let (Seen::Ok { value: fleet, .. }, Seen::Ok { value: workers, .. }) =
            (&mut observation.fleet, &mut observation.workers)
        else {
            panic!("both are there")
        };
        let answer = workers.nodes.get_mut(&"celery@t1".into()).unwrap();
        change(&world, fleet.tasks.get_mut(&task_id("t1")).unwrap(), answer);
        let plan = plan(&world.policy, &observation, &world.memory, world.now);
        assert_eq!(known(&plan, "t1").permitted, stands.then_some(before), "{what}");
    }
}

#[test]
fn a_permit_that_was_given_and_not_written_down_is_known_by_its_effect() {
    let mut world = World::of(1).settled();
    world.deploy("app:2").schedule();
    let permit = loop {
        world.later(SECOND * 2);
        let plan = world.plan();
        match plan.actions.iter().find(|action| matches!(action, Action::Permit { .. })) {
            Some(permit) => break permit.clone(),
            None => world.reconcile(),
        };
    };
    world.say("t1 is released, and we are killed before that is written down").apply(&permit);
    let plan = world.later(SECOND * 2).reconcile();
    let permitted = known(&plan, "t1").permitted.as_ref().map(|permitted| &permitted.ground);
    assert_eq!(permitted, Some(&Ground::Drained), "{}", world.story);
    assert!(plan.actions.iter().all(|action| action.task().as_str() != "t1"), "it is not held again");
    assert_eq!(world.schedule().later(SECOND * 2).reconcile().report.past[0].outcome, RolloutOutcome::Drained);
}

#[test]
fn whoever_was_permitted_to_stop_gets_no_queues_back() {
    let mut world = World::of(2).settled();
    world.job("t2").deploy("app:2").start_all();
    while !world.tasks["t1"].permitted {
        world.later(SECOND * 2).reconcile();
    }
    world.say("the workers of the new revision crash for good, and t1 may stop at any moment");
    world.task("t3").nodes.clear();
    world.task("t4").nodes.clear();
    world.later(SECOND).reconcile();
    let plan = world.later(SECOND * 60).reconcile();
    assert_eq!(given_back(&plan), ["t2"], "{}", world.story);
}

#[test]
fn a_shortage_begins_when_the_floor_is_missed_and_not_when_it_is_met() {
    let mut world = World::of(2).settled();
    world.job("t1").job("t2").deploy("app:2").schedule().run(3);
    world.say("the new ones are just enough, for long").later(SignedDuration::from_mins(10)).reconcile();
    world.say("one of them misses a look").node("t3").frozen = true;
    let plan = world.later(SECOND).reconcile();
    assert_eq!(given_back(&plan), [] as [&str; 0], "{}", world.story);
    let plan = world.later(SECOND * 59).reconcile();
    assert_eq!(given_back(&plan), [] as [&str; 0], "{}", world.story);
    let plan = world.later(SECOND).reconcile();
    assert_eq!(given_back(&plan).len(), 1, "{}", world.story);
}

#[test]
fn a_task_that_its_scheduler_knows_no_more_has_ended_after_a_minute() {
    let is_awaited = |world: &World| world.memory.tracked().contains(&task_id("t1"));
    let mut world = World::of(1).settled();
    world.tasks.remove("t1");
    world.reconcile();
    world.later(SECOND * 59).reconcile();
    assert!(is_awaited(&world), "it may be missing from one answer and be there in the next");
    world.later(SECOND).reconcile();
    assert!(!is_awaited(&world));

    let mut world = permitted();
    world.tasks.remove("t1");
    world.later(SECOND).reconcile();
    assert!(!is_awaited(&world), "it was permitted to stop, and did");
    assert_eq!(world.memory.past[0].outcome, RolloutOutcome::Drained);
}

#[test]
fn a_task_that_is_missing_from_an_answer_is_not_forgotten() {
    let mut world = World::of(1).settled();
    world.job("t1").deploy("app:2").schedule().run(2);
    world.roll_back_to(0).run(20);
    assert!(world.plan().report.settled, "{}", world.story);
    world.say("t1 is missing from one answer; meanwhile its worker reconnects, and forgets what was given back");
    let mut missing = world.tasks.remove("t1").unwrap();
    missing.nodes.values_mut().for_each(|node| node.queues.clear());
    world.later(SECOND).reconcile();
    world.tasks.insert("t1".into(), missing);
    let plan = world.later(SECOND).reconcile();
    assert_eq!(given_back(&plan), ["t1"], "{}", world.story);
}

#[test]
fn what_ended_before_it_was_ever_seen_is_counted_by_no_rollout() {
    let mut world = World::of(2).settled();
    let lost = world.start(0);
    world.stop(&lost);
    world.shows_ended = true;
    world.job("t1").deploy("app:2").start_all();
    let plan = world.reconcile();
    assert!(plan.report.tasks.iter().all(|task| task.task != task_id(&lost)), "{}", world.story);
    world.all_jobs_end().run(12);
    let past = &world.memory.past[0];
    assert_eq!((past.tasks, past.outcome), (2, RolloutOutcome::Drained));
}

#[test]
fn what_crashed_before_it_was_to_leave_is_counted_by_no_rollout_though_it_is_shown_again() {
    let mut world = World::of(2).settled();
    world.shows_ended = true;
    world.job("t1").deploy("app:2").start_all().run(3);
    for crashed in ["t3", "t4"] {
        world.stop(crashed);
    }
    world.say("both workers of revision 2 crash").later(SECOND).reconcile();
    world.say("revision 3 mends it").deploy("app:3").start_all();
    world.later(SECOND).reconcile();
    world.all_jobs_end().run(12);
    let past = &world.memory.past[0];
    assert_eq!((past.tasks, past.outcome), (2, RolloutOutcome::Drained), "{}", world.story);
}

#[test]
fn a_job_for_later_is_awaited_only_where_it_counts_as_work() {
    for (scheduled, awaited) in [(Scheduled::Ignore, 0), (Scheduled::Wait, 1)] {
        let mut world = World::of(1).settled();
        world.policy.drain.scheduled = scheduled;
        world.deploy("app:2").schedule().reconcile();
        let job = world.new_job();
        world.node("t1").scheduled.push(job);
        assert_eq!(world.later(SECOND).plan().awaited.len(), awaited, "{scheduled:?}");
    }
}

/// As when it ran hours ahead until it was told the time.
#[test]
fn a_clock_that_is_put_back_delays_nothing() {
    let put_back = |world: &mut World| world.now = world.now.saturating_add(-HOUR * 2).unwrap();
    let mut world = World::of(1).settled();
    world.job("t1").deploy("app:2").schedule().run(3);
    world.all_jobs_end().reconcile();
    assert!(known(&world.plan(), "t1").idle.is_some(), "t1 was seen idle once");
    put_back(&mut world);
    world.run(5);
    assert_eq!(world.memory.past[0].outcome, RolloutOutcome::Drained, "{}", world.story);

    let mut world = World::of(1).settled();
    world.refuse_holds = Some("DEPLOYMENT_BLOCKED".into());
    world.task("t1").held_until = None;
    world.job("t1").deploy("app:2").start_all().reconcile();
    assert!(known(&world.plan(), "t1").refused().is_some());
    world.refuse_holds = None;
    put_back(&mut world);
    let plan = world.reconcile();
    assert!(plan.actions.iter().any(|action| matches!(action, Action::Hold { .. })), "{}", world.story);
}

/// A pass that takes long to act plans again on what it saw before.
#[test]
fn a_revision_is_believed_by_looks_and_not_by_the_time_that_a_pass_takes() {
    let mut world = World::of(2).settled();
    world.job("t1").deploy("app:2").schedule().run(3).roll_back_to(0);
    let observation = world.observe();
    let first = plan(&world.policy, &observation, &world.memory, world.now);
    let again = plan(&world.policy, &observation, &first.memory, world.now.saturating_add(SECOND * 30).unwrap());
    for plan in [first, again] {
        assert!(plan.memory.current.is_some_and(|current| current.turning.is_some()), "{}", world.story);
    }
}

/// The call reached ECS, and its reply was lost, or we were killed before it came.
#[test]
fn a_permit_that_took_effect_unheard_is_a_permit() {
    let deadline = Some(Deadline { after: HOUR, action: DeadlineAction::PermitStop });
    let lost = Outcome::Failed(Failure::new(FailureKind::Unreachable, "no answer"));
    for (deadline, outcome) in [(None, RolloutOutcome::Drained), (deadline, RolloutOutcome::JobsCut)] {
        for reply in [Some(lost.clone()), None] {
            let mut world = World::of(1).settled();
            world.policy.drain.deadline = deadline;
            world.deploy("app:2").schedule();
            if deadline.is_some() {
                world.job("t1").run(3).later(HOUR);
            }
            let (permit, plan) = loop {
                world.later(SECOND * 2);
                let plan = world.plan();
                match plan.actions.iter().find(|action| matches!(action, Action::Permit { .. })) {
                    Some(permit) => break (permit.clone(), plan.clone()),
                    None => world.reconcile(),
                };
            };
            world.memory = plan.memory;
            world.apply(&permit);
            if let Some(reply) = &reply {
                absorb(&mut world.memory, &[(permit, reply.clone())], world.now);
            }
            world.task("t1").permitted = false;
            world.stop("t1");
            let past = world.later(SECOND * 300).reconcile().report.past.remove(0);
            assert_eq!((past.outcome, past.ended_unpermitted), (outcome, 0), "{}", world.story);
            assert_eq!(past.jobs_cut, u32::from(deadline.is_some()), "{}", world.story);
        }
    }
}

#[test]
fn a_permit_that_took_no_effect_is_none() {
    let mut world = World::of(1).settled();
    world.set_back.insert(Step::Permit, Outcome::Failed(Failure::new(FailureKind::Unreachable, "no answer")));
    world.deploy("app:2").schedule().run(4);
    assert!(known(&world.plan(), "t1").permitting.is_some(), "{}", world.story);
    world.say("somebody else gives it a job").job("t1").later(SECOND).reconcile();
    world.stop("t1");
    let past = world.later(SECOND).reconcile().report.past.remove(0);
    assert_eq!(past.outcome, RolloutOutcome::EndedUnpermitted, "{}", world.story);
}

/// What an observation at a running task tells of a permit of which nobody heard what became of it.
#[test]
fn an_open_permit_is_closed_by_what_is_seen() {
    type Change<'a> = &'a dyn Fn(&mut World);
    let (drained, deadline) = (Ground::Drained, Ground::Deadline { jobs: Some(1) });
    let hour = |world: &mut World| world.task("t1").held_until = Some(world.now + HOUR);
    let free = |world: &mut World| world.task("t1").held_until = None;
    let silent_and_free: Change = &|world| (free(world), world.node("t1").frozen = true).0;
    let busy: Change = &|world| (hour(world), world.job("t1")).0;
    let silent: Change = &|world| (hour(world), world.node("t1").frozen = true).0;
    for (what, ground, seconds, change, is_open, is_permitted) in [
        (
            "nothing holds it, and it does not answer: it is held again if it can be",
            &drained,
            60,
            silent_and_free,
            true,
            false,
        ),
        ("nothing holds it, and its deadline has passed", &deadline, 60, &free as Change, false, true),
        ("it is at work", &drained, 1, busy, false, false),
        ("it is at work, as it may be after a deadline; the hold may be of before", &deadline, 1, busy, true, false),
        ("it is held, which may be of before", &drained, 9, silent, true, false),
        ("it is held still", &drained, 10, silent, false, false),
    ] {
        let mut world = World::of(1).settled();
        world.deploy("app:2").start_all().run(1);
        let at = world.now;
        world.memory.tasks.get_mut(&task_id("t1")).unwrap().permitting = Some(Permitted { at, ground: ground.clone() });
        world.later(SECOND * seconds);
        change(&mut world);
        let observation = world.observe();
        let plan = plan(&world.policy, &observation, &world.memory, world.now);
        let task = known(&plan, "t1");
        assert_eq!((task.permitting.is_some(), task.permitted.is_some()), (is_open, is_permitted), "{what}");
    }
}
