//! The kinds of workers that there are: the one place where a kind chooses what its workers are asked through.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use thiserror::Error;
use worker_drain_plan::{
    Awaited, NodeName, Outcome, QueueName, TaskId,
    observation::{Failure, Queue, QueueCount, Seen, WorkersView},
};

use super::{
    Workers,
    brokers::{Brokers, BrokersError},
    celery::CelerySettings,
    http::{Http, HttpSettings, SettingsError as HttpSettingsError},
};
use crate::{
    clock::Clock,
    identity::Expected,
    queues::sqs::{Sqs, SqsSettings},
};

/// How to reach workers of some kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one for each drain")]
pub enum WorkersSettings {
    /// Celery workers, through their brokers: more than one while a fleet moves.
    Celery(Vec<CelerySettings>),
    /// Workers that answer for themselves over HTTP, and the SQS that their queues are counted on.
    Http(HttpSettings, SqsSettings),
}

/// What is wrong with [`WorkersSettings`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WorkersSettingsError {
    /// With those of Celery workers.
    #[error(transparent)]
    Celery(#[from] BrokersError),
    /// With those of HTTP workers.
    #[error(transparent)]
    Http(#[from] HttpSettingsError),
}

/// Workers of some kind.
#[expect(clippy::large_enum_variant, reason = "there is one for each drain")]
pub enum AnyWorkers {
    /// Celery workers, through their brokers.
    Celery(Brokers),
    /// Workers that answer for themselves over HTTP, and the SQS that their queues are counted on.
    Http(Http, Sqs),
}

impl AnyWorkers {
    /// Checks the settings, all that can be checked without connecting. Nothing is connected to before the first observation.
    pub fn open(settings: &WorkersSettings, clock: Arc<dyn Clock>) -> Result<Self, WorkersSettingsError> {
        match settings {
            WorkersSettings::Celery(settings) => Ok(Self::Celery(Brokers::open(settings, &clock)?)),
            WorkersSettings::Http(settings, queues) => {
                let queues = Sqs::new(queues.clone(), Arc::clone(&clock));
                Ok(Self::Http(Http::open(settings, clock)?, queues))
            }
        }
    }

    /// Leaves nothing of ours on the broker. The workers may still be used: they are then connected to again.
    pub async fn close(&self) {
        match self {
            Self::Celery(celery) => celery.close().await,
            // Each call has its own connection.
            Self::Http(..) => {}
        }
    }
}

impl Workers for AnyWorkers {
    async fn observe(&self, tasks: &BTreeMap<TaskId, Expected>) -> Result<WorkersView, Failure> {
        match self {
            Self::Celery(celery) => celery.observe(tasks).await,
            Self::Http(http, _) => http.observe(tasks).await,
        }
    }

    async fn cancel(&self, cancels: &[(NodeName, Vec<QueueName>)]) -> Vec<Outcome> {
        match self {
            Self::Celery(celery) => celery.cancel(cancels).await,
            Self::Http(http, _) => http.cancel(cancels).await,
        }
    }

    async fn give_back(&self, undos: &[(NodeName, Vec<Queue>)]) -> Vec<Outcome> {
        match self {
            Self::Celery(celery) => celery.give_back(undos).await,
            Self::Http(http, _) => http.give_back(undos).await,
        }
    }

    async fn count(&self, queues: &BTreeSet<QueueName>) -> BTreeMap<QueueName, Seen<QueueCount>> {
        match self {
            Self::Celery(celery) => celery.count(queues).await,
            Self::Http(_, sqs) => sqs.count(queues).await,
        }
    }

    async fn listen(&self, awaited: &Awaited) {
        match self {
            Self::Celery(celery) => celery.listen(awaited).await,
            Self::Http(http, _) => http.listen(awaited).await,
        }
    }

    async fn heard(&self) {
        match self {
            Self::Celery(celery) => celery.heard().await,
            Self::Http(http, _) => http.heard().await,
        }
    }

    fn note(&self) -> Option<String> {
        match self {
            Self::Celery(celery) => celery.note(),
            Self::Http(http, _) => http.note(),
        }
    }
}
