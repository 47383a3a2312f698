//! The life of a task.

use std::time::Duration;

use ecs_emulator::model::{
    ContainerDefinition, ContainerState, DesiredStatus, Effect, Knobs, LastStatus, StopCause, Task, TaskId, Time,
    Transition, World,
};
use serde_json::Map;

use crate::lab::{CLUSTER, Lab, knobs, percent};

fn states(lab: &Lab, id: TaskId) -> Vec<(LastStatus, DesiredStatus, u64)> {
    let entries = lab.world.history().iter();
    entries
        .filter_map(|entry| match entry.what {
            Transition::Task { task, last, desired, version, .. } if task == id => Some((last, desired, version)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_task_goes_through_the_documented_states_with_rising_versions() {
    use DesiredStatus::{Running as Run, Stopped as Stop};
    let mut lab = Lab::settled(knobs(), 1, percent(0, 200));
    let id = lab.live(1)[0];
    lab.scale(0);
    lab.run(60);
    assert_eq!(
        states(&lab, id),
        [
            (LastStatus::Provisioning, Run, 1),
            (LastStatus::Pending, Run, 2),
            (LastStatus::Running, Run, 3),
            (LastStatus::Stopping, Stop, 4),
            (LastStatus::Deprovisioning, Stop, 5),
            (LastStatus::Stopped, Stop, 6),
        ]
    );
}

#[test]
fn sigterm_comes_soon_after_stopping_and_sigkill_after_the_stop_timeout() {
    let mut lab = Lab::settled(knobs(), 1, percent(0, 200));
    let id = lab.live(1)[0];
    lab.stubborn.insert(id);
    lab.scale(0);
    lab.run(60);
    let task: &Task = lab.task(id);
    let stop = task.stop.as_ref().unwrap();
    let stopping = stop.stopping_at.unwrap();
    let ended = stop.execution_stopped_at.unwrap();
    assert_eq!(ended.since(stopping).as_millis(), 30_300, "30 s after SIGTERM, which came after 0.3 s");
    assert_eq!(stop.stopped_at.unwrap().since(ended).as_secs(), 20);
    assert_eq!(task.containers, [ContainerState::Exited(Some(137))]);
}

#[test]
fn a_container_that_ends_by_itself_ends_its_task() {
    let mut lab = Lab::settled(knobs(), 1, percent(100, 200));
    let id = lab.live(1)[0];
    lab.exit(id, 3);
    let stop = lab.task(id).stop.clone().unwrap();
    assert_eq!((stop.cause, stop.cause.code()), (StopCause::Exited, "EssentialContainerExited"));
    assert_eq!(stop.reason, "Essential container in task exited");
    lab.until("it is replaced", |lab| lab.healthy() == 1);
    assert_eq!(lab.task(id).containers, [ContainerState::Exited(Some(3))]);
}

#[test]
fn a_task_that_cannot_start_says_so() {
    let mut lab = Lab::settled(knobs(), 1, percent(100, 200));
    let mut faults = lab.world.faults().clone();
    faults.unstartable.insert("worker:2".to_owned());
    lab.world.set_faults(faults);
    lab.deploy(2);
    lab.run(60);
    let failed = lab.world.state().tasks.values().find(|task| task.definition.revision == 2).unwrap();
    let stop = failed.stop.as_ref().unwrap();
    assert_eq!(stop.cause.code(), "TaskFailedToStart");
    assert!(stop.reason.starts_with("CannotPullContainerError"));
}

#[test]
fn stopping_tasks_leave_the_default_list_and_stopped_ones_are_forgotten_after_an_hour() {
    let mut lab = Lab::settled(knobs(), 2, percent(0, 200));
    let id = lab.live(1)[0];
    lab.stubborn.insert(id);
    lab.stop_task(id);
    let list = |lab: &mut Lab, status: Option<&str>| {
        let request = ecs_emulator::model::ListTasks {
            desired_status: status.map(str::to_owned),
            ..ecs_emulator::model::ListTasks::default()
        };
        lab.world.list_tasks(&request, lab.now).unwrap().tasks
    };
    assert!(!list(&mut lab, None).contains(&id));
    assert!(list(&mut lab, Some("STOPPED")).contains(&id));
    assert!(list(&mut lab, Some("PENDING")).is_empty());
    lab.run(3000);
    assert!(list(&mut lab, Some("STOPPED")).contains(&id));
    lab.run(700);
    assert!(!list(&mut lab, Some("STOPPED")).contains(&id));
    let answer = lab.world.describe_tasks(CLUSTER, &[&id.to_string()], lab.now).unwrap();
    assert_eq!(answer.failures[0].reason, "MISSING");
}

#[test]
fn lists_come_in_pages() {
    let mut lab = Lab::settled(knobs(), 25, percent(100, 200));
    let mut seen = Vec::new();
    let mut request =
        ecs_emulator::model::ListTasks { max_results: Some(10), ..ecs_emulator::model::ListTasks::default() };
    loop {
        let page = lab.world.list_tasks(&request, lab.now).unwrap();
        assert!(page.tasks.len() <= 10);
        seen.extend(page.tasks);
        request.next_token = page.next_token;
        if request.next_token.is_none() {
            break;
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, lab.live(1));
}

#[test]
fn only_an_essential_container_ends_its_task_and_it_takes_the_others_along() {
    let mut world = World::new(knobs(), 1);
    let now = Time(1000);
    let mut helper = ContainerDefinition::new("helper", &["sidecar"]);
    helper.essential = false;
    let containers = vec![ContainerDefinition::new("worker", &["celery"]), helper.clone(), helper];
    let definition = world.register_task_definition("pair", containers, Map::new(), now).unwrap();
    let id = world.run_task(CLUSTER, &definition.name(), now).unwrap().id;
    let mut clock = now;
    let mut advance = |world: &mut World| {
        clock = world.next_event_at().unwrap();
        (clock, world.advance(clock))
    };
    let (at, effects) =
        std::iter::repeat_with(|| advance(&mut world)).find(|(_, effects)| !effects.is_empty()).unwrap();
    assert_eq!(effects.len(), 3);
    for container in 0..3 {
        assert_eq!(world.task(id).unwrap().last, LastStatus::Pending);
        world.container_started(id, container, at);
    }
    assert_eq!(world.task(id).unwrap().last, LastStatus::Running);
    world.container_exited(id, 2, 0, at);
    assert!(world.task(id).unwrap().is_live());
    world.container_exited(id, 0, 1, at);
    assert!(!world.task(id).unwrap().is_live());
    let (at, effects) = advance(&mut world);
    assert_eq!(effects, [Effect::Terminate { task: id, container: 1 }]);
    world.container_exited(id, 1, 143, at);
    let task = world.task(id).unwrap();
    assert_eq!(task.last, LastStatus::Deprovisioning);
    assert_eq!(task.containers, [1, 143, 0].map(|code| ContainerState::Exited(Some(code))));
}

#[test]
fn behind_a_load_balancer_a_task_is_deactivating_first() {
    let knobs = Knobs { deactivating: Duration::from_mins(5), ..knobs() };
    let mut lab = Lab::settled(knobs, 1, percent(0, 200));
    let id = lab.live(1)[0];
    lab.scale(0);
    lab.run(200);
    assert_eq!(lab.task(id).last, LastStatus::Deactivating);
    assert_eq!(lab.task(id).containers, [ContainerState::Running]);
    lab.run(150);
    assert_eq!(lab.task(id).last, LastStatus::Stopped);
}
