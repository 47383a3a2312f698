//! One drain, one service, for good: whether the service that is reached now is the one that the drain belongs to.
//!
//! What a drain remembers (holds, queues that were taken from workers) is of one service. `roleArn`, `region`, the process's
//! default Region or its credentials may come to lead to another one of the same names. Nothing is done to that one: neither
//! would its tasks be understood, nor would the first one's queues ever be given back.

use worker_drain_plan::observation::{Failure, FailureKind};

use super::{
    arn::{ServiceArn, is_same_service},
    connect::{Connection, Named},
    target::Target,
};
use crate::{aws::account_of, identity::FleetId};

/// Another service is reached than the one that the drain belongs to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this drain belongs to the ECS service {belongs_to}, and fleet.ecs and the credentials now lead to {leads_to}. Nothing \
     is done to either. Set fleet.ecs (region, roleArn), the default Region or the credentials back, so that they lead to the \
     first one; for the other one, create another WorkerDrain"
)]
pub struct FleetChanged {
    /// The ARN of the service that the drain belongs to.
    pub belongs_to: String,
    /// The ARN of the other one, or where it is looked for if ECS has not named it.
    pub leads_to: String,
}

impl From<FleetChanged> for Failure {
    fn from(changed: FleetChanged) -> Self {
        Self::new(FailureKind::Invalid, changed.to_string())
    }
}

/// Whether another service is reached, as far as that is known without asking ECS.
///
/// A service that exists is known by its ARN. One that does not exist may only be looked for in the wrong place: ECS names the
/// account in the ARN that it misses, unless it repeats an ARN that it was asked for.
pub(super) fn changed(connection: &Connection, id: &FleetId) -> Option<FleetChanged> {
    let belongs_to = id.get()?;
    let leads_to = match connection.named() {
        Named::Service(arn) => (!is_same_service(belongs_to, &arn)).then_some(arn),
        Named::Missing(Some(arn)) if ServiceArn::parse(&arn).is_some() && !is_same_service(belongs_to, &arn) => {
            Some(arn)
        }
        Named::Missing(_) | Named::Unasked => elsewhere(connection.target(), belongs_to),
    };
    leads_to.map(|leads_to| FleetChanged { belongs_to: belongs_to.to_owned(), leads_to })
}

/// Where a service is looked for, if that is another Region or account than this ARN's.
fn elsewhere(target: &Target, arn: &str) -> Option<String> {
    let ServiceArn { region, account, .. } = ServiceArn::parse(arn)?;
    let role_account = target.reach.role_arn.as_deref().and_then(account_of);
    if target.reach.region == region && role_account.is_none_or(|its| its == account) {
        return None;
    }
    let of_account = role_account.map_or_else(String::new, |account| format!(" of account {account}"));
    Some(format!("{} in Region {}{of_account}", target.label(), target.reach.region))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::aws::Reach;

    #[rstest]
    #[case::here("eu-west-1", None, None)]
    #[case::by_its_own_role("eu-west-1", Some("123456789012"), None)]
    #[case::another_region("us-east-1", None, Some("media/transcoder in Region us-east-1"))]
    #[case::another_account(
        "eu-west-1",
        Some("210987654321"),
        Some("media/transcoder in Region eu-west-1 of account 210987654321")
    )]
    fn another_region_or_account_is_told_before_ecs_is_asked(
        #[case] region: &str,
        #[case] role_account: Option<&str>,
        #[case] leads_to: Option<&str>,
    ) {
        let role_arn = role_account.map(|account| format!("arn:aws:iam::{account}:role/drain"));
        let reach = Reach { region: region.into(), role_arn, profile: None, endpoint: None };
        let target = Target { cluster: "media".into(), service: "transcoder".into(), reach };
        let arn = "arn:aws:ecs:eu-west-1:123456789012:service/media/transcoder";
        assert_eq!(elsewhere(&target, arn).as_deref(), leads_to);
    }
}
