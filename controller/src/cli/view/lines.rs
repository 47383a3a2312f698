//! One line for each change: `time  drain  what  how  (why)`, with two spaces between. Stable, so that scripts can grep.

use std::fmt::Write;

use jiff::{Timestamp, Unit};
use worker_drain_plan::{
    age, counted,
    report::{PastRollout, RolloutOutcome, Verdict},
};

use super::{
    change::Change,
    watched::{Balance, Watched},
};
use crate::cli::{exit::Exit, progress::Goal};

/// One change.
pub fn line(drain: &str, change: &Change, now: Timestamp) -> String {
    let (what, how, why) = match change {
        Change::Seen { fleet, live, old } => {
            (String::from("fleet"), fleet.clone(), format!("{}, {old} of an old revision", counted(*live, "task")))
        }
        Change::Phase { from, to } => {
            let from = from.map_or(String::new(), |from| format!("{from:?} → "));
            (String::from("phase"), format!("{from}{to:?}"), String::new())
        }
        Change::Began(rollout) => (
            String::from("rollout"),
            format!("began → {}", rollout.label),
            format!("{}, {} of them ended", counted(rollout.old, "old task"), rollout.ended),
        ),
        Change::Ended(past) => (String::from("rollout"), format!("ended → {}", past.label), ended(past)),
        Change::Verdict(name, verdict) => ((*name).to_owned(), answer(verdict), verdict.message.clone()),
        Change::Task { from: Some(from), to, task } => {
            (task.task.short().to_owned(), format!("{from} → {to}"), task.waiting_for.clone())
        }
        Change::Task { from: None, to, task } => {
            let revision = if task.waiting_for.is_empty() { "" } else { "; " };
            (task.task.short().to_owned(), to.clone(), format!("{}{revision}{}", task.revision, task.waiting_for))
        }
        Change::Held { tasks, until } => {
            let until = until.round(Unit::Second).unwrap_or(*until);
            let why = format!("a deployment may begin; the first hold ends at {until}");
            (String::from("held"), format!("every running task, {tasks}"), why)
        }
        Change::Note(note) => (String::from("note"), note.clone(), String::new()),
        Change::Error(message) => (String::from("error"), String::from("every hold is kept"), message.clone()),
        Change::Recovered => (String::from("error"), String::from("over"), String::new()),
    };
    let why = if why.is_empty() { why } else { format!("  ({why})") };
    let now = now.round(Unit::Second).unwrap_or(now);
    format!("{now}  {drain}  {what}  {how}{why}")
}

