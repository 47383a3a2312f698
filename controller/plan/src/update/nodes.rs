//! Which nodes are a task's own, and which start of each answered last.

use super::view::View;
use crate::{
    memory::Memory,
    observation::{Mapping, WorkersView},
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

/// Which start of each node answered. Comes after what is proven of it was judged: a restart is seen by the difference.
pub fn learn_instances(view: &View<'_>, memory: &mut Memory) {
    for (id, evidence) in &view.evidence {
        let Some(task) = memory.tasks.get_mut(id) else { continue };
        for (node, instance) in evidence.instances() {
            task.nodes.entry(node).or_default().instance = Some(instance);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        observation::Life,
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
}
