//! Which nodes are a task's own, and which start of each answered last.

use std::{collections::BTreeSet, mem};

use jiff::Timestamp;

use super::view::View;
use crate::{
    evidence::fresh,
    memory::{Memory, NodeMemory},
    names::{NodeName, RevisionId},
    observation::{FleetView, Mapping, WorkersView},
};

/// Every node that is ever seen to be a task's stays its own: one that no longer answers is unknown, not absent.
pub fn learn(workers: Option<&WorkersView>, memory: &mut Memory) {
    for (id, mapping) in workers.into_iter().flat_map(|workers| &workers.tasks) {
        if let (Mapping::Nodes(nodes), Some(task)) = (mapping, memory.tasks.get_mut(id)) {
            for node in nodes {
                task.nodes.entry(node.clone()).or_default();
            }
        }
    }
}

/// Which start of each node answered, and which queues are its own. Comes after what is proven of it was judged: a restart is seen by the difference.
pub fn learn_instances(view: &View<'_>, memory: &mut Memory) {
    for (id, evidence) in &view.evidence {
        let Some(task) = memory.tasks.get_mut(id) else { continue };
        for (name, answer) in evidence.nodes.iter().filter_map(|(name, answer)| Some((name, (*answer)?))) {
            let node = task.nodes.entry(name.clone()).or_default();
            if answer.instance.is_some() && answer.instance != node.instance {
                let instance = answer.instance.clone();
                *node = NodeMemory { instance, own: BTreeSet::new(), between_jobs: false, ..mem::take(node) };
            }
            if let Some(queues) = answer.queues.as_ref().filter(|_| answer.hears_later) {
                node.consumed = queues.iter().cloned().collect();
            }
            node.between_jobs |= answer.between_jobs;
            if node.own.is_empty() {
                let seen = || answer.queues.iter().flatten().map(|queue| queue.name.clone()).collect();
                node.own = answer.own_queues.clone().unwrap_or_else(seen);
                // What was taken before this was remembered it had consumed, too.
                node.own.extend(node.taken.iter().map(|queue| queue.name.clone()));
            }
        }
    }
}

/// How many workers a task of each revision has: as many as were seen to answer together in one of them, by us or by whoever wrote
/// it down beside the fleet. One that answered before and answers between jobs only is seen to be there while it runs one. The same
/// number is expected of its other tasks, so that one that is silent from the start is missed. Comes before anything is proven,
/// which depends on it.
pub fn learn_numbers(fleet: &FleetView, workers: Option<&WorkersView>, memory: &mut Memory, now: Timestamp) {
    for (revision, number) in fleet.remembered.iter().flat_map(|remembered| &remembered.workers_per_task) {
        let known = memory.workers_per_task.entry(revision.clone()).or_insert(*number);
        *known = (*known).max(*number);
    }
    learn_from_answers(fleet, workers, memory, now);
    let lives = |revision: &RevisionId| fleet.tasks.values().any(|task| task.revision == *revision);
    memory.workers_per_task.retain(|revision, _| *revision == fleet.current || lives(revision));
}

