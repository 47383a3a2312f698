//! Jobs that Celery's own answers do not show, and jobs that nobody may forget.

use serde_json::json;
use test_support::{Jobs, LONG, RabbitMq, Redis, SampleApp, python_with_celery, wait_until};

use crate::{celery_lists, told_until, with_package};

#[tokio::test]
async fn jobs_that_wait_for_a_rate_limit_or_for_their_time_are_counted() {
    let redis = Redis::start().await;
    let limited = json!({"task_annotations": {"sample.limited": {"rate_limit": "1/h"}}});
    let app = with_package(redis.url(), &["limited"], &limited);
    let _worker = app.worker("worker@one").prefetch(9).start().await;
    let jobs = app.submit(Jobs::new(3).task("sample.limited").seconds(0.0, 0.0)).await;
    app.journal().wait_finished(&jobs[..1]).await;
    let counts = ["active", "reserved", "limited", "scheduled", "pool", "unacknowledged", "unlisted"];
    let told = told_until(&app, "two wait for the limit", |told| told.counts(counts) == [0, 0, 2, 0, 0, 2, 0]).await;
    assert_eq!(told.ids("limited"), [jobs[1].as_str(), jobs[2].as_str()]);
    assert_eq!(celery_lists(&app, "worker@one").await, [0; 3], "Celery shows none of them");
    let later = app.submit(Jobs::with_ids(["later"]).countdown(3600.0)).await;
    let told = told_until(&app, "one waits for its time", |told| told.counts(counts) == [0, 0, 2, 1, 0, 3, 0]).await;
    assert_eq!(told.ids("scheduled"), [later[0].as_str()]);

    // A new limit comes with a new bucket. Those that wait in the old one are in none of Celery's tables any more.
    let rate = json!({"task_name": "sample.limited", "rate_limit": "2/h"});
    app.ask("rate_limit", &["worker@one".into()], rate).await;
    told_until(&app, "they are counted still", |told| told.counts(counts) == [0, 0, 2, 1, 0, 3, 0]).await;
}

#[tokio::test]
async fn jobs_of_batches_are_counted_on_redis() {
    let redis = Redis::start().await;
    batches_are_counted(redis.url()).await;
}

#[tokio::test]
async fn jobs_of_batches_are_counted_on_rabbitmq() {
    let rabbit = RabbitMq::shared().await;
    batches_are_counted(rabbit.url()).await;
}

async fn batches_are_counted(url: String) {
    let app = with_package(url, &["batches"], &json!({})).python(python_with_celery("5.6"));
    let _worker = app.worker("worker@one").prefetch(9).start().await;
    let jobs = app.submit(Jobs::with_ids(["a", "b", "c"]).task("sample.batch").until_told()).await;
    app.journal().wait_started(&jobs[..2], 2).await;
    let counts = ["active", "reserved", "pool", "unacknowledged", "unlisted"];
    // Two run, as one batch, acknowledged; one waits for a second one.
    told_until(&app, "a batch runs and a job waits", |told| told.counts(counts) == [0, 0, 1, 1, 1]).await;
    assert_eq!(celery_lists(&app, "worker@one").await, [0; 3], "Celery shows none of them");
    app.tell(&jobs);
    app.journal().wait_finished(&jobs[..2]).await;
    told_until(&app, "a job waits", |told| told.counts(counts) == [0, 0, 0, 1, 1]).await;
    let last = app.submit(Jobs::with_ids(["d"]).task("sample.batch").until_told()).await;
    app.tell(&last);
    app.journal().wait_finished(&last).await;
    told_until(&app, "nothing is left", |told| told.counts(counts) == [0; 5]).await;
}

/// A worker of the solo pool answers between its jobs, and what it runs then is nothing.
#[tokio::test]
async fn a_solo_worker_counts_what_waits_between_its_jobs() {
    let redis = Redis::start().await;
    let app = with_package(redis.url(), &[], &json!({}));
    let _worker = app.worker("worker@one").pool("solo").start().await;
    let jobs = app.submit(Jobs::new(2).seconds(0.2, 0.2)).await;
    app.journal().wait_finished(&jobs).await;
    let told = told_until(&app, "it is idle", |told| !told.has_work()).await;
    assert_eq!((told.0["pool"].as_str(), told.count("pool")), (Some("solo"), Some(0)));
}

/// Messages that were acknowledged, jobs that have ended: whatever stands for them is gone.
#[tokio::test]
async fn nothing_is_kept_of_jobs_that_are_over() {
    let redis = Redis::start().await;
    for pool in ["prefork", "threads"] {
        let app = with_package(redis.url(), &["leaks"], &json!({}));
        let mut worker = app.worker("worker@one").pool(pool).concurrency(2).prefetch(10).start().await;
        let (_, before) = left_behind(&app).await;
        app.submit(Jobs::new(1000).prefix(pool).task("sample.nothing")).await;
        // kombu lets go of acknowledged messages only when more come, of as many as it may prefetch.
        wait_until("all is done, and nothing left", LONG, async || {
            let (begun, left) = left_behind(&app).await;
            begun == 1000 && left <= before + 2 * 20 + 5
        })
        .await;
        worker.kill();
    }
}

/// How many jobs it has begun, and how many objects of jobs it has.
async fn left_behind(app: &SampleApp) -> (u64, u64) {
    let answers = app.ask("left_behind", &["worker@one".into()], json!({})).await;
    let count = |of: &str| answers["worker@one"][of].as_u64().unwrap();
    (count("begun"), count("left"))
}
