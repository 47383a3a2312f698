//! Fewer tasks are wanted.

use e2e::{BrokerKind, Setup, Stage, TaskView};
use rstest::rstest;

use crate::common::{assert_all_ran_once, assert_ended_gently, assert_untouched_and_busy};

#[rstest]
#[case::redis(BrokerKind::Redis)]
#[case::rabbitmq(BrokerKind::RabbitMq)]
#[case::sqs(BrokerKind::SqsByHttp)]
#[tokio::test(flavor = "multi_thread")]
async fn a_scale_in_waits_for_running_jobs(#[case] broker: BrokerKind) {
    let stage = Stage::start(Setup { broker, tasks: 3, ..Setup::default() }).await;
    let mut drain = stage.run(&["--watch"]);
    let all = stage.tasks();
    stage.until_held(&all).await;
    let jobs = stage.fill("job").await;
    stage.scale(1);

    let (first, second) = until_two_are_cancelled(&stage, &all).await;
    tokio::time::sleep(std::time::Duration::from_secs(6)).await; // Twice what ECS would give them.
    assert_untouched_and_busy(&stage, &all, &jobs);
    let leaving = [first.clone(), second.clone()];
    for task in &leaving {
        drain.until_said_of(task, "Busy").await;
    }
    let staying: Vec<TaskView> =
        all.iter().filter(|task| leaving.iter().all(|left| left.id != task.id)).cloned().collect();
    stage.until_consuming(&staying).await;

    // The jobs of the staying one go on; those of the others end, and so do their tasks.
    stage.app().tell(jobs.iter().filter(|id| !stage.running_on(&staying[0], &jobs).contains(id)));
    stage.until_stopped(&leaving).await;
    assert_ended_gently(&stage, &leaving);
    assert_untouched_and_busy(&stage, &staying, &jobs);

    stage.app().tell(&jobs);
    stage.app().journal().wait_finished(&jobs).await;
    assert_all_ran_once(&stage, &jobs);
    stage.until_rolled_out().await;
    assert_eq!(drain.interrupt().await, 130);
    assert!(stage.task(staying[0].id).is_held, "an interrupted run leaves its holds as they are");
}

async fn until_two_are_cancelled(stage: &Stage, tasks: &[TaskView]) -> (TaskView, TaskView) {
    let first = stage.until_one_is_cancelled(tasks).await;
    let rest: Vec<TaskView> = tasks.iter().filter(|task| task.id != first.id).cloned().collect();
    let second = stage.until_one_is_cancelled(&rest).await;
    (first.clone(), second.clone())
}
