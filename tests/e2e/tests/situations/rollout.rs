//! A deployment.

use e2e::{BrokerKind, Setup, Stage};
use rstest::rstest;

use crate::common::{DRAINED, assert_all_ran_once, assert_ended_gently, assert_untouched_and_busy};

/// What this project is about. Without it the other tests of this folder would prove nothing.
#[rstest]
#[case::redis(BrokerKind::Redis)]
#[case::rabbitmq(BrokerKind::RabbitMq)]
#[tokio::test(flavor = "multi_thread")]
async fn without_us_a_rollout_kills_running_jobs(#[case] broker: BrokerKind) {
    let stage = Stage::start(Setup { broker, ..Setup::default() }).await;
    let jobs = stage.fill("job").await;
    let old = stage.tasks();
    stage.deploy();

    stage.until_stopped(&old).await;
    assert!(old.iter().all(|task| stage.task(task.id).exit == Some(137)), "ECS kills those that do not end");
    assert_eq!(stage.lost(&jobs).len(), 4, "all jobs that ran are lost");
    stage.until_rolled_out().await;
}

#[rstest]
#[case::redis(BrokerKind::Redis, false)]
#[case::rabbitmq_as_the_readme_says(BrokerKind::RabbitMq, true)]
#[case::sqs(BrokerKind::SqsByHttp, false)]
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_waits_for_running_jobs_and_for_those_that_wait_in_the_worker(
    #[case] broker: BrokerKind,
    #[case] for_one: bool,
) {
    let stage = Stage::start(Setup { broker, ..Setup::default() }).await;
    let old = stage.tasks();
    let mut drain = stage.run(&[if for_one { "--until-held" } else { "--wait-for-rollout" }]);
    stage.until_held(&old).await;
    let jobs = stage.fill("job").await;
    if for_one {
        assert_eq!(drain.ended().await, DRAINED, "every task is held");
    }
    stage.deploy();
    if for_one {
        drain = stage.run(&["--deployment", &stage.deployment()]);
    }

    stage.until_revision_is_up(2).await;
    stage.until_ecs_alone_would_have_killed(2).await;
    stage.until_cancelled(&old).await;
    assert_untouched_and_busy(&stage, &old, &jobs);

    // New jobs go to the new workers while the old ones are at their last.
    let later = stage.submit(test_support::Jobs::new(4).prefix("later").seconds(0.1, 0.3)).await;
    stage.app().journal().wait_finished(&later).await;
    let new: Vec<String> = stage.tasks_of(2).iter().map(e2e::TaskView::node).collect();
    let records = stage.app().journal().records();
    assert!(later.iter().all(|id| new.contains(&records[id].node)), "old workers took new jobs: {records:?}");

    stage.app().tell(&jobs);
    assert_eq!(drain.ended().await, DRAINED);
    stage.until_rolled_out().await;
    assert_ended_gently(&stage, &old);
    for task in &old {
        assert!(drain.said_of(task, "Busy") && drain.said_of(task, "Permitted"), "it is told where {task:?} was");
    }
    let end = drain.rollout_ended().expect("the rollout's end is told");
    assert_eq!(
        (&end["outcome"], &end["oldTasks"], &end["endedUnpermitted"]),
        (&"Drained".into(), &2.into(), &0.into())
    );
    assert_all_ran_once(&stage, &jobs);
    assert_all_ran_once(&stage, &later);
}
