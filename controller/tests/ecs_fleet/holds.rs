//! Holds that are refused, and those beside them.

use ecs_emulator::model::{BlockedRule, Faults};
use worker_drain::fleet::Fleet;
use worker_drain_plan::{
    Outcome, TaskId,
    observation::{FailureKind, HoldState},
};

use super::{Stage, is_held};

fn refused(reason: &str) -> Outcome {
    Outcome::Refused { reason: reason.to_owned() }
}

#[tokio::test]
async fn a_blocked_hold_is_refused_for_that_task_only() {
    let stage = Stage::with(2).await;
    stage.emulator.change_knobs(|knobs| knobs.blocked_rule = BlockedRule::Always);
    let old = stage.running(2).await;
    stage.hold(&old).await;
    stage.deploy();
    let new = stage.running(4).await.into_iter().find(|task| !old.contains(task)).unwrap();
    let outcomes = stage.hold(&[old[0].clone(), new.clone(), old[1].clone()]).await;
    assert_eq!(outcomes, [Outcome::Done, refused("DEPLOYMENT_BLOCKED"), Outcome::Done]);
    assert!(!is_held(&stage.look().await, &new));
    stage.emulator.stop().await;
}

#[tokio::test]
async fn tasks_that_cannot_be_held_do_not_spoil_the_batch() {
    let stage = Stage::with(1).await;
    let ours = stage.running(1).await;
    let standalone = stage.standalone();
    let unknown = TaskId::from(ours[0].as_str().replace(ours[0].short(), &"0".repeat(32)));
    let tasks = [standalone.clone(), ours[0].clone(), unknown];
    assert_eq!(stage.hold(&tasks).await, [refused("TASK_NOT_VALID"), Outcome::Done, refused("MISSING")]);
    assert!(!stage.look().await.view.tasks.contains_key(&standalone), "it is no task of the service");

    stage.emulator.set_faults(Faults { empty_protection_answers: true, ..Faults::default() });
    assert_eq!(stage.fleet.release(&ours).await, [refused("ECS left the task out of its answer")]);
    assert_eq!(stage.look().await.view.tasks[&ours[0]].hold, HoldState::Unread, "an empty answer frees nobody");
    stage.emulator.stop().await;
}

#[tokio::test]
async fn a_batch_that_fails_does_not_keep_the_others_from_being_held() {
    let stage = Stage::with(30).await;
    let tasks = stage.running(30).await;
    stage.fail("UpdateTaskProtection", "AccessDeniedException", Some(1));
    let outcomes = stage.hold(&tasks).await;
    let denied = |outcome: &Outcome| matches!(outcome, Outcome::Failed(failure) if failure.kind == FailureKind::Denied);
    assert!(outcomes[..10].iter().all(denied), "{outcomes:?}");
    assert_eq!(outcomes[10..], vec![Outcome::Done; 20]);
    stage.emulator.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_refused_whole_is_tried_one_by_one() {
    let stage = Stage::with(3).await;
    let tasks = stage.running(3).await;
    stage.fail("UpdateTaskProtection", "InvalidParameterException", Some(2));
    let outcomes = stage.hold(&tasks).await;
    assert!(matches!(&outcomes[0], Outcome::Failed(failure) if failure.kind == FailureKind::Invalid), "{outcomes:?}");
    assert_eq!(outcomes[1..], [Outcome::Done, Outcome::Done]);
    stage.emulator.stop().await;
}
