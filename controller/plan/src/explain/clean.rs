//! Whether jobs may have been lost: in the rollout that goes on, or else in the last one.

use super::words::counted;
use crate::{
    report::{PastRollout, Reason, RolloutOutcome, Verdict},
    situation::{Situation, count},
};

/// The rollout that is meant, and what is known to be lost in it.
struct Losses {
    to: String,
    jobs_cut: u32,
    by_deadline: bool,
    unpermitted: u32,
    killed: u32,
}

/// Whether anything was lost. The worst is the reason.
pub fn clean(situation: &Situation<'_>) -> Verdict {
    let memory = situation.memory;
    let losses = match (&memory.rollout, memory.past.first()) {
        (Some(rollout), _) => Losses {
            to: situation.fleet.label(&rollout.to),
            jobs_cut: rollout.jobs_cut,
            by_deadline: rollout.jobs_cut > 0,
            unpermitted: count(rollout.ended_unpermitted.iter()).saturating_add(rollout.unseen),
            killed: count(rollout.killed.iter()),
        },
        (None, Some(past)) => of_past(past),
        (None, None) => return told(true, Reason::NothingLost, String::from("no rollout was seen yet")),
    };
    let Losses { to, jobs_cut, by_deadline, unpermitted, killed } = losses;
    let rollout = format!("in the rollout to {to}");
    if by_deadline {
        told(false, Reason::JobsCut, format!("{rollout} a deadline cut {}", counted(jobs_cut, "job")))
    } else if killed > 0 {
        let message = format!("{rollout} {} killed after being drained and permitted to stop", were(killed));
        told(false, Reason::Killed, message)
    } else if unpermitted > 0 {
        told(
            false,
            Reason::EndedUnpermitted,
            format!("{rollout} {} ended without our permit", counted(unpermitted, "old task")),
        )
    } else {
        told(true, Reason::NothingLost, format!("{rollout} nothing is known to be lost"))
    }
}

fn of_past(past: &PastRollout) -> Losses {
    Losses {
        to: past.label.clone(),
        jobs_cut: past.jobs_cut,
        by_deadline: past.outcome == RolloutOutcome::JobsCut,
        unpermitted: past.ended_unpermitted,
        killed: past.killed,
    }
}

fn were(number: u32) -> String {
    format!("{} {}", counted(number, "old task"), if number == 1 { "was" } else { "were" })
}

fn told(answer: bool, reason: Reason, message: String) -> Verdict {
    Verdict { answer: Some(answer), reason, message }
}
