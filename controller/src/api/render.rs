//! From the planner's report to the resource's status. Pure; what has not changed stays as it was, so a status with nothing
//! new in it equals the old one and need not be written.

use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use worker_drain_plan::{
    Report,
    observation::{HoldState, Job},
    report::{
        Counts, CurrentRevision, DrainedTo, NodeReport, PastRollout, RolloutReport, TaskPhase, TaskReport, Verdict,
    },
};

use super::status::{
    CountsStatus, CurrentStatus, DrainedStatus, EvidenceStatus, JobStatus, MOST_NODES, MOST_PAST, MOST_TASKS,
    PastRolloutStatus, RolloutStatus, TaskStatus, WorkerDrainStatus, condition,
};

/// The longest message, in bytes; Kubernetes' own limit for conditions is 32 kB.
const LONGEST_MESSAGE: usize = 1024;

/// The longest message on the evidence of one worker, in bytes: there may be hundreds.
const LONGEST_DOUBT: usize = 320;

/// The reason of `Reconciling` when nothing of the spec is left to be taken up.
pub const UP_TO_DATE: &str = "UpToDate";

/// The status that tells this report, of a resource of this generation. The report has no packed memory: that stays as it was, and
/// the caller sets it. Conditions keep the time of their last transition while their answer is the same.
pub fn render(
    old: Option<&WorkerDrainStatus>,
    report: &Report,
    generation: Option<i64>,
    now: Timestamp,
) -> WorkerDrainStatus {
    let Report { phase, ready, drained, stalled, clean, rollout, past, counts, tasks, .. } = report;
    let Report { blocked_by, notes, killed, current, drained_to, .. } = report;
    let known = old.map(|old| old.conditions.as_slice()).unwrap_or_default();
    let condition = |type_: &str, verdict: &Verdict| {
        render_condition(known, (type_, status_word(verdict.answer), verdict.reason.to_string()), &verdict.message, now)
    };
    let unseen = Verdict { answer: None, ..ready.clone() };
    let mut status = WorkerDrainStatus {
        observed_generation: None,
        phase: Some(word(phase)),
        progress: Some(
            rollout.as_ref().map_or_else(|| "-".into(), |rollout| format!("{}/{}", rollout.ended, rollout.old)),
        ),
        current: current.as_ref().map(render_current),
        drained: drained_to.as_ref().map(render_drained),
        oldest_job_started_at: oldest_job(tasks),
        blocked_by: (!blocked_by.is_empty()).then(|| clipped(blocked_by, 256)),
        conditions: vec![
            condition(condition::READY, ready),
            condition(condition::DRAINED, drained),
            condition(condition::CLEAN, clean.as_ref().unwrap_or(&unseen)),
            reconciling(known, report, generation, now),
            condition(condition::STALLED, stalled),
        ],
        rollout: rollout.as_ref().map(render_rollout),
        counts: render_counts(counts),
        tasks: tasks.iter().take(MOST_TASKS).map(render_task).collect(),
        tasks_omitted: u32::try_from(tasks.len().saturating_sub(MOST_TASKS)).unwrap_or(u32::MAX),
        past_rollouts: past.iter().take(MOST_PAST).map(render_past).collect(),
        killed: killed.total,
        notes: notes.iter().take(10).map(|note| clipped(note, LONGEST_MESSAGE)).collect(),
        memory: old.and_then(|old| old.memory.clone()),
    };
    status.set_observed_generation(generation);
    status
}

/// kstatus: true until this generation of the spec was taken up by a reconciliation that saw service and workers, unless a
/// person has to fix something first.
fn reconciling(known: &[Condition], report: &Report, generation: Option<i64>, now: Timestamp) -> Condition {
    let was_taken_up = known.iter().any(|before| {
        before.type_ == condition::RECONCILING
            && before.reason == UP_TO_DATE
            && before.observed_generation == generation
    });
    let (status, reason, message) = if report.is_whole || was_taken_up {
        ("False", UP_TO_DATE.to_owned(), "this generation of the spec is in force")
    } else {
        let is_stalled = report.stalled.answer == Some(true);
        let why = if is_stalled { &report.stalled } else { &report.ready };
        (if is_stalled { "False" } else { "True" }, why.reason.to_string(), why.message.as_str())
    };
    render_condition(known, (condition::RECONCILING, status, reason), message, now)
}

