//! What the scheduler moves without a deployment, and deployments with a bake time.

use std::collections::BTreeMap;

use ecs_emulator::model::{
    DrainingProtected, InstanceStatus, Knobs, Protection, RolloutState, StopCause, Strategy, TaskId, UpdateService,
};

use crate::lab::{CLUSTER, Lab, knobs, percent};

fn rebalances(lab: &mut Lab) {
    lab.update(|request: &mut UpdateService| request.rebalances = Some(true)).unwrap();
}

fn by_zone(lab: &Lab) -> BTreeMap<u8, usize> {
    let mut zones = BTreeMap::new();
    for id in lab.live(1) {
        *zones.entry(lab.task(id).zone).or_default() += 1;
    }
    zones
}

/// Four tasks in one zone, and a second zone.
fn crowded(gives_up: Option<u32>) -> Lab {
    let start = Knobs { zones: 1, rebalance_gives_up_seconds: gives_up, ..knobs() };
    let mut lab = Lab::settled(start.clone(), 4, percent(100, 200));
    lab.world.set_knobs(Knobs { zones: 2, ..start });
    lab
}

#[test]
fn zones_are_balanced_by_starting_first_and_stopping_then() {
    let mut lab = crowded(None);
    lab.run(600);
    assert_eq!(by_zone(&lab), [(0, 4)].into(), "not where it is off");
    rebalances(&mut lab);
    lab.until("a fifth task runs", |lab| lab.running(1).len() == 5);
    lab.until("the zones are balanced", |lab| by_zone(lab) == [(0, 2), (1, 2)].into());
    assert!(lab.said("is not AZ balanced"));
    lab.run(600);
    assert_eq!(lab.all_live(), 4, "and it rests");
}

#[test]
fn a_move_passes_over_protected_tasks_and_may_be_given_up() {
    let mut lab = crowded(Some(120));
    let all = lab.live(1);
    lab.protect(&all, Protection::On(Some(2_000)));
    rebalances(&mut lab);
    lab.until("a newcomer runs", |lab| lab.running(1).len() == 5);
    let newcomer: TaskId = lab.running(1).into_iter().find(|id| !all.contains(id)).unwrap();
    lab.until("it is given up", |lab| !lab.task(newcomer).is_live());
    assert!(all.iter().all(|id| lab.task(*id).is_live()));
    lab.until("it begins again", |lab| lab.running(1).len() == 5);
    lab.protect(&all[..1], Protection::Off);
    lab.until("the free one is stopped", |lab| !lab.task(all[0]).is_live());
}

#[test]
fn tasks_leave_an_instance_that_drains_when_others_have_come() {
    for (draining_protected, stops) in [(DrainingProtected::Holds, false), (DrainingProtected::Stops, true)] {
        let mut lab = Lab::new(Knobs { draining_protected, ..knobs() }, 7, 0, percent(100, 200));
        let register =
            |lab: &mut Lab| lab.world.register_container_instance(CLUSTER, 0, lab.now).unwrap().id.to_string();
        let (first, second) = (register(&mut lab), register(&mut lab));
        lab.scale(2);
        lab.until("both run", |lab| lab.healthy() == 2);
        let on = |lab: &Lab, id: &str| -> Vec<TaskId> {
            let is_there = |task: &TaskId| lab.task(*task).instance.is_some_and(|instance| instance.to_string() == id);
            lab.live(1).into_iter().filter(is_there).collect()
        };
        let (old, others) = (on(&lab, &first), on(&lab, &second));
        assert_eq!((old.len(), others.len()), (1, 1));
        lab.protect(&old, Protection::On(Some(60)));
        let now = lab.now;
        let changed = lab
            .world
            .update_container_instances_state(CLUSTER, &[&first, "0f"], InstanceStatus::Draining, now)
            .unwrap();
        assert_eq!((changed.0.len(), changed.1[0].reason.as_str()), (1, "MISSING"));
        lab.until("another one runs", |lab| lab.healthy() == 3 || !lab.task(old[0]).is_live());
        lab.run(60);
        assert_eq!(lab.task(old[0]).is_live(), !stops, "{draining_protected:?}");
        lab.protect(&old, Protection::Off);
        lab.until("it has left", |lab| on(lab, &first).is_empty());
        assert_eq!(lab.task(old[0]).stop.as_ref().unwrap().cause, StopCause::Draining);
        assert_eq!(on(&lab, &second).len(), 2);
    }
}

#[test]
fn old_tasks_stay_for_the_bake_time() {
    for strategy in [Strategy::BlueGreen, Strategy::Linear, Strategy::Canary] {
        let mut lab = Lab::settled(knobs(), 2, percent(100, 100));
        lab.update(|request| (request.strategy, request.bake_minutes) = (Some(strategy), Some(30))).unwrap();
        lab.deploy(2);
        lab.until("green is up beside blue", |lab| lab.healthy() == 4);
        lab.run(29 * 60);
        assert_eq!((lab.running(1).len(), lab.running(2).len()), (2, 2), "{strategy:?} bakes");
        assert_eq!(lab.primary().rollout, RolloutState::InProgress);
        lab.until_completed();
        assert_eq!(lab.live(1).len(), 0);
    }
}
