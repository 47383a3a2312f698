//! The standard AWS configuration, with bounds.

use std::env;

use aws_config::{
    BehaviorVersion, Region, SdkConfig, default_provider::region::DefaultRegionChain, identity::IdentityCache,
    profile::ProfileFileCredentialsProvider, provider_config::ProviderConfig, retry::RetryConfig,
    sts::AssumeRoleProvider, timeout::TimeoutConfig,
};
use aws_credential_types::provider::SharedCredentialsProvider;

use super::access::{Access, Timeouts};

/// The name that an assumed role's sessions carry in `CloudTrail`.
const SESSION: &str = "worker-drain";

/// Finds the configuration and assumes the role. Nothing is asked of any service yet.
pub(crate) async fn configure(access: &Access, timeouts: Timeouts) -> SdkConfig {
    let config = load(access.region.clone(), access.profile.as_deref(), timeouts).await;
    match &access.role_arn {
        Some(role) => assume(config, role).await,
        None => config,
    }
}

/// These bounds as the SDK takes them.
pub(crate) fn limits(timeouts: Timeouts) -> TimeoutConfig {
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
        .credentials_provider(SharedCredentialsProvider::new(provider))
        .identity_cache(IdentityCache::lazy().build())
        .build()
}

/// The account of an ARN.
pub(crate) fn account_of(arn: &str) -> Option<&str> {
    arn.split(':').nth(4).filter(|account| !account.is_empty())
}

/// Another endpoint of this service (as the SDK's variables name it, such as `ECS`) than AWS's own, for messages: scheme,
/// host and port only.
pub(crate) fn endpoint(config: &SdkConfig, service: &str) -> Option<String> {
    let set = env::var(format!("AWS_ENDPOINT_URL_{service}"))
        .ok()
        .or_else(|| config.endpoint_url().map(ToOwned::to_owned))?;
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
