//! What the ECS fleet is given: plain data.

use crate::aws::{Access, Timeouts};

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
