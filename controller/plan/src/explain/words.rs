//! Words that several explanations use.

use jiff::{SignedDuration, Unit};

use crate::names::TaskId;

/// At most three names, then how many more.
pub fn names<T: std::fmt::Display>(items: impl Iterator<Item = T>) -> String {
    const SHOWN: usize = 3;
    let all: Vec<String> = items.map(|item| item.to_string()).collect();
    match all.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{} and {more} more", all[..SHOWN].join(", ")),
        _ => all.join(", "),
    }
}

/// So many of these, such as `1 job` or `2 jobs`.
pub fn counted(count: u32, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// Short names of tasks, at most three.
pub fn short_names<'a>(items: impl Iterator<Item = &'a TaskId>) -> String {
    names(items.map(TaskId::short))
}

/// A time span as people say it: its two largest units, such as `1h 5m`.
pub fn age(span: SignedDuration) -> String {
    let seconds = span.round(Unit::Second).unwrap_or(span).as_secs().max(0);
    let (days, hours, minutes, rest) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m {rest}s"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}
