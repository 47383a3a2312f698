use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use rstest::rstest;
use serde_json::json;
use worker_drain_plan::{
    Memory, Policy, Report,
    actions::Ground,
    memory::{Leaving, Permitted, Rollout, TaskMemory, Why},
    observation::HoldState,
    policy::{Deadline, DeadlineAction, DrainPolicy, HoldMode, HoldPolicy, Mode, Scheduled},
    report::{Counts, Cut, Killed, PastRollout, Phase, Reason, RolloutOutcome, TaskPhase, TaskReport, Verdict},
};

use super::*;
use crate::operator::{events::is_blocked, failure_status};

fn key() -> Key {
    ("media".into(), "transcoder".into())
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn policy() -> Policy {
    let expires_in = SignedDuration::from_hours(2);
    let drain = DrainPolicy {
        min_consuming: None,
        idle_for: SignedDuration::from_secs(1),
        scheduled: Scheduled::Ignore,
        deadline: None,
        workers_per_task: None,
        start_timeout: None,
        scale_in: true,
        gate: None,
    };
    let hold = HoldPolicy { mode: HoldMode::Standing, expires_in };
    Policy { hold, drain, mode: Mode::Enforce, paused: false, withdrawn: false }
}

/// A fleet with these tasks, each held until then; the one that is called `old` leaves since second 100.
fn report(tasks: &[(&str, TaskPhase, HoldState)]) -> (Report, Memory) {
    let verdict = |reason| Verdict { answer: Some(false), reason, message: String::new() };
    let leaving = |name: &str| (name == "old").then_some(Leaving { why: Why::Rollout, since: at(100) });
    let task = |(name, phase, hold): &(&str, TaskPhase, HoldState)| TaskReport {
        task: (*name).into(),
        revision: String::new(),
        leaving: leaving(name).map(|leaving| leaving.why),
        phase: *phase,
        since: at(0),
        nodes: Vec::new(),
        jobs: None,
        oldest_job: None,
        hold: *hold,
        hold_refused: None,
        waiting_for: String::new(),
    };
    let report = Report {
        fleet: String::new(),
        phase: Phase::Draining,
        ready: verdict(Reason::AllSeen),
        drained: verdict(Reason::JobsRunning),
        stalled: verdict(Reason::NotStalled),
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
        cut: Cut { tasks: 1, jobs: 3 },
        killed: Killed { total: 2, tasks: Vec::new() },
        counts: Counts { unheld: 1, ..Counts::default() },
        tasks: tasks.iter().map(task).collect(),
        blocked_by: String::new(),
        unmatched_workers: Vec::new(),
        notes: Vec::new(),
    };
    let remembered = |(name, ..): &(&str, TaskPhase, HoldState)| {
        ((*name).into(), TaskMemory { leaving: leaving(name), ..TaskMemory::default() })
    };
    (report, Memory { tasks: tasks.iter().map(remembered).collect(), ..Memory::default() })
}

fn figures(policy: &Policy, (report, memory): &(Report, Memory), fleet: bool) -> Figures {
    Figures::of(policy, report, memory, (fleet, fleet.then_some(true)), at(1000))
}

/// The lines about this drain, without its labels, such as `tasks,phase="Busy"} 2.0`.
fn told(metrics: &Metrics) -> Vec<String> {
    let drain = r#"{drain_namespace="media",drain="transcoder""#;
    let told = metrics.tell(true).unwrap();
    told.lines()
        .filter(|line| line.contains(drain))
        .map(|line| line.replace(drain, "").replace("worker_drain_", ""))
        .collect()
}

#[track_caller]
fn assert_tells(metrics: &Metrics, line: &str) {
    let told = told(metrics);
    assert!(told.iter().any(|told| told == line), "{line} is not in {told:#?}");
}

#[test]
fn it_is_told_as_the_charts_alerts_read_it() {
    let metrics = Metrics::default();
    let mut seen =
        report(&[("old", TaskPhase::Busy, HoldState::Until(at(7200))), ("new", TaskPhase::Serving, HoldState::Free)]);
    seen.0.blocked_by = "NodeSilent".into();
    metrics.drains().saw(&key(), Figures::of(&policy(), &seen.0, &seen.1, (true, Some(false)), at(1000)));
    let undo = Action::GiveBack { task: "task/a".into(), node: "worker@a".into(), queues: Vec::new() };
    metrics.acted(&undo, &Outcome::Done);
    metrics.acted(&undo, &Outcome::Stale);
    metrics.failed(System::Broker, FailureKind::Unreachable);
    metrics.passed(PassEnd::Ok, Duration::from_millis(20));
    for line in [
        "tasks,phase=\"Busy\"} 1.0",
        "reachable,system=\"Ecs\"} 1.0",
        "reachable,system=\"Broker\"} 0.0",
        "blocked,reason=\"NodeSilent\"} 1.0",
        "oldest_hold_timestamp_seconds} 100.0",
        "next_hold_expiry_timestamp_seconds} 7200.0",
        "hold_expires_in_seconds} 7200.0",
        "last_reconcile_timestamp_seconds} 1000.0",
        "jobs_cut_total} 3",
        "killed_tasks_total} 2",
        "unheld_tasks} 1.0",
        "ended_unpermitted_total} 0",
    ] {
        assert_tells(&metrics, line);
    }
    let told = metrics.tell(true).unwrap();
    for line in [
        "worker_drain_leader 1",
        "worker_drain_drains 1",
        "worker_drain_actions_total{action=\"GiveBack\",outcome=\"Done\"} 1",
        "worker_drain_errors_total{system=\"Broker\",kind=\"Unreachable\"} 1",
        "worker_drain_reconciliations_total{result=\"Ok\"} 1",
        concat!("worker_drain_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(told.lines().any(|told| told == line), "{line} is not in\n{told}");
    }
    let told = metrics.tell(false).unwrap();
    assert!(told.contains("worker_drain_leader 0"));
    assert!(!told.contains("drain=\"transcoder\""), "who does not lead knows nothing of drains:\n{told}");
}

#[test]
fn holds_go_on_expiring_while_nobody_can_look() {
    let metrics = Metrics::default();
    let held = report(&[("old", TaskPhase::Busy, HoldState::Until(at(7200)))]);
    metrics.drains().saw(&key(), figures(&policy(), &held, true));
    metrics.drains().saw(&key(), figures(&policy(), &report(&[]), false));
    assert_tells(&metrics, "next_hold_expiry_timestamp_seconds} 7200.0");
    let unread =
        report(&[("old", TaskPhase::Busy, HoldState::Unread), ("new", TaskPhase::Serving, HoldState::Until(at(9000)))]);
    metrics.drains().saw(&key(), figures(&policy(), &unread, true));
    assert_tells(&metrics, "next_hold_expiry_timestamp_seconds} 7200.0");
    metrics.drains().saw(&key(), figures(&policy(), &report(&[]), true));
    assert_tells(&metrics, "next_hold_expiry_timestamp_seconds} 0.0");
    metrics.drains().forget(&key());
    assert_eq!(told(&metrics), [""; 0]);
}

#[test]
fn a_drain_that_cannot_be_looked_at_keeps_its_holds_and_says_why() {
    let metrics = Metrics::default();
    let held = report(&[("old", TaskPhase::Busy, HoldState::Until(at(7200)))]);
    metrics.drains().saw(&key(), figures(&policy(), &held, true));
    metrics.drains().failure_status(&key(), failure_status::INTERNAL_ERROR, None);
    for line in ["next_hold_expiry_timestamp_seconds} 7200.0", "blocked,reason=\"InternalError\"} 1.0"] {
        assert_tells(&metrics, line);
    }
    assert_tells(&metrics, "last_reconcile_timestamp_seconds} 1000.0");
    metrics.drains().failure_status(&key(), failure_status::INVALID_SPEC, Some(at(1300)));
    for line in ["next_hold_expiry_timestamp_seconds} 7200.0", "blocked,reason=\"InvalidSpec\"} 1.0"] {
        assert_tells(&metrics, line);
    }
    assert_tells(&metrics, "last_reconcile_timestamp_seconds} 1300.0");
    metrics.drains().stands_by(&key(), failure_status::CONFLICT, at(1400));
    assert_tells(&metrics, "blocked,reason=\"Conflict\"} 1.0");
    assert_tells(&metrics, "next_hold_expiry_timestamp_seconds} 0.0");
    metrics.drains().saw(&key(), figures(&policy(), &held, true));
    assert!(!told(&metrics).iter().any(|line| line.starts_with("blocked")), "{:#?}", told(&metrics));
}

#[test]
fn of_a_drain_that_no_pass_has_seen_the_status_tells_and_nothing_is_guessed() {
    let metrics = Metrics::default();
    metrics.drains().expect(&key(), at(50));
    metrics.drains().expect(&key(), at(60));
    let task = |phase: &str, until: &str| json!({"phase": phase, "heldUntil": until});
    let tasks = [
        task("Permitted", "1970-01-01T00:10:00Z"),
        task("Busy", "1970-01-01T02:00:00Z"),
        task("Serving", "1970-01-01T03:00:00Z"),
        json!({"phase": "AtRisk"}),
    ];
    let resource = json!({"spec": {}, "status": {"tasks": tasks}});
    metrics.drains().resume(&key(), &resource);
    let expected = [
        "oldest_hold_timestamp_seconds} 0.0",
        "oldest_job_timestamp_seconds} 0.0",
        "next_hold_expiry_timestamp_seconds} 7200.0",
        "last_reconcile_timestamp_seconds} 50.0",
    ];
    assert_eq!(told(&metrics), expected, "a 0 that nobody saw would look like an answer");
    metrics.drains().saw(&key(), figures(&policy(), &report(&[]), true));
    metrics.drains().resume(&key(), &resource);
    assert_tells(&metrics, "next_hold_expiry_timestamp_seconds} 0.0");
    metrics.drains().forget(&key());
    metrics.drains().resume(&key(), &json!({"spec": {"mode": "Plan"}, "status": {"tasks": tasks}}));
    assert_tells(&metrics, "next_hold_expiry_timestamp_seconds} 0.0");
}

/// A hold that ends on purpose alarms nobody.
#[rstest]
#[case::of_a_task_that_leaves("old", TaskPhase::Busy, policy(), true)]
#[case::of_a_task_that_stays("new", TaskPhase::Serving, policy(), true)]
#[case::of_a_task_that_is_permitted("old", TaskPhase::Permitted, policy(), false)]
#[case::of_a_task_that_ends("new", TaskPhase::Stopping, policy(), false)]
#[case::of_others_on_a_task_that_stays("new", TaskPhase::Serving, Policy {
    hold: HoldPolicy { mode: HoldMode::OnRollout, ..policy().hold }, ..policy()
}, false)]
#[case::in_a_plan("old", TaskPhase::Busy, Policy { mode: Mode::Plan, ..policy() }, false)]
#[case::of_a_drain_that_is_withdrawn("old", TaskPhase::Busy, Policy { withdrawn: true, ..policy() }, false)]
#[case::at_a_deadline_that_cuts("old", TaskPhase::Busy, deadline(7100, DeadlineAction::PermitStop), false)]
#[case::just_before_a_deadline_that_cuts("old", TaskPhase::Busy, deadline(7190, DeadlineAction::PermitStop), false)]
#[case::long_before_a_deadline_that_cuts("old", TaskPhase::Busy, deadline(9000, DeadlineAction::PermitStop), true)]
#[case::at_a_deadline_that_holds_on("old", TaskPhase::Busy, deadline(7100, DeadlineAction::Hold), true)]
#[case::of_a_task_that_stays_beside_a_deadline(
    "new",
    TaskPhase::Serving,
    deadline(7100, DeadlineAction::PermitStop),
    true
)]
fn a_hold_is_told_if_it_must_be_renewed(
    #[case] name: &str,
    #[case] phase: TaskPhase,
    #[case] policy: Policy,
    #[case] expected: bool,
) {
    let metrics = Metrics::default();
    let seen = report(&[(name, phase, HoldState::Until(at(7200)))]);
    metrics.drains().saw(&key(), figures(&policy, &seen, true));
    let until = if expected { "7200.0" } else { "0.0" };
    assert_tells(&metrics, &format!("next_hold_expiry_timestamp_seconds}} {until}"));
}

