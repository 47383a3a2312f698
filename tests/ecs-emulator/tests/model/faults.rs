//! Faults and limits.

use std::time::Duration;

use ecs_emulator::model::{CallFault, Faults, Knobs, Protection};

use crate::lab::{CLUSTER, Lab, SERVICE, knobs, percent};

fn failing(error: &str, times: Option<u32>, after_effect: bool) -> CallFault {
    CallFault {
        error: Some(error.to_owned()),
        message: "a fault".to_owned(),
        times,
        after_effect,
        delay: Duration::ZERO,
    }
}

#[test]
fn an_operation_can_fail_a_few_times() {
    let mut lab = Lab::settled(knobs(), 1, percent(100, 200));
    let mut faults = Faults::default();
    faults.fail.insert("DescribeServices".to_owned(), failing("ServerException", Some(2), false));
    lab.world.set_faults(faults);
    for _ in 0..2 {
        let error = lab.world.describe_services(CLUSTER, &[SERVICE], lab.now).unwrap_err();
        assert_eq!((error.code.as_str(), error.http_status()), ("ServerException", 500));
    }
    assert!(lab.world.describe_services(CLUSTER, &[SERVICE], lab.now).is_ok());
}

#[test]
fn a_lost_reply_has_had_its_effect() {
    let mut lab = Lab::settled(knobs(), 1, percent(100, 200));
    let task = lab.live(1)[0];
    let mut faults = Faults::default();
    faults.fail.insert("*".to_owned(), failing("ServerException", Some(1), true));
    lab.world.set_faults(faults);
    assert!(lab.world.update_task_protection(CLUSTER, &[&task.to_string()], Protection::On(None), lab.now).is_err());
    assert!(lab.task(task).is_protected(lab.now));
}

#[test]
fn calls_are_throttled_by_the_published_buckets() {
    let mut lab = Lab::settled(Knobs { throttling: true, ..knobs() }, 1, percent(100, 200));
    let burst = |lab: &mut Lab| (0..1000).take_while(|_| lab.world.list_services(CLUSTER, lab.now).is_ok()).count();
    assert_eq!(burst(&mut lab), 100);
    assert_eq!(lab.world.list_services(CLUSTER, lab.now).unwrap_err().code, "ThrottlingException");
    let task = lab.live(1)[0].to_string();
    assert!(lab.world.get_task_protection(CLUSTER, &[&task], lab.now).is_ok(), "another bucket");
    lab.run(2);
    assert_eq!(burst(&mut lab), 40, "20 a second");
}

#[test]
fn protection_can_be_refused_or_answered_with_nothing() {
    let mut lab = Lab::settled(knobs(), 1, percent(100, 200));
    let task = lab.live(1);
    lab.world.set_faults(Faults { refuse_protection: Some("DEPLOYMENT_BLOCKED".to_owned()), ..Faults::default() });
    assert_eq!(lab.protect(&task, Protection::On(None)).failures[0].reason, "DEPLOYMENT_BLOCKED");
    lab.world.set_faults(Faults { empty_protection_answers: true, ..Faults::default() });
    let answer = lab.protect(&task, Protection::On(None));
    assert!(answer.tasks.is_empty() && answer.failures.is_empty());
    assert!(!lab.task(task[0]).is_protected(lab.now));
}

#[test]
fn reads_can_be_stale_by_a_bounded_time() {
    let mut lab = Lab::settled(knobs(), 1, percent(100, 200));
    let task = lab.live(1);
    lab.world.set_faults(Faults { stale_reads: Duration::from_secs(10), ..Faults::default() });
    lab.run(20);
    lab.protect(&task, Protection::On(None));
    let id = task[0].to_string();
    lab.run(5);
    let seen =
        |lab: &mut Lab| lab.world.get_task_protection(CLUSTER, &[&id], lab.now).unwrap().tasks[0].until.is_some();
    let answers: Vec<bool> = (0..100).map(|_| seen(&mut lab)).collect();
    assert!(answers.contains(&true) && answers.contains(&false));
    lab.run(6);
    assert!((0..100).all(|_| seen(&mut lab)));
}

#[test]
fn without_capacity_nothing_starts() {
    let mut lab = Lab::settled(knobs(), 1, percent(100, 200));
    lab.world.set_faults(Faults { no_capacity: true, ..Faults::default() });
    lab.deploy(2);
    lab.run(100);
    assert!(lab.live(2).is_empty());
    assert!(lab.said("was unable to place a task"));
    lab.world.set_faults(Faults::default());
    lab.until_completed();
}
