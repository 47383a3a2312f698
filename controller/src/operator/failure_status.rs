//! What is reported of a drain when there is no report to render: the planner was never asked, or nothing came of it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{Resource, api::DynamicObject};
use serde_json::{Value, json};
use worker_drain_plan::observation::{Failure, FailureKind};

use super::{
    context::{Context, Entry},
    events::DrainEvent,
    metrics::{Key, PassEnd},
};
use crate::{
    api::status::condition,
    clock::{Clock, SystemClock},
    record::{
        api_server::{call_opt, drains},
        deletion::way_out,
        resource::amend,
    },
};

/// The spec cannot be used: surfaces as the reason of `Ready` and `Stalled` until a person has fixed it.
pub const INVALID_SPEC: &str = "InvalidSpec";

/// Another drain acts on the same service: surfaces as the reason of `Ready` and `Stalled` until that one is gone.
pub const CONFLICT: &str = "Conflict";

/// Another service is reached than the one that the drain belongs to: surfaces as the reason of `Ready` and `Stalled` until
/// the first one is reached again.
pub const FLEET_CHANGED: &str = "FleetChanged";

/// What is remembered cannot be read, or the status cannot be written as it is: surfaces as the reason of `Ready` and
/// `Stalled` until a reconciliation ends well.
pub const RECORD_INVALID: &str = "RecordInvalid";

/// The API server does not let us read or write what every reconciliation reads or writes: surfaces likewise.
pub const RECORD_DENIED: &str = "RecordDenied";

/// A reconciliation took too long: surfaces likewise.
pub const RECONCILE_TIMEOUT: &str = "ReconcileTimeout";

/// A reconciliation ended by a bug of this program: surfaces likewise.
pub const INTERNAL_ERROR: &str = "InternalError";

/// All of them.
#[cfg(test)]
pub const REASONS: [&str; 7] =
    [INVALID_SPEC, CONFLICT, FLEET_CHANGED, RECORD_INVALID, RECORD_DENIED, RECONCILE_TIMEOUT, INTERNAL_ERROR];

/// What is wrong with a drain, for a person to fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureStatus {
    /// A reason of docs/conditions.md.
    pub reason: &'static str,
    /// What the event is about.
    pub subject: String,
    /// What is wrong, and what helps.
    pub message: String,
}

impl FailureStatus {
    /// How a reconciliation that ended so is reported. `None`: it may recover by itself, or the API server cannot be reached.
    fn of_failure(drain: &str, end: PassEnd, Failure { kind, message }: &Failure) -> Option<Self> {
        let (reason, message) = match (end, kind) {
            (PassEnd::Panic, _) => (
                INTERNAL_ERROR,
                format!(
                    "the reconciliation ended by a bug in worker-drain: {message}. Holds are kept until they expire; report it"
                ),
            ),
            (PassEnd::Timeout, _) => (
                RECONCILE_TIMEOUT,
                format!(
                    "{message}. It is retried automatically, but no hold is renewed before a reconciliation succeeds: if this \
                     stays, check whether many drains wait for ECS, restart the operator, and report it with its log"
                ),
            ),
            (PassEnd::Error, FailureKind::Invalid) => {
                (RECORD_INVALID, format!("{message}. Nothing is done meanwhile: holds are kept until they expire"))
            }
            (PassEnd::Error, FailureKind::Denied) => (
                RECORD_DENIED,
                format!(
                    "{message}. Nothing is done meanwhile: holds are kept until they expire. Give the operator's \
                     ServiceAccount the permissions that its chart grants"
                ),
            ),
            _ => return None,
        };
        Some(Self { reason, subject: drain.to_owned(), message })
    }
}

/// Reports what is wrong: in the conditions, and once in an event. What was known of tasks and rollouts, and what is
/// remembered, stays as it was. Errors: the conditions could not be written.
pub async fn report(
    context: &Context,
    entry: &mut Entry,
    resource: &DynamicObject,
    FailureStatus { reason, subject, message }: &FailureStatus,
) -> Result<(), Failure> {
    let message = &with_way_out(resource, message);
    // Also where it cannot be written: an event is then all that a person sees.
    let known = resource.data.pointer("/status/blockedBy").and_then(Value::as_str) == Some(*reason);
    if entry.failure_status.replace(*reason) != Some(*reason) {
        tracing::warn!(reason, message, "only a person can fix this");
        if !known {
            context.publish(resource, vec![DrainEvent::warning(reason, subject.as_str(), message.as_str())]);
        }
    }
    // The first reconciliation that succeeds says so, by what it finds in the status.
    entry.reported = None;
    let (generation, now) = (resource.meta().generation, SystemClock.now());
    amend(&context.client, resource, |status| write(status, generation, reason, message, now)).await
}

/// One that is being deleted waits for this to be fixed, or to be let go.
fn with_way_out(resource: &DynamicObject, message: &str) -> String {
    match way_out(resource.meta()) {
        Some(way_out) => format!("{message}. {way_out}"),
        None => message.to_owned(),
    }
}

