//! Whose consumers are cancelled now.

use std::collections::BTreeSet;

use super::{
    capacity::{self, may_not_wait, order},
    hold::Holds,
};
use crate::{
    actions::Action,
    names::{NodeName, QueueName},
    observation::Queue,
    situation::{Member, Situation, count},
};

/// Consumers that will be cancelled.
pub fn cancels(situation: &Situation<'_>, holds: &Holds) -> Vec<Action> {
    let (mut chosen, mut patient): (Vec<&Member<'_>>, Vec<&Member<'_>>) = situation
        .leaving()
        .filter(|member| member.is_consuming())
        .partition(|member| may_not_wait(situation, holds, member));
    patient.retain(|member| !situation.is_behind_gate(member));
    patient.sort_by_key(|member| order(situation, member));
    let left = situation.consuming().saturating_sub(count(chosen.iter()));
    let spare = left.saturating_sub(capacity::keep(situation));
    chosen.extend(patient.into_iter().take(usize::try_from(spare).unwrap_or(usize::MAX)));
    // What is cancelled now stands in front of the queue next time; the order of the steps must not depend on it.
    chosen.sort_by_key(|member| member.id);
    let kept = last_consumed(situation, &chosen);
    chosen.into_iter().flat_map(|member| cancel(member, &kept)).collect()
}

fn cancel(member: &Member<'_>, kept: &BTreeSet<&QueueName>) -> Vec<Action> {
    let cancelled = |queues: &[Queue]| -> Vec<QueueName> {
        queues.iter().map(|queue| &queue.name).filter(|name| !kept.contains(name)).cloned().collect()
    };
    let of_node = |node: &NodeName| {
        let queues = cancelled(member.evidence.queues(node)?);
        (!queues.is_empty()).then(|| Action::Cancel { task: member.id.clone(), node: node.clone(), queues })
    };
    member.evidence.nodes.keys().filter_map(of_node).collect()
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
    let queues = member.evidence.nodes.keys().filter_map(|node| member.evidence.queues(node)).flatten();
    queues.filter(|queue| queue.auto_delete).map(|queue| &queue.name)
}
