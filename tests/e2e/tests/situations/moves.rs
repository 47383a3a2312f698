//! ECS replaces tasks without a deployment: what it wants gone is drained, and what it has just started is not.

use e2e::{BrokerKind, Setup, Stage, TaskView};
use ecs_emulator::model::{InstanceStatus, Knobs};
use rstest::rstest;

use crate::common::{assert_all_ran_once, assert_ended_gently, assert_untouched_and_busy};

/// The task that ECS has started beside these.
async fn newcomer(stage: &Stage, all: &[TaskView]) -> TaskView {
    let new = |stage: &Stage| {
        let tasks = stage.tasks().into_iter();
        tasks.filter(TaskView::is_live).find(|task| all.iter().all(|known| known.id != task.id))
    };
    stage.until("another task runs", |stage| new(stage).is_some_and(|task| task.is_healthy)).await;
    let new = new(stage).unwrap_or_else(|| panic!("it was there just now"));
    stage.until_consuming(std::slice::from_ref(&new)).await;
    new
}

#[rstest]
#[case::redis(BrokerKind::Redis)]
#[case::rabbitmq(BrokerKind::RabbitMq)]
#[tokio::test(flavor = "multi_thread")]
async fn a_move_between_zones_drains_one_of_the_crowded_zone(#[case] broker: BrokerKind) {
    let stage = Stage::start_with(Setup { broker, tasks: 2, ..Setup::default() }, |knobs| knobs.zones = 1).await;
    let mut drain = stage.run(&["--watch"]);
    let all = stage.tasks();
    stage.until_held(&all).await;
    let jobs = stage.fill("job").await;
    stage.emulator().change_knobs(|knobs: &mut Knobs| knobs.zones = 2);
    stage.rebalance();

    let new = newcomer(&stage, &all).await;
    let leaving = stage.until_one_is_cancelled(&all).await.clone();
    drain.until_said_of(&leaving, "Busy").await;
    assert_untouched_and_busy(&stage, &all, &jobs);
    stage.until_consuming(std::slice::from_ref(&new)).await;
    stage.app().tell(&jobs);
    stage.until_stopped(std::slice::from_ref(&leaving)).await;
    assert_ended_gently(&stage, std::slice::from_ref(&leaving));
    stage.app().journal().wait_finished(&jobs).await;
    assert_all_ran_once(&stage, &jobs);
    // It settles: the newcomer is held, and takes jobs.
    stage.until_held(std::slice::from_ref(&new)).await;
    stage.until_consuming(std::slice::from_ref(&new)).await;
    assert_eq!(drain.interrupt().await, 130);
}

#[rstest]
#[case::redis(BrokerKind::Redis)]
#[case::rabbitmq(BrokerKind::RabbitMq)]
#[tokio::test(flavor = "multi_thread")]
async fn a_task_on_an_instance_that_drains_takes_no_more_jobs(#[case] broker: BrokerKind) {
    let stage = Stage::start(Setup { broker, tasks: 2, ..Setup::default() }).await;
    let [first, _] = stage.onto_two_instances().await;
    let mut drain = stage.run(&["--watch"]);
    let all: Vec<TaskView> = stage.tasks().into_iter().filter(TaskView::is_live).collect();
    stage.until_held(&all).await;
    let jobs = stage.fill("job").await;
    stage.set_instance(&first, InstanceStatus::Draining);

    let leaving = stage.until_one_is_cancelled(&all).await.clone();
    assert_eq!(stage.instance_of(&leaving), Some(first));
    drain.until_said_of(&leaving, "Busy").await;
    let new = newcomer(&stage, &all).await;
    assert_untouched_and_busy(&stage, &all, &jobs);
    stage.app().tell(&jobs);
    stage.until_stopped(std::slice::from_ref(&leaving)).await;
    assert_ended_gently(&stage, std::slice::from_ref(&leaving));
    stage.app().journal().wait_finished(&jobs).await;
    assert_all_ran_once(&stage, &jobs);
    stage.until_held(std::slice::from_ref(&new)).await;
    assert_eq!(drain.interrupt().await, 130);
}
