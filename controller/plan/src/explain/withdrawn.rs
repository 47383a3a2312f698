//! Puts into words what withdrawing a drain lets go of, and what it could not give back yet.

use std::collections::BTreeSet;

use super::words::{counted, names, short_names};
use crate::{
    memory::{Memory, TaskMemory},
    names::{QueueName, TaskId},
    observation::{Life, Task},
    report::{Exposed, TaskPhase, Withdrawal},
    situation::{Member, Situation, count},
};

/// What has become of a drain that is withdrawn; `None`: it is not.
pub fn withdrawal(situation: &Situation<'_>) -> Option<Withdrawal> {
    situation.policy.withdrawn.then(|| Withdrawal { exposed: exposed(situation), left: left(situation) })
}

/// The same while the fleet cannot be seen: what it lacks by what is remembered.
pub fn unseen(memory: &Memory) -> Withdrawal {
    let mut left = Left::default();
    for (id, task) in memory.tasks.iter().filter(|(_, task)| !task.gone) {
        // Queues that were given back stay remembered.
        let serves = task.phase.is_some_and(|at| at.phase == TaskPhase::Serving);
        left.add(id, if serves { BTreeSet::new() } else { taken(task) }, task.held);
    }
    Withdrawal { exposed: Exposed::default(), left: left.told() }
}

/// What nobody will keep the scheduler from stopping: old tasks that may have jobs, and those that are too many.
fn exposed(situation: &Situation<'_>) -> Exposed {
    let fleet = situation.fleet;
    let may_work = |member: &&Member<'_>| jobs(member) != Some(0);
    let is_old = |member: &&Member<'_>| fleet.is_old(member.task) && member.task.life != Life::Starting;
    let old = situation.members.values().filter(is_old).filter(may_work);
    let current = || situation.live().filter(|member| !fleet.is_old(member.task));
    Exposed {
        old: old.map(|member| (member.id.clone(), jobs(member))).collect(),
        surplus: if current().any(|member| may_work(&member)) {
            count(current()).saturating_sub(fleet.desired)
        } else {
            0
        },
    }
}

/// Jobs that run or wait in it; `None`: it did not answer.
fn jobs(member: &Member<'_>) -> Option<u32> {
    member.evidence.jobs().map(|jobs| jobs.active + jobs.reserved)
}

/// Said before it comes to that: the holds are released in this reconciliation.
pub fn note(withdrawal: Option<&Withdrawal>) -> Option<String> {
    let exposed = withdrawal.map(|withdrawal| &withdrawal.exposed).filter(|exposed| !exposed.is_empty())?;
    Some(format!("the drain is withdrawn: nothing keeps {exposed} any more"))
}

fn left(situation: &Situation<'_>) -> String {
    let mut left = Left::default();
    for (id, task) in situation.memory.tasks.iter().filter(|(_, task)| !task.gone) {
        let life = situation.fleet.tasks.get(id).map(|seen: &Task| &seen.life);
        match (situation.members.get(id), life) {
            (Some(member), Some(life)) if life.is_live() => left.add(id, lacks(member), task.held),
            // The answer may be from the past.
            (_, None | Some(Life::Missing)) => left.add(id, taken(task), task.held),
            _ => {}
        }
    }
    left.told()
}

/// What a task waits for of which not every worker answers: nothing of ours holds it, whatever it does.
pub fn unknown(situation: &Situation<'_>, member: &Member<'_>) -> String {
    let silent = if situation.workers_seen && member.evidence.silent().next().is_some() {
        format!("{} does not answer", names(member.evidence.silent()))
    } else {
        String::from("its workers cannot be asked")
    };
    let lacks = lacks(member);
    if lacks.is_empty() {
        return format!("{silent}; nothing was taken from it");
    }
    format!("{silent}, so {} cannot be given back to it yet", names(lacks.into_iter()))
}

/// Queues that this task is seen to lack, or may lack for all that is known.
fn lacks<'a>(member: &'a Member<'_>) -> BTreeSet<&'a QueueName> {
    let mut lacks = BTreeSet::new();
    for (name, node) in &member.memory.nodes {
        let consumed = member.evidence.queues(name);
        let is_there =
            |taken: &QueueName| consumed.is_some_and(|queues| queues.iter().any(|queue| queue.name == *taken));
        let own = node.taken.iter().map(|queue| &queue.name).filter(|taken| node.owns(taken));
        lacks.extend(own.filter(|taken| !is_there(taken)));
    }
    lacks
}

fn taken(task: &TaskMemory) -> BTreeSet<&QueueName> {
    task.nodes.values().flat_map(|node| node.taken.iter().map(|queue| &queue.name)).collect()
}

/// What is left to be undone.
#[derive(Default)]
struct Left<'a> {
    lacking: Vec<&'a TaskId>,
    queues: BTreeSet<&'a QueueName>,
    held: Vec<&'a TaskId>,
}

impl<'a> Left<'a> {
    fn add(&mut self, task: &'a TaskId, lacks: BTreeSet<&'a QueueName>, is_held: bool) {
        if !lacks.is_empty() {
            self.lacking.push(task);
            self.queues.extend(lacks);
        }
        if is_held {
            self.held.push(task);
        }
    }

    fn told(&self) -> String {
        let holds = match self.held.len() {
            0 => String::from("no hold of ours is left"),
            _ => format!("not released yet: the holds of {}", short_names(self.held.iter().copied())),
        };
        if self.lacking.is_empty() {
            return holds;
        }
        let (queues, tasks) = (names(self.queues.iter()), short_names(self.lacking.iter().copied()));
        format!("not given back yet, as far as is known: {queues} to {tasks}; {holds}")
    }
}

impl Exposed {
    /// The same with what another observation saw. What was let go first counts: jobs may have been cut since.
    pub fn add(&mut self, seen: Self) {
        self.surplus = self.surplus.max(seen.surplus);
        for (task, jobs) in seen.old {
            let known = self.old.entry(task).or_insert(jobs);
            *known = known.or(jobs);
        }
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.old.is_empty() && self.surplus == 0
    }
}

/// Whom nothing keeps, and from what.
impl std::fmt::Display for Exposed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        if !self.old.is_empty() {
            let known: u32 = self.old.values().flatten().sum();
            let jobs = match self.old.values().filter(|jobs| jobs.is_none()).count() {
                0 => counted(known, "job"),
                unknown if unknown == self.old.len() => String::from("jobs that are not known"),
                _ => format!("{} or more", counted(known, "job")),
            };
            let tasks = counted(count(self.old.keys()), "old task");
            parts.push(format!("{tasks} with {jobs} ({})", short_names(self.old.keys())));
        }
        if self.surplus > 0 {
            parts.push(format!("{} more than wanted", counted(self.surplus, "task")));
        }
        write!(f, "{} from being stopped in the middle of jobs", parts.join(", and "))
    }
}
