//! Task scale-in protection.

use std::time::Duration;

use ecs_emulator::model::{
    BlockedRenewal, BlockedRule, Health, Interruption, Knobs, Protection, RolloutState, StopCause,
};

use crate::lab::{CLUSTER, Lab, knobs, percent};

const HOLD: Protection = Protection::On(Some(60));

#[test]
fn a_protected_old_task_holds_the_rollout_until_it_is_released() {
    let mut lab = Lab::settled(knobs(), 3, percent(100, 200));
    let old = lab.live(1);
    lab.protect(&old, HOLD);
    lab.deploy(2);
    lab.run(900);
    assert_eq!(lab.live(1), old);
    assert_eq!(lab.running(2).len(), 3, "new ones have come all the same");
    assert_eq!(lab.primary().rollout, RolloutState::InProgress);
    let deployment = lab.service().deployments[1].id;
    let event = format!(
        "(service workers) was unable to reach steady state because (taskSet {deployment}) was unable to scale in due \
         to (reason 3 tasks under protection)"
    );
    assert!(lab.said(&event), "{}", lab.story());

    lab.protect(&old[..1], Protection::Off);
    lab.run(5);
    assert_eq!(lab.live(1).len(), 3, "the scheduler takes about ten seconds to notice");
    lab.run(15);
    assert_eq!(lab.live(1), old[1..]);
    assert!(lab.said("(reason 2 tasks under protection)"));
    lab.protect(&old[1..], Protection::Off);
    lab.until_completed();
}

#[test]
fn protection_runs_out_by_itself() {
    let mut lab = Lab::settled(knobs(), 1, percent(100, 200));
    let old = lab.live(1);
    let answer = lab.protect(&old, Protection::On(Some(10)));
    assert_eq!(answer.tasks[0].until, Some(lab.now + Duration::from_mins(10)));
    lab.deploy(2);
    lab.run(600 - 1);
    assert_eq!(lab.live(1), old);
    lab.run(1);
    let seen = lab.world.get_task_protection(CLUSTER, &[&old[0].to_string()], lab.now).unwrap();
    assert_eq!(seen.tasks[0].until, None, "switched off");
    assert_eq!(lab.live(1), old, "but not stopped at once");
    lab.run(20);
    assert!(lab.live(1).is_empty());
}

#[test]
fn a_repeated_call_sets_the_expiry_anew_longer_or_shorter() {
    let mut lab = Lab::settled(knobs(), 1, percent(100, 200));
    let task = lab.live(1);
    lab.protect(&task, Protection::On(Some(10)));
    lab.run(300);
    lab.protect(&task, Protection::On(Some(10)));
    lab.deploy(2);
    lab.run(599);
    assert_eq!(lab.live(1), task);
    lab.protect(&task, Protection::On(Some(1)));
    lab.run(90);
    assert!(lab.live(1).is_empty());
}

#[test]
fn two_hours_are_the_default_and_48_hours_the_limit() {
    let mut lab = Lab::settled(knobs(), 1, percent(100, 200));
    let task = lab.live(1);
    let answer = lab.protect(&task, Protection::On(None));
    assert_eq!(answer.tasks[0].until, Some(lab.now + Duration::from_hours(2)));
    let id = task[0].to_string();
    for minutes in [0, 2881] {
        let error =
            lab.world.update_task_protection(CLUSTER, &[&id], Protection::On(Some(minutes)), lab.now).unwrap_err();
        assert_eq!(error.code, "InvalidParameterException");
    }
    let eleven = vec![id.as_str(); 11];
    assert!(lab.world.update_task_protection(CLUSTER, &eleven, HOLD, lab.now).is_err());
    assert!(lab.world.update_task_protection("nowhere", &[&id], HOLD, lab.now).is_err());
}

#[test]
fn a_task_s_own_problem_is_a_failure_inside_a_success() {
    let mut lab = Lab::settled(knobs(), 2, percent(100, 200));
    let good = lab.live(1)[0].to_string();
    let stopping = lab.live(1)[1];
    lab.stop_task(stopping);
    let stopping = stopping.to_string();
    let standalone = lab.world.run_task(CLUSTER, "worker:1", lab.now).unwrap().id.to_string();
    let unknown = "0123456789abcdef0123456789abcdef";
    let ids = [good.as_str(), &stopping, &standalone, unknown];
    let answer = lab.world.update_task_protection(CLUSTER, &ids, HOLD, lab.now).unwrap();
    assert_eq!(answer.tasks.len(), 1);
    let reasons: Vec<&str> = answer.failures.iter().map(|failure| failure.reason.as_str()).collect();
    assert_eq!(reasons, ["TASK_NOT_VALID", "TASK_NOT_VALID", "MISSING"]);
    assert!(answer.failures[2].arn.ends_with(unknown));
}

