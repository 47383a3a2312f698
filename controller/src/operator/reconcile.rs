//! One pass over one drain, driven by its resource: read it anew, let the loop pass over it, tell what came of it.

use std::{sync::Arc, time::Duration};

use jiff::SignedDuration;
use kube::{
    Client, Resource,
    api::{Api, DynamicObject, Patch, PatchParams},
};
use serde_json::json;
use worker_drain_plan::{
    Memory, Policy,
    observation::{Failure, FailureKind, Observation, Seen},
    report::Phase,
};

use super::{
    conflict,
    context::{Context, Entry},
    events::{Happening, Told, happenings},
    failure_status::{self, FailureStatus},
    fencing::Fenced,
    leftovers::Leftovers,
    metrics::{Figures, Key, System},
    slots::ObserveSlot,
};
use crate::{
    api::{DrainSpec, WorkerDrain},
    clock::{Clock, SystemClock},
    reconcile::{Drain, Reconciliation},
    record::{
        Record,
        resource::{FIELD_MANAGER, ResourceRecord, call, call_opt, drains},
    },
};

/// Keeps a drain that is deleted until everything is given back.
pub const FINALIZER: &str = "workerdrain.io/give-back";

/// Set to `"true"`, it lets a drain go that cannot give everything back.
pub const ABANDON: &str = "workerdrain.io/abandon";

/// Such a drain waits for a change; it is looked at again all the same, because a change may be missed.
const INVALID_AGAIN: Duration = Duration::from_mins(5);

/// When a drain is to be looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// After so long at the latest.
    After(Duration),
    /// Never: it is gone.
    Gone,
}

/// One pass. Errors: the resource or its status could not be read or written.
pub async fn reconcile(context: &Context, key: &Key, entry: &mut Entry) -> Result<Next, Failure> {
    let (namespace, name) = key;
    // Waited for before anything is read: what was read is young then.
    let slot = match entry.adapters.target() {
        Some(target) => context.observe_slots.wait(target).await,
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
            tracing::debug!(why, "an invalid drain is let go");
            let_go(&context.client, &resource).await?;
            return Ok(Next::Gone);
        }
        Err(why) => {
            let told = FailureStatus { reason: failure_status::INVALID_SPEC, subject: name.clone(), message: why };
            failure_status::tell(context, entry, &resource, &told).await?;
            context.metrics.drains().failure_status(key, failure_status::INVALID_SPEC, Some(SystemClock.now()));
            context.ownership.forget(key);
            return Ok(Next::After(INVALID_AGAIN));
        }
    };
    let slot = match slot {
        Some(slot) if entry.adapters.target() == Some(&drain.ecs) => Some(slot),
        _ => context.observe_slots.wait(&drain.ecs).await,
    };
    let subject = Subject { resource, spec: drain, record, slot };
    if let Some(next) = conflict::instead(context, key, entry, &subject).await? {
        return Ok(next);
    }
    let (resource, reconciliation) = Box::pin(over(context, key, entry, subject)).await?;
    if deleted && reconciliation.plan.report.phase == Phase::Withdrawn {
        let_go(&context.client, &resource).await?;
        let note = "every queue is given back and every hold is released";
        context.publish(&resource, vec![Happening::normal("Withdrawn", name.as_str(), note)]);
        return Ok(Next::Gone);
    }
    Ok(Next::After(after(reconciliation.plan.wake_after)))
}

/// A drain that can be passed over.
pub struct Subject {
    /// The resource, as it was read for this pass.
    pub resource: DynamicObject,
    /// What it asks for.
    pub spec: DrainSpec,
    /// Where its status and memory are.
    pub record: ResourceRecord<SystemClock>,
    slot: Option<ObserveSlot>,
}

/// Lets the loop pass over a drain.
async fn over(
    context: &Context,
    key: &Key,
    entry: &mut Entry,
    Subject { resource, spec, record, slot }: Subject,
) -> Result<(DynamicObject, Reconciliation), Failure> {
    let before = match entry.told.take() {
        Some(told) => told,
        None => Told::of_status(&record.status().await),
    };
    let fleet = fenced(context, entry.adapters.fleet(&spec.ecs, &context.limiters).await);
    let drain = Drain {
        fleet: fleet.with_turn(slot),
        workers: fenced(context, entry.adapters.workers(&spec.workers, &spec.ecs, &context.client, &key.0).await),
        policy: spec.policy,
        record,
        clock: SystemClock,
    };
    let reconciliation = drain.reconcile().await?;
    tell(context, key, entry, &resource, &before, &drain.policy, &reconciliation);
    Ok((resource, reconciliation))
}

