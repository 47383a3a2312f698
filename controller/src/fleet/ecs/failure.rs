//! How a failed ECS call is told: its kind decides what is done about it, its message what a person does.
//!
//! The error codes are those of the ECS API reference ("Common errors", and each operation's own list). AWS's own
//! message is repeated only where it cannot hold a secret: an answer about a wrong signature quotes the request, session
//! token included.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ecs::error::{ConnectorError, ProvideErrorMetadata, SdkError};
use worker_drain_plan::observation::{Failure, FailureKind};

use super::{Target, call::Operation};

/// The failure of one call, for the plan and for a person.
pub(super) fn describe<E>(operation: Operation, target: &Target, error: &SdkError<E>) -> Failure
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(answer) => refused(
            operation,
            target,
            answer.err().code().unwrap_or_default(),
            answer.err().message().unwrap_or_default(),
            answer.raw().status().as_u16(),
        ),
        SdkError::ResponseError(answer) => {
            let status = answer.raw().status().as_u16();
            unreachable(operation, target, &format!("its answer (HTTP {status}) could not be read"))
        }
        SdkError::TimeoutError(_) => unreachable(operation, target, "it did not answer in time"),
        other => not_sent(operation, target, other),
    }
}

/// ECS answered with an error.
fn refused(operation: Operation, target: &Target, code: &str, message: &str, status: u16) -> Failure {
    let (name, service) = (operation.name(), target.label());
    let said = if message.is_empty() { String::new() } else { format!(": {}", bounded(message)) };
    match code {
        "ThrottlingException" | "Throttling" | "TooManyRequestsException" | "RequestLimitExceeded" | "SlowDown" => {
            Failure::new(
                FailureKind::Throttled,
                format!(
                    "ECS throttles {name} for {service}{said}. All callers of an account and Region share its limits; we ask \
                     more slowly by ourselves, and nothing needs to be done unless it lasts"
                ),
            )
        }
        "ClusterNotFoundException" => target.no_cluster(),
        "ServiceNotFoundException" | "ServiceNotActiveException" => target.no_service(),
        "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" => Failure::new(
            FailureKind::Denied,
            format!(
                "AWS refuses ecs:{name} for {service}{said}. Grant ecs:{name} to {}: docs/iam.md has the whole policy",
                target.caller()
            ),
        ),
        "ExpiredTokenException" | "ExpiredToken" => Failure::new(
            FailureKind::Denied,
            format!(
                "the AWS credentials for {service} have expired. Renew them (aws sso login, a new session token), or run \
                 with a role whose credentials renew themselves"
            ),
        ),
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignature"
        | "IncompleteSignatureException" => Failure::new(
            FailureKind::Denied,
            format!(
                "AWS does not know the credentials that {name} for {service} was signed with ({code}). Check the access \
                 key, the session token that belongs to it, and that they are of the partition that Region {} is in",
                target.region
            ),
        ),
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestExpired" | "RequestTimeTooSkewed" => {
            Failure::new(
                FailureKind::Denied,
                format!(
                    "AWS does not accept the signature of {name} for {service} ({code}). Check the secret access key, and \
                 that this machine's clock is right"
                ),
            )
        }
        "BlockedException" | "OptInRequired" => Failure::new(
            FailureKind::Denied,
            format!("AWS refuses {name} for {service} ({code}){said}. The account itself has to be put in order"),
        ),
        "ResourceNotFoundException" => Failure::new(
            FailureKind::NotFound,
            format!("ECS {name} for {service} names something that does not exist{said}"),
        ),
        _ if status >= 500 || matches!(code, "ServerException" | "InternalFailure" | "ServiceUnavailable") => {
            unreachable(
                operation,
                target,
                &format!("it answered with an error of its own (HTTP {status} {code}){said}"),
            )
        }
        _ => Failure::new(
            FailureKind::Invalid,
            format!("ECS {name} for {service} was refused as it is (HTTP {status} {code}){said}"),
        ),
    }
}

