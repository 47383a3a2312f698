//! Rolling deployments.

use std::time::Duration;

use ecs_emulator::model::{
    BlockedRule, DeploymentStatus, EarlySuccess, Knobs, Pause, PauseEnd, PauseStage, Protection, ReplaceTerminated,
    RollbackId, RolloutState,
};

use crate::lab::{Lab, knobs, percent};

#[test]
fn a_new_service_gets_its_tasks_and_completes_once_they_are_healthy() {
    let mut lab = Lab::new(knobs(), 1, 3, percent(100, 200));
    lab.until("three tasks run", |lab| lab.running(1).len() == 3);
    assert_eq!(lab.primary().rollout, RolloutState::InProgress);
    assert_eq!(lab.healthy(), 0, "healthy 40 s after RUNNING, not before");
    lab.until_completed();
    assert_eq!(lab.healthy(), 3);
    let id = lab.primary().id;
    assert_eq!(lab.primary().reason, format!("ECS deployment {id} completed."));
    assert!(lab.said("has reached a steady state."));
    assert!(lab.said("has started 3 tasks: (task "));
}

#[test]
fn at_100_to_200_percent_old_tasks_stop_only_when_new_ones_are_healthy() {
    let mut lab = Lab::settled(knobs(), 4, percent(100, 200));
    let old = lab.primary().id;
    lab.deploy(2);
    assert_ne!(lab.primary().id, old);
    while lab.primary().rollout != RolloutState::Completed {
        let end = lab.now + std::time::Duration::from_mins(1);
        lab.step(end);
        assert!(lab.healthy() >= 4, "{}", lab.story());
        assert!(lab.all_live() <= 8);
    }
    assert_eq!((lab.live(1).len(), lab.live(2).len()), (0, 4));
    assert_eq!(lab.service().deployments.len(), 1, "a deployment without tasks is no longer listed");
    assert!(lab.said(" running tasks: (task "));
}

#[test]
fn below_100_percent_old_tasks_are_stopped_at_once() {
    let mut lab = Lab::settled(knobs(), 4, percent(50, 100));
    lab.deploy(2);
    lab.run(5);
    assert_eq!((lab.live(1).len(), lab.live(2).len()), (2, 0), "two may go before anything new is started");
    lab.run(5);
    assert_eq!((lab.live(1).len(), lab.live(2).len()), (2, 2));
    lab.until_completed();
}

#[test]
fn a_maximum_of_150_percent_goes_in_waves() {
    let mut lab = Lab::settled(knobs(), 4, percent(100, 150));
    lab.deploy(2);
    lab.run(30);
    assert_eq!((lab.live(1).len(), lab.live(2).len()), (4, 2));
    lab.until_completed();
}

#[test]
fn without_room_to_start_or_stop_ecs_says_so_once() {
    let mut lab = Lab::settled(knobs(), 4, percent(100, 100));
    lab.deploy(2);
    lab.run(600);
    assert_eq!((lab.live(1).len(), lab.live(2).len()), (4, 0));
    let complaints = |lab: &Lab| {
        lab.service().events.iter().filter(|event| event.message.contains("was unable to stop or start tasks")).count()
    };
    assert_eq!(complaints(&lab), 1);
    lab.configure(percent(50, 100));
    lab.until_completed();
}

#[test]
fn forcing_a_deployment_makes_tasks_of_the_same_revision_old() {
    let mut lab = Lab::settled(knobs(), 2, percent(100, 200));
    let before = lab.live(1);
    lab.update(|request| request.force_new_deployment = true).unwrap();
    lab.until_completed();
    let after = lab.live(1);
    assert_eq!(after.len(), 2);
    assert!(after.iter().all(|task| !before.contains(task)));
    assert!(after.iter().all(|task| lab.task(*task).deployment == Some(lab.primary().id)));
}

#[test]
fn naming_the_revision_that_is_there_makes_no_deployment() {
    let mut lab = Lab::settled(knobs(), 2, percent(100, 200));
    let before = lab.primary().id;
    lab.deploy(1);
    lab.scale(3);
    assert_eq!(lab.primary().id, before);
    lab.deploy(2);
    assert_ne!(lab.primary().id, before);
}