/// Reports a failed reconciliation that only a person can fix. Errors: it could not be reported.
pub async fn report_failure(
    context: &Context,
    key: &Key,
    entry: &mut Entry,
    end: PassEnd,
    failure: &Failure,
) -> Result<(), Failure> {
    let Some(failure_status) = FailureStatus::of_failure(&key.1, end, failure) else { return Ok(()) };
    context.metrics.drains().failure_status(key, failure_status.reason, None);
    if matches!(failure_status.reason, RECORD_INVALID | RECORD_DENIED) {
        // It cannot act, and is in nobody's way.
        context.ownership.forget(key);
    }
    // A reconciliation may outlive the claim to act; the next leader reports what there is to report.
    if !context.leadership.is_current() {
        return Ok(());
    }
    // Read again, because the reconciliation may have written before it failed.
    let resource = call_opt("read the WorkerDrain", drains(context.client.clone(), &key.0).get(&key.1)).await?;
    match resource {
        Some(resource) => report(context, entry, &resource, &failure_status).await,
        None => Ok(()),
    }
}

/// The status may be one that this program cannot read, so no more is taken for granted than that it is JSON.
fn write(status: &mut Value, generation: Option<i64>, reason: &str, message: &str, now: Timestamp) {
    let message: String = message.chars().take(1000).collect();
    let before = status["conditions"].take();
    let condition = |type_: &str, answer: &str| {
        let is_same = |before: &&Value| before["type"] == type_ && before["status"] == answer;
        let since = before.as_array().into_iter().flatten().find(is_same);
        let condition = Condition {
            type_: type_.into(),
            status: answer.into(),
            reason: reason.into(),
            message: message.clone(),
            last_transition_time: Time(now),
            observed_generation: generation,
        };
        let mut condition = json!(condition);
        if let Some(since) = since.and_then(|before| before.get("lastTransitionTime")) {
            condition["lastTransitionTime"] = since.clone();
        }
        condition
    };
    status["conditions"] = json!([
        condition(condition::READY, "False"),
        condition(condition::DRAINED, "Unknown"),
        condition(condition::CLEAN, "Unknown"),
        condition(condition::RECONCILING, "False"),
        condition(condition::STALLED, "True"),
    ]);
    status["phase"] = json!("Unknown");
    status["blockedBy"] = json!(reason);
    if let Some(generation) = generation {
        status["observedGeneration"] = json!(generation);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::api::WorkerDrainStatus;

    fn at(second: u32) -> Timestamp {
        format!("2026-01-01T00:00:{second:02}Z").parse().unwrap()
    }

    #[test]
    fn all_but_the_conditions_stays_whatever_it_is() {
        let unheard = json!({
            "memory": "v2:x", "tasks": "another shape", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": at(0)},
                {"type": "Stalled", "status": "True", "lastTransitionTime": at(0)},
            ],
        });
        let mut status = unheard.clone();
        write(&mut status, Some(3), RECORD_INVALID, "why", at(9));
        assert_eq!((&status["memory"], &status["tasks"]), (&unheard["memory"], &unheard["tasks"]));
        assert!(status["conditions"].as_array().unwrap().iter().all(|condition| condition["observedGeneration"] == 3));
        let since = |number: usize| status["conditions"][number]["lastTransitionTime"].clone();
        assert_eq!((since(0), since(4)), (json!(Time(at(9))), json!(at(0))), "Ready has changed, Stalled has not");
        let again = status.clone();
        write(&mut status, Some(3), RECORD_INVALID, "why", at(20));
        assert_eq!(status, again, "nothing new is nothing to write");
    }

    #[test]
    fn it_is_a_status_that_can_be_read() {
        let mut status = json!({});
        write(&mut status, None, CONFLICT, "why", at(9));
        let status: WorkerDrainStatus = serde_json::from_value(status).unwrap();
        assert_eq!((status.conditions.len(), status.blocked_by.as_deref()), (5, Some(CONFLICT)));
    }

    #[rstest]
    #[case(PassEnd::Error, FailureKind::Invalid, Some(RECORD_INVALID))]
    #[case(PassEnd::Error, FailureKind::Denied, Some(RECORD_DENIED))]
    #[case(PassEnd::Error, FailureKind::Unreachable, None)]
    #[case(PassEnd::Error, FailureKind::Throttled, None)]
    #[case(PassEnd::Timeout, FailureKind::Unreachable, Some(RECONCILE_TIMEOUT))]
    #[case(PassEnd::Panic, FailureKind::Invalid, Some(INTERNAL_ERROR))]
    fn what_only_a_person_can_fix_is_reported(
        #[case] end: PassEnd,
        #[case] kind: FailureKind,
        #[case] reason: Option<&'static str>,
    ) {
        let status = FailureStatus::of_failure("transcoder", end, &Failure::new(kind, "why"));
        assert_eq!(status.as_ref().map(|status| status.reason), reason);
        assert!(status.is_none_or(|status| status.message.contains("why")));
    }
}
