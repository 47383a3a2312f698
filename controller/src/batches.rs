//! The actions of a plan as the adapters take them: in batches of one kind each. A batch of two kinds cannot be written down.

use jiff::SignedDuration;
use worker_drain_plan::{Action, NodeName, QueueName, TaskId, observation::Queue};

/// Actions of one kind, each with what an adapter is given of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Batch<'a> {
    /// Hold these tasks for so long from now.
    Hold(Vec<(&'a Action, (TaskId, SignedDuration))>),
    /// Release the holds of these tasks, whether to permit their stop or to hand them back.
    Release(Vec<(&'a Action, TaskId)>),
    /// Stop these nodes from consuming.
    Cancel(Vec<(&'a Action, (NodeName, Vec<QueueName>))>),
    /// Have these nodes consume again.
    GiveBack(Vec<(&'a Action, (NodeName, Vec<Queue>))>),
}

/// The actions in their order, neighbours of one kind together.
pub(crate) fn batches(actions: &[Action]) -> Vec<Batch<'_>> {
    let mut batches: Vec<Batch<'_>> = Vec::new();
    for action in actions {
        let open = batches.last_mut();
        let begun = match action {
            Action::Hold { task, lasting } => {
                let item = (action, (task.clone(), *lasting));
                if let Some(Batch::Hold(items)) = open { add(items, item) } else { Some(Batch::Hold(vec![item])) }
            }
            Action::Permit { task, .. } | Action::Release { task } => {
                let item = (action, task.clone());
                if let Some(Batch::Release(items)) = open { add(items, item) } else { Some(Batch::Release(vec![item])) }
            }
            Action::Cancel { node, queues, .. } => {
                let item = (action, (node.clone(), queues.clone()));
                if let Some(Batch::Cancel(items)) = open { add(items, item) } else { Some(Batch::Cancel(vec![item])) }
            }
            Action::GiveBack { node, queues, .. } => {
                let item = (action, (node.clone(), queues.clone()));
                if let Some(Batch::GiveBack(items)) = open {
                    add(items, item)
                } else {
                    Some(Batch::GiveBack(vec![item]))
                }
            }
        };
        batches.extend(begun);
    }
    batches
}

/// Adds to the batch that is open, so that none is begun.
fn add<'a, T>(items: &mut Vec<T>, item: T) -> Option<Batch<'a>> {
    items.push(item);
    None
}

#[cfg(test)]
mod tests {
    use worker_drain_plan::actions::Ground;

    use super::*;

    fn hold(task: &str) -> Action {
        Action::Hold { task: task.into(), lasting: SignedDuration::from_hours(2) }
    }

    fn cancel(task: &str) -> Action {
        Action::Cancel { task: task.into(), node: format!("worker@{task}").into(), queues: vec!["celery".into()] }
    }

    #[test]
    fn neighbours_of_one_kind_are_one_batch_and_the_order_stays() {
        let (permit, release) =
            (Action::Permit { task: "d".into(), ground: Ground::Drained }, Action::Release { task: "e".into() });
        let give_back = Action::GiveBack { task: "c".into(), node: "worker@c".into(), queues: Vec::new() };
        let actions = [hold("a"), hold("b"), cancel("a"), give_back, permit, release, hold("f")];
        let batches = batches(&actions);
        let found: Vec<(&str, Vec<&Action>)> = batches
            .iter()
            .map(|batch| match batch {
                Batch::Hold(items) => ("hold", items.iter().map(|(action, _)| *action).collect()),
                Batch::Release(items) => ("release", items.iter().map(|(action, _)| *action).collect()),
                Batch::Cancel(items) => ("cancel", items.iter().map(|(action, _)| *action).collect()),
                Batch::GiveBack(items) => ("give back", items.iter().map(|(action, _)| *action).collect()),
            })
            .collect();
        let of = |range: std::ops::Range<usize>| actions[range].iter().collect::<Vec<_>>();
        let expected = [
            ("hold", of(0..2)),
            ("cancel", of(2..3)),
            ("give back", of(3..4)),
            ("release", of(4..6)),
            ("hold", of(6..7)),
        ];
        assert_eq!(found, expected);
        assert!(matches!(&batches[3], Batch::Release(items) if items[0].1 == "d".into() && items[1].1 == "e".into()));
    }
}
