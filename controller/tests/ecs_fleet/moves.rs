//! Whom ECS wants gone without a deployment, and what says so.

use std::collections::{BTreeMap, BTreeSet};

use ecs_emulator::model::{Health, InstanceStatus, UpdateService};
use worker_drain::fleet::{FleetObservation, ecs::Operation};
use worker_drain_plan::{
    TaskId,
    observation::{Displaced, Life},
};

use super::Stage;

/// A service on two container instances, one in each of two zones: the emulator's ids of these.
async fn on_instances(tasks: usize) -> (Stage, [String; 2]) {
    let stage = Stage::with(0).await;
    let now = stage.emulator.now();
    let instances = stage.emulator.with_world(|world| {
        [0, 1].map(|zone| world.register_container_instance("media", zone, now).unwrap().id.to_string())
    });
    update(&stage, |request| request.desired = Some(u32::try_from(tasks).unwrap()));
    stage.running(tasks).await;
    (stage, instances)
}

fn update(stage: &Stage, change: impl FnOnce(&mut UpdateService)) {
    let mut request =
        UpdateService { cluster: "media".to_owned(), service: "transcoder".to_owned(), ..UpdateService::default() };
    change(&mut request);
    let now = stage.emulator.now();
    stage.emulator.with_world(|world| world.update_service(&request, now).unwrap());
}

fn set(stage: &Stage, instance: &str, status: InstanceStatus) {
    let now = stage.emulator.now();
    stage.emulator.with_world(|world| {
        world.update_container_instances_state("media", &[instance], status, now).unwrap();
    });
}

fn displaced(look: &FleetObservation) -> BTreeMap<Displaced, usize> {
    let running = look.view.tasks.values().filter(|task| task.life == Life::Running);
    let mut counts = BTreeMap::new();
    for task in running {
        *counts.entry(task.displaced).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn a_task_on_an_instance_that_drains_is_wanted_gone() {
    let (stage, [first, _]) = on_instances(4).await;
    let tasks = stage.running(4).await;
    stage.hold(&tasks).await;
    let look = stage.look().await;
    assert_eq!(displaced(&look), [(Displaced::No, 4)].into());
    let zones: BTreeSet<_> = look.view.tasks.values().filter_map(|task| task.zone.as_deref()).collect();
    assert_eq!(zones, ["us-east-1a", "us-east-1b"].into());
    set(&stage, &first, InstanceStatus::Draining);
    let look = stage.look().await;
    assert_eq!(displaced(&look), [(Displaced::No, 2), (Displaced::MachineLeaves, 2)].into());
    assert!(look.view.unread.is_empty());
    set(&stage, &first, InstanceStatus::Active);
    assert!(!displaced(&stage.look().await).contains_key(&Displaced::MachineLeaves));
    stage.emulator.stop().await;
}

/// The permission is younger than the others: an operator that lacks it goes on, and says so.
#[tokio::test]
async fn instances_that_may_not_be_read_fail_nothing_and_are_told() {
    let (stage, [first, _]) = on_instances(2).await;
    set(&stage, &first, InstanceStatus::Draining);
    stage.fail("DescribeContainerInstances", "AccessDeniedException", None);
    let look = stage.look().await;
    assert_eq!(displaced(&look).get(&Displaced::Unread), Some(&look.view.tasks.len()));
    let [note] = &look.view.unread[..] else { panic!("{look:?}") };
    for part in ["DRAINING", "ecs:DescribeContainerInstances", "docs/iam.md"] {
        assert!(note.contains(part), "{note}");
    }
    stage.emulator.stop().await;
}

#[tokio::test]
async fn of_tasks_without_an_instance_none_is_asked_for() {
    let stage = Stage::with(1).await;
    stage.running(1).await;
    stage.look().await;
    assert_eq!(stage.fleet.calls().of(Operation::DescribeContainerInstances), 0);
    stage.emulator.stop().await;
}

#[tokio::test]
async fn an_unhealthy_task_is_wanted_gone() {
    let stage = Stage::with(2).await;
    let tasks = stage.running(2).await;
    let now = stage.emulator.now();
    let id = tasks[0].short().parse().unwrap();
    // Its replacement cannot come up, so that it is there to be seen.
    stage.emulator.set_faults(ecs_emulator::model::Faults { no_capacity: true, ..Default::default() });
    update(&stage, |request| request.configuration.minimum_healthy_percent = Some(200));
    stage.emulator.with_world(|world| world.set_health(id, Health::Unhealthy, now));
    let look = stage.look().await;
    let of = |id: &TaskId| look.view.tasks[id].displaced;
    assert_eq!((of(&tasks[0]), of(&tasks[1])), (Displaced::Unhealthy, Displaced::No));
    stage.emulator.stop().await;
}

#[tokio::test]
async fn it_is_seen_whether_the_scheduler_balances_zones() {
    let stage = Stage::with(1).await;
    stage.running(1).await;
    for on in [true, false] {
        update(&stage, |request| request.rebalances = Some(on));
        assert_eq!(stage.look().await.view.balances_zones, on);
    }
    stage.emulator.stop().await;
}
