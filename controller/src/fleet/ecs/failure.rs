//! How a failed ECS call is reported: what the API reference lists as errors of ECS's own, and the rest as of any AWS service.

use std::error::Error;

use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};
use worker_drain_plan::observation::Failure;

use super::{operation::Operation, target::Target};
use crate::aws;

/// The failure of one call, for the plan and for a person.
pub(super) fn describe<E>(operation: Operation, target: &Target, error: &SdkError<E>) -> Failure
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match error.code() {
        Some("ClusterNotFoundException") => target.no_cluster(),
        Some("ServiceNotFoundException" | "ServiceNotActiveException") => target.no_service(),
        _ => aws::describe(&target.asked(operation), error),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::{error::ErrorMetadata, operation::describe_tasks::DescribeTasksError};
    use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
    use rstest::rstest;
    use worker_drain_plan::observation::FailureKind;

    use super::*;
    use crate::aws::Reach;

    #[rstest]
    #[case::cluster("ClusterNotFoundException", FailureKind::NotFound, "fleet.ecs.cluster")]
    #[case::service("ServiceNotActiveException", FailureKind::NotFound, "fleet.ecs.service")]
    #[case::any_services("AccessDeniedException", FailureKind::Denied, "ecs:DescribeTasks for media/transcoder")]
    fn an_answer_is_told_by_its_code(#[case] code: &str, #[case] kind: FailureKind, #[case] says: &str) {
        let reach = Reach { region: "eu-west-1".into(), role_arn: None, profile: None, endpoint: None };
        let cluster = "arn:aws:ecs:eu-west-1:123456789012:cluster/media".into();
        let target = Target { cluster, service: "transcoder".into(), reach };
        let error = DescribeTasksError::generic(ErrorMetadata::builder().code(code).build());
        let answer = HttpResponse::new(400.try_into().unwrap(), aws_smithy_types::body::SdkBody::empty());
        let failure = describe(Operation::DescribeTasks, &target, &SdkError::service_error(error, answer));
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert!(failure.message.contains(says), "{failure:?}");
    }
}
