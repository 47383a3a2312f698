//! One reconciliation of one drain, driven by its resource: read it, run the loop once, report what came of it.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use kube::api::DynamicObject;
use worker_drain_plan::{
    Memory, Policy,
    observation::{Failure, FailureKind, Observation, Seen},
    report::{Exposed, Phase},
};

use super::{
    conflict,
    context::{Context, Entry},
    events::{DrainEvent, Reported, events_between},
    failure_status::{self, FailureStatus},
    fencing::{Fenced, OrFailure},
    finalizer::{has_finalizer, is_abandoned, let_go, name, with_finalizer},
    fleet_changed,
    leftovers::Leftovers,
    metrics::{Figures, Key, System},
    secrets::Reader,
    subject::{Next, Subject},
};
use crate::{
    api::{DrainSpec, WorkerDrain},
    clock::{Clock, SystemClock},
    reconcile::{Drain, Reconciliation},
    record::{
        Record,
        api_server::{call_opt, drains},
        resource::ResourceRecord,
    },
};

/// Such a drain waits for a change; it is reconciled again all the same, because a change may be missed.
const INVALID_AGAIN: Duration = Duration::from_mins(5);

/// One reconciliation. Errors: the resource or its status could not be read or written.
pub async fn reconcile(context: &Context, key: &Key, entry: &mut Entry) -> Result<Next, Failure> {
    let (namespace, name) = key;
    // Waited for before anything is read: what was read is young then.
    let known = entry.adapters.known_fleet().cloned();
    let slot = match &known {
        Some((_, fleet)) => fleet.observe_slot().await,
        None => None,
    };
    let api = drains(context.client.clone(), namespace);
    let Some(resource) = call_opt("read the WorkerDrain", api.get(name)).await? else {
        return Ok(Next::Gone);
    };
    entry.begin(&resource, context.leadership.term()).await;
    context.metrics.drains().resume(key, &resource.data);
    let deleted = resource.metadata.deletion_timestamp.is_some();
    if deleted && !has_finalizer(&resource) {
        return Ok(Next::Gone);
    }
    if deleted && is_abandoned(&resource) {
        abandon(context, &resource, entry).await?;
        return Ok(Next::Gone);
    }
    let resource = if deleted { resource } else { with_finalizer(&api, resource).await? };
    let record = ResourceRecord::of(&context.client, &resource, Arc::clone(&entry.pages), SystemClock)?;
    let drain = match parse(&resource) {
        Ok(drain) => drain,
        Err(why) if deleted && record.load().await? == Memory::default() => {
            // Nothing was ever done for it.
            tracing::debug!(why, "an invalid drain is released");
            let_go(&context.client, &resource).await?;
            return Ok(Next::Gone);
        }
        Err(why) => {
            let status = FailureStatus { reason: failure_status::INVALID_SPEC, subject: name.clone(), message: why };
            failure_status::report(context, entry, &resource, &status).await?;
            context.metrics.drains().failure_status(key, failure_status::INVALID_SPEC, Some(SystemClock.now()));
            context.ownership.forget(key);
            return Ok(Next::After(INVALID_AGAIN));
        }
    };
    let fleet = entry.adapters.fleet(&drain.ecs, &context.limiters).await;
    let slot = match (slot, &fleet) {
        (Some(slot), _) if known.is_some_and(|(target, _)| target == drain.ecs) => Some(slot),
        (_, OrFailure::There(fleet)) => fleet.observe_slot().await,
        (_, OrFailure::Failure(_)) => None,
    };
    let id = record.fleet().await?;
    let fleet = fleet.map(|fleet| fleet.belonging_to(id));
    let subject = Subject { resource, spec: drain, record, fleet, slot };
    if let Some(next) = fleet_changed::instead(context, key, entry, &subject).await? {
        return Ok(next);
    }
    if let Some(next) = conflict::instead(context, key, entry, &subject).await? {
        return Ok(next);
    }
    let (resource, reconciliation) = Box::pin(run_once(context, key, entry, subject)).await?;
    if deleted && reconciliation.plan.report.phase == Phase::Withdrawn {
        let_go(&context.client, &resource).await?;
        context.publish(&resource, vec![withdrawn(name, &entry.exposed)]);
        return Ok(Next::Gone);
    }
    Ok(Next::After(after(reconciliation.plan.wake_after)))
}

/// Runs the loop once.
async fn run_once(
    context: &Context,
    key: &Key,
    entry: &mut Entry,
    Subject { resource, spec, record, fleet, slot }: Subject,
) -> Result<(DynamicObject, Reconciliation), Failure> {
    let before = match entry.reported.take() {
        Some(reported) => reported,
        None => Reported::of_status(&record.status().await),
    };
    let reader = Reader { client: &context.client, namespace: &key.0, deleted: spec.policy.withdrawn };
    let drain = Drain {
        fleet: fenced(context, fleet).with_slot(slot),
        workers: fenced(context, entry.adapters.workers(&spec.workers, &spec.ecs, reader).await),
        policy: spec.policy,
        record,
        clock: SystemClock,
    };
    let reconciliation = drain.reconcile().await?;
    report(context, key, entry, &resource, &before, &drain.policy, &reconciliation);
    Ok((resource, reconciliation))
}

