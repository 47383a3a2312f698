//! Advice that is neither a failure nor a reason to wait. Nothing in it changes only because time has passed: each new note is
//! told as news.

use std::collections::BTreeSet;

use super::{
    foreign,
    words::{age, counted, names},
    workers,
};
use crate::{
    evidence::MAX_ANSWER_LAG,
    memory::Why,
    names::QueueName,
    policy::HoldMode,
    report::Unaccounted,
    rules::{Decision, cancel, hold},
    situation::{Member, Situation, count},
};

/// All of them.
pub fn notes(situation: &Situation<'_>, decision: &Decision, unaccounted: Option<&Unaccounted>) -> Vec<String> {
    let turns = situation.memory.is_turning().then(|| turns(situation));
    // What is certain stands in `ready`.
    let unsure = unaccounted.filter(|tasks| !tasks.certain).map(|tasks| tasks.message.clone());
    let warnings = [unseen(situation), cuts_next(situation, decision), auto_deleted(situation)];
    let of_workers = [workers::note(situation), workers::forgotten(situation)];
    let told = [races(situation), turns, unsure, moves(situation)].into_iter().chain(warnings).chain(of_workers);
    told.flatten().chain(foreign::notes(situation)).chain(situation.fleet.unread.iter().cloned()).collect()
}

fn races(situation: &Situation<'_>) -> Option<String> {
    let (policy, fleet) = (situation.policy, situation.fleet);
    let races = policy.hold.mode == HoldMode::OnRollout && fleet.minimum_healthy_percent < 100;
    races.then(|| {
        format!(
            "hold.mode is OnRollout and the service's minimumHealthyPercent is {}: it may stop old tasks before they are held; set it to 100 or use hold.mode Standing",
            fleet.minimum_healthy_percent,
        )
    })
}

/// Old tasks had ended before anybody looked.
fn unseen(situation: &Situation<'_>) -> Option<String> {
    let unseen = situation.memory.rollout.as_ref().map(|rollout| rollout.unseen).filter(|unseen| *unseen > 0)?;
    Some(format!(
        "{} fewer than the {} that are wanted had ended before worker-drain first saw this service: nothing held them, and their jobs may be lost; let every task be held before a deployment begins",
        counted(unseen, "old task"),
        situation.fleet.desired,
    ))
}

/// Tasks that stay, run, should be held, and are not, nor are about to be: another deployment makes them old, and may stop
/// them before anybody can do anything about it. Neither are those whose hold could not be read.
pub fn unheld<'a>(situation: &'a Situation<'_>, decision: &'a Decision) -> impl Iterator<Item = &'a Member<'a>> {
    let stays = |member: &&Member<'_>| member.leaving.is_none() && hold::is_wanted(situation, member);
    let is_bare = |member: &&Member<'_>| member.is_free(situation.now) && !decision.holds.asks_for(member.id);
    situation.running().filter(stays).filter(move |member| is_bare(member))
}

/// What another deployment would do now.
fn cuts_next(situation: &Situation<'_>, decision: &Decision) -> Option<String> {
    let unheld = count(unheld(situation, decision));
    let verb = if unheld == 1 { "is" } else { "are" };
    (unheld > 0).then(|| {
        format!(
            "{} {verb} not held: another deployment, or a lower desired count, cuts their jobs; wait until old tasks have ended, or raise the desired count",
            counted(unheld, "current task"),
        )
    })
}

/// Said before it comes to that: a queue that only the old revision takes jobs from keeps its last task for ever.
fn auto_deleted(situation: &Situation<'_>) -> Option<String> {
    let queues: BTreeSet<&QueueName> = situation.running().flat_map(cancel::auto_deleted).collect();
    (!queues.is_empty()).then(|| {
        format!(
            "the broker deletes {} with the jobs in it when nobody takes jobs from it any more (auto_delete): the last task that does is not told to stop",
            names(queues.into_iter()),
        )
    })
}

/// More tasks live than ever were wanted, and it is not known which of them the scheduler replaces.
fn moves(situation: &Situation<'_>) -> Option<String> {
    let wanted = situation.memory.wanted.as_ref()?.most.max(situation.fleet.desired);
    let stays =
        |member: &&Member<'_>| member.task.revision == *situation.current() && member.leaving != Some(Why::Replaced);
    let surplus = count(situation.live().filter(stays)).saturating_sub(wanted);
    (surplus > 0 && situation.is_standing() && !situation.memory.is_turning()).then(|| {
        format!(
            "{} more than wanted and no fewer are wanted than before, so the scheduler replaces one and does not tell which: nothing is drained for it, and a hold on that one may delay it",
            counted(surplus, "task"),
        )
    })
}

/// An older revision is shown as current again.
pub fn turns(situation: &Situation<'_>) -> String {
    format!(
        "the service shows {} as current again, which may be a rollback or an answer from the past: tasks are held, and nothing else is done, until it has been seen for {}",
        situation.fleet.label(&situation.fleet.current),
        age(MAX_ANSWER_LAG),
    )
}
