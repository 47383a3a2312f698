//! What a person is told: phases, verdicts and words; and when the next observation is.

#![allow(unused_must_use, reason = "what a reconciliation decides is judged and told by the world")]

mod world;

use jiff::SignedDuration;
use worker_drain_plan::{
    Plan, age,
    observation::{FailureKind, Life, Unplaced},
    plan,
    policy::{Deadline, DeadlineAction, HoldMode},
    report::{Phase, Reason, TaskPhase, Verdict},
};
use world::{Counting, HOUR, SECOND, World};

/// What a drain waits for, as the columns and conditions say it.
fn told(plan: &Plan) -> (Option<bool>, Reason, &str, Option<bool>) {
    let report = &plan.report;
    (report.drained.answer, report.drained.reason, &report.blocked_by, report.stalled.answer)
}

/// For how long what is wrong outside the specification is waited for.
const ON_ITS_WAY: SignedDuration = SignedDuration::from_mins(5);

#[test]
fn of_a_fleet_that_cannot_be_seen_nothing_is_claimed() {
    for (kind, withdrawn, paused, phase, reason, needs_a_person) in [
        (FailureKind::Unreachable, false, false, Phase::Unknown, Reason::FleetUnreachable, false),
        (FailureKind::Throttled, false, true, Phase::Paused, Reason::FleetThrottled, false),
        (FailureKind::Denied, true, false, Phase::Unknown, Reason::FleetDenied, true),
        (FailureKind::Invalid, false, false, Phase::Unknown, Reason::FleetInvalid, true),
        (FailureKind::NotFound, false, false, Phase::Unknown, Reason::FleetNotFound, true),
        (FailureKind::NotFound, true, false, Phase::Withdrawn, Reason::FleetNotFound, true),
    ] {
        let mut world = World::of(1).settled();
        (world.policy.withdrawn, world.policy.paused, world.fleet_down) = (withdrawn, paused, Some(kind));
        let plan = world.reconcile();
        let at_once = needs_a_person && (withdrawn || kind == FailureKind::Invalid);
        assert_eq!(told(&plan), (None, reason, reason.to_string().as_str(), Some(at_once)));
        world.later(ON_ITS_WAY - SECOND).reconcile();
        assert_eq!(world.plan().report.stalled.answer, Some(at_once), "what is missing may still come");
        let plan = world.later(SECOND).reconcile();
        assert_eq!(told(&plan), (None, reason, reason.to_string().as_str(), Some(needs_a_person)));
        let Verdict { answer, reason: why, .. } = &plan.report.ready;
        assert_eq!((plan.report.phase, *answer, *why), (phase, Some(false), reason), "withdrawn: {withdrawn}");
    }
}

#[test]
fn of_workers_that_cannot_be_asked_it_is_said_whether_a_person_must_mend_it() {
    for (kind, reason, needs_a_person) in [
        (FailureKind::Unreachable, Reason::WorkersUnreachable, false),
        (FailureKind::Throttled, Reason::WorkersUnreachable, false),
        (FailureKind::Denied, Reason::WorkersDenied, true),
        (FailureKind::NotFound, Reason::WorkersInvalid, true),
        (FailureKind::Invalid, Reason::WorkersInvalid, true),
    ] {
        let mut world = World::of(1).settled();
        world.broker_down = Some(kind);
        assert_eq!(world.reconcile().report.stalled.answer, Some(false), "a Secret may come seconds later");
        let plan = world.later(ON_ITS_WAY).reconcile();
        assert_eq!(plan.report.ready.reason, reason);
        let expected = (Some(true), Reason::NoOldTasks, reason.to_string(), Some(needs_a_person));
        let (answer, drained, blocked_by, stalled) = told(&plan);
        assert_eq!((answer, drained, blocked_by.to_owned(), stalled), expected);
    }
}

