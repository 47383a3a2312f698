//! ECS goes back to the old revision while it is being drained.

use std::time::Duration;

use e2e::{Setup, Stage, TaskView};
use test_support::Jobs;

use crate::common::{DRAINED, assert_all_ran_once, assert_untouched_and_busy};

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_gives_the_queues_back() {
    // A failed revision is stopped by ECS at once, so its workers get the time that a short job needs.
    let setup = Setup { rolls_back: true, stop_timeout: Duration::from_secs(10), ..Setup::default() };
    let stage = Stage::start(setup).await;
    let mut drain = stage.run(&["--wait-for-rollout"]);
    let old = stage.tasks();
    stage.until_held(&old).await;
    let jobs = stage.fill("job").await;
    let processes = process_ids(&stage, &old);

    // One worker of the new revision comes up, so one of the old ones may be drained; then the revision fails.
    stage.deploy_a_bad_one(1);
    stage.until_one_is_cancelled(&old).await;
    stage.let_it_crash();
    stage
        .until("ECS has rolled back", |stage| {
            stage.service().primary().is_some_and(|primary| primary.definition.revision == 1)
        })
        .await;

    stage.until_consuming(&old).await;
    assert_untouched_and_busy(&stage, &old, &jobs);
    assert_eq!(process_ids(&stage, &old), processes, "the same workers, not new ones in their place");
    drain.until_said("RollingBack").await;

    stage.app().tell(&jobs);
    assert_eq!(drain.ended().await, DRAINED);
    stage.until_rolled_out().await;
    assert!(old.iter().all(|task| stage.task(task.id).is_live()), "the old tasks are the current ones again");
    let later = stage.submit(Jobs::new(4).prefix("later").seconds(0.1, 0.3)).await;
    stage.app().journal().wait_finished(&later).await;
    assert_all_ran_once(&stage, &jobs);
    assert_all_ran_once(&stage, &later);
    assert!(drain.log().contains("RolledBack"), "the outcome of the rollout is told");
}

fn process_ids(stage: &Stage, tasks: &[TaskView]) -> Vec<Option<i32>> {
    tasks.iter().map(|task| stage.emulator().process_id(task.id, 0)).collect()
}