/// No answer was received: the request could not be signed, or not be sent.
fn not_sent<E>(operation: Operation, target: &Target, error: &SdkError<E>) -> Failure
where
    E: Error + Send + Sync + 'static,
{
    let links = links(error);
    let in_credentials = links.iter().position(|link| link.is::<CredentialsError>());
    let on_the_way = links.iter().rev().find_map(|link| link.downcast_ref::<ConnectorError>());
    let Some(first) = in_credentials else {
        return unreachable(operation, target, &chain(&links));
    };
    // The innermost connection error tells whether it was the network: the outermost only wraps whatever went wrong.
    let network = on_the_way.is_some_and(|link| link.is_io() || link.is_timeout())
        || matches!(links[first].downcast_ref(), Some(CredentialsError::ProviderTimedOut(_)));
    let why = chain(&links[first..]);
    if network {
        let service = target.label();
        let message = format!("the AWS credentials for {service} cannot be fetched now: {why}");
        return Failure::new(FailureKind::Unreachable, message);
    }
    let nobody_had_any =
        links.iter().any(|link| matches!(link.downcast_ref(), Some(CredentialsError::CredentialsNotLoaded(_))));
    Failure::new(
        FailureKind::Denied,
        if nobody_had_any { no_credentials(target) } else { bad_credentials(target, &why) },
    )
}

fn no_credentials(target: &Target) -> String {
    let service = target.label();
    match (&target.profile, &target.role_arn) {
        (Some(profile), _) => format!(
            "no AWS credentials for {service}: there is no profile {profile}, or it has none. Check AWS_CONFIG_FILE, \
             AWS_SHARED_CREDENTIALS_FILE and the profile's name, or log in (aws sso login --profile {profile})"
        ),
        (None, role) => format!(
            "no AWS credentials for {service}{}: there are none in the environment, the default profile, a web identity \
             token, or ECS and EC2 metadata. Set AWS_PROFILE, log in (aws sso login), or give whatever this runs on a role",
            role.as_ref().map_or_else(String::new, |role| format!(" to assume the role {role} with"))
        ),
    }
}

fn bad_credentials(target: &Target, why: &str) -> String {
    let service = target.label();
    match &target.role_arn {
        Some(role) => format!(
            "the role {role} for {service} cannot be assumed: {why}. Its trust policy must name whoever runs this, and that \
             must be allowed sts:AssumeRole on it: docs/iam.md shows both"
        ),
        None => {
            format!("the AWS credentials for {service} cannot be used: {why}. Log in again, or mend the configuration")
        }
    }
}

fn unreachable(operation: Operation, target: &Target, why: &str) -> Failure {
    let (name, service, at) = (operation.name(), target.label(), target.endpoint_text());
    Failure::new(FailureKind::Unreachable, format!("ECS {name} for {service} failed{at}: {why}"))
}