/// Two old tasks are held; the new revision is up.
fn held(knobs: Knobs) -> Lab {
    let mut lab = Lab::settled(knobs, 2, percent(100, 200));
    let old = lab.live(1);
    assert!(lab.protect(&old, HOLD).failures.is_empty(), "as many as desired is not too many");
    lab.deploy(2);
    lab.until("the new revision is up", |lab| lab.healthy() == 4);
    lab
}

fn refusals(lab: &mut Lab, revision: u32) -> usize {
    let tasks = lab.live(revision);
    let answer = lab.protect(&tasks, HOLD);
    assert!(answer.failures.iter().all(|failure| failure.reason == "DEPLOYMENT_BLOCKED"));
    answer.failures.len()
}

#[test]
fn more_protected_tasks_than_desired_are_refused_during_a_deployment() {
    let mut lab = held(Knobs { blocked_rule: BlockedRule::WhileInProgress, ..knobs() });
    assert_eq!(refusals(&mut lab, 2), 2);
    assert_eq!(refusals(&mut lab, 1), 0, "renewals do not raise the count");
    lab.scale(4);
    assert_eq!(refusals(&mut lab, 2), 0, "more desired, more allowed");
}

#[test]
fn a_refused_renewal_is_a_knob() {
    for (renewal, expected) in
        [(BlockedRenewal::Refuse, 2), (BlockedRenewal::Allow, 0), (BlockedRenewal::RefuseOldAfter(60), 2)]
    {
        let mut lab = held(Knobs { blocked_renewal: renewal, ..knobs() });
        lab.scale(1);
        lab.run(20);
        assert_eq!(refusals(&mut lab, 1), expected, "{renewal:?}");
    }
    let mut lab = held(Knobs { blocked_renewal: BlockedRenewal::RefuseOldAfter(600), ..knobs() });
    assert_eq!(refusals(&mut lab, 1), 0);
    lab.run(600);
    assert_eq!(refusals(&mut lab, 1), 2, "held for too long, whatever the count");
}

#[test]
fn taking_protection_away_is_never_refused() {
    let mut lab = held(knobs());
    lab.scale(1);
    let old = lab.live(1);
    assert!(lab.protect(&old, Protection::Off).failures.is_empty());
}

#[test]
fn the_rule_can_wait_apply_always_or_never() {
    let mut lab = held(Knobs { blocked_rule: BlockedRule::Off, ..knobs() });
    assert_eq!(refusals(&mut lab, 2), 0);

    let mut lab = held(Knobs { blocked_rule: BlockedRule::WhileInProgressFor(3600), ..knobs() });
    let new = lab.live(2);
    assert!(lab.protect(&new[..1], HOLD).failures.is_empty());
    lab.run(3500);
    assert_eq!(lab.protect(&new[1..], HOLD).failures.len(), 0);
    lab.run(3700);
    let everything = [lab.live(1), new].concat();
    lab.protect(&everything, HOLD);

    let mut lab = Lab::settled(Knobs { blocked_rule: BlockedRule::Always, ..knobs() }, 2, percent(100, 200));
    let tasks = lab.live(1);
    lab.protect(&tasks[..1], HOLD);
    lab.scale(1);
    assert_eq!(lab.protect(&tasks[1..], HOLD).failures.len(), 1, "no deployment, and yet");
}

#[test]
fn protection_does_not_help_against_everything() {
    let mut lab = Lab::settled(knobs(), 4, percent(100, 200));
    let tasks = lab.live(1);
    lab.protect(&tasks, HOLD);
    lab.stop_task(tasks[0]);
    lab.world.interrupt(tasks[1], Interruption::Spot, Duration::from_mins(2), lab.now);
    lab.world.interrupt(tasks[2], Interruption::Maintenance, Duration::ZERO, lab.now);
    lab.world.set_health(tasks[3], Health::Unhealthy, lab.now);
    lab.run(119);
    assert!(lab.task(tasks[1]).is_live(), "two minutes' notice");
    lab.run(120);
    let causes: Vec<_> =
        tasks.iter().map(|task| lab.task(*task).stop.as_ref().map(|stop| (stop.cause, stop.cause.code()))).collect();
    assert_eq!(
        causes,
        [
            Some((StopCause::User, "UserInitiated")),
            Some((StopCause::Spot, "SpotInterruption")),
            Some((StopCause::Maintenance, "ServiceSchedulerInitiated")),
            Some((StopCause::Unhealthy, "ServiceSchedulerInitiated")),
        ]
    );
    assert_eq!(lab.live(1).len(), 4, "all replaced");
}

#[test]
fn expiry_can_be_sped_up_on_its_own() {
    let mut lab = Lab::settled(Knobs { protection_scale: 60.0, ..knobs() }, 1, percent(100, 200));
    let task = lab.live(1);
    let answer = lab.protect(&task, Protection::On(Some(5)));
    assert_eq!(answer.tasks[0].until, Some(lab.now + Duration::from_secs(5)));
}
