//! The life of a task.

use ecs_emulator::model::{ContainerState, DesiredStatus, LastStatus, StopCause, Task, TaskId, Transition};

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