#[test]
fn a_second_deployment_makes_the_first_one_s_tasks_old_even_while_they_are_pending() {
    let mut lab = Lab::settled(knobs(), 2, percent(100, 200));
    lab.deploy(2);
    lab.until("the second revision is on its way", |lab| lab.live(2).len() == 2);
    let middle = lab.primary().id;
    let pending = lab.live(2);
    lab.deploy(3);
    let statuses: Vec<_> = lab.service().deployments.iter().map(|deployment| deployment.status).collect();
    assert_eq!(statuses, [DeploymentStatus::Primary, DeploymentStatus::Active, DeploymentStatus::Active]);
    lab.run(10);
    for task in pending {
        assert!(!lab.task(task).is_live());
        let stop = lab.task(task).stop.as_ref().unwrap();
        assert_eq!(stop.reason, format!("Scaling activity initiated by (deployment {middle})"));
    }
    assert!(lab.said("stopped 2 pending tasks."));
    lab.until_completed();
    assert_eq!(lab.live(3).len(), 2);
}

#[test]
fn an_old_task_that_ends_by_itself_is_replaced_from_its_own_revision() {
    let mut lab = Lab::settled(knobs(), 2, percent(100, 200));
    let old = lab.live(1);
    lab.deploy(2);
    lab.run(5);
    lab.exit(old[0], 0);
    lab.run(5);
    let late: Vec<_> = lab.live(1).into_iter().filter(|task| !old.contains(task)).collect();
    assert_eq!(late.len(), 1, "{}", lab.story());
    assert_eq!(lab.task(late[0]).deployment, lab.task(old[1]).deployment);
    lab.until_completed();
}

#[test]
fn before_november_2025_the_replacement_came_from_the_newest_revision() {
    let knobs = Knobs { replace_terminated: ReplaceTerminated::Primary, ..knobs() };
    let mut lab = Lab::settled(knobs, 2, percent(100, 200));
    let old = lab.live(1);
    lab.deploy(2);
    lab.run(5);
    lab.exit(old[0], 0);
    lab.run(20);
    assert_eq!(lab.live(1), [old[1]]);
}

#[test]
fn once_the_new_revision_is_up_only_the_widest_reading_still_replaces_old_tasks() {
    for (rule, expected) in [(ReplaceTerminated::SameRevision, 1), (ReplaceTerminated::SameRevisionAlways, 2)] {
        let mut lab = Lab::settled(Knobs { replace_terminated: rule, ..knobs() }, 2, percent(100, 200));
        let old = lab.live(1);
        lab.protect(&old, Protection::On(None));
        lab.deploy(2);
        lab.until("the new revision is up", |lab| lab.healthy() == 4);
        lab.run(10);
        lab.exit(old[0], 0);
        lab.run(10);
        // The replacement, if any, is not protected; it is stopped as soon as the scheduler looks again.
        let revision_1_ever = lab.world.state().tasks.values().filter(|task| task.definition.revision == 1).count();
        assert_eq!(revision_1_ever, expected + 1, "{rule:?}\n{}", lab.story());
    }
}

#[test]
fn five_deployments_at_once_are_the_limit() {
    let mut lab = Lab::settled(knobs(), 1, percent(100, 1000));
    for _ in 0..4 {
        let live: Vec<_> = lab.live(1);
        lab.world.set_knobs(Knobs { blocked_rule: BlockedRule::Off, ..knobs() });
        lab.protect(&live, Protection::On(None));
        lab.update(|request| request.force_new_deployment = true).unwrap();
        lab.run(30);
    }
    assert_eq!(lab.service().deployments.len(), 5);
    let error = lab.update(|request| request.force_new_deployment = true).unwrap_err();
    assert_eq!(error.code, "InvalidParameterException");
    assert!(error.message.starts_with("5 active deployments exist"));
    lab.scale(2);
    let oldest = lab.service().deployments.last().unwrap().id;
    let freed: Vec<_> = lab.live(1).into_iter().filter(|task| lab.task(*task).deployment == Some(oldest)).collect();
    lab.protect(&freed, Protection::Off);
    lab.until("one deployment is gone", |lab| lab.service().deployments.len() == 4);
    lab.update(|request| request.force_new_deployment = true).unwrap();
}

