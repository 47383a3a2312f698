//! What is shown, as people see it.

use jiff::{SignedDuration, Timestamp};
use worker_drain_plan::{
    Report, TaskId,
    memory::Why,
    observation::{HoldState, Job},
    report::{
        Counts, Cut, JobCounts, Killed, NodeReport, PastRollout, Phase, Reason, RolloutOutcome, RolloutReport,
        TaskPhase, TaskReport, Verdict, Worth,
    },
};

use super::{Change, Size, Watched, change, json, lines, live};
use crate::cli::{exit::Exit, progress::Losses};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn verdict(answer: bool, reason: Reason, message: &str) -> Verdict {
    Verdict { answer: Some(answer), reason, message: message.into() }
}

fn node(name: &str, worth: Worth) -> NodeReport {
    let doubt = if worth == Worth::Incomplete { "it may hold jobs unseen: batches" } else { "" };
    NodeReport { name: name.into(), worth: Some(worth), doubt: doubt.into() }
}

fn task(id: &str, revision: u32, phase: TaskPhase, jobs: u32) -> TaskReport {
    let leaving = (revision == 41).then_some(Why::Rollout);
    TaskReport {
        task: TaskId::from(format!("arn:aws:ecs:eu-west-1:1:task/media/{id}")),
        revision: format!("transcoder:{revision}"),
        leaving,
        phase,
        since: at(0),
        nodes: vec![node(&format!("worker@{id}"), Worth::Lists)],
        jobs: Some(JobCounts { active: jobs, reserved: 0, scheduled: 0 }),
        oldest_job: (jobs > 0).then(|| Job { id: "j1".into(), name: "transcode".into(), started_at: Some(at(-3900)) }),
        hold: HoldState::Until(at(7200)),
        hold_refused: None,
        waiting_for: match jobs {
            0 => String::new(),
            1 => "1 job running".into(),
            jobs => format!("{jobs} jobs running"),
        },
    }
}

fn report(tasks: Vec<TaskReport>) -> Report {
    let old = tasks.iter().filter(|task| task.leaving.is_some()).count();
    let old = u32::try_from(old).unwrap();
    Report {
        fleet: "media/transcoder".into(),
        phase: Phase::Draining,
        ready: verdict(true, Reason::AllSeen, "all is seen"),
        drained: verdict(false, Reason::JobsRunning, "task 0af3b2c1d4: 2 jobs running"),
        stalled: verdict(false, Reason::NotStalled, "nothing"),
        gate: None,
        settled: false,
        rollout_settled: false,
        current: None,
        drained_to: None,
        clean: None,
        is_whole: true,
        unaccounted: None,
        deleted: None,
        withdrawal: None,
        rollout: Some(RolloutReport {
            to: "ecs-svc/2".into(),
            label: "transcoder:42".into(),
            since: at(0),
            old: old + 1,
            ended: 1,
            jobs_cut: 0,
        }),
        past: Vec::new(),
        counts: Counts { desired: 3, live: 5, old, consuming: 3, floor: 2, held: 3, busy: 1, ..Counts::default() },
        tasks,
        blocked_by: "JobsRunning".into(),
        cut: Cut::default(),
        killed: Killed::default(),
        unmatched_workers: Vec::new(),
        notes: Vec::new(),
    }
}

fn draining() -> Report {
    report(vec![
        task("0af3b2c1d4", 41, TaskPhase::Busy, 2),
        task("7c11e0b2aa", 41, TaskPhase::Idle, 0),
        task("9d00aa1b2c", 42, TaskPhase::Serving, 1),
    ])
}

fn steady() -> Report {
    let mut report = report(vec![task("9d00aa1b2c", 42, TaskPhase::Serving, 1)]);
    report.past = vec![PastRollout {
        to: "ecs-svc/2".into(),
        label: "transcoder:42".into(),
        since: at(0),
        until: at(250),
        tasks: 3,
        outcome: RolloutOutcome::Drained,
        jobs_cut: 0,
        ended_unpermitted: 0,
        unseen: 0,
        killed: 0,
    }];
    report.rollout = None;
    report.phase = Phase::Steady;
    report.drained = verdict(true, Reason::NoOldTasks, "no task of an old revision is left");
    report.settled = true;
    report.blocked_by = String::new();
    report
}