fn fenced<T>(context: &Context, inner: OrFailure<T>) -> Fenced<T> {
    Fenced::new(inner, context.leadership.clone(), Arc::clone(&context.metrics))
}

fn parse(resource: &DynamicObject) -> Result<DrainSpec, String> {
    let mut document = resource.data.clone();
    // What cannot be read of the status was reported before this.
    document.as_object_mut().map(|document| document.remove("status"));
    document["metadata"] = serde_json::to_value(&resource.metadata).unwrap_or_default();
    let drain: WorkerDrain = serde_json::from_value(document).map_err(|error| error.to_string())?;
    DrainSpec::try_from(&drain)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// Reports in logs, metrics and events what came of a reconciliation.
fn report(
    context: &Context,
    key: &Key,
    entry: &mut Entry,
    resource: &DynamicObject,
    before: &Reported,
    policy: &Policy,
    reconciliation: &Reconciliation,
) {
    let Reconciliation { observation, plan, outcomes } = reconciliation;
    for (action, outcome) in outcomes {
        tracing::info!(%action, ?outcome, "acted");
        context.metrics.acted(action, outcome);
    }
    let Observation { fleet, workers, queues: _ } = observation;
    if let Seen::Err { failure, .. } = workers
        && matches!(failure.kind, FailureKind::Denied | FailureKind::Invalid)
    {
        entry.adapters.distrust_secret();
    }
    if let Some(withdrawal) = &plan.report.withdrawal {
        entry.exposed.add(withdrawal.exposed.clone());
    }
    let asked = fleet.ok().map(|_| workers.ok().is_some());
    let figures = Figures::of(policy, &plan.report, &plan.memory, (fleet.ok().is_some(), asked), SystemClock.now());
    context.metrics.drains().saw(key, figures);
    let reported = Reported::of_report(&plan.report);
    let news = if plan.dry_run { Vec::new() } else { events_between(before, &plan.report, outcomes) };
    if reported != *before {
        tracing::info!(
            phase = ?plan.report.phase, drained = %plan.report.drained.reason, ready = %plan.report.ready.reason,
            why = plan.report.drained.message, "changed"
        );
    }
    (entry.reported, entry.failure_status) = (Some(reported), None);
    context.publish(resource, news);
}

fn after(wake: SignedDuration) -> Duration {
    // Earlier rather than later, so that many drains do not ask at once and none is late.
    Duration::try_from(wake).unwrap_or_default().mul_f64(rand::random_range(0.9..1.0))
}

/// What is told of a drain that has given everything back: what that leaves to ECS, if it is of harm.
fn withdrawn(name: &str, exposed: &Exposed) -> DrainEvent {
    let done = "every queue is given back and every hold is released";
    if exposed.is_empty() {
        return DrainEvent::normal("Withdrawn", name, done);
    }
    DrainEvent::warning("Withdrawn", name, format!("{done}: nothing keeps {exposed} any more"))
}

/// A person has decided that what is left is left.
async fn abandon(context: &Context, resource: &DynamicObject, entry: &mut Entry) -> Result<(), Failure> {
    let memory = match ResourceRecord::of(&context.client, resource, Arc::clone(&entry.pages), SystemClock) {
        Ok(record) => record.load().await,
        Err(failure) => Err(failure),
    };
    let left = match memory {
        Ok(memory) => left_behind(&Leftovers::of(&memory), &entry.exposed),
        Err(failure) => format!("what was left is not known: {}", failure.message),
    };
    tracing::warn!(left, "abandoned");
    context.publish(resource, vec![DrainEvent::warning("Abandoned", name(resource), left)]);
    let_go(&context.client, resource).await
}

/// What is left, and what that leaves to ECS: a hold that was left keeps its task until it expires.
fn left_behind(leftovers: &Leftovers, exposed: &Exposed) -> String {
    if exposed.is_empty() || leftovers.has_holds() {
        leftovers.to_string()
    } else {
        format!("{leftovers}; nothing keeps {exposed} any more")
    }
}

/// Counts a failure of the reconciliation itself.
pub fn count_failure(context: &Context, failure: &Failure) {
    context.metrics.failed(System::Kubernetes, failure.kind);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_withdrawal_leaves_to_ecs_is_a_warning() {
        let calm = withdrawn("transcoder", &Exposed::default());
        assert!(!calm.warning && calm.note.ends_with("every hold is released"), "{calm:?}");
        let busy = |jobs| Exposed { old: [("media/abc".into(), jobs)].into(), surplus: 0 };
        let mut exposed = busy(None);
        exposed.add(busy(Some(3)));
        exposed.add(busy(Some(1)));
        let cut = withdrawn("transcoder", &exposed);
        assert!(cut.warning, "{cut:?}");
        let told = "nothing keeps 1 old task with 3 jobs (abc) from being stopped in the middle of jobs any more";
        assert!(cut.note.ends_with(told), "{}", cut.note);
        assert!(left_behind(&Leftovers::default(), &exposed).ends_with(told));
    }
}
