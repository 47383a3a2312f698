//! A broker that is stopped and started again while jobs run and wait, after the cancel: what a drain that saw all of it makes of
//! what each worker says, up to the permit and beyond. docs/hazards.md tells how that differs from a lost connection.

use std::time::Duration;

use test_support::{RabbitMq, Redis};
use worker_drain::workers::celery::CelerySettings;
use worker_drain_plan::{NodeName, observation::Queue};

use crate::{
    Fleet,
    helpers::{has_said_all, settings},
    lost::{Judge, answer},
};

/// Over Redis the oldest may be deaf from then on, and over RabbitMQ a gevent worker may end (docs/hazards.md): they are not there.
const OVER_REDIS: [(&str, &str); 4] = [("5.4", "solo"), ("5.5", "prefork"), ("5.6", "threads"), ("5.7", "gevent")];
const OVER_RABBITMQ: [(&str, &str); 4] = [("5.3", "prefork"), ("5.6", "threads"), ("5.7", "prefork"), ("5.7", "solo")];

#[tokio::test]
async fn no_task_is_idle_with_a_job_in_it_when_its_redis_is_restarted() {
    let mut redis = Redis::start().await;
    let fleet = Fleet::start(&redis.url(), &OVER_REDIS, &["threads", "gevent"]).await;
    let before = fleet.inspect().await;
    fleet.cancel_while_jobs_run().await;
    let judge = fleet.judge().await;
    redis.stop().await;
    fleet.miss_their_broker(&judge).await;
    redis.restart().await;
    fleet.are_drained_and_take_jobs_again(&judge, &before, || redis.cli(&["HVALS", "unacked"])).await;
}

#[tokio::test]
async fn no_task_is_idle_with_a_job_in_it_when_its_rabbitmq_is_restarted() {
    let mut rabbit = RabbitMq::start().await;
    let fleet = Fleet::start(&rabbit.url(), &OVER_RABBITMQ, &["threads"]).await;
    let before = fleet.inspect().await;
    fleet.cancel_while_jobs_run().await;
    let judge = fleet.judge().await;
    rabbit.stop().await;
    fleet.miss_their_broker(&judge).await;
    rabbit.restart().await;
    fleet.are_drained_and_take_jobs_again(&judge, &before, String::new).await;
}

impl Fleet {
    /// A drain that has heard all who can answer.
    async fn judge(&self) -> Judge<'_> {
        // No more than it takes: it waits for the silent ones at every look, and for a broker that is away.
        let judge = Judge::new(
            self,
            &CelerySettings {
                reply_bound: Duration::from_secs(1),
                operation_bound: Duration::from_secs(2),
                ..settings(self.app.broker())
            },
        );
        judge
            .until("all are heard that can answer", |done| {
                self.names.iter().all(|name| self.is_silent(name) || answer(done, name).is_some_and(has_said_all))
            })
            .await;
        judge
    }

    /// Judges them for as long as it takes all who can to notice that their broker is gone.
    async fn miss_their_broker(&self, judge: &Judge<'_>) {
        judge
            .until("all have tried to connect in vain that can", |done| {
                assert!(done.observation.workers.ok().is_none(), "nobody can be heard");
                let mut workers = self.names.iter().zip(&self.workers);
                workers.all(|(name, worker)| self.is_silent(name) || worker.log().contains("Cannot connect to"))
            })
            .await;
    }

    async fn are_drained_and_take_jobs_again(
        &self,
        judge: &Judge<'_>,
        before: &[(NodeName, Vec<Queue>)],
        unacknowledged: impl Fn() -> String,
    ) {
        Box::pin(self.are_judged_by(judge)).await;
        self.take_nothing_when_cancelled().await;
        self.give_back(before).await;
        self.ran_all_that_were_there_when_the_connection_was_lost(unacknowledged).await;
    }
}
