//! What a person, or a program, sees of a run. Everything here is a function of the planner's reports; the words for
//! reasons are the reports' own.

mod change;
mod json;
mod lines;
mod live;
mod terminal;
#[cfg(test)]
mod tests;
mod watched;

use jiff::{SignedDuration, Timestamp};

pub use self::{
    change::Change,
    json::{task_object, verdict_object},
    live::Size,
    watched::Watched,
};
use super::exit::Exit;

/// How a run is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people: a table that is updated in place on a terminal, one line for each change elsewhere.
    #[default]
    Text,
    /// For programs: one JSON object for each change.
    Json,
}

/// Where changes are shown.
#[derive(Debug)]
pub struct View {
    shown: Shown,
    /// How often it is told that nothing has changed, where nobody would see that otherwise.
    progress: Option<SignedDuration>,
    told_at: Timestamp,
}

#[derive(Debug)]
enum Shown {
    /// A table on a terminal.
    Live(terminal::Live),
    /// A line for each change.
    Lines,
    /// An object for each change.
    Json,
}

impl View {
    /// What fits: a table needs a terminal to itself. After so long without a change it is told where things stand; zero: never.
    pub fn new(output: Output, logs: bool, progress: SignedDuration, now: Timestamp) -> Self {
        let shown = match output {
            Output::Json => Shown::Json,
            Output::Text if !logs && terminal::is_fit() => Shown::Live(terminal::Live::start()),
            Output::Text => Shown::Lines,
        };
        Self { shown, progress: progress.is_positive().then_some(progress), told_at: now }
    }

    /// Shows what changed in one drain.
    pub fn changed(&mut self, drains: &[Watched], index: usize, changes: &[Change], now: Timestamp) {
        if !changes.is_empty() {
            self.told_at = now;
        }
        match &mut self.shown {
            Shown::Live(live) => live.draw(drains, now),
            Shown::Lines => print(changes.iter().map(|change| lines::line(&drains[index].name, change, now))),
            Shown::Json => print(changes.iter().map(|change| json::line(&drains[index].name, change, now))),
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, drains: &[Watched], now: Timestamp) {
        let is_due = self.progress.is_some_and(|progress| now.duration_since(self.told_at) >= progress);
        match &mut self.shown {
            Shown::Live(live) => live.draw(drains, now),
            Shown::Lines if is_due => print(drains.iter().map(|drain| lines::progress(drain, now))),
            Shown::Json if is_due => print(drains.iter().map(|drain| json::progress(drain, now))),
            Shown::Lines | Shown::Json => return,
        }
        if is_due {
            self.told_at = now;
        }
    }

    /// Shows how it ended, and gives the terminal back.
    pub fn end(self, drains: &[Watched], exits: &[Exit], now: Timestamp) {
        match self.shown {
            Shown::Live(mut live) => {
                live.draw(drains, now);
                drop(live);
                print(drains.iter().zip(exits).map(|(drain, exit)| lines::summary(drain, *exit, now)));
            }
            Shown::Lines => print(drains.iter().zip(exits).map(|(drain, exit)| lines::summary(drain, *exit, now))),
            Shown::Json => print(drains.iter().zip(exits).map(|(drain, exit)| json::summary(drain, *exit, now))),
        }
    }
}

/// Prints lines. A reader that has gone away is no reason to stop draining.
fn print(lines: impl Iterator<Item = String>) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    for line in lines {
        let _ = writeln!(out, "{line}");
    }
    let _ = out.flush();
}