const fn status_word(answer: Option<bool>) -> &'static str {
    match answer {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    }
}

fn render_condition(
    known: &[Condition],
    (type_, status, reason): (&str, &str, String),
    message: &str,
    now: Timestamp,
) -> Condition {
    let before = known.iter().find(|before| before.type_ == type_ && before.status == status);
    Condition {
        type_: type_.into(),
        status: status.into(),
        reason,
        message: clipped(message, LONGEST_MESSAGE),
        last_transition_time: before.map_or(Time(now), |before| before.last_transition_time.clone()),
        observed_generation: None,
    }
}

fn render_current(CurrentRevision { id, label, since }: &CurrentRevision) -> CurrentStatus {
    CurrentStatus { deployment: id.to_string(), revision: label.clone(), since: since.map(Time) }
}

fn render_drained(DrainedTo { id, label, at, outcome }: &DrainedTo) -> DrainedStatus {
    DrainedStatus {
        deployment: id.to_string(),
        revision: label.clone(),
        at: Time(*at),
        outcome: outcome.as_ref().map(word),
    }
}

fn render_rollout(RolloutReport { to, label, since, old, ended, jobs_cut }: &RolloutReport) -> RolloutStatus {
    RolloutStatus {
        id: to.to_string(),
        revision: label.clone(),
        started_at: Time(*since),
        old_tasks: *old,
        ended: *ended,
        jobs_cut: *jobs_cut,
    }
}

fn render_counts(counts: &Counts) -> CountsStatus {
    let Counts { desired, live, old, consuming, floor, held, unheld, busy, unknown, permitted, jobs } = *counts;
    CountsStatus { desired, live, old, consuming, floor, held, unheld, busy, unknown, permitted, jobs }
}

fn render_task(task: &TaskReport) -> TaskStatus {
    let TaskReport { task, revision, leaving, phase, since, nodes, jobs, oldest_job, hold, hold_refused, waiting_for } =
        task;
    TaskStatus {
        task: task.short().into(),
        revision: revision.clone(),
        leaving: leaving.as_ref().map(word),
        phase: word(phase),
        since: Time(*since),
        nodes: nodes.iter().take(MOST_NODES).map(|node| node.name.to_string()).collect(),
        evidence: nodes.iter().take(MOST_NODES).filter_map(render_evidence).collect(),
        jobs: jobs.map(|jobs| jobs.active + jobs.reserved),
        oldest_job: oldest_job.as_ref().map(render_job),
        held_until: match hold {
            HoldState::Until(until) => Some(Time(*until)),
            HoldState::Free | HoldState::Unread => None,
        },
        hold_refused: hold_refused.clone(),
        waiting_for: (!waiting_for.is_empty()).then(|| clipped(waiting_for, LONGEST_MESSAGE)),
    }
}

fn render_evidence(NodeReport { name, worth, doubt }: &NodeReport) -> Option<EvidenceStatus> {
    let message = (!doubt.is_empty()).then(|| clipped(doubt, LONGEST_DOUBT));
    Some(EvidenceStatus { node: name.to_string(), strength: word(worth.as_ref()?), message })
}

fn render_job(Job { id, name, started_at }: &Job) -> JobStatus {
    JobStatus { id: clipped(id, 128), name: clipped(name, 256), started_at: started_at.map(Time) }
}

fn render_past(past: &PastRollout) -> PastRolloutStatus {
    let PastRollout { to, label, since, until, tasks, outcome, jobs_cut, ended_unpermitted, unseen, killed } = past;
    PastRolloutStatus {
        id: to.to_string(),
        revision: label.clone(),
        started_at: Time(*since),
        ended_at: Time(*until),
        outcome: word(outcome),
        old_tasks: *tasks,
        jobs_cut: *jobs_cut,
        ended_unpermitted: *ended_unpermitted,
        unseen: *unseen,
        killed: *killed,
    }
}

fn oldest_job(tasks: &[TaskReport]) -> Option<Time> {
    let leaving = tasks.iter().filter(|task| task.leaving.is_some() && task.phase != TaskPhase::Stopped);
    leaving.filter_map(|task| task.oldest_job.as_ref()?.started_at).min().map(Time)
}

