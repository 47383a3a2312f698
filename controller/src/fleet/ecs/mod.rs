//! The fleet as an Amazon ECS service. The hold is ECS's *task scale-in protection*; a revision is a deployment of the
//! service (`ecs-svc/…`), never a task definition's number, because two deployments may share that.
//!
//! Observing is `DescribeServices`, `ListTasks`, `DescribeTasks` and `GetTaskProtection`; acting is
//! `UpdateTaskProtection` and nothing else. A task is never stopped from here (`StopTask`): ECS would replace it from the
//! old revision. Modules: `observe` asks and `view` reads the answers; `act` holds and releases; `call` is one call with
//! its turn in the bucket of [`limiter`], its retries and its count; `failure` puts errors into words.

mod act;
mod call;
mod connect;
mod failure;
mod identity;
pub mod limiter;
mod observe;
mod view;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, OnceLock},
};

use jiff::SignedDuration;
use worker_drain_plan::{
    Outcome, TaskId,
    observation::{Failure, FailureKind},
};

use self::{call::Caller, view::last_part};
pub use self::{
    call::{Attempts, Calls, Operation},
    limiter::Limiters,
};
use super::{Fleet, FleetObservation};
pub use crate::aws::Timeouts;
use crate::{
    aws::{self, Access, Asked, Reach},
    clock::Clock,
};

/// The longest hold that ECS grants, in minutes: `expiresInMinutes` of `UpdateTaskProtection` goes up to 48 hours.
const LONGEST_HOLD_MINUTES: i32 = 2880;

/// How many calls of one kind are under way at once: enough to hide their latency, few enough for one connection pool.
const AT_ONCE: usize = 8;

/// Which ECS service, and how it is reached. Everything that is not set here is found as the AWS command line finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EcsSettings {
    /// The cluster's name or ARN.
    pub cluster: String,
    /// The service's name or ARN.
    pub service: String,
    /// The Region; else `AWS_REGION`, else the profile's.
    pub region: Option<String>,
    /// A role to assume, with the credentials that are found otherwise.
    pub role_arn: Option<String>,
    /// A profile of the shared configuration files; else `AWS_PROFILE`, else `default`.
    pub profile: Option<String>,
    /// How long calls may take.
    pub timeouts: Timeouts,
}

impl EcsSettings {
    /// Through whom it is asked.
    pub fn access(&self) -> Access {
        Access { region: self.region.clone(), role_arn: self.role_arn.clone(), profile: self.profile.clone() }
    }
}

/// An ECS service.
#[derive(Clone)]
pub struct EcsFleet {
    client: aws_sdk_ecs::Client,
    caller: Arc<Caller>,
    clock: Arc<dyn Clock>,
    /// Tasks that ECS lists as ended, and that were read as such once. They cannot change again, so they are not read
    /// again. Only a saving: it may be lost at any time.
    history: Arc<Mutex<BTreeSet<TaskId>>>,
    /// The service's ARN, when ECS has told it once.
    arn: Arc<OnceLock<String>>,
}

impl fmt::Debug for EcsFleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EcsFleet").field("target", &self.caller.target).finish_non_exhaustive()
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
    /// and those of `settings` are only told in messages.
    pub fn with_config(
        settings: EcsSettings,
        config: &aws_config::SdkConfig,
        limiters: &Limiters,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Failure> {
        let (client, caller) = connect::client(settings, config, limiters)?;
        Ok(Self { client, caller: Arc::new(caller), clock, history: Arc::default(), arn: Arc::default() })
    }

    /// How many requests were sent to ECS so far.
    pub fn calls(&self) -> &Arc<Calls> {
        &self.caller.calls
    }

    /// The Region that was found.
    pub fn region(&self) -> &str {
        &self.caller.target.reach.region
    }

    /// The service's ARN, which is the same however the settings name it. ECS is asked for it once.
    ///
    /// Errors: the service cannot be seen, or is not one that can be drained.
    pub async fn arn(&self) -> Result<String, Failure> {
        if let Some(arn) = self.arn.get() {
            return Ok(arn.clone());
        }
        let arn = observe::read_service(self).await?.service_arn;
        if arn.is_empty() {
            let message = format!("ECS did not tell the ARN of {}", self.name());
            return Err(Failure::new(FailureKind::Unreachable, message));
        }
        Ok(self.arn.get_or_init(|| arn).clone())
    }

    /// How people call the service, such as `media/transcoder`.
    pub fn name(&self) -> String {
        self.caller.target.label()
    }
}

impl Fleet for EcsFleet {
    async fn observe(&self, tracked: &BTreeSet<TaskId>) -> Result<FleetObservation, Failure> {
        observe::observe(self, tracked).await
    }

    async fn hold(&self, holds: &[(TaskId, SignedDuration)]) -> Vec<Outcome> {
        act::hold(self, holds).await
    }

    async fn release(&self, tasks: &[TaskId]) -> Vec<Outcome> {
        act::release(self, tasks).await
    }
}

/// Which service, through whom: what failures need to be told well.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    cluster: String,
    service: String,
    reach: Reach,
}

impl Target {
    fn label(&self) -> String {
        format!("{}/{}", last_part(&self.cluster), last_part(&self.service))
    }

    /// A call about it.
    fn asked(&self, operation: Operation) -> Asked<'_> {
        Asked { service: "ECS", prefix: "ecs", operation: operation.name(), what: self.label(), reach: &self.reach }
    }

    fn no_cluster(&self) -> Failure {
        Failure::new(
            FailureKind::NotFound,
            format!(
                "there is no ECS cluster {} in Region {}{}. Check fleet.ecs.cluster and fleet.ecs.region, and that {} is of \
                 the right account",
                self.cluster,
                self.reach.region,
                self.reach.endpoint_text(),
                self.reach.caller()
            ),
        )
    }

    fn no_service(&self) -> Failure {
        Failure::new(
            FailureKind::NotFound,
            format!(
                "there is no active ECS service {} in cluster {} (Region {}{}). Check fleet.ecs.service, and that it was \
                 not deleted or made in another cluster",
                last_part(&self.service),
                last_part(&self.cluster),
                self.reach.region,
                self.reach.endpoint_text()
            ),
        )
    }
}
