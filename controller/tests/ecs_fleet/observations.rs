//! What is seen of a service, and by how many calls.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use ecs_emulator::model::Faults;
use jiff::SignedDuration;
use tokio::time::timeout;
use worker_drain::fleet::{Fleet, FleetObservation, ecs::Operation};
use worker_drain_plan::{
    Outcome, TaskId,
    observation::{FailureKind, HoldState, Life},
};

use super::{PATIENCE, Stage, is_held};

#[tokio::test]
async fn a_rollout_is_seen_with_its_holds_and_identities() {
    let stage = Stage::with(2).await;
    let old = stage.running(2).await;
    let asked_at = stage.emulator.now().timestamp();
    assert_eq!(stage.hold(&old).await, [Outcome::Done, Outcome::Done]);
    let before = stage.look().await;
    let limits = (before.view.desired, before.view.minimum_healthy_percent, before.view.maximum_percent);
    assert_eq!((before.view.name.as_str(), limits), ("media/transcoder", (2, 100, 200)));
    let HoldState::Until(until) = before.view.tasks[&old[0]].hold else { panic!("{before:?}") };
    let lasting = until.duration_since(asked_at);
    // Times travel as fractions of a second, so to the millisecond it cannot be told.
    assert!(lasting > SignedDuration::from_mins(119) && lasting < SignedDuration::from_mins(125), "{lasting:#}");

    stage.deploy();
    let four_run =
        |look: &FleetObservation| look.view.tasks.values().filter(|task| task.life == Life::Running).count() == 4;
    let look = stage.look_until("new tasks run beside the old ones", &BTreeSet::new(), four_run).await;
    assert_ne!(look.view.current, before.view.current);
    assert_eq!(look.view.revisions[&look.view.current].label, "worker:1");
    for (id, task) in &look.view.tasks {
        assert_eq!(task.revision == before.view.current, old.contains(id), "old is who was there before");
        assert_eq!(is_held(&look, id), old.contains(id));
        assert!(task.started_at.is_some());
        let identity = &look.identities[id];
        assert_eq!(identity.containers[0].name, "worker");
        assert!(identity.containers[0].runtime_id.is_some());
        assert!(!identity.host_names.is_empty() && !identity.addresses.is_empty(), "{identity:?}");
    }
    stage.emulator.stop().await;
}

#[tokio::test]
async fn a_task_without_ipv4_is_known_by_its_ipv6_address() {
    let stage = Stage::with(1).await;
    stage.set(|knobs| knobs.ipv6_only = true);
    let ids = stage.running(1).await;
    let look = stage.look().await;
    let addresses = &look.identities[&ids[0]].addresses;
    assert!(!addresses.is_empty() && addresses.iter().all(IpAddr::is_ipv6), "{addresses:?}");
    stage.emulator.stop().await;
}

#[tokio::test]
async fn a_released_task_is_followed_by_name_until_it_is_forgotten() {
    let stage = Stage::with(1).await;
    let old = stage.running(1).await;
    let tracked: BTreeSet<TaskId> = old.iter().cloned().collect();
    stage.hold(&old).await;
    stage.deploy();
    stage.look_until("a new task runs", &tracked, |look| look.view.tasks.len() == 2).await;
    assert_eq!(stage.fleet.release(&old).await, [Outcome::Done]);
    let has_ended = |look: &FleetObservation| matches!(look.view.tasks[&old[0]].life, Life::Stopped { .. });
    let look = stage.look_until("the old task ends", &tracked, has_ended).await;
    let Life::Stopped { reason, .. } = &look.view.tasks[&old[0]].life else { panic!("{look:?}") };
    assert!(reason.contains(look.view.tasks[&old[0]].revision.as_str()), "{reason}");
    assert!(!look.identities.contains_key(&old[0]), "it owns no name any more");
    assert!(!stage.look().await.view.tasks.contains_key(&old[0]), "nobody tracks it: history");

    // ECS forgets a task after a while.
    stage.emulator.change_knobs(|knobs| knobs.stopped_retention = Duration::from_millis(100));
    let young = stage.running(1).await.remove(0);
    stage.stop_task(&young);
    let tracked = BTreeSet::from([young.clone()]);
    let is_missing = |look: &FleetObservation| look.view.tasks[&young].life == Life::Missing;
    let look = stage.look_until("ECS knows it no more", &tracked, is_missing).await;
    assert!(!look.identities.contains_key(&young));
    stage.emulator.stop().await;
}

