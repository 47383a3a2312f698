//! From a configuration to a client of ECS, with its turns in the buckets, and what ECS has said of the service so far.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use aws_config::{SdkConfig, retry::RetryConfig};
use aws_sdk_ecs::Client;
use worker_drain_plan::observation::{Failure, FailureKind};

use super::{
    arn::ServiceArn,
    call::Caller,
    limiter::{Limiter, Limiters, Place},
    settings::EcsSettings,
    target::Target,
};
use crate::aws::{Reach, account_of, endpoint, limits};

/// A client of ECS for one service.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) caller: Caller,
    limiters: Limiters,
    /// The account and Region, as far as the settings spell them.
    spelled: Place,
    named: Mutex<Named>,
    has_no_tags: AtomicBool,
}

/// What ECS called the service that was asked for, when it last answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// It has not answered yet.
    Unasked,
    /// There is this one.
    Service(String),
    /// There is none; it would be this one, if ECS said so much.
    Missing(Option<String>),
}

impl Connection {
    /// Builds the client. Errors: no Region is known.
    pub(super) fn new(settings: EcsSettings, config: &SdkConfig, limiters: &Limiters) -> Result<Self, Failure> {
        let EcsSettings { cluster, service, region: _, role_arn, profile, timeouts } = settings;
        let Some(region) = config.region().map(ToString::to_string) else {
            return Err(Failure::new(
                FailureKind::Invalid,
                format!(
                    "no AWS Region for {cluster}/{service}: set fleet.ecs.region, AWS_REGION, or the profile's region"
                ),
            ));
        };
        // The account's number where it is known; else whatever stands for one set of credentials.
        let known = role_arn.as_deref().and_then(account_of).or_else(|| account_of(&cluster));
        let account = known.or(profile.as_deref()).unwrap_or_default().to_owned();
        let spelled = Place { account, region: region.clone() };
        let limiter = limiters.of(&spelled);
        // Retries are ours, so that each attempt takes its turn in the bucket.
        let ecs = aws_sdk_ecs::config::Builder::from(config)
            .retry_config(RetryConfig::disabled())
            .timeout_config(limits(timeouts))
            .build();
        let reach = Reach { region, role_arn, profile, endpoint: endpoint(config, "ECS") };
        let target = Target { cluster, service, reach };
        let caller = Caller { target, limiter, calls: Arc::default(), time_limit: timeouts.operation };
        let named = Mutex::new(Named::Unasked);
        let (client, limiters, has_no_tags) = (Client::from_conf(ecs), limiters.clone(), AtomicBool::new(false));
        Ok(Self { client, caller, limiters, spelled, named, has_no_tags })
    }

    pub(super) fn target(&self) -> &Target {
        &self.caller.target
    }

    pub(super) fn limiter(&self) -> &Arc<Limiter> {
        &self.caller.limiter
    }

    /// What ECS called the service when it last answered.
    pub(super) fn named(&self) -> Named {
        self.named.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The service is asked for with its tags.
    pub(super) fn reads_tags(&self) -> bool {
        !self.has_no_tags.load(Ordering::Relaxed)
    }

    /// ECS answers without its tags only.
    pub(super) fn read_no_tags(&self) {
        self.has_no_tags.store(true, Ordering::Relaxed);
    }

    /// ECS has answered: what it called the service, and with it the account and Region whose buckets count.
    pub(super) fn note(&self, named: Named) {
        if let Named::Service(arn) = &named
            && let Some(ServiceArn { account, region, .. }) = ServiceArn::parse(arn)
        {
            self.limiters.settle(&self.spelled, &Place { account: account.to_owned(), region: region.to_owned() });
        }
        *self.named.lock().unwrap_or_else(PoisonError::into_inner) = named;
    }
}
