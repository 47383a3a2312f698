//! Through whom AWS is asked, where, and for how long.

use std::time::Duration;

/// Through which identity AWS is asked, and where. Everything that is not set here is found as the AWS command line finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// The Region; else `AWS_REGION`, else the profile's.
    pub region: Option<String>,
    /// A role to assume, with the credentials that are found otherwise.
    pub role_arn: Option<String>,
    /// A profile of the shared configuration files; else `AWS_PROFILE`, else `default`.
    pub profile: Option<String>,
}

/// How long calls to AWS may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection stands.
    pub connect: Duration,
    /// Until one attempt is answered.
    pub attempt: Duration,
    /// Until a call has succeeded or failed for good, retries included, without the time that it waits for its turn.
    pub operation: Duration,
}

impl Default for Timeouts {
    /// AWS answers in well under a second; thirty seconds for all attempts still lets a reconciliation begin twice a minute.
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), attempt: Duration::from_secs(10), operation: Duration::from_secs(30) }
    }
}

/// Through which identity AWS is asked, and where, as it was found: for the messages of failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) region: String,
    pub(crate) role_arn: Option<String>,
    pub(crate) profile: Option<String>,
    /// Another endpoint than AWS's own, without credentials or path.
    pub(crate) endpoint: Option<String>,
}

impl Reach {
    /// The identity that needs a permission.
    pub(crate) fn caller(&self) -> String {
        match (&self.role_arn, &self.profile) {
            (Some(role), _) => format!("the role {role}"),
            (None, Some(profile)) => format!("the identity of the profile {profile}"),
            (None, None) => "the identity that this runs as".to_owned(),
        }
    }

    pub(crate) fn endpoint_text(&self) -> String {
        self.endpoint.as_ref().map_or_else(String::new, |endpoint| format!(" at {endpoint}"))
    }
}
