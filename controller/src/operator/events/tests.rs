//! What is told of changes between two reports.

use jiff::{SignedDuration, Timestamp};
use worker_drain_plan::{
    memory::Why,
    observation::HoldState,
    report::{Counts, Cut, Killed, PastRollout, Reason, RolloutReport, TaskReport, Verdict},
};

use super::*;
use crate::api::render::render;

fn verdict(answer: bool, reason: Reason) -> Verdict {
    Verdict { answer: Some(answer), reason, message: format!("because of {reason}") }
}

/// A fleet with these tasks.
fn report(tasks: &[(&str, TaskPhase)]) -> Report {
    let task = |(name, phase): &(&str, TaskPhase)| TaskReport {
        task: format!("task/{name}").into(),
        revision: "app:1".into(),
        leaving: Some(Why::Rollout),
        phase: *phase,
        since: Timestamp::UNIX_EPOCH,
        nodes: Vec::new(),
        jobs: None,
        oldest_job: None,
        hold: HoldState::Free,
        hold_refused: None,
        waiting_for: String::new(),
    };
    Report {
        fleet: "media/app".into(),
        phase: Phase::Draining,
        ready: verdict(true, Reason::AllSeen),
        drained: verdict(false, Reason::InProgress),
        stalled: verdict(false, Reason::NotStalled),
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
        rollout: None,
        past: Vec::new(),
        cut: Cut::default(),
        killed: Killed::default(),
        counts: Counts::default(),
        tasks: tasks.iter().map(task).collect(),
        blocked_by: String::new(),
        unmatched_workers: Vec::new(),
        notes: Vec::new(),
    }
}

fn said(before: &Report, after: &Report) -> Vec<String> {
    let events_between = events_between(&Reported::of_report(before), after, &[]);
    events_between.into_iter().map(|it| format!("{}: {}", it.reason, it.note)).collect()
}

#[test]
fn each_step_of_a_task_is_told_once() {
    use TaskPhase::{Busy, Cancelling, Held, Idle, Permitted, Restoring, Serving, Stopped, Unknown};
    let steps = [
        (Held, Cancelling, None),
        (
            Cancelling,
            Busy,
            Some(
                "ConsumersCancelled: task a: stopped consuming (cancel_consumer); the jobs that it has are waited for",
            ),
        ),
        (Busy, Unknown, None),
        (Unknown, Busy, None),
        (Busy, Idle, None),
        (Idle, Permitted, Some("TaskPermitted: task a: may be stopped now")),
        (Permitted, Stopped, None),
        (Busy, Restoring, None),
        (Restoring, Serving, Some("UndoDone: task a: consumes again")),
    ];
    for (before, after, expected) in steps {
        let said = said(&report(&[("a", before)]), &report(&[("a", after)]));
        assert_eq!(said, expected.into_iter().collect::<Vec<_>>(), "{before:?} to {after:?}");
    }
}

#[test]
fn many_tasks_are_one_event() {
    let names: Vec<String> = (1000..6000).map(|number| number.to_string()).collect();
    let all = |phase| report(&names.iter().map(|name| (name.as_str(), phase)).collect::<Vec<_>>());
    let said = said(&all(TaskPhase::Cancelling), &all(TaskPhase::Busy));
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("tasks 1000, 1001, 1002 and 4997 more"), "{said:?}");
}

#[test]
fn what_a_status_shows_is_told_no_second_time_by_another_process() {
    let mut now = report(&[("a", TaskPhase::Busy), ("b", TaskPhase::Permitted)]);
    now.rollout = Some(rollout());
    now.blocked_by = "NodeSilent".into();
    now.past = vec![past(RolloutOutcome::Drained)];
    let status = render(None, &now, None, Timestamp::UNIX_EPOCH);
    assert_eq!(Reported::of_status(&status), Reported::of_report(&now));
    assert_eq!(events_between(&Reported::of_status(&status), &now, &[]), []);
}

#[test]
fn of_a_task_that_a_status_did_not_show_nothing_is_guessed() {
    let names: Vec<String> = (1000..1100).map(|number| number.to_string()).collect();
    let now = report(&names.iter().map(|name| (name.as_str(), TaskPhase::Busy)).collect::<Vec<_>>());
    let status = render(None, &now, None, Timestamp::UNIX_EPOCH);
    assert_eq!(events_between(&Reported::of_status(&status), &now, &[]), []);
}

fn rollout() -> RolloutReport {
    let (to, label) = ("ecs-svc/2".into(), "app:2".into());
    RolloutReport { to, label, since: Timestamp::UNIX_EPOCH, old: 3, ended: 0, jobs_cut: 0 }
}