#[test]
fn a_deferred_early_success_completes_while_old_tasks_are_held() {
    for (early_success, expected) in
        [(EarlySuccess::Blocking(50), RolloutState::InProgress), (EarlySuccess::Deferred(50), RolloutState::Completed)]
    {
        let mut lab = Lab::settled(Knobs { early_success, ..knobs() }, 2, percent(100, 200));
        let old = lab.live(1);
        lab.protect(&old, Protection::On(None));
        lab.deploy(2);
        lab.until("the new revision is up", |lab| lab.healthy() == 4);
        lab.run(10);
        assert_eq!(lab.primary().rollout, expected, "{early_success:?}");
        assert_eq!(lab.live(1), old, "completed does not mean that old tasks are gone");
        lab.protect(&old, Protection::Off);
        lab.until("they are gone", |lab| lab.live(1).is_empty());
        lab.until_completed();
    }
}

fn paused(stage: PauseStage, then: PauseEnd) -> Lab {
    let pause = Pause { stage, lasts: Duration::from_mins(10), then };
    let mut lab = Lab::settled(Knobs { pause: Some(pause), ..knobs() }, 2, percent(100, 200));
    lab.deploy(2);
    lab
}

#[test]
fn a_deployment_that_pauses_before_it_scales_up_starts_and_stops_nothing_meanwhile() {
    let mut lab = paused(PauseStage::PreScaleUp, PauseEnd::Continue);
    lab.run(9 * 60);
    assert_eq!((lab.live(1).len(), lab.live(2).len()), (2, 0));
    lab.until_completed();
    assert_eq!((lab.live(1).len(), lab.live(2).len()), (0, 2));
}

#[test]
fn a_deployment_that_pauses_after_it_scaled_up_keeps_the_old_tasks_that_are_left() {
    let mut lab = paused(PauseStage::PostScaleUp, PauseEnd::Continue);
    lab.until("the new revision is up", |lab| lab.healthy() == 4);
    lab.run(9 * 60);
    assert_eq!((lab.live(1).len(), lab.live(2).len()), (2, 2));
    assert_eq!(lab.primary().rollout, RolloutState::InProgress);
    lab.until_completed();
    assert_eq!((lab.live(1).len(), lab.live(2).len()), (0, 2));
}

#[test]
fn a_pause_that_nobody_ends_rolls_back_if_it_is_to() {
    for rollback_id in [RollbackId::Reuse, RollbackId::New] {
        let mut lab = paused(PauseStage::PostScaleUp, PauseEnd::Rollback);
        lab.world.set_knobs(Knobs { rollback_id, ..lab.world.knobs().clone() });
        lab.until("it is rolled back", |lab| lab.said("deployment failed: a lifecycle hook timed out."));
        lab.until_completed();
        assert_eq!((lab.live(1).len(), lab.live(2).len()), (2, 0));
    }
}

#[test]
fn starts_slow_down_when_tasks_keep_failing() {
    let mut lab = Lab::settled(knobs(), 1, percent(100, 200));
    let mut faults = lab.world.faults().clone();
    faults.unstartable.insert("worker:2".to_owned());
    lab.world.set_faults(faults);
    lab.deploy(2);
    lab.run(3600);
    let starts = lab.world.state().tasks.values().filter(|task| task.definition.revision == 2).count();
    assert!((5..30).contains(&starts), "{starts} starts in an hour");
    assert!(lab.said("is unable to consistently start tasks successfully."));
    assert_eq!(lab.primary().rollout, RolloutState::InProgress, "without a breaker nothing fails");
    assert_eq!(lab.healthy(), 1, "the old task is still there");
}
