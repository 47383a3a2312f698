//! The broker goes away in mid-drain, and comes back with its data.

use e2e::{BrokerKind, Setup, Stage};
use rstest::rstest;
use test_support::Jobs;

use crate::common::{DRAINED, assert_all_ran_once, assert_ended_gently, assert_untouched_and_busy};

#[rstest]
#[case::redis(BrokerKind::Redis)]
#[case::rabbitmq(BrokerKind::OwnRabbitMq)]
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_stopped_for_half_a_minute_in_mid_drain_costs_no_job(#[case] broker: BrokerKind) {
    // No job waits in a worker: what Celery does with those when it loses its broker is not what is tried here. On Redis a
    // worker can be told to take none ahead. On RabbitMQ there are only as many as can run at once.
    let mut stage = Stage::start(Setup { broker, prefetch: 0, ..Setup::default() }).await;
    let mut drain = stage.run(&["--wait-for-rollout"]);
    let old = stage.tasks();
    stage.until_held(&old).await;
    let jobs = stage.fill("job").await;
    stage.deploy();
    stage.until_revision_is_up(2).await;
    stage.until_cancelled(&old).await;

    // The new workers are full, too, and some jobs wait in the queue.
    let waiting = if broker == BrokerKind::Redis { 4 } else { 0 };
    let more = stage.submit(Jobs::new(4 + waiting).prefix("more").until_told()).await;
    stage.app().journal().wait_started(&more, 4).await;
    stage.stop_broker().await;
    drain.until_said_why("WorkersUnreachable").await;
    stage.until_ecs_alone_would_have_killed(2).await;
    assert_untouched_and_busy(&stage, &old, &jobs);
    assert!(old.iter().all(|task| stage.task(task.id).is_held), "without the broker nobody is let go");

    stage.restart_broker().await;
    stage.until_cancelled(&old).await;
    stage.app().tell(&jobs);
    stage.app().tell(&more);
    assert_eq!(drain.ended().await, DRAINED);
    stage.until_rolled_out().await;
    assert_ended_gently(&stage, &old);
    stage.app().journal().wait_finished(&more).await;
    assert_all_ran_once(&stage, &jobs);
    assert_all_ran_once(&stage, &more);
}
