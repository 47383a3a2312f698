//! The fleet and the workers of one drain, kept between reconciliations and created again when the spec or the Secret has
//! changed.
//!
//! What cannot be created is a failure of every observation, not the end of the reconciliation: a drain whose Secret is gone
//! still renews its holds.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::{Client, api::Api};
use tokio::time::Instant;
use worker_drain_plan::observation::{Failure, FailureKind};

use super::fencing::OrFailure;
use crate::{
    api::{
        policy::{EcsTarget, WorkersTarget},
        secret_ref::SecretKeyRef,
    },
    clock::{Clock, SystemClock},
    fleet::ecs::{EcsFleet, Limiters},
    queues::sqs::SqsSettings,
    record::api_server::call_opt,
    secret::{Secret as Text, SecretTexts},
    settings,
    workers::{
        Workers,
        any::{AnyWorkers, WorkersSettings},
    },
};

/// A Secret is read again after so long. To watch it would need the permission to list all Secrets of the namespace; to
/// read the one that is named does not.
const SECRET_FRESH_FOR: Duration = Duration::from_secs(15);

/// The adapters of one drain.
#[derive(Default)]
pub struct Adapters {
    fleet: Option<(EcsTarget, EcsFleet)>,
    workers: Option<(WorkersSettings, Arc<AnyWorkers>)>,
    secrets: BTreeMap<SecretKeyRef, (Text, Instant)>,
}

impl Adapters {
    /// The fleet that was connected to last, and where the spec said that it is.
    pub fn known_fleet(&self) -> Option<&(EcsTarget, EcsFleet)> {
        self.fleet.as_ref()
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

    /// The workers of this spec, in this namespace, whose queues are counted where this fleet is.
    pub async fn workers(
        &mut self,
        target: &WorkersTarget,
        fleet: &EcsTarget,
        client: &Client,
        namespace: &str,
    ) -> OrFailure<Arc<AnyWorkers>> {
        let secrets = match self.secrets(target, client, namespace).await {
            Ok(secrets) => secrets,
            Err(failure) => return OrFailure::Failure(failure),
        };
        let queues = SqsSettings::new(settings::ecs(fleet, None).access());
        let settings = settings::workers(target, &secrets, queues);
        if let Some((known, workers)) = &self.workers
            && *known == settings
        {
            return OrFailure::There(Arc::clone(workers));
        }
        self.close().await;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        match AnyWorkers::open(&settings, clock) {
            Ok(workers) => {
                let workers = Arc::new(workers);
                self.workers = Some((settings, Arc::clone(&workers)));
                OrFailure::There(workers)
            }
            Err(error) => {
                OrFailure::Failure(Failure::new(FailureKind::Invalid, format!("{}: {error}", target.field())))
            }
        }
    }

    /// Waits until the workers are heard of, as [`Workers::heard`] does, whatever becomes of this in the meantime.
    pub fn heard(&self) -> impl Future<Output = ()> + Send + 'static {
        let workers = self.workers.as_ref().map(|(_, workers)| Arc::clone(workers));
        async move {
            match workers {
                Some(workers) => workers.heard().await,
                None => std::future::pending().await,
            }
        }
    }

    /// The Secrets are read again before the next reconciliation: what they contained did not work.
    pub fn distrust_secret(&mut self) {
        self.secrets.clear();
    }

    /// Leaves nothing of ours on the broker.
    pub async fn close(&mut self) {
        if let Some((_, workers)) = self.workers.take() {
            workers.close().await;
        }
    }

    /// All that the target names of Secrets, and nothing else is kept.
    async fn secrets(
        &mut self,
        target: &WorkersTarget,
        client: &Client,
        namespace: &str,
    ) -> Result<SecretTexts, Failure> {
        let named = target.secrets();
        self.secrets.retain(|known, _| named.iter().any(|(_, key)| *key == known));
        let mut texts = SecretTexts::new();
        for (field, key) in named {
            texts.insert(key.clone(), self.secret(field, key, client, namespace).await?);
        }
        Ok(texts)
    }

    async fn secret(
        &mut self,
        field: &str,
        key: &SecretKeyRef,
        client: &Client,
        namespace: &str,
    ) -> Result<Text, Failure> {
        let known = self.secrets.get(key);
        if let Some((text, at)) = known
            && at.elapsed() < SECRET_FRESH_FOR
        {
            return Ok(text.clone());
        }
        match read(field, key, client, namespace).await {
            Ok(text) => {
                self.secrets.insert(key.clone(), (text.clone(), Instant::now()));
                Ok(text)
            }
            // An API server that does not answer is no reason to stop using what works.
            Err(failure) if failure.kind == FailureKind::Unreachable && known.is_some() => {
                known.map(|(text, _)| text.clone()).ok_or(failure)
            }
            Err(failure) => {
                self.secrets.remove(key);
                Err(failure)
            }
        }
    }
}

/// Reads a key of a Secret of the drain's own namespace.
async fn read(
    field: &str,
    SecretKeyRef { name, key }: &SecretKeyRef,
    client: &Client,
    namespace: &str,
) -> Result<Text, Failure> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = match call_opt("read the Secret", api.get(name)).await {
        Ok(Some(secret)) => secret,
        Ok(None) => {
            let message = format!("there is no Secret {name} in the namespace {namespace} ({field}): create it");
            return Err(Failure::new(FailureKind::NotFound, message));
        }
        Err(failure) if failure.kind == FailureKind::Denied => {
            let message = format!(
                "worker-drain is not permitted to read the Secret {name} in the namespace {namespace} ({field}): permit it (the chart's \
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
        Some("") => Err(invalid(field, name, namespace, &format!("its key {key} is empty"))),
        Some(text) => Ok(Text::from(text)),
        None if value.is_some() => Err(invalid(field, name, namespace, &format!("its key {key} is not text"))),
        None => {
            let keys: Vec<&str> = secret.data.iter().flat_map(|data| data.keys()).map(String::as_str).collect();
            let has = if keys.is_empty() { String::from("no key") } else { keys.join(", ") };
            Err(invalid(field, name, namespace, &format!("it has no key {key} (it has {has})")))
        }
    }
}

fn invalid(field: &str, name: &str, namespace: &str, why: &str) -> Failure {
    let message = format!("the Secret {name} in the namespace {namespace} cannot be used ({field}): {why}");
    Failure::new(FailureKind::Invalid, message)
}