#[test]
fn what_a_drain_waits_for_is_told_as_long_as_it_waits() {
    let mut world = World::of(1).settled();
    assert_eq!(told(&world.plan()), (Some(true), Reason::NoOldTasks, "", Some(false)));
    let plan = world.job("t1").deploy("app:2").schedule().reconcile();
    assert_eq!(told(&plan), (Some(false), Reason::InProgress, "", Some(false)), "it is being cancelled");
    world.later(SECOND).reconcile();
    assert_eq!(told(&world.plan()), (Some(false), Reason::JobsRunning, "JobsRunning", Some(false)), "jobs end");
    world.node("t1").frozen = true;
    assert_eq!(told(&world.plan()), (Some(false), Reason::NodeSilent, "NodeSilent", Some(false)));
    world.node("t1").frozen = false;
    let policy = world.policy.clone();
    world.policy.drain.deadline = Some(Deadline { after: SECOND, action: DeadlineAction::Hold });
    let overdue = (Some(false), Reason::DeadlineExceeded, "DeadlineExceeded", Some(true));
    assert_eq!(told(&world.later(SECOND).reconcile()), overdue, "a person may end the job");
    world.policy = policy;
    world.gate().counting = Counting::Fails(FailureKind::Unreachable);
    let unknown = (Some(false), Reason::QueuesUnknown, "QueuesUnknown", Some(false));
    assert_eq!(told(&world.reconcile()), unknown, "old tasks are there, though of the gate nothing can be told");
}

#[test]
fn a_revision_that_may_be_an_answer_from_the_past_settles_nothing() {
    let mut world = World::of(1).settled();
    world.deploy("app:2").schedule().run(12);
    assert!(world.plan().report.settled);
    world.say("revision 1, of which no task is left, is shown as current").current = 0;
    let plan = world.later(SECOND).reconcile();
    assert_eq!(told(&plan), (None, Reason::InProgress, "", Some(false)));
    assert!(!plan.report.settled && plan.report.notes[0].starts_with("the service shows app:1 as current again"));
}

#[test]
fn only_a_worker_that_lacks_what_was_taken_keeps_a_drain_from_being_withdrawn() {
    for (frozen, phase) in [("t1", Phase::Withdrawing), ("t3", Phase::Withdrawn)] {
        let mut world = World::of(2).settled();
        world.job("t1").job("t2").deploy("app:2").schedule().run(3);
        world.policy.withdrawn = true;
        world.node(frozen).frozen = true;
        world.reconcile();
        assert_eq!(world.later(SECOND).reconcile().report.phase, phase, "{frozen} is silent");
    }
}

#[test]
fn a_hold_that_somebody_else_set_keeps_no_drain_from_being_withdrawn() {
    let mut world = World::of(1);
    world.policy.hold.mode = HoldMode::OnRollout;
    world.task("t1").held_until = Some("2026-01-02T00:00:00Z".parse().unwrap());
    world.reconcile();
    world.policy.withdrawn = true;
    assert_eq!(world.reconcile().report.phase, Phase::Withdrawn);
    assert!(world.task("t1").held_until.is_some(), "it is not ours to release");
}

#[test]
fn a_held_task_that_an_old_answer_shows_as_starting_or_leaves_out_keeps_a_drain_from_being_withdrawn() {
    for is_left_out in [false, true] {
        let mut world = World::of(2).settled();
        world.policy.withdrawn = true;
        let member = world.task("t1").clone();
        if is_left_out {
            world.tasks.remove("t1");
        } else {
            world.task("t1").life = Life::Starting;
        }
        world.reconcile();
        assert_eq!(world.later(SECOND).reconcile().report.phase, Phase::Withdrawing, "left out: {is_left_out}");
        world.tasks.insert("t1".into(), member);
        world.later(SECOND).reconcile();
        assert_eq!(world.later(SECOND).reconcile().report.phase, Phase::Withdrawn, "left out: {is_left_out}");
        assert!(world.tasks.values().all(|task| task.held_until.is_none()), "{}", world.story);
    }
}

/// What is said of the first task, after this has happened to a service with one task.
fn said(happens: impl FnOnce(&mut World)) -> String {
    let mut world = World::of(1).settled();
    happens(&mut world);
    let tasks = world.plan().report.tasks;
    tasks.into_iter().find(|task| task.task.as_str() == "t1").map(|task| task.waiting_for).expect("t1 is told of")
}