fn fenced<T>(context: &Context, inner: super::fencing::OrFailure<T>) -> Fenced<T> {
    Fenced::new(inner, context.leadership.clone(), Arc::clone(&context.metrics))
}

fn parse(resource: &DynamicObject) -> Result<DrainSpec, String> {
    let mut document = resource.data.clone();
    // What cannot be read of the status was told before this.
    document.as_object_mut().map(|document| document.remove("status"));
    document["metadata"] = serde_json::to_value(&resource.metadata).unwrap_or_default();
    let drain: WorkerDrain = serde_json::from_value(document).map_err(|error| error.to_string())?;
    DrainSpec::try_from(&drain)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// Tells logs, metrics and events what came of a pass.
fn tell(
    context: &Context,
    key: &Key,
    entry: &mut Entry,
    resource: &DynamicObject,
    before: &Told,
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
    let asked = fleet.ok().map(|_| workers.ok().is_some());
    let figures = Figures::of(policy, &plan.report, &plan.memory, (fleet.ok().is_some(), asked), SystemClock.now());
    context.metrics.drains().saw(key, figures);
    let told = Told::of_report(&plan.report);
    let news = if plan.dry_run { Vec::new() } else { happenings(before, &plan.report, outcomes) };
    if told != *before {
        tracing::info!(
            phase = ?plan.report.phase, drained = %plan.report.drained.reason, ready = %plan.report.ready.reason,
            why = plan.report.drained.message, "changed"
        );
    }
    (entry.told, entry.failure_status) = (Some(told), None);
    context.publish(resource, news);
}

fn after(wake: SignedDuration) -> Duration {
    // Earlier rather than later, so that many drains do not ask at once and none is late.
    Duration::try_from(wake).unwrap_or_default().mul_f64(rand::random_range(0.9..1.0))
}

fn has_finalizer(resource: &DynamicObject) -> bool {
    resource.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

fn is_abandoned(resource: &DynamicObject) -> bool {
    resource.metadata.annotations.as_ref().and_then(|all| all.get(ABANDON)).is_some_and(|value| value == "true")
}

/// Nothing is done for a drain before the API server promises to keep it until everything is given back.
async fn with_finalizer(api: &Api<DynamicObject>, resource: DynamicObject) -> Result<DynamicObject, Failure> {
    if has_finalizer(&resource) {
        return Ok(resource);
    }
    let mut finalizers = resource.metadata.finalizers.clone().unwrap_or_default();
    finalizers.push(FINALIZER.into());
    set_finalizers(api, &resource, &finalizers).await
}

/// Lets the API server delete it.
pub async fn let_go(client: &Client, resource: &DynamicObject) -> Result<(), Failure> {
    let api = drains(client.clone(), resource.metadata.namespace.as_deref().unwrap_or_default());
    let now = call_opt("read the WorkerDrain", api.get(&name(resource))).await?;
    let Some(now) = now.filter(|now| now.metadata.uid == resource.metadata.uid) else { return Ok(()) };
    let finalizers: Vec<String> =
        now.metadata.finalizers.iter().flatten().filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
    match set_finalizers(&api, &now, &finalizers).await {
        Err(failure) if failure.kind == FailureKind::NotFound => Ok(()),
        result => result.map(drop),
    }
}

async fn set_finalizers(
    api: &Api<DynamicObject>,
    resource: &DynamicObject,
    finalizers: &[String],
) -> Result<DynamicObject, Failure> {
    // With the version, so that nobody else's finalizer is lost.
    let metadata = json!({ "resourceVersion": resource.metadata.resource_version, "finalizers": finalizers });
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    call("change the WorkerDrain's finalizers", api.patch(&name(resource), &params, &patch)).await
}

fn name(resource: &DynamicObject) -> String {
    resource.meta().name.clone().unwrap_or_default()
}

/// A person has decided that what is left is left.
async fn abandon(context: &Context, resource: &DynamicObject, entry: &mut Entry) -> Result<(), Failure> {
    let memory = match ResourceRecord::of(&context.client, resource, Arc::clone(&entry.pages), SystemClock) {
        Ok(record) => record.load().await,
        Err(failure) => Err(failure),
    };
    let left = match memory {
        Ok(memory) => Leftovers::of(&memory).to_string(),
        Err(failure) => format!("what was left is not known: {}", failure.message),
    };
    tracing::warn!(left, "abandoned");
    context.publish(resource, vec![Happening::warning("Abandoned", name(resource), left)]);
    let_go(&context.client, resource).await
}

/// Counts a failure of the pass itself.
pub fn count_failure(context: &Context, failure: &Failure) {
    context.metrics.failed(System::Kubernetes, failure.kind);
}
