//! Puts into words that what the scheduler counts, what it shows and what can be drained do not add up.

use super::words::{age, counted, short_names};
use crate::{
    evidence::MAX_ANSWER_LAG,
    observation::Discrepancy,
    report::{Reason, Unaccounted, Verdict},
    situation::{Situation, count},
};

/// Tasks with which nothing can be done, if there are any.
pub fn unaccounted(situation: &Situation<'_>, rest_settled: bool) -> Option<Unaccounted> {
    let fleet = situation.fleet;
    let unplaced = || fleet.unplaced.iter().filter(|(_, task)| task.life.is_live());
    let miscount = situation.memory.miscount.filter(|_| fleet.discrepancy().is_some());
    if unplaced().next().is_none() && miscount.is_none() {
        return None;
    }
    let lasts = miscount.is_some_and(|known| known.lasts() >= MAX_ANSWER_LAG);
    let parts = [unplaced_words(situation), miscount_words(situation)];
    Some(Unaccounted {
        tasks: unplaced().map(|(id, _)| id.clone()).collect(),
        placed: count(situation.live()),
        counted: fleet.counted.map(|known| known.running.saturating_add(known.starting)),
        certain: unplaced().next().is_some() || lasts,
        rest_settled,
        message: parts.into_iter().flatten().collect::<Vec<_>>().join("; "),
    })
}

/// That not every task is seen and placed, once it is certain.
pub fn verdict(unaccounted: Option<&Unaccounted>) -> Option<Verdict> {
    let certain = unaccounted.filter(|tasks| tasks.certain)?;
    Some(Verdict { answer: Some(false), reason: Reason::Unaccounted, message: certain.message.clone() })
}

/// That no old task is left is not known while not every task is accounted for: one that is not may be old.
pub fn unless_uncertain(drained: Verdict, uncertain: Option<&Verdict>) -> Verdict {
    match uncertain {
        Some(why) if drained.answer == Some(true) => Verdict { answer: None, ..why.clone() },
        _ => drained,
    }
}

/// Both numbers, who cannot be placed, and why the first of them cannot.
fn unplaced_words(situation: &Situation<'_>) -> Option<String> {
    let fleet = situation.fleet;
    let unplaced = || fleet.unplaced.iter().filter(|(_, task)| task.life.is_live());
    let (first, task) = unplaced().next()?;
    let others = short_names(unplaced().skip(1).map(|(id, _)| id));
    let others = if others.is_empty() { others } else { format!(" (also {others})") };
    let whole = fleet.counted.map_or_else(String::new, |known| {
        format!("{} by the scheduler's own count, ", counted(known.running.saturating_add(known.starting), "task"))
    });
    Some(format!(
        "{whole}{} placed, {} that cannot be placed and so is neither held nor drained: task {}: {}{others}",
        count(situation.live()),
        counted(count(unplaced()), "task"),
        first.short(),
        task.why,
    ))
}

fn miscount_words(situation: &Situation<'_>) -> Option<String> {
    let Discrepancy { counted: known, shown } = situation.fleet.discrepancy()?;
    Some(format!(
        "the scheduler counts {} and shows {shown}; what it does not show is neither held nor drained. One of the two may be \
         up to {} old; if it stays so, look at the tasks in the scheduler's own console",
        counted(known, "task"),
        age(MAX_ANSWER_LAG),
    ))
}