#[test]
fn every_task_says_what_it_waits_for() {
    let own_settings = said(|world| world.node("t1").queues.clear());
    assert_eq!(
        own_settings,
        "it consumes from no queue, and not because of worker-drain; check its worker's own settings"
    );
    let starting = said(|world| {
        world.task("t1").life = Life::Starting;
        world.deploy("app:2");
    });
    assert_eq!(starting, "it has not started; it is drained when it runs");
    let awaited = said(|world| {
        world.gate().policy.drain.gate.as_mut().unwrap().awaited = true;
        world.deploy("app:2").schedule().queued = (1, 0);
    });
    assert!(awaited.ends_with("what waits for the queues of drain.gate goes on after that"), "{awaited}");
    let behind_gate = said(|world| {
        world.node("t1").queues.clear();
        world.gate().deploy("app:2").schedule().queued = (1, 0);
    });
    assert_eq!(behind_gate, "it has no jobs; it stays held until the queues of drain.gate are empty");
}

#[test]
fn a_task_is_starting_for_as_long_as_the_user_says_or_as_is_usual() {
    let phase = |after: SignedDuration, set: fn(&mut World)| {
        let mut world = World::of(1).settled();
        set(&mut world);
        world.memory.tasks.clear();
        world.task("t1").nodes.clear();
        world.task("t1").started_at = Some(world.now);
        world.reconcile();
        let report = world.later(after).reconcile().report;
        (report.tasks[0].phase, report.stalled.answer, report.tasks[0].waiting_for.clone())
    };
    let minutes = |minutes: i64| SECOND * 60 * i32::try_from(minutes).unwrap();
    let slow = |world: &mut World| world.memory.slowest_start = Some(SignedDuration::from_mins(5));
    let said = |world: &mut World| world.policy.drain.start_timeout = Some(SignedDuration::from_mins(7));
    for (set, lasts) in [((|_| {}) as fn(&mut World), 2), (slow, 10), (said, 7)] {
        assert_eq!(phase(minutes(lasts) - SECOND, set).0, TaskPhase::Starting, "{lasts} min");
        let (phase, stalled, words) = phase(minutes(lasts), set);
        assert_eq!((phase, stalled), (TaskPhase::Unmapped, Some(true)), "{lasts} min");
        let advice = format!("if its worker takes longer than {lasts}m 0s to start, set spec.workers.startTimeout");
        assert!(words.ends_with(&advice), "{words}");
    }
}

#[test]
fn jobs_are_told_by_where_they_are_and_the_oldest_by_its_age() {
    let jobs = |active: usize, reserved: usize, scheduled: usize| {
        said(|world| {
            let job = world.new_job();
            let node = world.node("t1");
            node.active = vec![job.clone(); active];
            (node.reserved, node.scheduled) = (vec![job.clone(); reserved], vec![job; scheduled]);
            world.later(HOUR).deploy("app:2").start_all().reconcile();
        })
    };
    let oldest = "the oldest is transcode job-1, for 1h 0m";
    assert_eq!(jobs(2, 0, 0), format!("2 jobs running; {oldest}"));
    assert_eq!(jobs(1, 3, 2), format!("1 job running, 3 reserved, 2 scheduled; {oldest}"));
    assert_eq!(jobs(0, 1, 0), "0 jobs running, 1 reserved");
}

#[test]
fn who_may_be_stopped_at_any_moment_says_with_how_many_jobs() {
    let mut world = World::of(1);
    world.policy.hold.mode = HoldMode::OnRollout;
    world.refuse_holds = Some("DEPLOYMENT_BLOCKED".into());
    let waiting = world.new_job();
    world.job("t1").job("t1").node("t1").reserved.push(waiting);
    world.deploy("app:2").reconcile();
    let message = world.later(SECOND).reconcile().report.drained.message;
    assert!(message.contains("with 3 jobs") && message.ends_with("next try in 14s"), "{message}");
}

