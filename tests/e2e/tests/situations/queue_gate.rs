//! A deployment that waits until the old code has emptied the queue.

use e2e::{Setup, Stage};
use serde_json::json;

use crate::common::{DRAINED, assert_all_ran_once, assert_ended_gently, assert_untouched_and_busy};

#[tokio::test(flavor = "multi_thread")]
async fn behind_the_gate_old_workers_take_jobs_until_the_queue_is_empty() {
    let drain = "{gate: {queuesEmpty: [celery]}}";
    let settings = json!({"task_acks_late": true});
    let stage = Stage::start(Setup { drain, settings, ..Setup::default() }).await;
    let mut drain = stage.run(&["--wait-for-rollout"]);
    let old = stage.tasks();
    stage.until_held(&old).await;
    let jobs = stage.fill("job").await;
    stage.deploy();

    stage.until_revision_is_up(2).await;
    let message = drain.until_said_why("QueuesNotEmpty").await;
    assert!(message.contains("celery has") && message.contains("drain.gate"), "{message}");
    stage.until_ecs_alone_would_have_killed(2).await;
    stage.until_consuming(&old).await;
    assert_untouched_and_busy(&stage, &old, &jobs);

    stage.app().tell(&jobs);
    assert_eq!(drain.ended().await, DRAINED);
    stage.until_rolled_out().await;
    assert_ended_gently(&stage, &old);
    for task in &old {
        assert!(drain.said_of(task, "Held") && drain.said_of(task, "Permitted"), "it is told where {task:?} was");
    }
    assert_all_ran_once(&stage, &jobs);
}
