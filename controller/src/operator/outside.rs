//! The fleet and the workers of one drain, kept from pass to pass and made anew when the spec or the Secret has changed.
//!
//! What cannot be made is a failure that every look tells, not the end of the pass: a drain whose Secret is gone still
//! renews its holds.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::{Client, api::Api};
use tokio::time::Instant;
use worker_drain_plan::observation::{Failure, FailureKind};

use super::guard::OrFailure;
use crate::{
    api::{
        policy::{BrokerSource, CeleryTarget, EcsTarget},
        spec::SecretKeyRef,
    },
    clock::{Clock, SystemClock},
    fleet::ecs::{EcsFleet, Limiters},
    record::resource::call_opt,
    settings,
    workers::celery::{BrokerUrl, Celery},
};

/// A Secret is read again after so long. To watch it would need the right to list all Secrets of the namespace; to read
/// the one that is named does not.
const SECRET_FRESH_FOR: Duration = Duration::from_secs(15);

/// The adapters of one drain.
#[derive(Default)]
pub struct Outside {
    fleet: Option<(EcsTarget, EcsFleet)>,
    workers: Option<(CeleryTarget, BrokerUrl, Arc<Celery>)>,
    secret: Option<(SecretKeyRef, BrokerUrl, Instant)>,
}

impl Outside {
    /// Where the fleet was when it was reached last.
    pub fn target(&self) -> Option<&EcsTarget> {
        self.fleet.as_ref().map(|(target, _)| target)
    }

    /// The fleet of this spec.
    pub async fn fleet(&mut self, target: &EcsTarget, limiters: &Limiters) -> OrFailure<EcsFleet> {
        if let Some((known, fleet)) = &self.fleet
            && known == target
        {
            return OrFailure::There(fleet.clone());
        }
        self.fleet = None;
        match EcsFleet::connect(settings::ecs(target, None), limiters, Arc::new(SystemClock)).await {
            Ok(fleet) => {
                self.fleet = Some((target.clone(), fleet.clone()));
                OrFailure::There(fleet)
            }
            Err(failure) => OrFailure::Failure(failure),
        }
    }

    /// The workers of this spec, in this namespace.
    pub async fn workers(&mut self, target: &CeleryTarget, client: &Client, namespace: &str) -> OrFailure<Arc<Celery>> {
        let url = match &target.broker {
            BrokerSource::Url(url) => Ok(BrokerUrl::from(url.as_str())),
            BrokerSource::Secret(secret) => self.secret(secret, client, namespace).await,
        };
        let url = match url {
            Ok(url) => url,
            Err(failure) => return OrFailure::Failure(failure),
        };
        if let Some((known, known_url, workers)) = &self.workers
            && (known, known_url) == (target, &url)
        {
            return OrFailure::There(Arc::clone(workers));
        }
        self.close().await;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        match Celery::open(&settings::celery(target, url.expose()), clock) {
            Ok(workers) => {
                let workers = Arc::new(workers);
                self.workers = Some((target.clone(), url, Arc::clone(&workers)));
                OrFailure::There(workers)
            }
            Err(error) => {
                OrFailure::Failure(Failure::new(FailureKind::Invalid, format!("spec.workers.celery: {error}")))
            }
        }
    }

    /// The Secret is to be read again before the next pass: what it held did not work.
    pub fn distrust_secret(&mut self) {
        self.secret = None;
    }

    /// Leaves nothing of ours on the broker.
    pub async fn close(&mut self) {
        if let Some((_, _, workers)) = self.workers.take() {
            workers.close().await;
        }
    }

    async fn secret(&mut self, secret: &SecretKeyRef, client: &Client, namespace: &str) -> Result<BrokerUrl, Failure> {
        let known = self.secret.as_ref().filter(|(known, ..)| known == secret);
        if let Some((_, url, at)) = known
            && at.elapsed() < SECRET_FRESH_FOR
        {
            return Ok(url.clone());
        }
        match read(secret, client, namespace).await {
            Ok(url) => {
                self.secret = Some((secret.clone(), url.clone(), Instant::now()));
                Ok(url)
            }
            // An API server that does not answer is no reason to stop using what works.
            Err(failure) if failure.kind == FailureKind::Unreachable && known.is_some() => {
                known.map(|(_, url, _)| url.clone()).ok_or(failure)
            }
            Err(failure) => {
                self.secret = None;
                Err(failure)
            }
        }
    }
}

const FIELD: &str = "spec.workers.celery.broker.urlFrom.secretKeyRef";

/// Reads a key of a Secret of the drain's own namespace.
async fn read(
    SecretKeyRef { name, key }: &SecretKeyRef,
    client: &Client,
    namespace: &str,
) -> Result<BrokerUrl, Failure> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = match call_opt("read the Secret", api.get(name)).await {
        Ok(Some(secret)) => secret,
        Ok(None) => {
            let message = format!("there is no Secret {name} in the namespace {namespace} ({FIELD}): make it");
            return Err(Failure::new(FailureKind::NotFound, message));
        }
        Err(failure) if failure.kind == FailureKind::Denied => {
            let message = format!(
                "worker-drain may not read the Secret {name} in the namespace {namespace} ({FIELD}): allow it (the chart's \
                 secrets.enabled, secrets.names and watch.namespaces)"
            );
            return Err(Failure::new(FailureKind::Denied, message));
        }
        Err(failure) => return Err(failure),
    };
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    let text =
        value.and_then(|value| std::str::from_utf8(&value.0).ok()).map(|text| text.trim_end_matches(['\n', '\r']));
    match text {
        Some("") => Err(invalid(name, namespace, &format!("its key {key} is empty"))),
        Some(text) => Ok(BrokerUrl::from(text)),
        None if value.is_some() => Err(invalid(name, namespace, &format!("its key {key} is not text"))),
        None => {
            let keys: Vec<&str> = secret.data.iter().flat_map(|data| data.keys()).map(String::as_str).collect();
            let has = if keys.is_empty() { String::from("no key") } else { keys.join(", ") };
            Err(invalid(name, namespace, &format!("it has no key {key} (it has {has})")))
        }
    }
}

fn invalid(name: &str, namespace: &str, why: &str) -> Failure {
    let message = format!("the Secret {name} in the namespace {namespace} cannot be used ({FIELD}): {why}");
    Failure::new(FailureKind::Invalid, message)
}
