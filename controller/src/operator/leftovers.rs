//! What a drain has done and not undone yet, as far as it remembers.

use std::fmt;

use worker_drain_plan::{Memory, TaskId, memory::TaskMemory, report::TaskPhase};

use super::events::listed;

/// What is ours outside, of tasks that were not seen to end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    held: Vec<TaskId>,
    taken: Vec<TaskId>,
}

/// How much a drain has to undo. The more, the less it can be done without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// It took queues, which it alone can give back.
    Taken,
    /// It holds tasks. Whoever goes on with the service sees that they are held, and holds them as it needs.
    Held,
    /// Nothing.
    Nothing,
}

impl Leftovers {
    /// By this memory.
    pub fn of(memory: &Memory) -> Self {
        let those = |are: fn(&TaskMemory) -> bool| {
            let tasks = memory.tasks.iter().filter(|(_, task)| !task.gone && are(task));
            tasks.map(|(id, _)| id.clone()).collect()
        };
        Self { held: those(|task| task.held), taken: those(is_taken_from) }
    }

    /// How much it is.
    pub fn work(&self) -> Work {
        match (self.held.as_slice(), self.taken.as_slice()) {
            ([], []) => Work::Nothing,
            (_, []) => Work::Held,
            _ => Work::Taken,
        }
    }

    /// There are tasks that were held.
    pub fn has_holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// The tasks that were held.
    pub fn held(&self) -> String {
        named(&self.held)
    }

    /// The tasks from which queues were taken.
    pub fn taken(&self) -> String {
        named(&self.taken)
    }
}

/// Queues that were given back stay remembered; a task that was seen to serve afterwards takes jobs from them.
fn is_taken_from(task: &TaskMemory) -> bool {
    let serves = task.phase.is_some_and(|at| at.phase == TaskPhase::Serving);
    !serves && task.nodes.values().any(|node| !node.taken.is_empty())
}

fn named(tasks: &[TaskId]) -> String {
    listed(&tasks.iter().map(TaskId::short).collect::<Vec<_>>())
}

/// What becomes of it if nobody undoes it.
impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.held.is_empty() {
            f.write_str("no hold was left; ")?;
        } else {
            write!(f, "holds were left, which expire by themselves: {}; ", self.held())?;
        }
        if self.taken.is_empty() {
            f.write_str("no queue was left taken")
        } else {
            write!(f, "queues may be left taken, which come back when the worker restarts: {}", self.taken())
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use rstest::rstest;
    use worker_drain_plan::{
        memory::{NodeMemory, PhaseSince},
        observation::Queue,
    };

    use super::*;

    /// Held, taken from, last seen in this phase, gone.
    fn task(held: bool, taken: bool, phase: Option<TaskPhase>, gone: bool) -> TaskMemory {
        let queue = Queue::named("celery");
        let node = NodeMemory { taken: taken.then_some(queue).into_iter().collect(), ..NodeMemory::default() };
        let phase = phase.map(|phase| PhaseSince { phase, since: Timestamp::UNIX_EPOCH });
        TaskMemory { nodes: [("worker@a".into(), node)].into(), held, phase, gone, ..TaskMemory::default() }
    }

    fn left(tasks: impl IntoIterator<Item = TaskMemory>) -> Leftovers {
        let named = |(number, task)| (format!("arn:aws:ecs:eu-west-1:1:task/media/{number}").into(), task);
        Leftovers::of(&Memory { tasks: tasks.into_iter().enumerate().map(named).collect(), ..Memory::default() })
    }

    #[rstest]
    #[case::nothing(task(false, false, None, false), Work::Nothing)]
    #[case::held(task(true, false, Some(TaskPhase::Serving), false), Work::Held)]
    #[case::about_to_be_taken(task(true, true, Some(TaskPhase::Cancelling), false), Work::Taken)]
    #[case::taken_and_free(task(false, true, Some(TaskPhase::Permitted), false), Work::Taken)]
    #[case::being_given_back(task(true, true, Some(TaskPhase::Restoring), false), Work::Taken)]
    #[case::given_back(task(true, true, Some(TaskPhase::Serving), false), Work::Held)]
    #[case::gone(task(true, true, Some(TaskPhase::Busy), true), Work::Nothing)]
    fn what_is_to_be_undone(#[case] task: TaskMemory, #[case] work: Work) {
        assert_eq!(left([task]).work(), work);
    }

    #[test]
    fn what_is_left_is_told_with_names() {
        assert_eq!(left([]).to_string(), "no hold was left; no queue was left taken");
        let both = left([task(true, false, None, false), task(true, true, None, false)]);
        assert_eq!(
            both.to_string(),
            "holds were left, which expire by themselves: tasks 0, 1; queues may be left taken, which come back when the \
             worker restarts: task 1"
        );
    }
}
