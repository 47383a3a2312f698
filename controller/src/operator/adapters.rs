//! The fleet and the workers of one drain, kept between reconciliations and created again when the spec or the Secret has
//! changed.
//!
//! What cannot be created is a failure of every observation, not the end of the reconciliation: a drain whose Secret is gone
//! still renews its holds.

use std::sync::Arc;

use worker_drain_plan::observation::{Failure, FailureKind};

use super::{
    fencing::OrFailure,
    secrets::{Reader, Secrets},
};
use crate::{
    api::policy::{EcsTarget, WorkersTarget},
    clock::{Clock, SystemClock},
    fleet::ecs::{EcsFleet, Limiters},
    queues::sqs::SqsSettings,
    settings,
    workers::{
        Workers,
        any::{AnyWorkers, WorkersSettings},
    },
};

/// The adapters of one drain.
#[derive(Default)]
pub struct Adapters {
    fleet: Option<(EcsTarget, EcsFleet)>,
    workers: Option<(WorkersSettings, Arc<AnyWorkers>)>,
    secrets: Secrets,
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

    /// The workers of this spec, whose Secrets are read so, and whose queues are counted where this fleet is.
    pub async fn workers(
        &mut self,
        target: &WorkersTarget,
        fleet: &EcsTarget,
        reader: Reader<'_>,
    ) -> OrFailure<Arc<AnyWorkers>> {
        let secrets = match self.secrets.of(target, reader).await {
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
        self.secrets.distrust();
    }

    /// Leaves nothing of ours on the broker.
    pub async fn close(&mut self) {
        if let Some((_, workers)) = self.workers.take() {
            workers.close().await;
        }
    }
}
