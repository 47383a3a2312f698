//! A task has two workers, of which the second is silent whenever anybody asks: it runs a job in the solo pool. Over RabbitMQ nobody
//! else tells that it is there, and the machine that drains the service knows nothing of it: each run is another one's first.

use e2e::{BrokerKind, Second, Setup, Stage, TaskView};
use test_support::Jobs;

use crate::common::{DRAINED, assert_all_ran_once, assert_ended_gently};

const TAG: &str = "worker-drain/workers-per-task";

async fn start(second: Second) -> Stage {
    Stage::start(Setup { broker: BrokerKind::RabbitMq, tasks: 1, second, ..Setup::default() }).await
}

async fn busy(stage: &Stage) -> Vec<String> {
    let jobs = stage.submit(Jobs::with_ids(["deep"]).queue("deep").until_told()).await;
    stage.app().journal().wait_started(&jobs, 1).await;
    jobs
}

/// Deploys, and runs until this is said of the old task; then until all of it is drained, and its job has ended.
async fn is_held_until_the_job_ends(stage: &Stage, old: &[TaskView], jobs: &[String], why: &str) {
    let mut drain = stage.run(&["--wait-for-rollout"]);
    stage.until_held(old).await;
    stage.deploy();
    stage
        .until("it is said why the old task stays", |_| {
            drain.said().iter().any(|event| {
                event["phase"] == "Unknown" && event["waitingFor"].as_str().is_some_and(|told| told.contains(why))
            })
        })
        .await;
    stage.until_ecs_alone_would_have_killed(2).await;
    assert!(old.iter().all(|task| stage.task(task.id).is_live()), "it was stopped with a job in it");
    stage.app().tell(jobs);
    assert_eq!(drain.ended().await, DRAINED);
    assert_all_ran_once(stage, jobs);
    assert_ended_gently(stage, old);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_an_empty_memory_knows_from_the_service_how_many_workers_a_task_has() {
    let stage = start(Second::InTheSameContainer).await;
    let old = stage.tasks();
    let mut first = stage.run(&["--watch"]);
    let tag = |stage: &Stage| stage.service().tags.get(TAG).cloned();
    stage.until("a run writes down what it saw", |stage| tag(stage).is_some()).await;
    first.interrupt().await;
    assert_eq!(tag(&stage).as_deref(), Some("transcoder:1=2"));

    stage.forget();
    let jobs = busy(&stage).await;
    is_held_until_the_job_ends(&stage, &old, &jobs, "1 of its 2 workers is silent").await;
    // What is left was seen with two workers in its turn, or is not known yet; of what is gone nothing is said.
    assert!(tag(&stage).is_none_or(|tag| tag == "transcoder:2=2"), "{:?}", tag(&stage));
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_one_image_may_each_be_a_worker() {
    let stage = start(Second::InAContainerOfTheSameImage).await;
    let old = stage.tasks();
    let jobs = busy(&stage).await;
    is_held_until_the_job_ends(&stage, &old, &jobs, "worker, deep run from one image, and 1 worker is known").await;
}
