//! A service that somebody deletes.

use std::collections::BTreeSet;

use ecs_emulator::model::DeleteForceProtected;
use worker_drain_plan::observation::{FailureKind, Life};

use super::Stage;

impl Stage {
    fn delete_service(&self) {
        let now = self.emulator.now();
        self.emulator.with_world(|world| world.delete_service("media", "transcoder", true, now).unwrap());
    }
}

#[tokio::test]
async fn what_is_left_of_a_deleted_service_is_told_for_as_long_as_it_is_remembered() {
    let stage = Stage::with(2).await;
    let tasks = stage.running(2).await;
    stage.hold(&tasks).await;
    let tracked: BTreeSet<_> = tasks.iter().cloned().collect();
    stage.delete_service();
    let is_over = |look: &worker_drain::fleet::FleetObservation| look.view.is_deleted;
    let view = stage.look_until("the service is gone", &tracked, is_over).await.view;
    assert_eq!((view.desired, view.tasks.keys().cloned().collect()), (0, tracked));
    assert!(view.tasks.values().all(|task| !task.life.is_live()), "{view:?}");
    let failure = stage.failure().await;
    assert_eq!(failure.kind, FailureKind::NotFound, "nothing of it is remembered: {failure:?}");
    stage.emulator.stop().await;
}

/// What ECS does to held tasks of a deleted service is not documented.
#[tokio::test]
async fn a_deleted_service_whose_held_tasks_live_is_seen_as_it_is() {
    let stage = Stage::with(2).await;
    let tasks = stage.running(2).await;
    stage.hold(&tasks).await;
    stage.set(|knobs| knobs.delete_force_protected = DeleteForceProtected::Holds);
    stage.delete_service();
    let tracked: BTreeSet<_> = tasks.iter().cloned().collect();
    let view = stage.look_until("nothing is wanted", &tracked, |look| look.view.desired == 0).await.view;
    assert!(!view.is_deleted && view.tasks.values().all(|task| task.life == Life::Running), "{view:?}");
    stage.emulator.stop().await;
}
