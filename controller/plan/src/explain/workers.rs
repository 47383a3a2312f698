//! Which workers a task may have that nobody has heard of.

use super::words::{counted, names};
use crate::situation::{Member, Situation};

/// That so many are expected rests on what the task is made of, and on nothing better.
pub fn may_be_alike(member: &Member<'_>, expected: u32) -> bool {
    u32::try_from(member.task.alike.len()).unwrap_or(u32::MAX) >= expected
}

/// Parts of a task that run one program, of which fewer are known as workers.
pub fn alike(parts: &[String], known: u32, what_follows: &str) -> String {
    format!(
        "{} run from one image, and {} known: the rest may be workers that are silent and run jobs, so {what_follows}; if they are \
         none, set spec.workers.celery.workersPerTask to {known}",
        names(parts.iter()),
        match known {
            1 => String::from("1 worker is"),
            many => format!("{} are", counted(many, "worker")),
        },
    )
}

/// Told before a deployment meets it: tasks that stay and will not be let go.
pub fn note(situation: &Situation<'_>) -> Option<String> {
    if situation.policy.drain.workers_per_task.is_some() {
        return None;
    }
    let stays = |member: &&Member<'_>| member.leaving.is_none() && !situation.is_booting(member);
    let member = situation.running().filter(stays).find(|member| {
        let known = u32::try_from(member.evidence.nodes.len()).unwrap_or(u32::MAX);
        let expected = known.saturating_add(member.evidence.unknown_workers);
        known > 0 && member.evidence.unknown_workers > 0 && may_be_alike(member, expected)
    })?;
    let known = u32::try_from(member.evidence.nodes.len()).unwrap_or(u32::MAX);
    let revision = situation.fleet.label(&member.task.revision);
    Some(format!("of a task of {revision} {}", alike(&member.task.alike, known, "it will not be permitted to stop")))
}

/// How many workers a task has could not be written down beside the fleet.
pub fn forgotten(situation: &Situation<'_>) -> Option<String> {
    let failed = situation.memory.remembering.as_ref().filter(|failed| failed.is_lasting())?;
    Some(format!(
        "how many workers a task has could not be written down beside the service, so that one who drains it next with an empty memory may \
         miss a worker that is silent; spec.workers.celery.workersPerTask says it for good; all else goes on: {}",
        failed.reason
    ))
}
