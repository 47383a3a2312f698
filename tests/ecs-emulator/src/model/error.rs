//! What an API call is refused with.

/// An error in AWS's terms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// The exception's name, such as `ClusterNotFoundException`.
    pub code: String,
    /// What a person reads.
    pub message: String,
}

impl ApiError {
    /// An error by name.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }

    /// `InvalidParameterException`.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterException", message)
    }

    /// `ClientException`.
    pub fn client(message: impl Into<String>) -> Self {
        Self::new("ClientException", message)
    }

    pub(super) fn cluster_not_found() -> Self {
        Self::new("ClusterNotFoundException", "Cluster not found.")
    }

    pub(super) fn service_not_found() -> Self {
        Self::new("ServiceNotFoundException", "Service not found.")
    }

    pub(super) fn service_not_active() -> Self {
        Self::new("ServiceNotActiveException", "Service was not ACTIVE.")
    }

    pub(super) fn throttled() -> Self {
        Self::new("ThrottlingException", "Rate exceeded")
    }

    /// 500 for the server's own errors, 400 for all others.
    pub fn http_status(&self) -> u16 {
        match self.code.as_str() {
            "ServerException" | "InternalFailure" | "InternalServerError" => 500,
            "ServiceUnavailable" | "ServiceUnavailableException" => 503,
            _ => 400,
        }
    }
}

/// One entry of `failures` in a successful answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The ARN, or what the caller gave if it names nothing.
    pub arn: String,
    /// A constant such as `MISSING` (AWS: "API failures messages").
    pub reason: String,
    /// Prose, where ECS gives some.
    pub detail: Option<String>,
}
