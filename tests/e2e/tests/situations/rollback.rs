//! ECS goes back to the old revision while it is being drained.

use std::time::Duration;

use e2e::{BrokerKind, Setup, Stage, TaskView};
use rstest::rstest;
use test_support::Jobs;

use crate::common::{ENDED_UNPERMITTED, assert_all_ran_once, assert_untouched_and_busy};

#[rstest]
#[case::redis(BrokerKind::Redis)]
#[case::rabbitmq(BrokerKind::RabbitMq)]
#[case::sqs(BrokerKind::SqsByHttp)]
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_gives_the_queues_back(#[case] broker: BrokerKind) {
    // A failed revision is stopped by ECS at once (docs/decisions/0004), so its workers get time for the job they have.
    let setup = Setup { broker, rolls_back: true, stop_timeout: Duration::from_mins(1), ..Setup::default() };
    let stage = Stage::start(setup).await;
    let mut drain = stage.run(&["--wait-for-rollout"]);
    let old = stage.tasks();
    stage.until_held(&old).await;
    let jobs = stage.fill("job").await;
    let processes = process_ids(&stage, &old);

    // One worker of the new revision comes up, so one of the old ones may be drained; then the revision fails.
    stage.deploy_a_bad_one(1);
    let cancelled = stage.until_one_is_cancelled(&old).await;
    let new_job = stage.submit(Jobs::with_ids(["new"]).until_told()).await;
    stage.app().journal().wait_started(&new_job, 1).await;
    stage.let_it_crash();
    stage.until_current(1).await;

    stage.until_consuming(&old).await;
    assert_untouched_and_busy(&stage, &old, &jobs);
    assert_eq!(process_ids(&stage, &old), processes, "the same workers, not new ones in their place");
    drain.until_said_of(cancelled, "Restoring").await;

    stage.app().tell(&new_job);
    stage.app().tell(&jobs);
    assert_eq!(drain.ended().await, ENDED_UNPERMITTED, "the failed revision's worker had a job when ECS stopped it");
    stage.until_rolled_out().await;
    assert!(old.iter().all(|task| stage.task(task.id).is_live()), "the old tasks are the current ones again");
    let later = stage.submit(Jobs::new(4).prefix("later").seconds(0.1, 0.3)).await;
    stage.app().journal().wait_finished(&later).await;
    assert_eq!(drain.rollout_ended().expect("the rollout's end is told")["revision"], "transcoder:1");
    for jobs in [jobs, new_job, later] {
        assert_all_ran_once(&stage, &jobs);
    }
}

fn process_ids(stage: &Stage, tasks: &[TaskView]) -> Vec<Option<i32>> {
    tasks.iter().map(|task| stage.emulator().process_id(task.id, 0)).collect()
}
