//! One drain, one service, for good; and one account, one set of token buckets.

use std::collections::BTreeSet;

use ecs_emulator::model::Operation as Call;
use worker_drain::{
    fleet::{
        Fleet,
        ecs::{EcsSettings, Operation, Place},
    },
    identity::FleetId,
};
use worker_drain_plan::observation::FailureKind;

use super::{Stage, connect, connect_in, settings};

const HERE: &str = "arn:aws:ecs:us-east-1:123456789012:service/media/transcoder";
const ELSEWHERE: &str = "arn:aws:ecs:eu-west-1:210987654321:service/media/transcoder";

#[tokio::test]
async fn a_fleet_that_leads_to_another_service_is_never_observed() {
    let (here, elsewhere) = tokio::join!(Stage::with(1), Stage::in_region("eu-west-1", "210987654321", 1));
    here.running(1).await;
    elsewhere.running(1).await;
    let id = FleetId::default();
    here.fleet.clone().belonging_to(id.clone()).observe(&BTreeSet::new()).await.unwrap();
    assert_eq!(id.get(), Some(HERE), "the first observation tells");

    // The same spec; but the Region is another one, or the credentials are of another account.
    let moved = elsewhere.fleet.clone().belonging_to(id.clone());
    let failure = moved.observe(&BTreeSet::new()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    assert!(
        [HERE, ELSEWHERE, "create another WorkerDrain"].iter().all(|part| failure.message.contains(part)),
        "{failure:?}"
    );
    assert_eq!(moved.changed().unwrap().leads_to, ELSEWHERE);
    assert_eq!(id.get(), Some(HERE), "it stays as it was");

    // There is no such service elsewhere. That says nothing of the first one: it is not gone.
    let region = EcsSettings { service: "nobody".to_owned(), ..settings() };
    let missing = connect_in("eu-west-1", elsewhere.emulator.endpoint(), region, &elsewhere.limiters).await;
    let failure = missing.belonging_to(id.clone()).observe(&BTreeSet::new()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid, "not NotFound, which would end a withdrawal: {failure:?}");
    assert!(failure.message.contains(HERE), "{failure:?}");

    let back = here.fleet.clone().belonging_to(id.clone());
    back.observe(&BTreeSet::new()).await.unwrap();
    assert_eq!(back.changed(), None);
    let changed = elsewhere.emulator.with_world(|world| world.calls().get(&Call::UpdateTaskProtection).copied());
    assert_eq!(changed, None, "nothing was done there");
    here.emulator.stop().await;
    elsewhere.emulator.stop().await;
}

#[tokio::test]
async fn three_spellings_of_one_account_share_its_buckets() {
    let stage = Stage::with(1).await;
    stage.running(1).await;
    let by_arn = EcsSettings { cluster: "arn:aws:ecs:us-east-1:123456789012:cluster/media".to_owned(), ..settings() };
    let by_profile = EcsSettings { profile: Some("staging".to_owned()), ..settings() };
    let mut fleets = vec![stage.fleet.clone()];
    for settings in [by_arn, by_profile] {
        fleets.push(connect(stage.emulator.endpoint(), settings, &stage.limiters).await);
    }
    for fleet in &fleets {
        fleet.observe(&BTreeSet::new()).await.unwrap();
    }
    let limiter = |account: &str| stage.limiters.of(&Place { account: account.into(), region: "us-east-1".into() });
    let full = limiter("").rate_milli(Operation::ListTasks);
    stage.fail("DescribeTasks", "ThrottlingException", Some(1));
    fleets[2].observe(&BTreeSet::new()).await.unwrap();
    for account in ["", "staging", "123456789012"] {
        assert!(
            limiter(account).rate_milli(Operation::ListTasks) < full,
            "the account {account:?} was not slowed down"
        );
    }
    stage.emulator.stop().await;
}