fn past(outcome: RolloutOutcome) -> PastRollout {
    PastRollout {
        to: "ecs-svc/2".into(),
        label: "app:2".into(),
        since: Timestamp::UNIX_EPOCH,
        until: Timestamp::UNIX_EPOCH + SignedDuration::from_mins(90),
        tasks: 3,
        outcome,
        jobs_cut: 0,
        ended_unpermitted: 1,
        unseen: 0,
        killed: 2,
    }
}

#[test]
fn a_rollout_is_told_when_it_begins_and_when_it_ends() {
    let mut begun = report(&[]);
    begun.rollout = Some(rollout());
    assert_eq!(said(&report(&[]), &begun), ["RolloutSeen: rolling out app:2: 3 old tasks will be drained"]);
    let mut ended = report(&[]);
    ended.past = vec![past(RolloutOutcome::EndedUnpermitted)];
    let said = said(&begun, &ended);
    assert_eq!(said, ["RolloutDrained: app:2: 3 old tasks ended in 1h 30m; 1 of them without permission"]);
}

#[test]
fn what_blocks_is_told_when_it_changes_and_a_running_job_does_not_block() {
    let with = |reason: Reason| {
        let mut report = report(&[]);
        report.drained = verdict(false, reason);
        report.blocked_by = reason.to_string();
        report
    };
    let none = report(&[]);
    assert_eq!(said(&none, &with(Reason::JobsRunning)), [""; 0]);
    assert_eq!(said(&none, &with(Reason::NodeSilent)), ["DrainBlocked: because of NodeSilent"]);
    assert_eq!(said(&with(Reason::NodeSilent), &with(Reason::NodeSilent)), [""; 0]);
    assert_eq!(said(&with(Reason::NodeSilent), &with(Reason::Unmapped)), ["DrainBlocked: because of Unmapped"]);
}

#[test]
fn jobs_that_are_cut_are_counted() {
    let cut =
        |task: &str, jobs| (Action::Permit { task: task.into(), ground: Ground::Deadline { jobs } }, Outcome::Done);
    let outcomes = [cut("task/a", Some(2)), cut("task/b", None)];
    let said = events_between(&Reported::default(), &report(&[]), &outcomes);
    assert!(said[0].warning);
    assert_eq!(said[0].note, "tasks a, b: the deadline has passed; jobs cut: 2 or more");
}

#[test]
fn drained_tasks_that_were_killed_are_named_once_and_by_no_second_process() {
    let mut now = report(&[("a", TaskPhase::Stopped)]);
    now.killed = Killed { total: 1, tasks: vec!["task/a".into()] };
    let events = events_between(&Reported::of_report(&report(&[("a", TaskPhase::Permitted)])), &now, &[]);
    assert_eq!((events.len(), events[0].warning, events[0].reason), (1, true, "TaskKilled"));
    assert!(events[0].note.starts_with("task a: one was drained and permitted to stop, and ended by SIGKILL"));
    let status = render(None, &now, None, Timestamp::UNIX_EPOCH);
    assert_eq!(events_between(&Reported::of_status(&status), &now, &[]), []);
    now.past = vec![past(RolloutOutcome::Killed)];
    let said = said(&report(&[]), &now);
    assert!(said[1].ends_with("; 2 of them killed after they were permitted to stop"), "{said:?}");
}

#[test]
fn what_somebody_else_does_is_told_each_time_and_at_no_other_time() {
    let with = |notes: &[&str]| Report { notes: notes.iter().map(|note| (*note).to_owned()).collect(), ..report(&[]) };
    let none = with(&["a note"]);
    let once = with(&["a note", "ForeignConsumer: w@1 took jobs (1 time)"]);
    let twice =
        with(&["ForeignConsumer: w@1 took jobs (2 times)", "ForeignHold: t1 (1 time)", "ForeignHold: t2 (1 time)"]);
    assert_eq!(said(&none, &once), ["ForeignConsumer: w@1 took jobs (1 time)"]);
    assert_eq!(said(&once, &once), [""; 0]);
    let both = ["ForeignHold: t1 (1 time) (and 1 more of this kind)", "ForeignConsumer: w@1 took jobs (2 times)"];
    assert_eq!(said(&once, &twice), both);
    assert_eq!(said(&twice, &none), [""; 0], "it is over");
    assert!(events_between(&Reported::of_report(&none), &once, &[])[0].warning);
    let status = render(None, &twice, None, Timestamp::UNIX_EPOCH);
    assert_eq!(
        events_between(&Reported::of_status(&status), &twice, &[]),
        [],
        "another process says it no second time"
    );
}

#[test]
fn a_note_is_never_longer_than_the_api_server_takes() {
    let happening = DrainEvent::normal("Any", "any", "ü".repeat(2000));
    assert!(happening.note.len() <= LONGEST_NOTE && happening.note.ends_with('…'));
}
