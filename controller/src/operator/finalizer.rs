//! The promise of the API server to keep a drain that is deleted until everything is given back.

use kube::{
    Client, Resource,
    api::{Api, DynamicObject, Patch, PatchParams},
};
use serde_json::json;
use worker_drain_plan::observation::{Failure, FailureKind};

pub use crate::record::deletion::ABANDON;
use crate::record::{
    api_server::{call, call_opt, drains},
    resource::FIELD_MANAGER,
};

/// Keeps a drain that is deleted until everything is given back.
pub const FINALIZER: &str = "workerdrain.io/give-back";

/// Whether the API server keeps it for us when it is deleted.
pub fn has_finalizer(resource: &DynamicObject) -> bool {
    resource.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// Whether a person has decided that it may go without giving everything back.
pub fn is_abandoned(resource: &DynamicObject) -> bool {
    resource.metadata.annotations.as_ref().and_then(|all| all.get(ABANDON)).is_some_and(|value| value == "true")
}

/// Nothing is done for a drain before the API server promises to keep it until everything is given back.
pub async fn with_finalizer(api: &Api<DynamicObject>, resource: DynamicObject) -> Result<DynamicObject, Failure> {
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

/// Its name.
pub fn name(resource: &DynamicObject) -> String {
    resource.meta().name.clone().unwrap_or_default()
}
