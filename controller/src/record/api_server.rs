//! Calls to the Kubernetes API server, each with a bound and a failure that says what was tried.

use std::{future::Future, time::Duration};

use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject},
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

/// The API for drains as they are, whatever this program thinks of them.
pub fn drains(client: Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client, namespace, &ApiResource::erase::<WorkerDrain>(&()))
}
