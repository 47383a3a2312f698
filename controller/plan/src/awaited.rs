//! Whose jobs' ends are waited for, so that a look at the right moment spares the rest of a poll interval.
//!
//! What is told here is only when a look is worth it. A job's end that nobody hears of costs time, never correctness: the
//! look that follows is what proves anything, and it comes by itself after [`wake_after`](crate::Plan::wake_after).

use std::{collections::BTreeMap, num::NonZeroU32};

use crate::{
    names::NodeName,
    observation::{Answer, Job, Queue},
    policy::Scheduled,
    situation::{Situation, count},
};

/// For each node that a stop waits for: after how many more jobs' ends it may be idle. A node that is not here is waited
/// for by nobody.
pub type Awaited = BTreeMap<NodeName, NonZeroU32>;

/// Nodes that were cancelled and have jobs, and those that do not answer and may have some, of tasks that leave.
pub fn awaited(situation: &Situation<'_>) -> Awaited {
    if situation.policy.paused {
        return Awaited::new();
    }
    let waiting = situation.leaving().filter(|member| member.memory.permitted.is_none());
    let nodes = waiting.flat_map(|member| &member.evidence.nodes);
    let scheduled = situation.policy.drain.scheduled;
    nodes.filter_map(|(node, answer)| Some((node.clone(), ends_until_idle(*answer, scheduled)?))).collect()
}

/// `None`: nothing is to be waited for, because it has no jobs, or because it still takes new ones and is to be cancelled
/// first.
fn ends_until_idle(answer: Option<&Answer>, scheduled: Scheduled) -> Option<NonZeroU32> {
    // One that is silent, such as a worker of the solo pool, may answer when it has ended a job.
    let Some((queues, reserved, active, later)) = answer.and_then(all) else { return Some(NonZeroU32::MIN) };
    if !queues.is_empty() {
        return None;
    }
    let later = if scheduled == Scheduled::Wait { later } else { &[] };
    NonZeroU32::new(count(reserved.iter().chain(active).chain(later)))
}

type Parts<'a> = (&'a [Queue], &'a [Job], &'a [Job], &'a [Job]);

fn all(answer: &Answer) -> Option<Parts<'_>> {
    let Answer { queues, reserved, active, scheduled, .. } = answer;
    Some((queues.as_deref()?, reserved.as_deref()?, active.as_deref()?, scheduled.as_deref()?))
}
