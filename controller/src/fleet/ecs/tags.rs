//! What is written down beside the service: a tag that says how many workers a task has, for the next one to drain it, who may come
//! with an empty memory (a CI runner; docs/decisions/0023).
//!
//! Sources: `TagResource`, `UntagResource` and `Tag` in the API reference, for characters and lengths and for which ARN can be tagged;
//! `DescribeServices` for `include`.

use std::collections::BTreeMap;

use aws_sdk_ecs::types::{Service, Tag};
use worker_drain_plan::{
    Outcome, RevisionId,
    observation::{Failure, FailureKind, FleetView, Remembered, Revision},
};

use super::{
    connect::{Connection, Named},
    operation::Operation,
};

/// The tag's key.
pub(super) const KEY: &str = "worker-drain/workers-per-task";
/// Told where the service cannot be read with its tags.
pub(super) const UNREAD: &str = "the service's tags could not be read, so how many workers a task has is not known from an earlier run; \
                                 spec.workers.celery.workersPerTask says it for good; all else goes on";
/// The longest value of a tag, in characters.
const LONGEST: usize = 256;

/// The tag's value, if the service has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written(Option<String>);

/// Reads the tag of a service that was asked for with its tags.
pub(super) fn written(service: &Service) -> Written {
    let tag = service.tags().iter().find(|tag| tag.key() == Some(KEY));
    Written(tag.map(|tag| tag.value().unwrap_or_default().to_owned()))
}

/// What the tag says of these revisions. It names them by their task definitions, which decide how many workers a task has, and which
/// several deployments may share.
pub(super) fn remembered(Written(written): Written, revisions: &BTreeMap<RevisionId, Revision>) -> Remembered {
    let mut remembered =
        Remembered { is_outdated: written.as_ref().is_some_and(String::is_empty), ..Remembered::default() };
    for word in written.iter().flat_map(|written| written.split_whitespace()) {
        let said = word.split_once('=').and_then(|(label, number)| Some((label, number.parse::<u32>().ok()?)));
        let of_it = revisions.iter().filter_map(|(revision, known)| {
            let (_, number) = said.filter(|(label, number)| *label == known.label && *number > 1)?;
            Some((revision.clone(), number))
        });
        let mut of_it = of_it.peekable();
        remembered.is_outdated |= of_it.peek().is_none();
        remembered.workers_per_task.extend(of_it);
    }
    Remembered { written, ..remembered }
}

/// The tag's value for these numbers: as many as fit, that of the current revision first.
fn value(numbers: &BTreeMap<RevisionId, u32>, seen: &FleetView) -> String {
    let mut by_label: BTreeMap<&str, u32> = BTreeMap::new();
    for (revision, number) in numbers {
        if let Some(known) = seen.revisions.get(revision) {
            let most = by_label.entry(known.label.as_str()).or_default();
            *most = (*most).max(*number);
        }
    }
    let current = seen.revisions.get(&seen.current).map(|current| current.label.as_str());
    let mut words: Vec<(bool, String)> =
        by_label.into_iter().map(|(label, number)| (Some(label) != current, format!("{label}={number}"))).collect();
    words.sort();
    let mut left = LONGEST + 1;
    words.retain(|(_, word)| {
        let fits = word.len() < left;
        left -= if fits { word.len() + 1 } else { 0 };
        fits
    });
    words.into_iter().map(|(_, word)| word).collect::<Vec<_>>().join(" ")
}

/// Sets the tag to these numbers, or takes it away if there are none. ECS is not called if that would change nothing.
pub(super) async fn remember(
    connection: &Connection,
    numbers: &BTreeMap<RevisionId, u32>,
    seen: &FleetView,
) -> Outcome {
    let value = value(numbers, seen);
    let written = seen.remembered.as_ref().and_then(|remembered| remembered.written.clone());
    if written.as_deref() == (!value.is_empty()).then_some(value.as_str()) {
        return Outcome::Done;
    }
    let arn = match connection.named() {
        Named::Service(arn) => arn,
        Named::Unasked | Named::Missing(_) => {
            let message = format!("ECS did not name the ARN of {}", connection.target().label());
            return Outcome::Failed(Failure::new(FailureKind::Unreachable, message));
        }
    };
    let sent = if value.is_empty() { untag(connection, &arn).await } else { tag(connection, &arn, &value).await };
    match sent {
        Ok(()) => Outcome::Done,
        Err(failure) => Outcome::Failed(failure),
    }
}

