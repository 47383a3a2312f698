//! Which workers a task may have that nobody has heard of.

use super::words::{counted, names};
use crate::situation::{Member, Situation};

/// More workers are expected than are known, because of what the task is made of, and of nothing better.
pub fn may_be_alike(situation: &Situation<'_>, member: &Member<'_>) -> bool {
    let expected = usize::try_from(member.evidence.expected_workers()).unwrap_or(usize::MAX);
    situation.policy.drain.workers_per_task.is_none()
        && member.evidence.unknown_workers > 0
        && member.task.alike.len() >= expected
}

/// Parts of a task run one program, and fewer are known as workers.
pub fn alike(member: &Member<'_>, what_follows: &str) -> String {
    let known = member.evidence.known_workers();
    format!(
        "{} run from one image, and {} known: the rest may be workers that are silent and run jobs, so {what_follows}; if they are \
         none, set spec.workers.celery.workersPerTask to {known}",
        names(member.task.alike.iter()),
        match known {
            1 => String::from("1 worker is"),
            many => format!("{} are", counted(many, "worker")),
        },
    )
}

/// Told before a deployment meets it: tasks that stay and will not be let go.
pub fn note(situation: &Situation<'_>) -> Option<String> {
    let stays = |member: &&Member<'_>| member.leaving.is_none() && !situation.is_starting_up(member);
    let member = situation
        .running()
        .filter(stays)
        .find(|member| member.evidence.known_workers() > 0 && may_be_alike(situation, member))?;
    let revision = situation.fleet.label(&member.task.revision);
    Some(format!("of a task of {revision} {}", alike(member, "it will not be permitted to stop")))
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