/// ECS's answers may be older than one another. A task of the newest deployment must not be taken for an old one because
/// the service was read too early: its consumers would be cancelled.
#[tokio::test]
async fn a_new_task_is_never_taken_for_an_old_one_by_stale_answers() {
    let stage = Stage::with(2).await;
    let old = stage.running(2).await;
    stage.hold(&old).await;
    stage.emulator.set_faults(Faults { stale_reads: Duration::from_secs(3), ..Faults::default() });
    stage.deploy();
    let newest = stage.emulator.with_world(|world| {
        world.service("media", "transcoder").unwrap().primary().unwrap().id.to_string().as_str().into()
    });
    let settled = timeout(PATIENCE, async {
        loop {
            if let Ok(look) = stage.fleet.observe(&BTreeSet::new()).await {
                let new: Vec<_> = look.view.tasks.values().filter(|task| task.revision == newest).collect();
                assert!(new.is_empty() || look.view.current == newest, "{look:#?}");
                if new.iter().filter(|task| task.life == Life::Running).count() == 2 {
                    return;
                }
            }
        }
    });
    settled.await.unwrap();
    stage.emulator.stop().await;
}

#[tokio::test]
async fn a_task_of_another_service_or_account_is_not_taken_for_ours() {
    let stage = Stage::with(1).await;
    let ours = stage.running(1).await;
    let elsewhere = TaskId::from(ours[0].as_str().replace(":123456789012:", ":210987654321:"));
    for (task, says) in
        [(elsewhere, "arn:aws:ecs:us-east-1:123456789012:cluster/media"), (stage.standalone(), "belongs to")]
    {
        let failure = stage.fleet.observe(&BTreeSet::from([task])).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Invalid);
        assert!(failure.message.contains(says), "{failure:?}");
    }
    stage.emulator.stop().await;
}

#[tokio::test]
async fn two_hundred_and_fifty_tasks_take_few_calls() {
    let stage = Stage::with(250).await;
    let tasks = stage.running(250).await;
    let before = stage.fleet.calls().by_operation();
    assert_eq!(stage.hold(&tasks).await, vec![Outcome::Done; 250]);
    let look = stage.look().await;
    assert!(tasks.iter().all(|task| is_held(&look, task)));
    let made = |operation| stage.fleet.calls().of(operation) - before.get(&operation).copied().unwrap_or(0);
    assert_eq!(made(Operation::UpdateTaskProtection), 25);
    assert_eq!(made(Operation::DescribeServices), 1);
    assert_eq!(made(Operation::ListTasks), 3, "three pages of running tasks, and no list of stopped ones");
    assert_eq!(made(Operation::DescribeTasks), 3);
    assert_eq!(made(Operation::GetTaskProtection), 3);
    stage.emulator.stop().await;
}

#[tokio::test]
async fn tasks_that_ended_are_neither_listed_nor_read() {
    let stage = Stage::with(100).await;
    let tasks = stage.running(100).await;
    stage.stop_task(&tasks[0]);
    let replaced = |look: &FleetObservation| look.view.tasks.len() == 100 && !look.view.tasks.contains_key(&tasks[0]);
    stage.look_until("it is replaced", &BTreeSet::new(), replaced).await;
    let before = stage.fleet.calls().by_operation();
    stage.look().await;
    let made = |operation| stage.fleet.calls().of(operation) - before[&operation];
    assert_eq!(made(Operation::ListTasks), 1, "those that run");
    assert_eq!(made(Operation::DescribeTasks), 1, "a hundred in one call, not 101 in two");
    stage.emulator.stop().await;
}
