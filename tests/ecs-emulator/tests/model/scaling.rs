//! Scale-out, scale-in, deletion.

use std::collections::BTreeMap;

use ecs_emulator::model::{DeleteForceProtected, Knobs, Protection, ServiceStatus};

use crate::lab::{CLUSTER, Lab, SERVICE, knobs, percent};

#[test]
fn tasks_are_spread_over_zones_and_scale_in_takes_from_the_fullest() {
    let mut lab = Lab::settled(knobs(), 7, percent(100, 200));
    let zones = |lab: &Lab| {
        let mut zones = BTreeMap::new();
        for task in lab.live(1) {
            *zones.entry(lab.task(task).zone).or_insert(0) += 1;
        }
        zones.into_values().collect::<Vec<i32>>()
    };
    let mut counts = zones(&lab);
    counts.sort_unstable();
    assert_eq!(counts, [2, 2, 3]);
    lab.scale(3);
    lab.run(10);
    assert_eq!(zones(&lab), [1, 1, 1]);
}

#[test]
fn scaling_makes_no_deployment() {
    let mut lab = Lab::settled(knobs(), 2, percent(100, 200));
    let before = lab.primary().id;
    lab.scale(5);
    lab.until("five tasks are healthy", |lab| lab.healthy() == 5);
    lab.scale(1);
    lab.run(60);
    assert_eq!(lab.live(1).len(), 1);
    assert_eq!(lab.primary().id, before);
    let reasons = lab.world.state().tasks.values().filter_map(|task| task.stop.as_ref());
    assert!(reasons.clone().count() == 4);
    for stop in reasons {
        assert_eq!(stop.reason, format!("Scaling activity initiated by (deployment {before})"));
    }
}

#[test]
fn scale_in_takes_unprotected_tasks_first_and_waits_for_the_others() {
    let mut lab = Lab::settled(knobs(), 4, percent(100, 200));
    let held = lab.live(1)[..2].to_vec();
    lab.protect(&held, Protection::On(None));
    lab.scale(1);
    lab.run(120);
    assert_eq!(lab.live(1), held);
    assert!(lab.said("was unable to scale in due to (reason 1 tasks under protection)"), "{}", lab.story());
    lab.protect(&held[..1], Protection::Off);
    lab.run(30);
    assert_eq!(lab.live(1), held[1..]);
}

#[test]
fn a_desired_count_of_zero_leaves_protected_tasks_alone() {
    let mut lab = Lab::settled(knobs(), 3, percent(100, 200));
    let held = lab.live(1)[0];
    lab.protect(&[held], Protection::On(None));
    lab.scale(0);
    lab.run(300);
    assert_eq!(lab.live(1), [held]);
    lab.protect(&[held], Protection::Off);
    lab.run(30);
    assert!(lab.live(1).is_empty());
}

#[test]
fn scale_out_during_a_rollout_reaches_the_old_revision_too() {
    let mut lab = Lab::settled(knobs(), 2, percent(100, 200));
    lab.deploy(2);
    lab.run(5);
    lab.scale(4);
    lab.run(10);
    assert_eq!(lab.live(1).len(), 4, "{}", lab.story());
    lab.until_completed();
    assert_eq!((lab.live(1).len(), lab.live(2).len()), (0, 4));
}

#[test]
fn a_service_that_is_scaled_above_zero_is_deleted_only_by_force() {
    let mut lab = Lab::settled(knobs(), 2, percent(100, 200));
    let error = lab.world.delete_service(CLUSTER, SERVICE, false, lab.now).unwrap_err();
    assert_eq!(error.code, "InvalidParameterException");
    lab.world.delete_service(CLUSTER, SERVICE, true, lab.now).unwrap();
    assert_eq!(lab.service().status, ServiceStatus::Draining);
    lab.until("it is gone", |lab| lab.service().status == ServiceStatus::Inactive);
    assert!(lab.world.list_services(CLUSTER, lab.now).unwrap().is_empty());
    assert_eq!(lab.world.describe_services(CLUSTER, &[SERVICE], lab.now).unwrap().services.len(), 1);
}

#[test]
fn whether_force_stops_protected_tasks_is_a_knob() {
    for (knob, left) in [(DeleteForceProtected::Stops, 0), (DeleteForceProtected::Holds, 1)] {
        let mut lab = Lab::settled(Knobs { delete_force_protected: knob, ..knobs() }, 2, percent(100, 200));
        let held = lab.live(1)[0];
        lab.protect(&[held], Protection::On(None));
        lab.world.delete_service(CLUSTER, SERVICE, true, lab.now).unwrap();
        lab.run(600);
        assert_eq!(lab.live(1).len(), left, "{knob:?}");
        let expected = if left == 0 { ServiceStatus::Inactive } else { ServiceStatus::Draining };
        assert_eq!(lab.service().status, expected);
    }
}