fn learn_from_answers(fleet: &FleetView, workers: Option<&WorkersView>, memory: &mut Memory, now: Timestamp) {
    let Some(workers) = workers else { return };
    for (id, mapping) in &workers.tasks {
        let (Mapping::Nodes(nodes), Some(task)) = (mapping, fleet.tasks.get(id)) else { continue };
        let known = memory.tasks.get(id).map(|task| &task.nodes);
        let is_there = |node: &&NodeName| match workers.nodes.get(*node) {
            Some(answer) => fresh(answer, now),
            None => known.and_then(|nodes| nodes.get(*node)).is_some_and(|node| node.between_jobs),
        };
        let all: BTreeSet<&NodeName> = nodes.iter().chain(known.into_iter().flat_map(|nodes| nodes.keys())).collect();
        let answered = u32::try_from(all.into_iter().filter(is_there).count()).unwrap_or(u32::MAX);
        let known = memory.workers_per_task.get(&task.revision).copied().unwrap_or(1);
        if answered > known {
            memory.workers_per_task.insert(task.revision.clone(), answered);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        evidence::Work,
        observation::{Answer, Life, Queue, Seen},
        update::testing::{Stage, at, idle},
    };

    #[test]
    fn a_node_that_was_once_a_tasks_own_stays_so() {
        let mut stage = Stage::with_task("t", Life::Running);
        stage.answers("t", "w@1", idle(at(0)));
        learn(stage.observation.workers.ok(), &mut stage.memory);
        let silent = WorkersView {
            tasks: [("t".into(), Mapping::NotFound { hint: String::new() })].into(),
            ..WorkersView::default()
        };
        learn(Some(&silent), &mut stage.memory);
        assert!(stage.memory.tasks[&"t".into()].nodes.contains_key(&"w@1".into()));
    }

    #[test]
    fn the_start_that_answered_last_is_remembered() {
        let mut stage = Stage::with_task("t", Life::Running);
        for instance in ["first", "second"] {
            let mut answer = idle(at(0));
            answer.instance = Some(instance.into());
            stage.answers("t", "w@1", answer);
            let mut memory = stage.memory.clone();
            learn_instances(&stage.view(at(0)), &mut memory);
            assert_eq!(memory.tasks[&"t".into()].nodes[&"w@1".into()].instance.as_deref(), Some(instance));
        }
    }

    #[test]
    fn a_worker_that_was_silent_from_the_start_is_missed_where_a_sibling_has_two() {
        let mut stage = Stage::with_task("t1", Life::Running);
        stage.add_task("t2", Life::Running);
        for (task, node) in [("t1", "a@1"), ("t1", "b@1"), ("t2", "a@2")] {
            stage.answers(task, node, idle(at(0)));
        }
        let Seen::Ok { value, .. } = &mut stage.observation.workers else { unreachable!("they are seen") };
        value.tasks.insert("t1".into(), Mapping::Nodes(["a@1".into(), "b@1".into()].into()));
        for (works, unknown) in [(Work::Idle, 0), (Work::Unknown, 1)] {
            let view = stage.view(at(0));
            let second = &view.evidence[&"t2".into()];
            assert_eq!((second.work, second.unknown_workers), (works, unknown));
            learn_numbers(&stage.fleet, stage.observation.workers.ok(), &mut stage.memory, at(0));
        }
        stage.policy.drain.workers_per_task = Some(1);
        assert_eq!(stage.view(at(0)).evidence[&"t2".into()].work, Work::Idle, "the user knows better");
    }

    #[test]
    fn workers_that_answer_between_jobs_are_counted_though_they_never_answer_together() {
        let mut stage = Stage::with_task("t", Life::Running);
        let revision = stage.fleet.tasks[&"t".into()].revision.clone();
        for (now, node, number) in [(0, "a@1", None), (1, "b@1", Some(2)), (2, "a@1", Some(2))] {
            stage.observation.workers = Seen::Ok { value: WorkersView::default(), at: at(now) };
            stage.answers("t", node, Answer { between_jobs: true, ..idle(at(now)) });
            learn_numbers(&stage.fleet, stage.observation.workers.ok(), &mut stage.memory, at(now));
            assert_eq!(stage.memory.workers_per_task.get(&revision).copied(), number, "at {now}");
            let mut memory = stage.memory.clone();
            learn_instances(&stage.view(at(now)), &mut memory);
            stage.memory = memory;
        }
    }

    #[test]
    fn a_queue_that_a_worker_took_up_by_itself_is_not_its_own() {
        let mut stage = Stage::with_task("t", Life::Running);
        let takes = |names: &[&str]| {
            let queues = names.iter().map(|name| Queue::named(*name)).collect();
            Answer { queues: Some(queues), ..idle(at(0)) }
        };
        let mut own = |answer: Answer| {
            stage.answers("t", "w@1", answer);
            let mut memory = stage.memory.clone();
            learn_instances(&stage.view(at(0)), &mut memory);
            stage.memory = memory;
            let node = &stage.memory.tasks[&"t".into()].nodes[&"w@1".into()];
            ["slow", "sent"].map(|name| node.owns(&name.into()))
        };
        assert_eq!(own(takes(&[])), [true, true], "nothing is known");
        assert_eq!(own(takes(&["slow"])), [true, false]);
        assert_eq!(own(takes(&["sent", "slow"])), [true, false], "after a reconnect");
        let again = |answer: Answer| Answer { instance: Some("b".into()), ..answer };
        assert_eq!(own(again(takes(&["sent"]))), [false, true], "another start of it");
        let told = Answer { own_queues: Some(["slow".into()].into()), instance: Some("c".into()), ..takes(&["sent"]) };
        assert_eq!(own(told), [true, false], "it says so itself");
    }

    #[test]
    fn what_a_worker_took_jobs_from_is_remembered_if_it_can_be_told_while_it_is_silent() {
        let mut stage = Stage::with_task("t", Life::Running);
        let mut consumed = |hears_later: bool, queues: Option<Vec<Queue>>| {
            stage.answers("t", "w@1", Answer { queues, hears_later, ..idle(at(0)) });
            let mut memory = stage.memory.clone();
            learn_instances(&stage.view(at(0)), &mut memory);
            stage.memory = memory;
            stage.memory.tasks[&"t".into()].nodes[&"w@1".into()].consumed.len()
        };
        let slow = || Some(vec![Queue::named("slow")]);
        assert_eq!(consumed(false, slow()), 0, "an HTTP worker");
        assert_eq!(consumed(true, slow()), 1);
        assert_eq!(consumed(true, None), 1, "it did not say");
        assert_eq!(consumed(true, Some(Vec::new())), 0);
    }

    #[test]
    fn a_queue_that_was_taken_before_its_worker_was_looked_at_is_its_own() {
        let mut stage = Stage::with_task("t", Life::Running);
        stage.answers("t", "w@1", Answer { queues: Some(vec![Queue::named("fast")]), ..idle(at(0)) });
        let known = stage.memory.tasks.entry("t".into()).or_default();
        known.nodes.entry("w@1".into()).or_default().taken.insert(Queue::named("slow"));
        let mut memory = stage.memory.clone();
        learn_instances(&stage.view(at(0)), &mut memory);
        let node = &memory.tasks[&"t".into()].nodes[&"w@1".into()];
        assert_eq!(["fast", "slow", "sent"].map(|name| node.owns(&name.into())), [true, true, false]);
    }
}
