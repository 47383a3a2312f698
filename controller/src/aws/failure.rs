//! How a failed call is reported: its kind decides what is done about it, its message what a person does.
//!
//! The error codes are those of the API references of ECS and SQS ("Common errors"); what only one of a service's own
//! errors tells is told where that service is asked. AWS's own
//! message is repeated only where it cannot hold a secret: an answer about a wrong signature quotes the request, session
//! token included.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
// Every service's crate has these same types under its own names.
use aws_sdk_ecs::error::{ConnectorError, ProvideErrorMetadata, SdkError};
use worker_drain_plan::observation::{Failure, FailureKind};

use super::access::Reach;

/// One call: what was asked of whom.
pub(crate) struct Asked<'a> {
    /// How people call the service that is asked, such as `ECS`.
    pub(crate) service: &'static str,
    /// What its actions begin with in IAM, such as `ecs`.
    pub(crate) prefix: &'static str,
    /// The operation, such as `DescribeTasks`.
    pub(crate) operation: &'static str,
    /// What it is about, such as `media/transcoder`.
    pub(crate) what: String,
    pub(crate) reach: &'a Reach,
}

/// The failure of one call, for the plan and for a person.
pub(crate) fn describe<E>(asked: &Asked<'_>, error: &SdkError<E>) -> Failure
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(answer) => refused(
            asked,
            answer.err().code().unwrap_or_default(),
            answer.err().message().unwrap_or_default(),
            answer.raw().status().as_u16(),
        ),
        SdkError::ResponseError(answer) => {
            let status = answer.raw().status().as_u16();
            unreachable(asked, &format!("its answer (HTTP {status}) could not be read"))
        }
        SdkError::TimeoutError(_) => unreachable(asked, "it did not answer in time"),
        other => not_sent(asked, other),
    }
}

/// ECS answered with an error.
fn refused(asked: &Asked<'_>, code: &str, message: &str, status: u16) -> Failure {
    let Asked { service, prefix, operation: name, what, reach } = asked;
    let said = if message.is_empty() { String::new() } else { format!(": {}", bounded(message)) };
    // A proxy between us and AWS says no more than the status.
    let code = if code.is_empty() && status == 403 { "AccessDenied" } else { code };
    match code {
        "ThrottlingException"
        | "Throttling"
        | "RequestThrottled"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "SlowDown" => Failure::new(
            FailureKind::Throttled,
            format!(
                "{service} throttles {name} for {what}{said}. All callers of an account and Region share its limits; calls \
                     are slowed down automatically, and nothing needs to be done unless it lasts"
            ),
        ),
        "AccessDeniedException" | "AccessDenied" | "UnauthorizedOperation" => Failure::new(
            FailureKind::Denied,
            format!(
                "AWS refuses {prefix}:{name} for {what}{said}. Grant {prefix}:{name} to {}: docs/iam.md has the whole policy",
                reach.caller()
            ),
        ),
        "ExpiredTokenException" | "ExpiredToken" => Failure::new(
            FailureKind::Denied,
            format!(
                "the AWS credentials for {what} have expired. Renew them (aws sso login, a new session token), or run \
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
                "AWS does not know the credentials that {name} for {what} was signed with ({code}). Check the access \
                 key, the session token that belongs to it, and that they are of the partition that Region {} is in",
                reach.region
            ),
        ),
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestExpired" | "RequestTimeTooSkewed" => {
            Failure::new(
                FailureKind::Denied,
                format!(
                    "AWS does not accept the signature of {name} for {what} ({code}). Check the secret access key, and \
                 that this machine's clock is correct"
                ),
            )
        }
        "BlockedException" | "OptInRequired" => Failure::new(
            FailureKind::Denied,
            format!("AWS refuses {name} for {what} ({code}){said}. The account itself must be fixed"),
        ),
        "ResourceNotFoundException" => Failure::new(
            FailureKind::NotFound,
            format!("{service} {name} for {what} names something that does not exist{said}"),
        ),
        _ if status >= 500 || matches!(code, "ServerException" | "InternalFailure" | "ServiceUnavailable") => {
            unreachable(asked, &format!("it answered with an internal error (HTTP {status} {code}){said}"))
        }
        _ => Failure::new(
            FailureKind::Invalid,
            format!("{service} {name} for {what} was refused as it is (HTTP {status} {code}){said}"),
        ),
    }
}

