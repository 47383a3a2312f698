//! The table: a pure function of what was seen, the time, and the size of the terminal.

use std::fmt::Write;

use jiff::Timestamp;
use worker_drain_plan::{
    Report, age,
    observation::HoldState,
    report::{Phase, TaskPhase, TaskReport},
};

use super::{
    change::{is_error, label},
    watched::Watched,
};

/// How many characters fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// In one line.
    pub width: usize,
    /// Lines.
    pub height: usize,
}

/// How a piece of text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    Bold,
    Dim,
    Good,
    Waiting,
    Bad,
}

impl Style {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Waiting => "\x1b[33m",
            Self::Bad => "\x1b[31m",
        }
    }
}

type Line = Vec<(Style, String)>;

const HEADINGS: [&str; 9] = ["TASK", "REVISION", "NODE", "PHASE", "JOBS", "EVIDENCE", "OLDEST", "HOLD", "WAITS FOR"];

/// No column but the last is wider.
const WIDEST: usize = 28;

/// The table, as lines that fit the terminal.
pub fn table(drains: &[Watched], now: Timestamp, size: Size, colour: bool) -> Vec<String> {
    // The last line of the terminal is the cursor's; each drain has a heading, headings of columns, and "and more".
    let for_tasks = size.height.saturating_sub(1 + 3 * drains.len()) / drains.len().max(1);
    let lines = drains.iter().flat_map(|drain| of_drain(drain, now, for_tasks.max(1)));
    let lines: Vec<String> = lines.map(|line| fitted(&line, size.width, colour)).collect();
    let most = size.height.saturating_sub(1).max(1);
    lines.into_iter().take(most).collect()
}

fn of_drain(drain: &Watched, now: Timestamp, for_tasks: usize) -> Vec<Line> {
    let mut lines = vec![heading(drain, now)];
    if let Some(error) = &drain.error {
        lines.push(vec![(Style::Bad, format!("  every hold is kept: {error}"))]);
    }
    let Some(report) = &drain.report else { return lines };
    if report.ready.answer != Some(true) {
        lines.push(vec![(Style::Bad, format!("  {}: {}", report.ready.reason, report.ready.message))]);
    }
    if let Some(gate) = report.gate.as_ref().filter(|gate| gate.answer != Some(true)) {
        lines.push(vec![(Style::Waiting, format!("  {}: {}", gate.reason, gate.message))]);
    }
    if report.tasks.is_empty() {
        return lines;
    }
    let rows: Vec<[String; 9]> = report.tasks.iter().take(for_tasks).map(|task| row(task, now)).collect();
    let headings = HEADINGS.map(String::from);
    let mut widths = [0; 9];
    for cells in rows.iter().chain([&headings]) {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count()).min(WIDEST);
        }
    }
    lines.push(laid_out(&headings, &widths, [Style::Dim; 9]));
    for (cells, task) in rows.iter().zip(&report.tasks) {
        lines.push(laid_out(cells, &widths, styles(task)));
    }
    if let Some(more) = report.tasks.len().checked_sub(for_tasks).filter(|more| *more > 0) {
        lines.push(vec![(Style::Dim, format!("  … and {more} more"))]);
    }
    lines
}

fn heading(drain: &Watched, now: Timestamp) -> Line {
    let mut line = vec![(Style::Bold, drain.name.clone())];
    match &drain.report {
        None => line.push((Style::Dim, String::from("  connecting …"))),
        Some(report) => {
            line.push((Style::Plain, format!("  {}", phase(report))));
            if !report.blocked_by.is_empty() {
                line.push((Style::Waiting, format!("  blocked by {}", report.blocked_by)));
            }
        }
    }
    line.push((Style::Dim, format!("  {}", age(now.duration_since(drain.began)))));
    line
}

fn phase(report: &Report) -> String {
    let counts = report.counts;
    let Some(rollout) = &report.rollout else {
        let phase = match report.phase {
            Phase::Steady => "steady",
            Phase::ScalingIn => "scaling in",
            Phase::Replacing => "replacing",
            Phase::Paused => "paused",
            Phase::Withdrawing => "withdrawing",
            Phase::Withdrawn => "withdrawn",
            Phase::Draining => "draining",
            Phase::RollingBack => "rolling back",
            Phase::Unknown => return "not seen".into(),
        };
        return format!("{phase}  {} live, {} consuming, {} held", counts.live, counts.consuming, counts.held);
    };
    let verb = match report.phase {
        Phase::RollingBack => "rolling back to",
        Phase::Paused => "paused, draining to",
        _ => "draining to",
    };
    format!("{verb} {}  {}/{} drained", rollout.label, rollout.ended, rollout.old)
}

fn row(task: &TaskReport, now: Timestamp) -> [String; 9] {
    let node = match task.nodes.as_slice() {
        [] => String::from("-"),
        [node] => node.name.to_string(),
        [first, rest @ ..] => format!("{} +{}", first.name, rest.len()),
    };
    let weakest = task.nodes.iter().filter_map(|node| node.worth).min();
    let since = |time: Option<Timestamp>| time.map(|time| age(now.duration_since(time)));
    let hold = match task.hold {
        HoldState::Until(until) if until > now => age(until.duration_since(now)),
        HoldState::Until(_) | HoldState::Free => "-".into(),
        HoldState::Unread => "?".into(),
    };
    [
        task.task.short().chars().take(8).collect(),
        task.revision.clone(),
        node,
        label(task),
        task.jobs.map_or_else(|| "?".into(), |jobs| (jobs.active + jobs.reserved).to_string()),
        weakest.map_or_else(|| "-".into(), |worth| worth.to_string()),
        since(task.oldest_job.as_ref().and_then(|job| job.started_at)).unwrap_or_else(|| "-".into()),
        hold,
        task.waiting_for.clone(),
    ]
}

fn styles(task: &TaskReport) -> [Style; 9] {
    let phase = match task.phase {
        phase if is_error(phase) => Style::Bad,
        TaskPhase::Held | TaskPhase::Cancelling | TaskPhase::Busy | TaskPhase::Restoring => Style::Waiting,
        TaskPhase::Idle | TaskPhase::Permitted | TaskPhase::Stopping | TaskPhase::Serving => Style::Good,
        _ => Style::Dim,
    };
    let rest = if task.leaving.is_none() { Style::Dim } else { Style::Plain };
    [rest, rest, rest, phase, rest, rest, rest, rest, rest]
}

fn laid_out(cells: &[String; 9], widths: &[usize; 9], styles: [Style; 9]) -> Line {
    let last = cells.len() - 1;
    let mut line = vec![(Style::Plain, String::from("  "))];
    for (index, ((cell, width), style)) in cells.iter().zip(widths).zip(styles).enumerate() {
        if index == last {
            line.push((style, cell.clone()));
        } else {
            line.push((style, format!("{:<width$}  ", clipped(cell, *width))));
        }
    }
    line
}

fn clipped(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.into();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// One line that is no wider than the terminal.
fn fitted(line: &Line, width: usize, colour: bool) -> String {
    let mut left = width;
    let mut text = String::new();
    for (style, piece) in line {
        let piece = clipped(piece, left);
        left -= piece.chars().count();
        if colour && *style != Style::Plain {
            let _ = write!(text, "{}{piece}\x1b[0m", style.code());
        } else {
            text += &piece;
        }
        if left == 0 {
            break;
        }
    }
    if colour { text } else { text.trim_end().into() }
}