/// Of a task that leaves since second 100.
fn deadline(after: i64, action: DeadlineAction) -> Policy {
    let deadline = Some(Deadline { after: SignedDuration::from_secs(after), action });
    Policy { drain: DrainPolicy { deadline, ..policy().drain }, ..policy() }
}

#[test]
fn a_hold_that_is_being_released_alarms_nobody_before_its_task_is_seen_so() {
    let metrics = Metrics::default();
    let mut seen = report(&[("old", TaskPhase::Idle, HoldState::Until(at(7200)))]);
    let task = seen.1.tasks.get_mut(&"old".into()).unwrap();
    task.permitted = Some(Permitted { at: at(900), ground: Ground::Drained });
    metrics.drains().saw(&key(), figures(&policy(), &seen, true));
    assert_tells(&metrics, "next_hold_expiry_timestamp_seconds} 0.0");
}

#[test]
fn tasks_that_end_unpermitted_are_counted_once_and_for_longer_than_rollouts_are_remembered() {
    let metrics = Metrics::default();
    let saw = |metrics: &Metrics, running: Option<(i64, usize)>, past: &[(i64, u32)]| {
        let (report, mut memory) = report(&[]);
        memory.rollout = running.map(|(since, ended)| rollout(since, ended));
        memory.past = past.iter().map(|(since, ended)| past_rollout(*since, *ended)).collect();
        metrics.drains().saw(&key(), figures(&policy(), &(report, memory), true));
    };
    let total = |metrics: &Metrics, total: u64| assert_tells(metrics, &format!("ended_unpermitted_total}} {total}"));
    saw(&metrics, None, &[(10, 1)]);
    total(&metrics, 1);
    saw(&metrics, Some((20, 0)), &[(10, 1)]);
    saw(&metrics, Some((20, 2)), &[(10, 1)]);
    total(&metrics, 3);
    saw(&metrics, None, &[(20, 3), (10, 1)]);
    total(&metrics, 4);
    saw(&metrics, None, &[(30, 0), (20, 3)]);
    total(&metrics, 4);
    // Another replica led meanwhile.
    let _ = metrics.tell(false).unwrap();
    saw(&metrics, None, &[(40, 1), (30, 0), (20, 3)]);
    total(&metrics, 5);
    // Another process goes on with what is remembered.
    let next = Metrics::default();
    saw(&next, None, &[(40, 1), (30, 0), (20, 3)]);
    total(&next, 4);
}

