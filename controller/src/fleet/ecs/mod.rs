//! The fleet as an Amazon ECS service. The hold is ECS's *task scale-in protection*; a revision is a deployment of the
//! service (`ecs-svc/…`), never a task definition's number, because two deployments may share that.
//!
//! Observing is `DescribeServices`, `ListTasks`, `DescribeTasks`, `GetTaskProtection` and, for tasks on container instances,
//! `DescribeContainerInstances`; acting is
//! `UpdateTaskProtection`, and `TagResource` and `UntagResource` for one tag of the service, and nothing else. A task is never stopped from here (`StopTask`): ECS would replace it from the
//! old revision. Modules: `observe` asks and `view` reads the answers; `act` holds and releases; `call` is one call with
//! its turn in the buckets of `limiter`, its retries and its count; `instances` tells whom ECS wants
//! gone; `alike` and `tags` tell how many workers a task may have; `belonging` refuses a service that is not the drain's
//! own; `failure` puts errors into words.

mod act;
mod alike;
mod arn;
mod belonging;
mod bucket;
mod call;
mod connect;
mod failure;
mod identity;
mod instances;
mod limiter;
mod observe;
mod operation;
mod settings;
mod tags;
mod target;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use jiff::SignedDuration;
use worker_drain_plan::{
    Outcome, RevisionId, TaskId,
    observation::{Failure, FailureKind, FleetView},
};

use self::connect::{Connection, Named};
pub use self::{
    belonging::FleetChanged,
    call::Attempts,
    limiter::{Limiter, Limiters, ObserveSlot, Place},
    operation::{Calls, Operation, Row},
    settings::EcsSettings,
};
use super::{Fleet, FleetObservation};
pub use crate::aws::Timeouts;
use crate::{aws, clock::Clock, identity::FleetId};

/// An ECS service.
#[derive(Clone)]
pub struct EcsFleet {
    connection: Arc<Connection>,
    clock: Arc<dyn Clock>,
    id: FleetId,
}

impl fmt::Debug for EcsFleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EcsFleet").field("target", self.connection.target()).finish_non_exhaustive()
    }
}

impl EcsFleet {
    /// Finds the configuration; nothing is asked of ECS yet, and credentials are fetched with the first call.
    ///
    /// `limiters` is shared by all fleets of the process, so that their calls stay inside the account's limits together.
    /// Errors: the settings are not enough, such as no Region anywhere.
    pub async fn connect(settings: EcsSettings, limiters: &Limiters, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        let config = aws::configure(&settings.access(), settings.timeouts).await;
        Self::with_config(settings, &config, limiters, clock)
    }

    /// As [`EcsFleet::connect`], with a configuration that was found already: its Region, credentials and endpoint count,
    /// and those of `settings` only appear in messages.
    pub fn with_config(
        settings: EcsSettings,
        config: &aws_config::SdkConfig,
        limiters: &Limiters,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Failure> {
        let connection = Arc::new(Connection::new(settings, config, limiters)?);
        Ok(Self { connection, clock, id: FleetId::default() })
    }

    /// This fleet for a drain that belongs to the service of this id. If the id is not known yet, the first observation
    /// sets it; if ECS then answers with another service, no observation succeeds.
    #[must_use]
    pub fn belonging_to(self, id: FleetId) -> Self {
        Self { id, ..self }
    }

    /// How many requests were sent to ECS so far.
    pub fn calls(&self) -> &Arc<Calls> {
        &self.connection.caller.calls
    }

    /// The Region that was found.
    pub fn region(&self) -> &str {
        &self.connection.target().reach.region
    }

    /// The service's ARN, which is the same however the settings name it. ECS is asked for it once, and again while it is
    /// not the one of the service that the drain belongs to.
    ///
    /// Errors: the service cannot be seen, or is not one that can be drained.
    pub async fn arn(&self) -> Result<String, Failure> {
        match self.connection.named() {
            Named::Service(arn) if self.changed().is_none() => Ok(arn),
            _ => {
                let arn = observe::read_service(&self.connection).await?.service_arn;
                if arn.is_empty() {
                    let message = format!("ECS did not name the ARN of {}", self.name());
                    return Err(Failure::new(FailureKind::Unreachable, message));
                }
                Ok(arn)
            }
        }
    }

    /// Whether another service is reached than the one that the drain belongs to, as far as that is known without asking
    /// ECS again.
    pub fn changed(&self) -> Option<FleetChanged> {
        belonging::changed(&self.connection, &self.id)
    }

    /// Waits for a slot to observe the account and Region, as [`Limiter::observe_slot`] does.
    pub async fn observe_slot(&self) -> Option<ObserveSlot> {
        self.connection.limiter().observe_slot().await
    }

    /// How people call the service, such as `media/transcoder`.
    pub fn name(&self) -> String {
        self.connection.target().label()
    }
}

impl Fleet for EcsFleet {
    async fn observe(&self, tracked: &BTreeSet<TaskId>) -> Result<FleetObservation, Failure> {
        observe::observe(&self.connection, &self.id, &*self.clock, tracked).await
    }

    async fn hold(&self, holds: &[(TaskId, SignedDuration)]) -> Vec<Outcome> {
        act::hold(&self.connection, holds).await
    }

    async fn release(&self, tasks: &[TaskId]) -> Vec<Outcome> {
        act::release(&self.connection, tasks).await
    }

    async fn remember(&self, workers_per_task: &BTreeMap<RevisionId, u32>, seen: &FleetView) -> Outcome {
        tags::remember(&self.connection, workers_per_task, seen).await
    }
}
