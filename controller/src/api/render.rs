//! From the planner's report to the resource's status. Pure; what has not changed stays as it was, so a status with nothing
//! new in it equals the old one and need not be written.

use std::fmt::Debug;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use worker_drain_plan::{
    Report,
    observation::{HoldState, Job},
    report::{Counts, NodeReport, PastRollout, RolloutReport, TaskPhase, TaskReport, Verdict},
};

use super::status::{
    CountsStatus, EvidenceStatus, JobStatus, MOST_NODES, MOST_PAST, MOST_TASKS, PastRolloutStatus, RolloutStatus,
    TaskStatus, WorkerDrainStatus, condition,
};

/// The longest message, in bytes; Kubernetes' own limit for conditions is 32 kB.
const LONGEST_MESSAGE: usize = 1024;

/// The longest message on the evidence of one worker, in bytes: there may be hundreds.
const LONGEST_DOUBT: usize = 320;

/// The status that tells this report. The report has neither the observed generation nor the packed memory: they stay as
/// they were, and the caller sets them. Conditions keep the time of their last transition while their answer is the same.
pub fn render(old: Option<&WorkerDrainStatus>, report: &Report, now: Timestamp) -> WorkerDrainStatus {
    let Report { fleet: _, phase, ready, drained, stalled, settled: _, rollout, past, counts, tasks, .. } = report;
    let Report { blocked_by, unmatched_workers: _, notes, killed, .. } = report;
    let known = old.map(|old| old.conditions.as_slice()).unwrap_or_default();
    let reconciling = reconciling(report);
    let condition = |type_: &str, verdict: &Verdict| render_condition(known, type_, verdict, now);
    let mut status = WorkerDrainStatus {
        observed_generation: None,
        phase: Some(word(phase)),
        drained: Some(
            rollout.as_ref().map_or_else(|| "-".into(), |rollout| format!("{}/{}", rollout.ended, rollout.old)),
        ),
        oldest_job_started_at: oldest_job(tasks),
        blocked_by: (!blocked_by.is_empty()).then(|| clipped(blocked_by, 256)),
        conditions: vec![
            condition(condition::READY, ready),
            condition(condition::DRAINED, drained),
            condition(condition::RECONCILING, &reconciling),
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
    status.set_observed_generation(old.and_then(|old| old.observed_generation));
    status
}

/// kstatus: true while there is work to do and nothing has to be fixed by a person first.
fn reconciling(report: &Report) -> Verdict {
    if report.stalled.answer == Some(true) || report.settled {
        let Verdict { reason, message, .. } = if report.settled { &report.drained } else { &report.stalled };
        return Verdict { answer: Some(false), reason: *reason, message: message.clone() };
    }
    let Verdict { reason, message, .. } =
        if report.ready.answer == Some(true) { &report.drained } else { &report.ready };
    Verdict { answer: Some(true), reason: *reason, message: message.clone() }
}

fn render_condition(known: &[Condition], type_: &str, verdict: &Verdict, now: Timestamp) -> Condition {
    let status = match verdict.answer {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let before = known.iter().find(|before| before.type_ == type_ && before.status == status);
    Condition {
        type_: type_.into(),
        status: status.into(),
        reason: verdict.reason.to_string(),
        message: clipped(&verdict.message, LONGEST_MESSAGE),
        last_transition_time: before.map_or(Time(now), |before| before.last_transition_time.clone()),
        observed_generation: None,
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
    use worker_drain_plan::{
        Report, TaskId,
        memory::Why,
        observation::{HoldState, Job},
        report::{
            Counts, Cut, JobCounts, Killed, NodeReport, Phase, Reason, RolloutReport, TaskPhase, TaskReport, Verdict,
            Worth,
        },
    };

    use super::{clipped, render};
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
        let status = render(None, &draining(3), at(9));
        assert_eq!(status.phase.as_deref(), Some("Draining"));
        assert_eq!(status.drained.as_deref(), Some("1/3"));
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
        let status = render(None, &report, at(0));
        let told =
            status.tasks[0].evidence.iter().map(|of| (of.node.as_str(), of.strength.as_str(), of.message.is_some()));
        let expected = [("a", "Account", false), ("b", "Lists", false), ("c", "Incomplete", true), ("d", "None", true)];
        assert_eq!(told.collect::<Vec<_>>(), expected);
        assert!(status.tasks[0].evidence[2].message.as_ref().unwrap().len() <= 320);
        assert_eq!((status.tasks[1].nodes.len(), status.tasks[1].evidence.len()), (1, 0), "its task has ended");
    }

    #[test]
    fn the_same_report_is_the_same_status() {
        let first = render(None, &draining(3), at(0));
        assert_eq!(render(Some(&first), &draining(3), at(60)), first);
    }

    #[test]
    fn a_transition_is_a_change_of_the_answer_and_of_nothing_else() {
        let first = render(None, &draining(1), at(0));
        let mut report = draining(1);
        report.drained = verdict(Some(false), Reason::NodeSilent, "worker@1 does not answer");
        let second = render(Some(&first), &report, at(60));
        assert_eq!(condition_of(&second, condition::DRAINED), ("False", "NodeSilent", &Time(at(0))));
        report.drained = verdict(None, Reason::FleetUnreachable, "nobody there");
        let third = render(Some(&second), &report, at(90));
        assert_eq!(condition_of(&third, condition::DRAINED), ("Unknown", "FleetUnreachable", &Time(at(90))));
    }

    #[rstest]
    #[case::at_work(Some(false), false, "True")]
    #[case::at_rest(Some(false), true, "False")]
    #[case::stuck(Some(true), false, "False")]
    fn kstatus_is_told_whether_to_wait(#[case] stalled: Option<bool>, #[case] settled: bool, #[case] expected: &str) {
        let mut report = draining(1);
        (report.stalled.answer, report.settled) = (stalled, settled);
        assert_eq!(condition_of(&render(None, &report, at(0)), condition::RECONCILING).0, expected);
    }

    #[test]
    fn every_condition_says_which_generation_it_is_about() {
        let generations = |status: &WorkerDrainStatus| -> Vec<Option<i64>> {
            status.conditions.iter().map(|condition| condition.observed_generation).collect()
        };
        let mut first = render(None, &draining(1), at(0));
        first.set_observed_generation(Some(3));
        assert_eq!(generations(&first), [Some(3); 4]);
        let second = render(Some(&first), &draining(2), at(60));
        assert_eq!((second.observed_generation, generations(&second)), (Some(3), vec![Some(3); 4]));
    }

    #[test]
    fn a_status_is_bounded() {
        let mut report = draining(400);
        report.ready.message = "ä".repeat(4000);
        let status = render(None, &report, at(0));
        assert_eq!((status.tasks.len(), status.tasks_omitted), (50, 350));
        assert!(status.conditions[0].message.len() <= 1024);
        assert_eq!(clipped("äää", 5), "ä…");
    }
}
