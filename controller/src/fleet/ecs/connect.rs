//! The standard AWS configuration, with bounds.

use std::{env, sync::Arc};

use aws_config::{
    BehaviorVersion, Region, SdkConfig, default_provider::region::DefaultRegionChain, identity::IdentityCache,
    profile::ProfileFileCredentialsProvider, provider_config::ProviderConfig, retry::RetryConfig,
    sts::AssumeRoleProvider, timeout::TimeoutConfig,
};
use worker_drain_plan::observation::{Failure, FailureKind};

use super::{EcsSettings, Limiters, Target, Timeouts, call::Caller};

/// The name that an assumed role's sessions carry in `CloudTrail`.
const SESSION: &str = "worker-drain";

/// Finds the configuration and assumes the role.
pub(super) async fn configure(settings: &EcsSettings) -> SdkConfig {
    let config = load(settings.region.clone(), settings.profile.as_deref(), settings.timeouts).await;
    match &settings.role_arn {
        Some(role) => assume(config, role).await,
        None => config,
    }
}

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
    let target = Target { cluster, service, region, role_arn, profile, endpoint: endpoint(config) };
    let caller = Caller { target, limiter, calls: Arc::default(), time_limit: timeouts.operation };
    Ok((aws_sdk_ecs::Client::from_conf(ecs), caller))
}

fn limits(timeouts: Timeouts) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(timeouts.connect)
        .operation_attempt_timeout(timeouts.attempt)
        .operation_timeout(timeouts.operation)
        .build()
}

async fn load(region: Option<String>, profile: Option<&str>, timeouts: Timeouts) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .timeout_config(limits(timeouts))
        .retry_config(RetryConfig::standard().with_max_attempts(2));
    if let Some(region) = &region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = profile {
        // A profile that was asked for by name comes before keys in the environment, as `aws --profile` does it.
        let region = match region {
            Some(region) => Some(Region::new(region)),
            None => DefaultRegionChain::builder().profile_name(profile).build().region().await,
        };
        let through = ProviderConfig::without_region().with_region(region);
        let credentials = ProfileFileCredentialsProvider::builder().configure(&through).profile_name(profile).build();
        loader = loader.profile_name(profile).credentials_provider(credentials);
    }
    loader.load().await
}

async fn assume(config: SdkConfig, role: &str) -> SdkConfig {
    let provider = AssumeRoleProvider::builder(role).session_name(SESSION).configure(&config).build().await;
    config
        .into_builder()
        .credentials_provider(aws_sdk_ecs::config::SharedCredentialsProvider::new(provider))
        .identity_cache(IdentityCache::lazy().build())
        .build()
}

/// The account of an ARN.
fn account_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(4).filter(|account| !account.is_empty())
}

/// Another endpoint than AWS's own, for messages: scheme, host and port only.
fn endpoint(config: &SdkConfig) -> Option<String> {
    let set = env::var("AWS_ENDPOINT_URL_ECS").ok().or_else(|| config.endpoint_url().map(ToOwned::to_owned))?;
    let url = url::Url::parse(&set).ok()?;
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    Some(format!("{}://{}{port}", url.scheme(), url.host_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_read_from_an_arn() {
        assert_eq!(account_of("arn:aws:iam::123456789012:role/drain"), Some("123456789012"));
        assert_eq!(account_of("drain"), None);
        assert_eq!(account_of("arn:aws:iam:::role/drain"), None);
    }
}
