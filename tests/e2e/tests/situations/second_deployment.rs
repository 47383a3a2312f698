//! Somebody deploys again while the first deployment is still being drained.

use std::time::Duration;

use e2e::{BrokerKind, Setup, Stage, TaskView};
use rstest::rstest;
use test_support::Jobs;

use crate::common::{
    DRAINED, ENDED_UNPERMITTED, SUPERSEDED, assert_all_ran_once, assert_ended_gently, assert_untouched_and_busy,
};

/// With Redis as README.md says, so that the run is for the deployment that is overtaken.
#[rstest]
#[case::redis(BrokerKind::Redis, true)]
#[case::rabbitmq(BrokerKind::RabbitMq, false)]
#[tokio::test(flavor = "multi_thread")]
async fn a_second_deployment_in_mid_drain_is_drained_too(#[case] broker: BrokerKind, #[case] for_one: bool) {
    // No more tasks are held than are wanted (docs/decisions/0004), so the middle revision's are stopped by ECS as soon
    // as it is replaced. Its jobs are short enough for the time that ECS gives.
    let stage = Stage::start(Setup { broker, stop_timeout: Duration::from_secs(10), ..Setup::default() }).await;
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
    stage.until_cancelled(&old).await;
    let short = stage.submit(Jobs::new(6).prefix("short").seconds(0.5, 2.0)).await;
    stage.app().journal().wait_started(&short, 1).await;
    stage.deploy();
    stage.until_revision_is_up(3).await;
    stage.until_stopped(&stage.tasks_of(2)).await;
    assert_untouched_and_busy(&stage, &old, &jobs);

    stage.app().tell(&jobs);
    let code = drain.ended().await;
    stage.until_rolled_out().await;
    assert_ended_gently(&stage, &old);
    stage.app().journal().wait_finished(&short).await;
    let end = drain.rollout_ended().expect("the rollout's end is told");
    assert_eq!(end["revision"], "transcoder:3");
    // Whether the middle revision's workers were seen idle before ECS stopped them is a matter of moments.
    let done = if for_one { SUPERSEDED } else { DRAINED };
    assert_eq!(code, if end["endedUnpermitted"] == 0 { done } else { ENDED_UNPERMITTED }, "{end}");
    assert_all_ran_once(&stage, &jobs);
    assert_all_ran_once(&stage, &short);
    let live: Vec<u32> = stage.tasks().iter().filter(|task| task.is_live()).map(|task| task.revision).collect();
    assert_eq!(live, [3, 3]);
    stage.until_consuming(&stage.tasks_of(3).into_iter().filter(TaskView::is_live).collect::<Vec<_>>()).await;
}