fn watched(report: Report) -> Watched {
    Watched { report: Some(report), ..Watched::new("media/transcoder".into(), at(-10)) }
}

fn lines_between(before: Option<&Report>, after: &Report) -> String {
    let changes = change::between(before, after);
    changes.iter().map(|change| lines::line("media/transcoder", change, at(60)) + "\n").collect()
}

#[test]
fn the_first_observation_shows_what_is_going_on() {
    insta::assert_snapshot!(lines_between(None, &draining()));
}

#[test]
fn each_change_is_one_line() {
    let mut later = draining();
    later.tasks[0] = task("0af3b2c1d4", 41, TaskPhase::Busy, 1);
    later.tasks[1] = task("7c11e0b2aa", 41, TaskPhase::Permitted, 0);
    later.notes.push("a service whose minimumHealthyPercent is under 100 can be faster".into());
    insta::assert_snapshot!(lines_between(Some(&draining()), &later));
}

#[test]
fn the_end_of_a_rollout_is_told() {
    let mut changes = lines_between(Some(&draining()), &steady());
    changes += &lines::summary(&watched(steady()), Exit::Done, at(260));
    insta::assert_snapshot!(changes);
}

#[test]
fn what_ended_without_our_permit_in_this_run_is_told_at_its_end() {
    let mut report = steady();
    report.past[0].ended_unpermitted = 2;
    let before_this_run = PastRollout { since: at(-300), until: at(-200), ..report.past[0].clone() };
    report.past.push(before_this_run);
    let drain = watched(report);
    assert_eq!(drain.so_far(), Exit::EndedUnpermitted);
    insta::assert_snapshot!(lines::summary(&drain, drain.so_far(), at(260)));
}

#[test]
fn drained_tasks_that_were_killed_in_this_run_are_told_at_its_end() {
    let mut report = steady();
    report.past[0].outcome = RolloutOutcome::Killed;
    report.past[0].killed = 1;
    let mut drain = watched(report.clone());
    (drain.lost_before, report.killed.total) = (Some(Losses { killed: 4, ..Losses::default() }), 5);
    drain.report = Some(report);
    assert_eq!((drain.so_far(), drain.so_far().code()), (Exit::Killed, 5));
    let told = lines_between(Some(&draining()), drain.report.as_ref().unwrap());
    insta::assert_snapshot!(told + &lines::summary(&drain, drain.so_far(), at(260)));
    drain.lost_before = Some(Losses { killed: 5, ..Losses::default() });
    assert_eq!(drain.so_far(), Exit::Done, "it was told by an earlier run");
}

#[test]
fn tasks_that_had_ended_before_the_first_observation_are_told() {
    let mut report = steady();
    report.past[0] = PastRollout {
        outcome: RolloutOutcome::EndedUnpermitted,
        ended_unpermitted: 3,
        unseen: 3,
        ..report.past[0].clone()
    };
    let told = lines_between(Some(&draining()), &report);
    assert!(told.contains("3 ended without our permit (3 before this service was first seen)"), "{told}");
    assert_eq!(watched(report).so_far(), Exit::EndedUnpermitted);
}

#[test]
fn that_time_passes_is_no_change() {
    let mut later = draining();
    later.tasks[0].waiting_for = "2 jobs running, the oldest for 2h".into();
    later.drained.message = "task 0af3b2c1d4: 2 jobs running, the oldest for 2h".into();
    assert_eq!(change::between(Some(&draining()), &later), []);
}

#[test]
fn programs_get_an_object_a_line() {
    let mut changes = change::between(None, &draining());
    changes.extend(change::between(Some(&draining()), &steady()));
    changes.push(Change::Error("the state file cannot be written".into()));
    let mut text: String = changes.iter().map(|change| json::line("media/transcoder", change, at(60)) + "\n").collect();
    text += &json::summary(&watched(steady()), Exit::Done, at(260));
    insta::assert_snapshot!(text);
}