fn answer(verdict: &Verdict) -> String {
    let answer = match verdict.answer {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    format!("{answer} {}", verdict.reason)
}

fn ended(past: &PastRollout) -> String {
    let PastRollout { since, until, tasks, outcome, jobs_cut, ended_unpermitted, unseen, killed, .. } = past;
    let outcome = match outcome {
        RolloutOutcome::Drained => "drained",
        RolloutOutcome::RolledBack => "rolled back",
        RolloutOutcome::JobsCut => "jobs were cut",
        RolloutOutcome::EndedUnpermitted => "not all of it by our permit",
        RolloutOutcome::Killed => "drained tasks were killed",
    };
    let mut text = format!("{outcome}; {} in {}", counted(*tasks, "old task"), age(until.duration_since(*since)));
    if *jobs_cut > 0 {
        let _ = write!(text, ", {} cut", counted(*jobs_cut, "job"));
    }
    if *ended_unpermitted > 0 {
        let _ = write!(text, ", {ended_unpermitted} ended without our permit");
    }
    if *unseen > 0 {
        let _ = write!(text, " ({unseen} before this service was first seen)");
    }
    if *killed > 0 {
        let _ = write!(text, ", {killed} killed after our permit");
    }
    text
}

/// Where one drain stands, when nothing has changed for long.
pub fn progress(drain: &Watched, now: Timestamp) -> String {
    let now = now.round(Unit::Second).unwrap_or(now);
    let name = &drain.name;
    let Some(report) = &drain.report else { return format!("{now}  {name}  progress  nothing was seen yet") };
    let ended = report.rollout.as_ref().map(|rollout| format!(", {}/{} drained", rollout.ended, rollout.old));
    let waits = [&report.ready, &report.drained].into_iter().find(|verdict| verdict.answer != Some(true));
    let waits = waits.map_or(String::new(), |verdict| format!("  ({})", verdict.message));
    format!("{now}  {name}  progress  {:?}{}{waits}", report.phase, ended.unwrap_or_default())
}

/// How it ended for one drain.
pub fn summary(drain: &Watched, exit: Exit, now: Timestamp) -> String {
    match drain.goal {
        Goal::Gate => return waited(drain, exit, "the queues are empty", now),
        Goal::Held => return waited(drain, exit, "every running task is held", now),
        Goal::Drained { .. } | Goal::Deployment(_) => {}
    }
    let Balance { ended, unpermitted, cut, killed } = drain.balance();
    let left = drain.report.as_ref().map_or(0, |report| report.counts.old);
    let outcome = match exit {
        Exit::Done if let Goal::Deployment(target) = &drain.goal => format!("done, {target} is drained"),
        Exit::Done if drain.last_rollout().is_none() => String::from("nothing to do, no old task is left"),
        Exit::Done => String::from("done, no old task is left"),
        Exit::EndedUnpermitted if left == 0 => String::from("done, but not all by our permit"),
        Exit::EndedUnpermitted => format!("not all by our permit, and {} left", counted(left, "old task")),
        Exit::Killed if left == 0 => String::from("done, but drained tasks were killed"),
        Exit::Killed => format!("drained tasks were killed, and {} left", counted(left, "old task")),
        Exit::JobsCut if left == 0 => String::from("done, but jobs were cut"),
        Exit::JobsCut => format!("jobs were cut, and {} left", counted(left, "old task")),
        Exit::Superseded => String::from("the deployment is not in place"),
        Exit::TimeLimit => format!("time limit reached, {} left and held", counted(left, "old task")),
        Exit::Interrupted => format!("interrupted, {} left; holds are left as they are", counted(left, "old task")),
        Exit::CouldNotRun if drain.is_unaccounted() => String::from("not every task is accounted for"),
        Exit::CouldNotRun | Exit::BadInput => String::from("could not run"),
    };
    let took = age(now.duration_since(drain.began));
    let mut text = format!(
        "{}: {outcome}; {} drained, {} cut, took {took}",
        drain.name,
        counted(ended, "task"),
        counted(cut, "job")
    );
    if unpermitted > 0 {
        let _ = write!(text, "; {unpermitted} of them ended without our permit, and jobs on them may be lost");
    }
    if killed > 0 {
        let _ = write!(
            text,
            "; {killed} of them ended by SIGKILL (exit code 137) after our permit: does the container pass SIGTERM on to the worker, and is stopTimeout long enough?"
        );
    }
    text
}

/// How waiting for this ended, and what stays held.
fn waited(drain: &Watched, exit: Exit, goal: &str, now: Timestamp) -> String {
    let outcome = match exit {
        Exit::Done => goal.to_owned(),
        Exit::TimeLimit => format!("time limit reached, and it is not sure that {goal}"),
        Exit::Interrupted => format!("interrupted, and it is not sure that {goal}"),
        Exit::EndedUnpermitted
        | Exit::Killed
        | Exit::JobsCut
        | Exit::CouldNotRun
        | Exit::Superseded
        | Exit::BadInput => String::from("could not run"),
    };
    let held = u32::try_from(drain.held.len()).unwrap_or(u32::MAX);
    let until = drain.held.values().min().map(|first| first.round(Unit::Second).unwrap_or(*first));
    let until = until.map_or(String::new(), |first| format!(", the first until {first}"));
    let took = age(now.duration_since(drain.began));
    format!("{}: {outcome}; {} held{until}; took {took}", drain.name, counted(held, "task"))
}
