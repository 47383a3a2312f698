//! Whose consumers are cancelled now.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{
    capacity::{self, may_not_wait, order},
    hold::Holds,
};
use crate::{
    actions::Action,
    names::{NodeName, QueueName},
    situation::{Member, Situation, count},
};

/// Consumers that will be cancelled.
///
/// A worker that is silent is told, too: a cancel is harmless when it comes late, and a worker that answers between jobs only would
/// begin another one before it is seen to take jobs. Whoever took jobs when it last told, and should not be silent, is counted
/// by nobody: it is told once enough others are seen to take jobs without it.
///
/// One that somebody else has take jobs again and again is told after a pause, unless its task may be stopped at any moment.
pub fn cancels(situation: &Situation<'_>, holds: &Holds) -> Vec<Action> {
    let may_take_jobs = |member: &&Member<'_>| member.takes_jobs() || member.quiet().next().is_some();
    let (mut chosen, mut patient): (Vec<&Member<'_>>, Vec<&Member<'_>>) =
        situation.leaving().filter(may_take_jobs).partition(|member| may_not_wait(situation, holds, member));
    patient.retain(|member| !situation.is_behind_gate(member) && !member.is_left_for_now(situation.now));
    let (mut counted, uncounted): (Vec<&Member<'_>>, Vec<&Member<'_>>) =
        patient.into_iter().partition(|member| member.takes_jobs());
    counted.sort_by_key(|member| order(situation, member));
    let (keep, left) = (capacity::keep(situation), situation.consuming());
    let left = left.saturating_sub(count(chosen.iter().filter(|member| member.takes_jobs())));
    let spare = usize::try_from(left.saturating_sub(keep)).unwrap_or(usize::MAX);
    if left >= keep {
        chosen.extend(uncounted);
    }
    chosen.extend(counted.into_iter().take(spare));
    // What is cancelled now stands in front of the queue next time; the order of the steps must not depend on it.
    chosen.sort_by_key(|member| member.id);
    let kept = last_consumed(situation, &chosen);
    let cancel = |member: &Member<'_>| cancel(member, &kept, situation.now, may_not_wait(situation, holds, member));
    chosen.into_iter().flat_map(cancel).collect()
}

fn cancel(member: &Member<'_>, kept: &BTreeSet<&QueueName>, now: Timestamp, is_urgent: bool) -> Vec<Action> {
    let waits = |node: &&NodeName| !is_urgent && member.waits_until(node, now).is_some();
    let of_node = |node: &NodeName| {
        let names = member.queues(node).into_iter().map(|queue| &queue.name);
        let queues: Vec<QueueName> = names.filter(|name| !kept.contains(name)).cloned().collect();
        (!queues.is_empty()).then(|| Action::Cancel { task: member.id.clone(), node: node.clone(), queues })
    };
    member.evidence.nodes.keys().filter(|node| !waits(node)).filter_map(of_node).collect()
}

/// Queues that the broker would delete with all jobs that wait in them, because these tasks are the last that take jobs from
/// them (AMQP: `auto_delete`; seen on RabbitMQ with Celery 5.7). They are never cancelled.
pub fn last_consumed<'a>(situation: &'a Situation<'_>, members: &[&'a Member<'_>]) -> BTreeSet<&'a QueueName> {
    let goes = |member: &Member<'_>| members.iter().any(|going| going.id == member.id);
    let others = situation.running().filter(|member| !goes(member)).flat_map(auto_deleted);
    let others: BTreeSet<&QueueName> = others.collect();
    members.iter().flat_map(|member| auto_deleted(member)).filter(|name| !others.contains(name)).collect()
}

/// Queues of this task that the broker deletes when nobody takes jobs from them any more.
pub fn auto_deleted<'a>(member: &'a Member<'_>) -> impl Iterator<Item = &'a QueueName> {
    let queues = member.evidence.nodes.keys().flat_map(|node| member.queues(node));
    queues.filter(|queue| queue.auto_delete).map(|queue| &queue.name)
}