#[test]
fn at_most_three_tasks_are_named_and_the_others_counted() {
    for (tasks, expected) in [
        (1, ""),
        (2, " (also t2)"),
        (4, " (also t2, t3, t4)"),
        (5, " (also t2, t3, t4 and 1 more)"),
        (6, " (also t2, t3, t4 and 2 more)"),
    ] {
        let mut world = World::of(tasks).settled();
        for task in 1..=tasks {
            world.job(&format!("t{task}"));
        }
        world.deploy("app:2").start_all().reconcile();
        let message = world.later(SECOND).reconcile().report.drained.message;
        assert!(message.starts_with("task t1: ") && message.ends_with(expected), "{message}");
        assert_eq!(message.contains("(also "), tasks > 1, "{message}");
    }
}

#[test]
fn a_time_is_told_by_its_two_largest_units() {
    for (seconds, expected) in [
        (-5, "0s"),
        (0, "0s"),
        (59, "59s"),
        (60, "1m 0s"),
        (3_599, "59m 59s"),
        (3_600, "1h 0m"),
        (86_399, "23h 59m"),
        (86_400 + 7_200 + 59, "1d 2h"),
    ] {
        assert_eq!(age(SignedDuration::from_secs(seconds)), expected);
    }
    assert_eq!(age(SignedDuration::from_millis(1_500)), "2s");
}

#[test]
fn the_next_look_is_as_soon_as_something_may_be_seen_and_no_sooner() {
    type Event = fn(&mut World);
    let table: [(&str, Event, i64); 11] = [
        ("nothing goes on", |_| {}, 15_000),
        ("something was just done, and is read back", |world| world.task("t1").held_until = None, 1_000),
        ("a task starts", |world| world.task("t1").life = Life::Starting, 3_000),
        (
            "a worker may still be coming up",
            |world| {
                world.memory.tasks.clear();
                world.task("t1").nodes.clear();
                world.task("t1").started_at = Some(world.now);
            },
            3_000,
        ),
        ("a worker that has served is silent", |world| world.node("t1").frozen = true, 15_000),
        ("a job has just begun to be waited for", |world| busy(world), 2_000),
        (
            "it is waited for since 100 seconds",
            |world| {
                busy(world);
                world.later(SECOND * 100);
            },
            5_000,
        ),
        (
            "it is waited for since an hour",
            |world| {
                busy(world);
                world.later(HOUR - SECOND);
            },
            10_000,
        ),
        (
            "a task was idle half of the time that proves it",
            |world| {
                busy(world);
                world.jobs_end("t1").later(SECOND).reconcile();
                world.later(SECOND / 2);
            },
            500,
        ),
        (
            "it is proven, and may not be permitted to stop",
            |world| {
                busy(world);
                world.policy.paused = true;
                world.jobs_end("t1").later(SECOND).reconcile();
                world.later(SECOND * 5).reconcile();
                world.later(SECOND * 5);
            },
            2_000,
        ),
        (
            "a hold that cannot be renewed ends in 19 seconds",
            |world| {
                world.refuse_holds = Some("TASK_NOT_VALID".into());
                world.task("t1").held_until = Some(world.now + SECOND * 20);
                world.reconcile();
                world.later(SECOND);
            },
            9_500,
        ),
    ];
    for (what, happens, expected) in table {
        let mut world = World::of(1).settled();
        happens(world.say(what));
        let plan = world.reconcile();
        assert_eq!(plan.wake_after, SignedDuration::from_millis(expected), "{}", world.story);
    }
}

#[test]
fn a_proof_that_cannot_be_completed_is_not_hurried() {
    let mut world = World::of(1).settled();
    busy(&mut world);
    world.jobs_end("t1").later(SECOND).reconcile();
    let (policy, observation, memory) = (&world.policy, world.observe(), &world.memory);
    for (later, expected) in [(500, 500), (950, 100), (5_000, 1_000)] {
        let later = SignedDuration::from_millis(later);
        let plan = plan(policy, &observation, memory, world.now + later);
        assert_eq!(plan.wake_after, SignedDuration::from_millis(expected), "our clock jumped by {later:#}");
    }
}

/// The task t1 is old, takes no jobs, and has one.
fn busy(world: &mut World) {
    world.job("t1").deploy("app:2").start_all().reconcile();
    world.later(SECOND).reconcile();
}

