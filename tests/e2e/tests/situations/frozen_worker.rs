//! A worker that does not answer, and runs jobs for all that anybody knows.

use e2e::{BrokerKind, Setup, Stage};
use rstest::rstest;

use crate::common::{DRAINED, assert_all_ran_once, assert_ended_gently, assert_untouched_and_busy};

#[rstest]
#[case::redis(BrokerKind::Redis)]
#[case::rabbitmq(BrokerKind::RabbitMq)]
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_is_held_and_named_and_drained_when_it_answers_again(#[case] broker: BrokerKind) {
    let stage = Stage::start(Setup { broker, ..Setup::default() }).await;
    let mut drain = stage.run(&["--wait-for-rollout"]);
    let old = stage.tasks();
    stage.until_held(&old).await;
    let jobs = stage.fill("job").await;
    let (frozen, other) = (&old[0], &old[1]);
    stage.freeze(frozen);
    stage.deploy();

    // The other one is drained, and is gone, while nobody knows anything of this one.
    stage.until_revision_is_up(2).await;
    stage.app().tell(jobs.iter().filter(|id| !stage.running_on(frozen, &jobs).contains(id)));
    stage.until_stopped(std::slice::from_ref(other)).await;
    drain.until_said_of(frozen, "Unknown").await;
    let why = drain.until_said_why("NodeSilent").await;
    assert!(why.contains(&frozen.node()), "the silent worker is named: {why}");
    stage.until_ecs_alone_would_have_killed(2).await;
    assert_untouched_and_busy(&stage, std::slice::from_ref(frozen), &jobs);
    assert!(stage.task(frozen.id).is_held);

    stage.thaw(frozen);
    stage.until_cancelled(std::slice::from_ref(frozen)).await;
    assert_untouched_and_busy(&stage, std::slice::from_ref(frozen), &jobs);
    stage.app().tell(&jobs);
    assert_eq!(drain.ended().await, DRAINED);
    stage.until_rolled_out().await;
    assert_ended_gently(&stage, &old);
    assert_all_ran_once(&stage, &jobs);
}