fn rollout(since: i64, ended: usize) -> Rollout {
    Rollout {
        to: "new".into(),
        since: at(since),
        back: false,
        old: BTreeSet::new(),
        ended: BTreeSet::new(),
        jobs_cut: 0,
        ended_unpermitted: (0..ended).map(|number| format!("task/{number}").as_str().into()).collect(),
        killed: BTreeSet::new(),
        unseen: 0,
    }
}

fn past_rollout(since: i64, ended_unpermitted: u32) -> PastRollout {
    PastRollout {
        to: "new".into(),
        label: String::new(),
        since: at(since),
        until: at(since + 5),
        tasks: 3,
        outcome: RolloutOutcome::EndedUnpermitted,
        jobs_cut: 0,
        ended_unpermitted,
        unseen: 0,
        killed: 0,
    }
}

/// The words of an enum, in its order: serde names them when it is given another one.
fn words<T: serde::de::DeserializeOwned + std::fmt::Debug>() -> Vec<String> {
    let refused = serde_json::from_value::<T>(json!("?")).unwrap_err().to_string();
    refused.split('`').skip(3).step_by(2).map(ToOwned::to_owned).collect()
}

/// What the chart's README lists is what is told, to the last word.
#[test]
fn every_metric_and_label_is_in_the_charts_readme() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/worker-drain/README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let row = |name: &str| {
        readme.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).unwrap_or_default().to_owned()
    };
    let reasons = words::<Reason>().into_iter().chain(failure_status::REASONS.map(String::from));
    // Those of which nothing waits for anything, or that only answer "yes".
    let never =
        ["AllSeen", "NoOldTasks", "QueuesEmpty", "NotStalled", "NothingLost", "JobsCut", "EndedUnpermitted", "Killed"];
    let reasons = reasons.filter(|reason| is_blocked(reason) && !never.contains(&reason.as_str())).collect();
    let debug = |all: &[&dyn fmt::Debug]| all.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>();
    let labels = BTreeMap::from([
        ("phase", words::<TaskPhase>()),
        ("reason", reasons),
        ("kind", words::<FailureKind>()),
        ("system", debug(&[&System::Ecs, &System::Broker, &System::Kubernetes])),
        ("action", debug(&[&Kind::Hold, &Kind::Release, &Kind::Cancel, &Kind::GiveBack])),
        ("outcome", ["Done", "Refused", "Failed", "Stale"].map(String::from).into()),
        ("result", debug(&[&PassEnd::Ok, &PassEnd::Error, &PassEnd::Timeout, &PassEnd::Panic])),
    ]);
    for (label, words) in labels {
        let row = row(label);
        let listed: BTreeSet<&str> = row.split('`').skip(3).step_by(2).collect();
        let told: BTreeSet<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(listed, told, "the row of the label {label} in the chart's README is\n{row}");
    }
    // These are told of from the first time on.
    let metrics = Metrics::default();
    metrics.failed(System::Ecs, FailureKind::Denied);
    metrics.acted(&Action::Release { task: "task/a".into() }, &Outcome::Done);
    metrics.passed(PassEnd::Ok, Duration::ZERO);
    let told = metrics.tell(true).unwrap();
    let types = told.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let told: BTreeSet<String> =
        types.map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.into() }).collect();
    let listed = readme.lines().filter_map(|line| line.strip_prefix("| `worker_drain_")?.split('`').next());
    let listed: BTreeSet<String> =
        listed.map(|name| format!("worker_drain_{name}").trim_end_matches("_info").to_owned()).collect();
    assert_eq!(listed, told, "the metrics in the chart's README are not those that are told");
}

#[test]
fn every_phase_and_reason_is_explained() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/conditions.md");
    let page = std::fs::read_to_string(page).unwrap();
    let first_cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let explained: BTreeSet<&str> = first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let ours = failure_status::REASONS.map(String::from);
    let words = [words::<Phase>(), words::<TaskPhase>(), words::<Reason>(), words::<RolloutOutcome>(), ours.into()];
    let unexplained: Vec<String> =
        words.concat().into_iter().filter(|word| !explained.contains(word.as_str())).collect();
    assert_eq!(unexplained, [""; 0], "docs/conditions.md says nothing of these");
}