async fn tag(connection: &Connection, arn: &str, value: &str) -> Result<(), Failure> {
    let ask = || {
        let tag = Tag::builder().key(KEY).value(value).build();
        connection.client.tag_resource().resource_arn(arn).tags(tag).send()
    };
    connection.caller.call(Operation::TagResource, ask).await.map(|_| ())
}

async fn untag(connection: &Connection, arn: &str) -> Result<(), Failure> {
    let ask = || connection.client.untag_resource().resource_arn(arn).tag_keys(KEY).send();
    connection.caller.call(Operation::UntagResource, ask).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use rstest::rstest;

    use super::*;

    fn seen(revisions: &[(&str, &str)]) -> FleetView {
        let revisions = revisions.iter().map(|(id, label)| {
            let revision = Revision { label: (*label).to_owned(), created_at: None };
            (RevisionId::from(*id), revision)
        });
        FleetView {
            is_rolling_out: false,
            is_deleted: false,
            name: "media/transcoder".into(),
            made_at: None,
            desired: 1,
            minimum_healthy_percent: 100,
            maximum_percent: 200,
            current: "ecs-svc/1".into(),
            revisions: revisions.collect(),
            tasks: BTreeMap::new(),
            longest_hold: SignedDuration::from_hours(48),
            unplaced: BTreeMap::new(),
            balances_zones: false,
            unread: Vec::new(),
            counted: None,
            remembered: None,
        }
    }

    fn numbers(numbers: &[(&str, u32)]) -> BTreeMap<RevisionId, u32> {
        numbers.iter().map(|(revision, number)| (RevisionId::from(*revision), *number)).collect()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let seen =
            seen(&[("ecs-svc/1", "app:43"), ("ecs-svc/2", "app:42"), ("ecs-svc/3", "app:42"), ("ecs-svc/4", "app:41")]);
        let known = numbers(&[("ecs-svc/1", 3), ("ecs-svc/2", 2)]);
        let value = value(&known, &seen);
        assert_eq!(value, "app:43=3 app:42=2");
        let read = remembered(Written(Some(value.clone())), &seen.revisions);
        let expected = numbers(&[("ecs-svc/1", 3), ("ecs-svc/2", 2), ("ecs-svc/3", 2)]);
        assert_eq!(read, Remembered { workers_per_task: expected, is_outdated: false, written: Some(value) });
        assert_eq!(remembered(Written(None), &seen.revisions), Remembered::default());
    }

    #[rstest]
    #[case::a_revision_that_is_gone("app:42=2 app:41=2")]
    #[case::one_worker("app:42=2 app:42=1")]
    #[case::no_number("app:42=2 app:42=many")]
    #[case::another_text("app:42=2 x")]
    fn what_is_no_number_of_a_revision_that_lives_is_outdated(#[case] written: &str) {
        let read = remembered(Written(Some(written.to_owned())), &seen(&[("ecs-svc/1", "app:42")]).revisions);
        assert_eq!((read.workers_per_task, read.is_outdated), (numbers(&[("ecs-svc/1", 2)]), true));
    }

    #[test]
    fn an_empty_tag_is_outdated() {
        assert!(remembered(Written(Some(String::new())), &BTreeMap::new()).is_outdated);
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_the_current_revision_is_not() {
        let (long, longest) = ("a".repeat(150), "b".repeat(300));
        let labels = [
            ("ecs-svc/1", format!("z{long}:9")),
            ("ecs-svc/2", format!("{long}:8")),
            ("ecs-svc/3", longest),
            ("ecs-svc/4", "app:7".into()),
        ];
        let seen = seen(&labels.each_ref().map(|(id, label)| (*id, label.as_str())));
        let known = numbers(&[("ecs-svc/1", 2), ("ecs-svc/2", 2), ("ecs-svc/3", 2), ("ecs-svc/4", 2)]);
        assert_eq!(value(&known, &seen), format!("z{long}:9=2 app:7=2"));
    }
}
