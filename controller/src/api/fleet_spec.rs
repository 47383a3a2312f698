//! `spec.fleet`: the tasks that run the workers. The comments on fields are what `kubectl explain` shows.

use kube::{
    KubeSchema,
    core::{Message, Rule},
};
use serde::{Deserialize, Serialize};

/// The ARN of an IAM role, as a regular expression that Go and Rust read alike.
const ROLE_FORM: &str = "^arn:[a-z-]+:iam::[0-9]{12}:role/.+$";

/// The tasks that run the workers.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("[has(self.ecs)].exists_one(given, given)").message("give exactly one kind of fleet: ecs")
)]
#[serde(rename_all = "camelCase")]
pub struct FleetSpec {
    /// A service of Amazon ECS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecs: Option<EcsSpec>,
}

/// A service of Amazon ECS. Only services that ECS itself deploys (deployment controller `ECS`) can be drained.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = not_removed("region"), validation = not_removed("roleArn"), validation = same_account())]
#[serde(rename_all = "camelCase")]
pub struct EcsSpec {
    /// The cluster: its short name, such as `media`, or its ARN. Cannot be changed.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = immutable("cluster"))]
    pub cluster: String,
    /// The service: its short name, such as `transcoder`, or its ARN. Cannot be changed.
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(validation = immutable("service"))]
    pub service: String,
    /// The AWS Region, such as `ap-northeast-2`. Default: the Region of the environment that worker-drain runs in
    /// (`AWS_REGION`, the profile, the instance metadata). May be added later, and then neither changed nor removed.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(
        validation = immutable("region"),
        validation = Rule::new("self.matches('^[a-z]{2,8}(-[a-z]+)+-[0-9]+$')")
            .message(Message::Expression("\"'\" + self + \"' is not a region: write one such as ap-northeast-2\"".into()))
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// An IAM role to assume for all calls to ECS, such as a role in another account. Default: none; the credentials of
    /// the environment are used. May be added later, and then replaced by another role of the same account, but not
    /// removed.
    #[schemars(length(min = 20, max = 2048))]
    #[x_kube(
        validation = Rule::new(format!("self.matches('{ROLE_FORM}')")).message(Message::Expression(
            "\"'\" + self + \"' is not the ARN of a role: write one such as arn:aws:iam::123456789012:role/drain\"".into()
        ))
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
}

/// Why a field that tells which service is drained stays as it is: the service's tasks have holds and cancelled queues,
/// and a drain of another service would never undo them.
fn for_good(field: &str, cannot: &str) -> Message {
    Message::Message(format!(
        "fleet.ecs.{field} cannot be {cannot}, because holds and cancelled queues of the service's tasks would never be \
         undone: delete this WorkerDrain, which undoes them, and create one for the other service"
    ))
}

fn immutable(field: &str) -> Rule {
    Rule::new("self == oldSelf").message(for_good(field, "changed"))
}

/// A field that was given stays given: removed and then added again, it could name another service.
fn not_removed(field: &str) -> Rule {
    Rule::new(format!("!has(oldSelf.{field}) || has(self.{field})"))
        .message(for_good(field, "removed"))
        .field_path(format!(".{field}"))
}

/// The fifth part of an ARN is the account ("IAM identifiers", IAM User Guide).
fn same_account() -> Rule {
    Rule::new(format!(
        "!has(oldSelf.roleArn) || !has(self.roleArn) || !self.roleArn.matches('{ROLE_FORM}') \
         || self.roleArn.split(':')[4] == oldSelf.roleArn.split(':')[4]"
    ))
    .message(for_good("roleArn", "moved to another account"))
    .field_path(".roleArn")
}
