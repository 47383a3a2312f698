//! The deployment circuit breaker.

use ecs_emulator::model::{DeploymentStatus, DeploymentStatusSet, Knobs, Protection, RollbackId, RolloutState};

use crate::lab::{Lab, breaker, knobs};

fn failing(knobs: Knobs, rollback: bool, revision: &str) -> Lab {
    let mut lab = Lab::settled(knobs, 2, breaker(rollback));
    let mut faults = lab.world.faults().clone();
    faults.unstartable.insert(revision.to_owned());
    lab.world.set_faults(faults);
    lab
}

#[test]
fn a_rollback_brings_the_last_completed_deployment_back_under_its_own_id() {
    let mut lab = failing(knobs(), true, "worker:2");
    let (good, tasks) = (lab.primary().id, lab.live(1));
    lab.deploy(2);
    let bad = lab.primary().id;
    lab.until("it is rolled back", |lab| lab.primary().id == good);
    assert_eq!(lab.primary().status, DeploymentStatus::Primary);
    let reason = format!("ECS deployment circuit breaker: rolling back to deploymentId {good}.");
    assert_eq!(lab.primary().reason, reason);
    let failed = lab.service().deployment(bad).map(|deployment| (deployment.rollout, deployment.status));
    assert!(failed.is_none_or(|failed| failed == (RolloutState::Failed, DeploymentStatus::Active)));
    assert!(lab.said(&format!("(deployment {bad}) deployment failed: tasks failed to start.")));
    assert!(lab.said(&format!("rolling back to deployment {good}.")));
    lab.until_completed();
    assert_eq!(lab.live(1), tasks, "its tasks are current again and stay");
}

#[test]
fn a_rollback_may_be_a_new_deployment_that_replaces_the_old_tasks() {
    let mut lab = failing(Knobs { rollback_id: RollbackId::New, ..knobs() }, true, "worker:2");
    let (good, tasks) = (lab.primary().id, lab.live(1));
    lab.deploy(2);
    let bad = lab.primary().id;
    lab.until("it is rolled back", |lab| lab.primary().id != bad);
    assert_ne!(lab.primary().id, good);
    assert_eq!(lab.primary().definition.revision, 1);
    lab.until_completed();
    assert_eq!(lab.live(1).len(), 2);
    assert!(lab.live(1).iter().all(|task| !tasks.contains(task)));
}

#[test]
fn without_rollback_or_a_completed_deployment_the_service_stalls() {
    let mut lab = failing(knobs(), false, "worker:2");
    let tasks = lab.live(1);
    lab.deploy(2);
    lab.until("it has failed", |lab| lab.primary().rollout == RolloutState::Failed);
    let made = lab.world.state().tasks.len();
    lab.run(3000);
    assert_eq!(lab.world.state().tasks.len(), made, "a failed deployment launches nothing");
    assert_eq!(lab.live(1), tasks);

    let mut lab = Lab::new(knobs(), 3, 2, breaker(true));
    let mut faults = lab.world.faults().clone();
    faults.unstartable.insert("worker".to_owned());
    lab.world.set_faults(faults);
    lab.until("it has failed", |lab| lab.primary().rollout == RolloutState::Failed);
    lab.run(3000);
    assert_eq!(lab.all_live(), 0);
}

#[test]
fn protected_tasks_of_the_failed_revision_hold_the_rollback() {
    let knobs = Knobs { deployments_status_set: DeploymentStatusSet::WithDraining, ..knobs() };
    let mut lab = Lab::settled(knobs, 4, breaker(true));
    let good = lab.primary().id;
    lab.deploy(2);
    lab.until("the new tasks run", |lab| lab.running(2).len() == 4);
    let bad = lab.primary().id;
    let new = lab.live(2);
    lab.protect(&new[..1], Protection::On(None));
    for _ in 0..3 {
        let victim = *lab.running(2).iter().find(|task| **task != new[0]).unwrap();
        lab.exit(victim, 1);
    }
    lab.until("it is rolled back", |lab| lab.primary().id == good);
    lab.run(300);
    assert_eq!(lab.live(2), [new[0]]);
    assert_eq!(lab.service().deployment(bad).unwrap().status, DeploymentStatus::Draining);
    assert_eq!(lab.primary().rollout, RolloutState::InProgress);
    lab.protect(&new[..1], Protection::Off);
    lab.until_completed();
}

#[test]
fn a_held_deployment_is_no_rollback_target() {
    let mut lab = failing(knobs(), true, "worker:3");
    let first = lab.primary().id;
    let old = lab.live(1);
    lab.protect(&old, Protection::On(None));
    lab.deploy(2);
    lab.until("the second revision is up", |lab| lab.healthy() == 4);
    lab.deploy(3);
    lab.until("it is rolled back", |lab| lab.primary().definition.revision != 3);
    assert_eq!(lab.primary().id, first, "not to the second, which was never completed");
}

#[test]
fn the_threshold_is_half_the_desired_count_but_at_least_three() {
    let mut lab = Lab::settled(knobs(), 10, breaker(true));
    lab.deploy(2);
    lab.until("the new tasks run", |lab| lab.running(2).len() == 10);
    for expected in [1, 2, 3, 4] {
        let victim = lab.running(2)[0];
        lab.exit(victim, 1);
        assert_eq!(lab.primary().failed_tasks, expected);
        lab.run(5);
        assert_eq!(lab.primary().rollout, RolloutState::InProgress);
    }
    let victim = lab.running(2)[0];
    lab.exit(victim, 1);
    lab.run(5);
    assert_eq!(lab.primary().definition.revision, 1);
}
