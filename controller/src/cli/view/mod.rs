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

use jiff::Timestamp;

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
pub enum View {
    /// A table on a terminal.
    Live(terminal::Live),
    /// A line for each change.
    Lines,
    /// An object for each change.
    Json,
}

impl View {
    /// What fits: a table needs a terminal to itself.
    pub fn new(output: Output, logs: bool) -> Self {
        match output {
            Output::Json => Self::Json,
            Output::Text if !logs && terminal::is_fit() => Self::Live(terminal::Live::start()),
            Output::Text => Self::Lines,
        }
    }

    /// Shows what changed in one drain.
    pub fn changed(&mut self, drains: &[Watched], index: usize, changes: &[Change], now: Timestamp) {
        match self {
            Self::Live(live) => live.draw(drains, now),
            Self::Lines => print(changes.iter().map(|change| lines::line(&drains[index].name, change, now))),
            Self::Json => print(changes.iter().map(|change| json::line(&drains[index].name, change, now))),
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, drains: &[Watched], now: Timestamp) {
        if let Self::Live(live) = self {
            live.draw(drains, now);
        }
    }

    /// Shows how it ended, and gives the terminal back.
    pub fn end(self, drains: &[Watched], exits: &[Exit], now: Timestamp) {
        match self {
            Self::Live(mut live) => {
                live.draw(drains, now);
                drop(live);
                print(drains.iter().zip(exits).map(|(drain, exit)| lines::summary(drain, *exit, now)));
            }
            Self::Lines => print(drains.iter().zip(exits).map(|(drain, exit)| lines::summary(drain, *exit, now))),
            Self::Json => print(drains.iter().zip(exits).map(|(drain, exit)| json::summary(drain, *exit, now))),
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
