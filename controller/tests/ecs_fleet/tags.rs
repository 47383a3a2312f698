//! How many workers a task has, in a tag of the service.

use std::collections::BTreeMap;

use worker_drain::fleet::{Fleet, ecs::Operation};
use worker_drain_plan::{
    Outcome, RevisionId,
    observation::{FailureKind, Remembered},
};

use super::Stage;

const KEY: &str = "worker-drain/workers-per-task";

impl Stage {
    fn tag(&self) -> Option<String> {
        self.emulator.with_world(|world| world.service("media", "transcoder")?.tags.get(KEY).cloned())
    }

    /// Has the service remember this of its current revision, and looks again.
    async fn remember(&self, workers: Option<u32>) -> (Outcome, Option<Remembered>) {
        let seen = self.look().await.view;
        let numbers: BTreeMap<RevisionId, u32> =
            workers.map(|number| (seen.current.clone(), number)).into_iter().collect();
        let outcome = self.fleet.remember(&numbers, &seen).await;
        (outcome, self.look().await.view.remembered)
    }
}

#[tokio::test]
async fn the_service_remembers_how_many_workers_a_task_has() {
    let stage = Stage::with(1).await;
    let current = stage.look().await.view.current;
    let (outcome, remembered) = stage.remember(Some(2)).await;
    assert_eq!((outcome, stage.tag()), (Outcome::Done, Some("worker:1=2".to_owned())));
    let remembered = remembered.expect("tags are read");
    assert_eq!((remembered.workers_per_task, remembered.is_outdated), ([(current, 2)].into(), false));
    let calls = |operation| stage.fleet.calls().of(operation);
    let read = calls(Operation::DescribeServices);
    stage.remember(Some(2)).await;
    assert_eq!(calls(Operation::TagResource), 1, "it is there already");
    assert_eq!(calls(Operation::DescribeServices), read + 2, "to read it costs no call");
    let (outcome, remembered) = stage.remember(None).await;
    assert_eq!((outcome, stage.tag(), remembered), (Outcome::Done, None, Some(Remembered::default())));
    stage.remember(None).await;
    assert_eq!(calls(Operation::UntagResource), 1);
    stage.emulator.stop().await;
}

#[tokio::test]
async fn a_tag_that_may_not_be_written_is_told_with_the_way_out() {
    let stage = Stage::with(1).await;
    stage.fail("TagResource", "AccessDeniedException", None);
    let (outcome, remembered) = stage.remember(Some(2)).await;
    let Outcome::Failed(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.kind, FailureKind::Denied);
    assert!(failure.message.contains("Grant ecs:TagResource"), "{failure:?}");
    assert_eq!(remembered, Some(Remembered::default()), "all else is seen");
    stage.emulator.stop().await;
}

/// An account or a service of old may have no tags: then nothing is remembered, and nothing else is lost.
#[tokio::test]
async fn a_service_that_cannot_be_read_with_its_tags_is_read_without() {
    let stage = Stage::with(1).await;
    stage.fail("DescribeServices", "InvalidParameterException", Some(1));
    let view = stage.look().await.view;
    assert_eq!(view.remembered, None);
    assert!(view.unread.iter().any(|note| note.contains("tags could not be read")), "{:?}", view.unread);
    let before = stage.fleet.calls().of(Operation::DescribeServices);
    stage.look().await;
    assert_eq!(stage.fleet.calls().of(Operation::DescribeServices), before + 1, "it is not tried each time");
    stage.emulator.stop().await;
}
