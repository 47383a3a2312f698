//! Tasks that ECS lists or counts for the service, and that nobody can place.

use std::{collections::BTreeSet, time::Duration};

use worker_drain::fleet::{Fleet, ecs::Operation};
use worker_drain_plan::observation::{Counted, Discrepancy, Life};

use super::Stage;

#[tokio::test]
async fn tasks_that_no_deployment_started_are_told_and_not_dropped() {
    let stage = Stage::with(3).await;
    let tasks = stage.running(3).await;
    stage.set(|knobs| knobs.started_by = Some("batch/nightly".to_owned()));
    let view = stage.look().await.view;
    assert!(view.tasks.is_empty(), "none of them can be placed");
    assert_eq!(view.unplaced.keys().collect::<BTreeSet<_>>(), tasks.iter().collect());
    assert_eq!(view.counted, Some(Counted { running: 3, starting: 0, stopping: 0 }));
    assert_eq!(view.discrepancy(), None, "as many as are counted");
    let task = &view.unplaced[&tasks[0]];
    assert_eq!(task.life, Life::Running);
    for part in ["batch/nightly", "ecs-svc/", "describe-tasks"] {
        assert!(task.why.contains(part), "{}", task.why);
    }
    let tracked: BTreeSet<_> = tasks.iter().cloned().collect();
    let failure = stage.fleet.observe(&tracked).await.unwrap_err();
    assert!(failure.message.contains("remembered as one of"), "one that we have held is no stranger: {failure:?}");
    stage.emulator.stop().await;
}

#[tokio::test]
async fn a_count_that_differs_from_the_list_is_told() {
    let stage = Stage::with(2).await;
    stage.running(2).await;
    assert_eq!(stage.look().await.view.discrepancy(), None);
    stage.set(|knobs| knobs.running_count_off = 1);
    let view = stage.look().await.view;
    assert_eq!(view.discrepancy(), Some(Discrepancy { counted: 3, shown: 2 }));
    stage.set(|knobs| knobs.running_count_off = -1);
    let before = stage.fleet.calls().of(Operation::ListTasks);
    let view = stage.look().await.view;
    assert_eq!(view.discrepancy(), Some(Discrepancy { counted: 1, shown: 2 }));
    assert_eq!(stage.fleet.calls().of(Operation::ListTasks) - before, 1, "what is stopping explains no smaller count");
    stage.emulator.stop().await;
}

/// A task that was never seen before may be on its way out for minutes, and whether ECS counts it is not known.
#[tokio::test]
async fn a_stopping_task_that_may_be_counted_still_is_looked_for() {
    let stage = Stage::with(2).await;
    let tasks = stage.running(2).await;
    stage.set(|knobs| knobs.deactivating = Duration::from_mins(10));
    stage.stop_task(&tasks[0]);
    let replaced = |look: &worker_drain::fleet::FleetObservation| look.view.tasks.len() == 2;
    stage.look_until("another one has come", &BTreeSet::new(), replaced).await;
    stage.running(2).await;
    stage.set(|knobs| knobs.running_count_off = 1);
    let view = stage.look().await.view;
    assert_eq!(view.counted, Some(Counted { running: 3, starting: 0, stopping: 1 }));
    assert_eq!(view.discrepancy(), None);
    stage.emulator.stop().await;
}