fn links<'a>(error: &'a (dyn Error + 'static)) -> Vec<&'a (dyn Error + 'static)> {
    let mut links = Vec::new();
    let mut next = Some(error);
    while let Some(link) = next {
        links.push(link);
        next = link.source();
    }
    links
}

/// What a chain of errors says, outermost first; each thing once, because wrappers like to repeat what they wrap.
fn chain(links: &[&(dyn Error + 'static)]) -> String {
    // What the SDK's wrappers say of themselves helps nobody.
    const EMPTY_WORDS: [&str; 8] = [
        "",
        "an error occurred while loading credentials",
        "dispatch failure",
        "io error",
        "other",
        "service error",
        "the credential provider was not enabled",
        "user error",
    ];
    let mut said: Vec<String> = Vec::new();
    for text in links.iter().map(ToString::to_string) {
        if !EMPTY_WORDS.contains(&text.as_str()) && !said.iter().any(|earlier| earlier.contains(&text)) {
            said.push(text);
        }
    }
    bounded(&said.join(": "))
}

/// Messages end up in conditions and on one line of a terminal.
fn bounded(text: &str) -> String {
    const LONGEST: usize = 400;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.trim_end_matches('.').to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::{
        error::{ErrorMetadata, SdkError},
        operation::describe_tasks::DescribeTasksError,
        types::error::ServerException,
    };
    use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
    use rstest::rstest;

    use super::*;

    fn target() -> Target {
        Target {
            cluster: "arn:aws:ecs:eu-west-1:123456789012:cluster/media".into(),
            service: "transcoder".into(),
            region: "eu-west-1".into(),
            role_arn: None,
            profile: None,
            endpoint: Some("http://127.0.0.1:9".into()),
        }
    }

    fn answered(code: &str, message: &str, status: u16) -> SdkError<DescribeTasksError> {
        let meta = ErrorMetadata::builder().code(code).message(message).build();
        let error = match code {
            "ServerException" => DescribeTasksError::ServerException(ServerException::builder().meta(meta).build()),
            _ => DescribeTasksError::generic(meta),
        };
        let body = aws_smithy_types::body::SdkBody::empty();
        SdkError::service_error(error, HttpResponse::new(status.try_into().unwrap(), body))
    }

    #[rstest]
    #[case::throttled("ThrottlingException", 400, FailureKind::Throttled, "media/transcoder")]
    #[case::denied("AccessDeniedException", 400, FailureKind::Denied, "Grant ecs:DescribeTasks")]
    #[case::expired("ExpiredTokenException", 400, FailureKind::Denied, "aws sso login")]
    #[case::unknown_key("UnrecognizedClientException", 400, FailureKind::Denied, "access key")]
    #[case::cluster("ClusterNotFoundException", 400, FailureKind::NotFound, "eu-west-1")]
    #[case::server("ServerException", 500, FailureKind::Unreachable, "HTTP 500")]
    #[case::gateway("", 503, FailureKind::Unreachable, "http://127.0.0.1:9")]
    #[case::parameter("InvalidParameterException", 400, FailureKind::Invalid, "InvalidParameterException")]
    #[case::unheard_of("NewException", 400, FailureKind::Invalid, "NewException")]
    fn an_answer_is_told_by_its_code(
        #[case] code: &str,
        #[case] status: u16,
        #[case] kind: FailureKind,
        #[case] says: &str,
    ) {
        let failure = describe(Operation::DescribeTasks, &target(), &answered(code, "some words.", status));
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert!(failure.message.contains(says), "{failure:?}");
    }

    #[test]
    fn what_aws_says_of_a_signature_is_not_repeated() {
        let quoting = "The Canonical String should have been 'x-amz-security-token:SECRET'";
        for code in ["InvalidSignatureException", "SignatureDoesNotMatch", "ExpiredToken", "IncompleteSignature"] {
            let failure = describe(Operation::DescribeTasks, &target(), &answered(code, quoting, 403));
            assert_eq!(failure.kind, FailureKind::Denied);
            assert!(!failure.message.contains("SECRET"), "{failure:?}");
        }
    }

    #[test]
    fn missing_credentials_are_not_a_network_failure() {
        let none = ConnectorError::other(Box::new(CredentialsError::not_loaded("nobody has any")), None);
        let failure =
            describe(Operation::ListTasks, &target(), &SdkError::<DescribeTasksError>::dispatch_failure(none));
        assert_eq!(failure.kind, FailureKind::Denied);
        assert!(failure.message.contains("aws sso login"), "{failure:?}");
    }

    #[test]
    fn credentials_that_the_network_keeps_from_us_may_come_back() {
        let io = ConnectorError::io("connection refused".into());
        let wrapped = ConnectorError::other(Box::new(CredentialsError::provider_error(io)), None);
        let failure =
            describe(Operation::ListTasks, &target(), &SdkError::<DescribeTasksError>::dispatch_failure(wrapped));
        assert_eq!(failure.kind, FailureKind::Unreachable);
        assert!(failure.message.contains("connection refused"), "{failure:?}");
    }

    #[test]
    fn a_role_that_cannot_be_assumed_is_named() {
        let denied = CredentialsError::provider_error("not authorized to perform: sts:AssumeRole");
        let wrapped = ConnectorError::other(Box::new(denied), None);
        let target = Target { role_arn: Some("arn:aws:iam::1:role/drain".into()), ..target() };
        let failure =
            describe(Operation::ListTasks, &target, &SdkError::<DescribeTasksError>::dispatch_failure(wrapped));
        assert_eq!(failure.kind, FailureKind::Denied);
        assert!(failure.message.contains("arn:aws:iam::1:role/drain"), "{failure:?}");
    }

    #[test]
    fn connections_and_timeouts_are_the_outside_being_unreachable() {
        let refused = SdkError::<DescribeTasksError>::dispatch_failure(ConnectorError::io("connection refused".into()));
        let late = SdkError::<DescribeTasksError>::timeout_error("late");
        for error in [refused, late] {
            let failure = describe(Operation::ListTasks, &target(), &error);
            assert_eq!(failure.kind, FailureKind::Unreachable, "{failure:?}");
            assert!(failure.message.contains("ListTasks"), "{failure:?}");
        }
    }

    #[test]
    fn messages_are_one_bounded_line() {
        assert_eq!(bounded("two\n lines."), "two lines");
        assert_eq!(bounded(&"ä".repeat(1000)).chars().count(), 401);
    }
}
