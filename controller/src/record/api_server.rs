//! Calls to the Kubernetes API server, each with a bound and a failure that says what was tried.

use std::{future::Future, time::Duration};

use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, PostParams},
    core::ObjectMeta,
};
use tokio::time::timeout;
use worker_drain_plan::observation::{Failure, FailureKind};

use crate::api::WorkerDrain;

/// No call to the API server may take longer. It answers in milliseconds; one that does not is not there.
pub const CALL_BOUND: Duration = Duration::from_secs(10);

/// Calls the API server with a bound, and puts what goes wrong into words.
pub async fn call<T>(what: &str, request: impl Future<Output = kube::Result<T>> + Send) -> Result<T, Failure> {
    match timeout(CALL_BOUND, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failure(what, &error)),
        Err(_) => Err(Failure::new(
            FailureKind::Unreachable,
            format!("the Kubernetes API server did not answer within {} s: {what}", CALL_BOUND.as_secs()),
        )),
    }
}

/// As [`call`]; `None`: there is no such object.
pub async fn call_opt<T>(
    what: &str,
    request: impl Future<Output = kube::Result<T>> + Send,
) -> Result<Option<T>, Failure> {
    match call(what, request).await {
        Ok(value) => Ok(Some(value)),
        Err(failure) if failure.kind == FailureKind::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn failure(what: &str, error: &kube::Error) -> Failure {
    let (kind, why) = match error {
        // Display of this variant would print it all twice.
        kube::Error::Api(status) => {
            let kind = match status.code {
                401 | 403 => FailureKind::Denied,
                404 => FailureKind::NotFound,
                429 => FailureKind::Throttled,
                400 | 413 | 422 => FailureKind::Invalid,
                _ => FailureKind::Unreachable,
            };
            (kind, status.message.clone())
        }
        other => (FailureKind::Unreachable, other.to_string()),
    };
    Failure::new(kind, format!("the Kubernetes API server refused to {what}: {why}"))
}

/// Whether objects can be made in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// They can.
    Open,
    /// It is being deleted, or is gone.
    Terminating,
    /// It could not be found out.
    Unknown,
}

/// Whether objects can be made in this namespace. Asked by a trial, of a kind that we may create, in which nothing is made: to read the
/// namespace itself would need a permission for that alone.
pub async fn state_of(client: &Client, namespace: &str) -> Namespace {
    let api: Api<ControllerRevision> = Api::namespaced(client.clone(), namespace);
    let metadata = ObjectMeta { name: Some(String::from("worker-drain-trial")), ..ObjectMeta::default() };
    let trial = ControllerRevision { metadata, data: None, revision: 0 };
    let params = PostParams { dry_run: true, ..PostParams::default() };
    match timeout(CALL_BOUND, api.create(&params, &trial)).await {
        Ok(Ok(_)) => Namespace::Open,
        Ok(Err(error)) if is_for_deletion(&error) => Namespace::Terminating,
        _ => Namespace::Unknown,
    }
}

/// Whether something could not be made because its namespace is being deleted, or is gone.
pub fn is_for_deletion(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let mut causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 404 || causes.any(|cause| cause.reason == "NamespaceTerminating")
}

/// The API for drains as they are, whatever this program thinks of them.
pub fn drains(client: Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client, namespace, &ApiResource::erase::<WorkerDrain>(&()))
}