#[test]
fn an_outside_in_trouble_is_asked_twice_as_seldom_each_time_up_to_half_a_minute() {
    let backoff = |world: &mut World| -> Vec<i64> {
        (0..7).map(|_| world.later(SECOND).reconcile().wake_after.as_secs()).collect()
    };
    let mut world = World::of(1).settled();
    world.fleet_down = Some(FailureKind::Throttled);
    assert_eq!(backoff(&mut world), [1, 2, 4, 8, 16, 30, 30]);
    let mut world = World::of(1).settled();
    world.broker_down = Some(FailureKind::Unreachable);
    assert_eq!(backoff(&mut world), [1, 2, 4, 8, 15, 15, 15], "the fleet is looked at all the same");
}

/// A fleet of which the scheduler lists a task that nobody can place is not ready, and not done, whatever else is so.
#[test]
fn a_task_that_cannot_be_placed_is_told_and_never_taken_for_done() {
    let mut world = World::of(1).settled();
    let why = String::from("it was started by nobody that is known");
    world.unplaced.insert("task/x".into(), Unplaced { life: Life::Running, why });
    let report = world.reconcile().report;
    let ready = (report.ready.answer, report.ready.reason, report.drained.answer, report.stalled.answer);
    assert_eq!(ready, (Some(false), Reason::Unaccounted, None, Some(true)));
    for part in
        ["2 tasks by the scheduler's own count, 1 placed, 1 task that cannot be placed", "task x: it was started"]
    {
        assert!(report.ready.message.contains(part), "{}", report.ready.message);
    }
    let unaccounted = report.unaccounted.unwrap();
    assert_eq!((unaccounted.placed, unaccounted.counted, unaccounted.certain), (1, Some(2), true));
    assert!(unaccounted.rest_settled && !report.settled, "a run must not end well on it");
    world.unplaced.clear();
    assert!(world.reconcile().report.settled, "it has ended");
}

/// A count that differs from what is shown may be an answer from the past for ten seconds.
#[test]
fn a_count_that_does_not_add_up_is_believed_when_it_lasts() {
    let mut world = World::of(2).settled();
    world.counts_more = 1;
    let report = world.reconcile().report;
    assert_eq!((report.ready.answer, report.settled), (Some(true), false), "it may pass");
    assert!(report.notes.iter().any(|note| note.contains("counts 3 tasks and shows 2")), "{:?}", report.notes);
    let report = world.later(SECOND * 11).reconcile().report;
    assert_eq!((report.ready.answer, report.ready.reason), (Some(false), Reason::Unaccounted));
    assert_eq!((report.drained.answer, report.notes.len()), (None, 0), "it is told once");
    world.counts_more = 0;
    assert!(world.later(SECOND).reconcile().report.settled);
}

/// An alert on this must not be over when the rollout is.
#[test]
fn what_was_lost_is_told_in_the_rollout_and_after_it() {
    let clean = |plan: &Plan| {
        let verdict = plan.report.clean.clone().unwrap();
        (verdict.answer, verdict.reason)
    };
    let mut world = World::of(2).settled();
    assert_eq!(clean(&world.plan()), (Some(true), Reason::NothingLost));
    world.job("t1").deploy("app:2").schedule().run(3);
    assert_eq!(clean(&world.plan()), (Some(true), Reason::NothingLost));
    world.stop("t1");
    world.run(2);
    assert_eq!(clean(&world.plan()), (Some(false), Reason::EndedUnpermitted), "{}", world.story);
    world.all_jobs_end().run(20);
    let Plan { report, .. } = world.plan();
    assert_eq!((report.drained.answer, report.drained.reason), (Some(true), Reason::EndedUnpermitted));
    let message = "no task of an old revision is left, but in the rollout to app:2 1 old task ended without our permit";
    assert_eq!(report.drained.message, message);
    assert_eq!((report.blocked_by.as_str(), report.stalled.answer), ("", Some(false)));

    world.deploy("app:3").schedule().run(20);
    let Plan { report, .. } = world.plan();
    assert_eq!((report.drained.reason, clean(&world.plan()).0), (Reason::NoOldTasks, Some(true)), "{}", world.story);
}
