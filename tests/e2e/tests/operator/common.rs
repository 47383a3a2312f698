//! What several tests assert.

use e2e::{Cluster, Stage, TaskView};
use serde_json::Value;

/// Every job ran to its end, exactly once. Read from the jobs' own journal.
pub fn assert_all_ran_once(stage: &Stage, jobs: &[String]) {
    let tally = stage.app().journal().tally(jobs);
    assert!(tally.unfinished.is_empty(), "jobs are lost: {:?}", tally.unfinished);
    assert!(tally.run_twice.is_empty(), "jobs ran twice: {:?}", tally.run_twice);
}

/// These tasks ended by themselves when they were asked to; none was killed.
pub fn assert_ended_gently(stage: &Stage, tasks: &[TaskView]) {
    for task in tasks {
        let task = stage.task(task.id);
        assert!(task.is_over(), "{} has not ended", task.node());
        assert_eq!(task.exit, Some(0), "{} was killed or failed", task.node());
    }
}

/// A drain in the middle of a deployment that ECS does not go on with: both old tasks take no more jobs, and only we
/// will have done it if they take some again.
pub async fn mid_drain(stage: &Stage, cluster: &Cluster) -> (Vec<TaskView>, Vec<String>) {
    cluster.apply(&stage.drain_with_secret()).await;
    let old = stage.tasks();
    stage.until_held(&old).await;
    let jobs = stage.fill("job").await;
    stage.deploy_a_bad_one(2);
    stage.until_cancelled(&old).await;
    (old, jobs)
}

/// The message of `Ready`.
pub fn message(drain: &Value) -> &str {
    let mut conditions = drain["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.find(|condition| condition["type"] == "Ready");
    ready.and_then(|ready| ready["message"].as_str()).unwrap_or_default()
}
