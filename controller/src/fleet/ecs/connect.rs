//! From a configuration to a client of ECS, with its turns in the bucket.

use std::sync::Arc;

use aws_config::{SdkConfig, retry::RetryConfig};
use worker_drain_plan::observation::{Failure, FailureKind};

use super::{EcsSettings, Limiters, Target, call::Caller};
use crate::aws::{Reach, account_of, endpoint, limits};

/// Builds the client. Errors: no Region is known.
pub(super) fn client(
    settings: EcsSettings,
    config: &SdkConfig,
    limiters: &Limiters,
) -> Result<(aws_sdk_ecs::Client, Caller), Failure> {
    let EcsSettings { cluster, service, region: _, role_arn, profile, timeouts } = settings;
    let Some(region) = config.region().map(ToString::to_string) else {
        return Err(Failure::new(
            FailureKind::Invalid,
            format!("no AWS Region for {cluster}/{service}: set fleet.ecs.region, AWS_REGION, or the profile's region"),
        ));
    };
    // The account's number where it is known; else whatever stands for one set of credentials.
    let known = role_arn.as_deref().and_then(account_of).or_else(|| account_of(&cluster));
    let account = known.or(profile.as_deref()).unwrap_or_default();
    let limiter = limiters.of(account, &region);
    // Retries are ours, so that each attempt takes its turn in the bucket.
    let ecs = aws_sdk_ecs::config::Builder::from(config)
        .retry_config(RetryConfig::disabled())
        .timeout_config(limits(timeouts))
        .build();
    let reach = Reach { region, role_arn, profile, endpoint: endpoint(config, "ECS") };
    let target = Target { cluster, service, reach };
    let caller = Caller { target, limiter, calls: Arc::default(), time_limit: timeouts.operation };
    Ok((aws_sdk_ecs::Client::from_conf(ecs), caller))
}