/// No answer was received: the request could not be signed, or not be sent.
fn not_sent<E>(asked: &Asked<'_>, error: &SdkError<E>) -> Failure
where
    E: Error + Send + Sync + 'static,
{
    let links = links(error);
    let in_credentials = links.iter().position(|link| link.is::<CredentialsError>());
    let on_the_way = links.iter().rev().find_map(|link| link.downcast_ref::<ConnectorError>());
    let Some(first) = in_credentials else {
        return unreachable(asked, &chain(&links));
    };
    // The innermost connection error tells whether it was the network: the outermost only wraps whatever went wrong.
    let network = on_the_way.is_some_and(|link| link.is_io() || link.is_timeout())
        || matches!(links[first].downcast_ref(), Some(CredentialsError::ProviderTimedOut(_)));
    let why = chain(&links[first..]);
    if network {
        let what = &asked.what;
        let message = format!("the AWS credentials for {what} cannot be fetched now: {why}");
        return Failure::new(FailureKind::Unreachable, message);
    }
    let no_provider_had_any =
        links.iter().any(|link| matches!(link.downcast_ref(), Some(CredentialsError::CredentialsNotLoaded(_))));
    Failure::new(
        FailureKind::Denied,
        if no_provider_had_any { no_credentials(asked) } else { bad_credentials(asked, &why) },
    )
}

fn no_credentials(Asked { what, reach, .. }: &Asked<'_>) -> String {
    match (&reach.profile, &reach.role_arn) {
        (Some(profile), _) => format!(
            "no AWS credentials for {what}: there is no profile {profile}, or it has none. Check AWS_CONFIG_FILE, \
             AWS_SHARED_CREDENTIALS_FILE and the profile's name, or log in (aws sso login --profile {profile})"
        ),
        (None, role) => format!(
            "no AWS credentials for {what}{}: there are none in the environment, the default profile, a web identity \
             token, or ECS and EC2 metadata. Set AWS_PROFILE, log in (aws sso login), or run it with a role",
            role.as_ref().map_or_else(String::new, |role| format!(" to assume the role {role} with"))
        ),
    }
}

fn bad_credentials(Asked { what, reach, .. }: &Asked<'_>, why: &str) -> String {
    match &reach.role_arn {
        Some(role) => format!(
            "the role {role} for {what} cannot be assumed: {why}. Its trust policy must name the identity that this runs as, which \
             must be allowed sts:AssumeRole on it: docs/iam.md shows both"
        ),
        None => {
            format!("the AWS credentials for {what} cannot be used: {why}. Log in again, or fix the configuration")
        }
    }
}

fn unreachable(asked: &Asked<'_>, why: &str) -> Failure {
    let Asked { service, operation: name, what, reach, .. } = asked;
    let at = reach.endpoint_text();
    Failure::new(FailureKind::Unreachable, format!("{service} {name} for {what} failed{at}: {why}"))
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
        error::ErrorMetadata, operation::describe_tasks::DescribeTasksError, types::error::ServerException,
    };
    use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
    use rstest::rstest;

    use super::*;

    fn reach() -> Reach {
        Reach { region: "eu-west-1".into(), role_arn: None, profile: None, endpoint: Some("http://127.0.0.1:9".into()) }
    }

    /// The failure of this call, for that reason.
    fn described(operation: &'static str, reach: &Reach, error: &SdkError<DescribeTasksError>) -> Failure {
        describe(&Asked { service: "ECS", prefix: "ecs", operation, what: "media/transcoder".into(), reach }, error)
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
    #[case::throttled_by_sqs("RequestThrottled", 400, FailureKind::Throttled, "media/transcoder")]
    #[case::denied("AccessDeniedException", 400, FailureKind::Denied, "Grant ecs:DescribeTasks")]
    #[case::denied_by_a_proxy("", 403, FailureKind::Denied, "Grant ecs:DescribeTasks")]
    #[case::expired("ExpiredTokenException", 400, FailureKind::Denied, "aws sso login")]
    #[case::unknown_key("UnrecognizedClientException", 400, FailureKind::Denied, "access key")]
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
        let failure = described("DescribeTasks", &reach(), &answered(code, "some words.", status));
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert!(failure.message.contains(says), "{failure:?}");
    }

    #[test]
    fn what_aws_says_of_a_signature_is_not_repeated() {
        let quoting = "The Canonical String should have been 'x-amz-security-token:SECRET'";
        for code in ["InvalidSignatureException", "SignatureDoesNotMatch", "ExpiredToken", "IncompleteSignature"] {
            let failure = described("DescribeTasks", &reach(), &answered(code, quoting, 403));
            assert_eq!(failure.kind, FailureKind::Denied);
            assert!(!failure.message.contains("SECRET"), "{failure:?}");
        }
    }

    #[test]
    fn missing_credentials_are_not_a_network_failure() {
        let none = ConnectorError::other(Box::new(CredentialsError::not_loaded("nobody has any")), None);
        let failure = described("ListTasks", &reach(), &SdkError::<DescribeTasksError>::dispatch_failure(none));
        assert_eq!(failure.kind, FailureKind::Denied);
        assert!(failure.message.contains("aws sso login"), "{failure:?}");
    }

    #[test]
    fn credentials_that_the_network_keeps_from_us_may_come_back() {
        let io = ConnectorError::io("connection refused".into());
        let wrapped = ConnectorError::other(Box::new(CredentialsError::provider_error(io)), None);
        let failure = described("ListTasks", &reach(), &SdkError::<DescribeTasksError>::dispatch_failure(wrapped));
        assert_eq!(failure.kind, FailureKind::Unreachable);
        assert!(failure.message.contains("connection refused"), "{failure:?}");
    }

    #[test]
    fn a_role_that_cannot_be_assumed_is_named() {
        let denied = CredentialsError::provider_error("not authorized to perform: sts:AssumeRole");
        let wrapped = ConnectorError::other(Box::new(denied), None);
        let reach = Reach { role_arn: Some("arn:aws:iam::1:role/drain".into()), ..reach() };
        let failure = described("ListTasks", &reach, &SdkError::<DescribeTasksError>::dispatch_failure(wrapped));
        assert_eq!(failure.kind, FailureKind::Denied);
        assert!(failure.message.contains("arn:aws:iam::1:role/drain"), "{failure:?}");
    }

    #[test]
    fn connections_and_timeouts_are_the_outside_being_unreachable() {
        let refused = SdkError::<DescribeTasksError>::dispatch_failure(ConnectorError::io("connection refused".into()));
        let late = SdkError::<DescribeTasksError>::timeout_error("late");
        for error in [refused, late] {
            let failure = described("ListTasks", &reach(), &error);
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
