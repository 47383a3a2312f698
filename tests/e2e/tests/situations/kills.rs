//! worker-drain itself is killed, again and again.

use std::{future::ready, time::Duration};

use e2e::{BrokerKind, Setup, Stage, WorkerDrain};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rstest::rstest;
use test_support::{Jobs, LONG, wait_until};
use tokio::time::{sleep, timeout};

use crate::common::{DRAINED, assert_all_ran_once, assert_ended_gently};

const KILLS: usize = 10;

#[rstest]
#[case::redis(BrokerKind::Redis)]
#[case::rabbitmq(BrokerKind::RabbitMq)]
#[tokio::test(flavor = "multi_thread")]
async fn worker_drain_may_be_killed_at_any_point_and_goes_on_where_it_was(#[case] broker: BrokerKind) {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random::<u64>);
    eprintln!("random points from SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);

    let stage = Stage::start(Setup { broker, tasks: 3, ..Setup::default() }).await;
    let old = stage.tasks();
    let mut drain = stage.run(&["--wait-for-rollout"]);
    stage.until_held(&old).await;
    let jobs = stage.fill("job").await;
    stage.deploy();

    // As it goes on, more and more jobs end, so that the kills fall on cancels, looks and permits alike.
    for kill in 0..KILLS {
        live_on(&stage, &mut drain, random.random_range(1..=15), random.random_range(0..300)).await;
        drain.kill();
        stage.app().tell(jobs.iter().take(jobs.len() * kill / KILLS));
        drain = stage.run(&["--wait-for-rollout"]);
    }
    stage.app().tell(&jobs);
    let later = stage.submit(Jobs::new(4).prefix("later").seconds(0.1, 0.3)).await;

    assert_eq!(drain.ended().await, DRAINED);
    stage.until_rolled_out().await;
    assert_ended_gently(&stage, &old);
    stage.app().journal().wait_finished(&later).await;
    assert_eq!(drain.rollout_ended().expect("the rollout's end is told")["outcome"], "Drained");
    assert_all_ran_once(&stage, &jobs);
    assert_all_ran_once(&stage, &later);
}

/// Lets it make so many calls to ECS, or live for a while if it makes fewer, and then live for so many milliseconds.
async fn live_on(stage: &Stage, drain: &mut WorkerDrain, calls: u64, milliseconds: u64) {
    let enough = stage.ecs_calls() + calls;
    let called = wait_until("worker-drain has made some calls to ECS", LONG, || {
        ready(stage.ecs_calls() >= enough || !drain.process().is_running())
    });
    let _ = timeout(Duration::from_secs(3), called).await;
    sleep(Duration::from_millis(milliseconds)).await;
}
