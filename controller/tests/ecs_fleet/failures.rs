//! ECS that throttles, fails, refuses, or is not there: what is tried again, and what is told.

use std::{collections::BTreeSet, time::Duration};

use ecs_emulator::model::{Faults, Strategy};
use futures::future::join_all;
use test_support::{LONG, wait_until};
use tokio::time::timeout;
use worker_drain::fleet::{
    Fleet,
    ecs::{EcsSettings, Limiters, Operation, Place, Timeouts},
};
use worker_drain_plan::{Outcome, observation::FailureKind};

use super::{PATIENCE, Stage, connect, settings};

/// Blue and green run side by side for the bake time: taken for a rolling deployment, jobs of one of the two would be lost.
#[tokio::test]
async fn a_deployment_with_a_bake_time_is_refused_with_the_way_out() {
    let stage = Stage::with(1).await;
    stage.running(1).await;
    for strategy in [Strategy::BlueGreen, Strategy::Linear, Strategy::Canary] {
        stage.set_strategy(strategy);
        let failure = stage.failure().await;
        assert_eq!(failure.kind, FailureKind::Invalid);
        for part in ["media/transcoder", strategy.as_str(), "bake time", "strategy=ROLLING"] {
            assert!(failure.message.contains(part), "{failure:?}");
        }
    }
    stage.set_strategy(Strategy::Rolling);
    assert_eq!(stage.look().await.view.tasks.len(), 1);
    stage.emulator.stop().await;
}

#[tokio::test]
async fn throttling_slows_down_and_then_is_told() {
    let stage = Stage::with(1).await;
    stage.running(1).await;
    let limiter = stage.limiters.of(&Place { account: String::new(), region: "us-east-1".into() });
    let full = limiter.rate_milli(Operation::DescribeServices);
    stage.fail("DescribeServices", "ThrottlingException", Some(1));
    let before = stage.fleet.calls().of(Operation::DescribeServices);
    stage.look().await;
    assert_eq!(stage.fleet.calls().of(Operation::DescribeServices), before + 2, "it was tried again");
    assert!(limiter.rate_milli(Operation::DescribeServices) < full, "the bucket of all drains shrank");

    stage.fail("ListTasks", "ThrottlingException", None);
    let timeouts = Timeouts { operation: Duration::from_secs(1), ..Timeouts::default() };
    let hasty = EcsSettings { timeouts, ..settings() };
    let hasty = connect(stage.emulator.endpoint(), hasty, &stage.limiters).await;
    // On a slow machine the second may be over before the first answer is there.
    wait_until("it is told", LONG, async || {
        let failure = hasty.observe(&BTreeSet::new()).await.unwrap_err();
        failure.kind == FailureKind::Throttled && failure.message.contains("ListTasks for media/transcoder")
    })
    .await;
    stage.emulator.stop().await;
}

#[tokio::test]
async fn drains_that_share_an_account_slow_down_together_and_none_fails() {
    let stage = Stage::with(1).await;
    let tasks = stage.running(1).await;
    // Far less than the account's limit: somebody else uses it up.
    stage.emulator.set_faults(Faults { throttle: Some(5), ..Faults::default() });
    let (endpoint, nobody) = (stage.emulator.endpoint(), BTreeSet::new());
    let drains = join_all((0..5).map(|_| connect(endpoint, settings(), &stage.limiters))).await;
    let looks = timeout(PATIENCE, join_all(drains.iter().map(|drain| drain.observe(&nobody)))).await.unwrap();
    for look in looks {
        assert!(look.unwrap().view.tasks.contains_key(&tasks[0]));
    }
    stage.emulator.stop().await;
}

#[tokio::test]
async fn errors_of_ecs_itself_are_tried_again_and_then_told() {
    let stage = Stage::with(1).await;
    let tasks = stage.running(1).await;
    stage.fail("*", "ServerException", Some(2));
    stage.look().await;
    stage.fail("GetTaskProtection", "ServerException", None);
    let failure = stage.failure().await;
    assert_eq!(failure.kind, FailureKind::Unreachable, "a look without holds is no look");
    assert!(failure.message.contains("GetTaskProtection") && failure.message.contains("HTTP 500"), "{failure:?}");

    stage.fail("UpdateTaskProtection", "ServerException", Some(1));
    assert_eq!(stage.hold(&tasks).await, [Outcome::Done], "a hold is tried again, too");
    stage.fail("UpdateTaskProtection", "ServerException", None);
    let outcomes = stage.hold(&tasks).await;
    assert!(matches!(&outcomes[..], [Outcome::Failed(failure)] if failure.kind == FailureKind::Unreachable));
    stage.emulator.stop().await;
}

#[tokio::test]
async fn what_is_not_allowed_is_named() {
    let stage = Stage::with(1).await;
    stage.running(1).await;
    stage.fail("GetTaskProtection", "AccessDeniedException", None);
    let denied = stage.failure().await;
    assert_eq!(denied.kind, FailureKind::Denied);
    assert!(denied.message.contains("Grant ecs:GetTaskProtection"), "{denied:?}");
    stage.fail("*", "ExpiredTokenException", None);
    let expired = stage.failure().await;
    assert_eq!(expired.kind, FailureKind::Denied);
    assert!(expired.message.contains("media/transcoder have expired"), "{expired:?}");
    stage.emulator.stop().await;
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let stage = Stage::with(1).await;
    let look = async |settings: EcsSettings| {
        connect(stage.emulator.endpoint(), settings, &stage.limiters).await.observe(&BTreeSet::new()).await
    };
    let failure = look(EcsSettings { cluster: "nowhere".to_owned(), ..settings() }).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotFound);
    assert!(failure.message.contains("no ECS cluster nowhere in Region us-east-1"), "{failure:?}");

    let failure = look(EcsSettings { service: "nobody".to_owned(), ..settings() }).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotFound);
    assert!(failure.message.contains("no active ECS service nobody in cluster media"), "{failure:?}");

    let by_arn = EcsSettings {
        cluster: "arn:aws:ecs:us-east-1:123456789012:cluster/media".to_owned(),
        service: "arn:aws:ecs:us-east-1:123456789012:service/media/transcoder".to_owned(),
        ..settings()
    };
    assert_eq!(look(by_arn).await.unwrap().view.name, "media/transcoder");
    stage.emulator.stop().await;
}

#[tokio::test]
async fn nobody_listens_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let fleet = connect(&endpoint, settings(), &Limiters::default()).await;
    let failure = timeout(PATIENCE, fleet.observe(&BTreeSet::new())).await.unwrap().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(failure.message.contains(&endpoint) && failure.message.contains("refused"), "{failure:?}");
}

#[tokio::test]
async fn somebody_listens_there_and_says_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let timeouts = Timeouts {
        connect: Duration::from_secs(1),
        attempt: Duration::from_millis(200),
        operation: Duration::from_secs(30),
    };
    let fleet = connect(&endpoint, EcsSettings { timeouts, ..settings() }, &Limiters::default()).await;
    let failure = timeout(PATIENCE, fleet.observe(&BTreeSet::new())).await.unwrap().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable, "{failure:?}");
    assert!(fleet.calls().total() >= 2, "it was tried again");
}