fn table(drains: &[Watched], width: usize, height: usize, colour: bool) -> String {
    live::table(drains, at(60), Size { width, height }, colour).join("\n")
}

#[test]
fn the_table_shows_every_task() {
    insta::assert_snapshot!(table(&[watched(draining())], 120, 24, false));
}

#[test]
fn a_task_is_as_strong_as_its_weakest_evidence() {
    let mut report = draining();
    report.tasks[0].nodes.push(node("heavy@0af3b2c1d4", Worth::Incomplete));
    report.tasks[1].nodes = vec![node("worker@7c11e0b2aa", Worth::Account)];
    report.tasks[2].nodes = vec![NodeReport { worth: None, ..node("worker@9d00aa1b2c", Worth::None) }];
    let table = table(&[watched(report.clone())], 120, 24, false);
    let cells =
        table.lines().skip(2).map(|line| line.split("  ").filter(|cell| !cell.is_empty()).nth(5).unwrap().trim());
    assert_eq!(cells.collect::<Vec<_>>(), ["incomplete", "account", "-"], "{table}");
    let told = json::task_object(&report.tasks[0]);
    assert_eq!(told["nodes"], serde_json::json!(["worker@0af3b2c1d4", "heavy@0af3b2c1d4"]));
    assert_eq!(
        told["evidence"][0],
        serde_json::json!({"node": "worker@0af3b2c1d4", "strength": "Lists", "message": null})
    );
    assert_eq!(told["evidence"][1]["message"], "it may hold jobs unseen: batches");
    assert_eq!(json::task_object(&report.tasks[2])["evidence"], serde_json::json!([]), "it is asked no more");
}

#[test]
fn the_table_fits_a_small_terminal() {
    let many = (0..40).map(|number| task(&format!("{number:010}"), 41, TaskPhase::Held, 0)).collect();
    let table = table(&[watched(report(many)), watched(draining())], 60, 12, false);
    assert!(table.lines().count() < 12 && table.lines().all(|line| line.chars().count() <= 60), "{table}");
    insta::assert_snapshot!(table);
}

#[test]
fn the_table_shows_errors_first() {
    let mut report = draining();
    report.ready =
        verdict(false, Reason::WorkersUnreachable, "the broker cannot be reached (for 20s; every hold is kept)");
    report.tasks[0].phase = TaskPhase::Unknown;
    report.tasks[0].jobs = None;
    let mut drain = watched(report);
    drain.error = Some("the state file cannot be written".into());
    insta::assert_snapshot!(table(&[drain, Watched::new("other".into(), at(0))], 100, 24, false));
}

#[test]
fn colours_end_where_they_began() {
    let table = table(&[watched(draining())], 50, 24, true);
    for line in table.lines() {
        assert_eq!(line.matches("\x1b[0m").count() * 2, line.matches('\x1b').count(), "{line:?}");
    }
}

#[test]
fn a_hold_that_has_run_out_is_none() {
    let mut report = draining();
    let ran_out = at(60).saturating_sub(SignedDuration::from_secs(1)).unwrap();
    report.tasks.iter_mut().for_each(|task| task.hold = HoldState::Until(ran_out));
    assert!(!table(&[watched(report)], 120, 24, false).contains("0s  "));
}

#[test]
fn where_things_stand_is_told_when_nothing_changes() {
    let told = lines::progress(&watched(draining()), at(600));
    let words = "progress  Draining, 1/3 drained  (task 0af3b2c1d4: 2 jobs running)";
    assert!(told.ends_with(words), "{told}");
    let object: serde_json::Value = serde_json::from_str(&json::progress(&watched(draining()), at(600))).unwrap();
    assert_eq!((&object["event"], &object["ended"], &object["oldTasks"]), (&"progress".into(), &1.into(), &3.into()));
    assert_eq!(object["blockedBy"], "JobsRunning");
}
