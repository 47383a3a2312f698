//! The broker goes away in mid-drain, and comes back with its data.

use e2e::{Setup, Stage};
use test_support::Jobs;

use crate::common::{DRAINED, assert_all_ran_once, assert_ended_gently, assert_untouched_and_busy};

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_restarted_in_mid_drain_costs_no_job() {
    // Workers that take no jobs ahead: what Celery does with those when it loses its broker is not what is tried here.
    let mut stage = Stage::start(Setup { prefetch: 0, ..Setup::default() }).await;
    let mut drain = stage.run(&["--wait-for-rollout"]);
    let old = stage.tasks();
    stage.until_held(&old).await;
    let jobs = stage.fill("job").await;
    stage.deploy();
    stage.until_revision_is_up(2).await;
    stage.until_cancelled(&old).await;

    // The new workers are full, too, and some jobs wait in the queue.
    let more = stage.submit(Jobs::new(8).prefix("more").until_told()).await;
    stage.app().journal().wait_started(&more, 4).await;
    stage.redis().stop().await;
    drain.until_said_why("WorkersUnreachable").await;
    stage.until_ecs_alone_would_have_killed(2).await;
    assert_untouched_and_busy(&stage, &old, &jobs);
    assert!(old.iter().all(|task| stage.task(task.id).is_held), "without the broker nobody is let go");

    stage.redis().restart().await;
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
