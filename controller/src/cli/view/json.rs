//! One JSON object for each change, a line each. The fields are documented in docs/run.md, and only added to.

use jiff::Timestamp;
use serde_json::{Value, json};
use worker_drain_plan::{
    observation::HoldState,
    report::{JobCounts, NodeReport, PastRollout, RolloutReport, TaskReport, Verdict},
};

use super::{
    change::Change,
    watched::{Balance, Watched},
};
use crate::cli::{exit::Exit, progress::Goal};

/// One change.
pub fn line(drain: &str, change: &Change, now: Timestamp) -> String {
    let mut object = match change {
        Change::Seen { fleet, live, old } => json!({"event": "fleet", "fleet": fleet, "live": live, "old": old}),
        Change::Phase { from, to } => {
            json!({"event": "phase", "from": from.map(|from| format!("{from:?}")), "phase": format!("{to:?}")})
        }
        Change::Began(rollout) => began(rollout),
        Change::Ended(past) => ended(past),
        Change::Verdict(name, verdict) => condition(name, verdict),
        Change::Task { from, to: _, task } => {
            let mut object = task_object(task);
            object["event"] = json!("task");
            object["from"] = json!(from.as_deref().map(bare));
            object
        }
        Change::Held { tasks, until } => json!({"event": "held", "tasks": tasks, "until": until}),
        Change::Note(note) => json!({"event": "note", "message": note}),
        Change::Error(message) => json!({"event": "error", "message": message}),
        Change::Recovered => json!({"event": "recovered"}),
    };
    object["time"] = json!(now);
    object["drain"] = json!(drain);
    object.to_string()
}

/// A label without the number of jobs, in the words of the API: `busy(2)` is `Busy`, `at risk` is `AtRisk`.
fn bare(label: &str) -> String {
    let words = label.split('(').next().unwrap_or(label).split(' ');
    words
        .map(|word| {
            let mut signs = word.chars();
            signs.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + signs.as_str())
        })
        .collect()
}

fn began(rollout: &RolloutReport) -> Value {
    let RolloutReport { to, label, since, old, ended, jobs_cut } = rollout;
    json!({
        "event": "rollout", "state": "Began", "id": to, "revision": label, "since": since, "oldTasks": old,
        "ended": ended, "jobsCut": jobs_cut,
    })
}

fn ended(past: &PastRollout) -> Value {
    let PastRollout { to, label, since, until, tasks, outcome, jobs_cut, ended_unpermitted, unseen, killed } = past;
    json!({
        "event": "rollout", "state": "Ended", "id": to, "revision": label, "since": since, "until": until,
        "oldTasks": tasks, "outcome": format!("{outcome:?}"), "jobsCut": jobs_cut, "endedUnpermitted": ended_unpermitted,
        "unseen": unseen, "killed": killed,
    })
}

fn condition(name: &str, verdict: &Verdict) -> Value {
    let mut object = verdict_object(verdict);
    object["event"] = json!("condition");
    object["type"] = json!(bare(name));
    object
}

/// An answer to one of the questions that conditions answer.
pub fn verdict_object(verdict: &Verdict) -> Value {
    let status = match verdict.answer {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let Verdict { answer: _, reason, message } = verdict;
    json!({"status": status, "reason": reason.to_string(), "message": message})
}

/// One task.
pub fn task_object(report: &TaskReport) -> Value {
    let TaskReport { task, revision, leaving, phase, since, nodes, jobs, oldest_job, hold, hold_refused, waiting_for } =
        report;
    let held_until = match hold {
        HoldState::Until(until) => Some(until),
        HoldState::Free | HoldState::Unread => None,
    };
    json!({
        "task": task, "revision": revision, "leaving": leaving.map(|why| format!("{why:?}")),
        "phase": format!("{phase:?}"), "since": since, "nodes": nodes.iter().map(|node| &node.name).collect::<Vec<_>>(),
        "evidence": nodes.iter().filter_map(evidence_object).collect::<Vec<_>>(),
        "jobs": jobs.map(|JobCounts { active, reserved, scheduled }| {
            json!({"active": active, "reserved": reserved, "scheduled": scheduled})
        }),
        "oldestJob": oldest_job.as_ref().map(|job| json!({"id": job.id, "name": job.name, "startedAt": job.started_at})),
        "heldUntil": held_until, "holdRefused": hold_refused, "waitingFor": waiting_for,
    })
}

fn evidence_object(NodeReport { name, worth, doubt }: &NodeReport) -> Option<Value> {
    let message = (!doubt.is_empty()).then_some(doubt);
    Some(json!({"node": name, "strength": format!("{:?}", (*worth)?), "message": message}))
}

/// Where one drain stands, when nothing has changed for long.
pub fn progress(drain: &Watched, now: Timestamp) -> String {
    let report = drain.report.as_ref();
    let rollout = report.and_then(|report| report.rollout.as_ref());
    json!({
        "time": now, "drain": drain.name, "event": "progress", "phase": report.map(|report| format!("{:?}", report.phase)),
        "ended": rollout.map(|rollout| rollout.ended), "oldTasks": rollout.map(|rollout| rollout.old),
        "blockedBy": report.map(|report| &report.blocked_by), "jobs": report.map(|report| report.counts.jobs),
    })
    .to_string()
}

/// How it ended for one drain.
pub fn summary(drain: &Watched, exit: Exit, now: Timestamp) -> String {
    let Balance { ended, unpermitted, cut, killed } = drain.balance();
    let counts = drain.report.as_ref().map(|report| report.counts).unwrap_or_default();
    let outcome = match drain.goal {
        Goal::Gate if exit == Exit::Done => "QueuesEmpty",
        Goal::Held if exit == Exit::Done => "Held",
        _ => exit.word(),
    };
    json!({
        "time": now, "drain": drain.name, "event": "end", "outcome": outcome, "exitCode": exit.code(),
        "tasksDrained": ended, "oldTasksLeft": counts.old, "held": counts.held, "jobsCut": cut,
        "endedUnpermitted": unpermitted, "killed": killed, "seconds": now.duration_since(drain.began).as_secs(),
    })
    .to_string()
}
