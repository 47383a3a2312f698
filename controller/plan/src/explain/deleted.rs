//! Puts into words that somebody deleted the fleet, and what ended with it.

use super::words::{counted, short_names};
use crate::{
    names::TaskId,
    observation::Life,
    report::{Deleted, Reason, Verdict},
    situation::{Situation, count},
};

/// That the fleet was deleted, if it was.
pub fn deleted(situation: &Situation<'_>) -> Option<Deleted> {
    let fleet = situation.fleet;
    if !fleet.is_deleted {
        return None;
    }
    let ran =
        |id: &TaskId| fleet.tasks.get(id).is_some_and(|task| task.life == Life::Missing || task.started_at.is_some());
    let remembered = situation.memory.tasks.iter();
    let unpermitted = || remembered.clone().filter(|(id, task)| task.let_go().is_none() && ran(id)).map(|(id, _)| id);
    let lost = match count(unpermitted()) {
        0 => String::from("every task of it that ran had been permitted to stop"),
        number => format!(
            "{} ended with it without our permit, and their jobs with them ({})",
            counted(number, "task"),
            short_names(unpermitted())
        ),
    };
    Some(Deleted {
        unpermitted: unpermitted().cloned().collect(),
        message: format!(
            "{} was deleted: {lost}. Nothing of it is held any more; make it again, or delete this drain",
            fleet.name
        ),
    })
}

/// That nothing can be drained any more.
pub fn verdict(deleted: Option<&Deleted>) -> Option<Verdict> {
    let Deleted { message, .. } = deleted?;
    Some(Verdict { answer: Some(false), reason: Reason::FleetNotFound, message: message.clone() })
}