/// The name of a variant. These names are the words of the API.
fn word(variant: &impl Debug) -> String {
    format!("{variant:?}")
}

fn clipped(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.into();
    }
    let end = (0..=most - '…'.len_utf8()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use rstest::rstest;
    use serde_json::json;
    use worker_drain_plan::{
        Report, TaskId,
        memory::Why,
        observation::{HoldState, Job},
        report::{
            Counts, CurrentRevision, Cut, DrainedTo, JobCounts, Killed, NodeReport, Phase, Reason, RolloutOutcome,
            RolloutReport, TaskPhase, TaskReport, Verdict, Worth,
        },
    };

    use super::{UP_TO_DATE, clipped, render};
    use crate::api::status::{WorkerDrainStatus, condition};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn verdict(answer: Option<bool>, reason: Reason, message: &str) -> Verdict {
        Verdict { answer, reason, message: message.into() }
    }

    fn task(number: u32) -> TaskReport {
        TaskReport {
            task: TaskId::from(format!("arn:aws:ecs:eu-west-1:1:task/media/{number:032}")),
            revision: "transcoder:41".into(),
            leaving: Some(Why::Rollout),
            phase: TaskPhase::Busy,
            since: at(0),
            nodes: Vec::new(),
            jobs: Some(JobCounts { active: 1, reserved: 2, scheduled: 9 }),
            oldest_job: Some(Job { id: "j".into(), name: "n".into(), started_at: Some(at(-i64::from(number))) }),
            hold: HoldState::Until(at(7200)),
            hold_refused: None,
            waiting_for: "3 jobs".into(),
        }
    }

    fn draining(tasks: u32) -> Report {
        Report {
            fleet: "media/transcoder".into(),
            phase: Phase::Draining,
            ready: verdict(Some(true), Reason::AllSeen, "all"),
            drained: verdict(Some(false), Reason::JobsRunning, "task 1: 3 jobs"),
            stalled: verdict(Some(false), Reason::NotStalled, "nothing"),
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
                old: tasks,
                ended: 1,
                jobs_cut: 0,
            }),
            past: Vec::new(),
            cut: Cut::default(),
            killed: Killed { total: 1, tasks: Vec::new() },
            counts: Counts { busy: tasks, ..Counts::default() },
            tasks: (0..tasks).map(task).collect(),
            blocked_by: "JobsRunning".into(),
            unmatched_workers: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn condition_of<'a>(status: &'a WorkerDrainStatus, type_: &str) -> (&'a str, &'a str, &'a Time) {
        let found = status.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
        (&found.status, &found.reason, &found.last_transition_time)
    }

    #[test]
    fn columns_have_what_they_show() {
        let status = render(None, &draining(3), None, at(9));
        assert_eq!(status.phase.as_deref(), Some("Draining"));
        assert_eq!(status.progress.as_deref(), Some("1/3"));
        assert_eq!(status.counts.busy, 3);
        assert_eq!(status.killed, 1);
        assert_eq!(status.oldest_job_started_at, Some(Time(at(-2))));
        assert_eq!(status.blocked_by.as_deref(), Some("JobsRunning"));
        assert_eq!(status.tasks[0].jobs, Some(3), "what is scheduled for later does not count");
    }

    #[test]
    fn each_node_has_the_strength_of_its_evidence() {
        let node = |name: &str, worth: Option<Worth>, doubt: &str| NodeReport {
            name: name.into(),
            worth,
            doubt: doubt.into(),
        };
        let mut report = draining(2);
        report.tasks[0].nodes = vec![
            node("a", Some(Worth::Account), ""),
            node("b", Some(Worth::Lists), ""),
            node("c", Some(Worth::Incomplete), &"ä".repeat(400)),
            node("d", Some(Worth::None), "it does not answer"),
        ];
        report.tasks[1].nodes = vec![node("e", None, "")];
        let status = render(None, &report, None, at(0));
        let told =
            status.tasks[0].evidence.iter().map(|of| (of.node.as_str(), of.strength.as_str(), of.message.is_some()));
        let expected = [("a", "Account", false), ("b", "Lists", false), ("c", "Incomplete", true), ("d", "None", true)];
        assert_eq!(told.collect::<Vec<_>>(), expected);
        assert!(status.tasks[0].evidence[2].message.as_ref().unwrap().len() <= 320);
        assert_eq!((status.tasks[1].nodes.len(), status.tasks[1].evidence.len()), (1, 0), "its task has ended");
    }

    #[test]
    fn the_same_report_is_the_same_status() {
        let first = render(None, &draining(3), None, at(0));
        assert_eq!(render(Some(&first), &draining(3), None, at(60)), first);
    }

    #[test]
    fn a_transition_is_a_change_of_the_answer_and_of_nothing_else() {
        let first = render(None, &draining(1), None, at(0));
        let mut report = draining(1);
        report.drained = verdict(Some(false), Reason::NodeSilent, "worker@1 does not answer");
        let second = render(Some(&first), &report, None, at(60));
        assert_eq!(condition_of(&second, condition::DRAINED), ("False", "NodeSilent", &Time(at(0))));
        report.drained = verdict(None, Reason::FleetUnreachable, "nobody there");
        let third = render(Some(&second), &report, None, at(90));
        assert_eq!(condition_of(&third, condition::DRAINED), ("Unknown", "FleetUnreachable", &Time(at(90))));
    }

    #[rstest]
    #[case::at_work(true, false, ("False", UP_TO_DATE))]
    #[case::nothing_seen_yet(false, false, ("True", "WorkersUnreachable"))]
    #[case::stuck(false, true, ("False", "WorkersInvalid"))]
    fn kstatus_is_told_whether_to_wait(
        #[case] is_whole: bool,
        #[case] is_stalled: bool,
        #[case] expected: (&str, &str),
    ) {
        let mut report = draining(1);
        report.is_whole = is_whole;
        report.ready = verdict(Some(false), Reason::WorkersUnreachable, "nobody there");
        report.stalled = verdict(Some(is_stalled), Reason::WorkersInvalid, "no Secret");
        let status = render(None, &report, Some(1), at(0));
        let (answer, reason, _) = condition_of(&status, condition::RECONCILING);
        assert_eq!((answer, reason), expected);
    }

    #[test]
    fn a_spec_that_was_taken_up_is_not_in_progress_again_for_an_outage() {
        let taken_up = render(None, &draining(1), Some(1), at(0));
        let mut blind = draining(1);
        blind.is_whole = false;
        let during = render(Some(&taken_up), &blind, Some(1), at(9));
        assert_eq!(condition_of(&during, condition::RECONCILING), ("False", UP_TO_DATE, &Time(at(0))));
        let changed = render(Some(&during), &blind, Some(2), at(12));
        assert_eq!(condition_of(&changed, condition::RECONCILING).0, "True", "the new one was not");
    }

    #[test]
    fn pipelines_are_told_the_deployment_by_its_id() {
        let mut report = draining(1);
        report.current =
            Some(CurrentRevision { id: "ecs-svc/2".into(), label: "transcoder:42".into(), since: Some(at(1)) });
        report.drained_to =
            Some(DrainedTo { id: "ecs-svc/1".into(), label: "transcoder:41".into(), at: at(0), outcome: None });
        let told = |report: &Report| serde_json::to_value(render(None, report, Some(1), at(9))).unwrap();
        let status = told(&report);
        assert_eq!(status["current"]["deployment"], "ecs-svc/2");
        assert_eq!((&status["drained"]["deployment"], status["drained"].get("outcome")), (&json!("ecs-svc/1"), None));
        report.drained_to.as_mut().unwrap().outcome = Some(RolloutOutcome::JobsCut);
        assert_eq!(told(&report)["drained"]["outcome"], "JobsCut");
    }

    #[test]
    fn every_condition_says_which_generation_it_is_about() {
        let generations = |status: &WorkerDrainStatus| -> Vec<Option<i64>> {
            status.conditions.iter().map(|condition| condition.observed_generation).collect()
        };
        let first = render(None, &draining(1), Some(3), at(0));
        assert_eq!((first.observed_generation, generations(&first)), (Some(3), vec![Some(3); 5]));
    }

    #[test]
    fn a_status_is_bounded() {
        let mut report = draining(400);
        report.ready.message = "ä".repeat(4000);
        let status = render(None, &report, None, at(0));
        assert_eq!((status.tasks.len(), status.tasks_omitted), (50, 350));
        assert!(status.conditions[0].message.len() <= 1024);
        assert_eq!(clipped("äää", 5), "ä…");
    }
}
