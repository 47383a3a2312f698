//! `spec.workers.http`: workers that answer for themselves. The comments on fields are what `kubectl explain` shows.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    spec::SecretSource,
    values::{Duration, between},
};

/// Workers that answer for themselves over HTTP, each at its own task's private address, as docs/http-worker.md says:
/// Celery workers on Amazon SQS, or on any other broker, with a bootstep of one file; and workers that are not Celery.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("self.scheme == 'https' || !(has(self.serverName) || has(self.caFrom))")
        .message("serverName and caFrom are for scheme https: add it, or leave them out")
        .field_path(".scheme")
)]
#[serde(rename_all = "camelCase")]
pub struct HttpSpec {
    /// The port that each worker listens on, from 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// Where the contract is served. Default: `/worker-drain`.
    #[serde(default = "default_path")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(
        validation = Rule::new("self.matches('^/[^?#\\\\s]*$')").message(Message::Expression(
            "\"'\" + self + \"' is not a path: write one that begins with /, such as /worker-drain, without ? and #\""
                .into()
        ))
    )]
    pub path: String,
    /// `http` (default): in the clear; a token is then readable to whoever can read the network. `https`: by TLS.
    #[serde(default)]
    pub scheme: SchemeSpec,
    /// Where the bearer token is read from that is shown to the workers. Default: none is shown. It may hold several, one
    /// a line: those after the first are for workers that refuse the ones before, so that a token can be replaced while
    /// workers run that know only the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_from: Option<SecretSource>,
    /// With `https`, the name that the workers' certificate is for. Default: the private address that they are asked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
    /// With `https`, where the certificates (PEM) of the authorities to trust are read from. Default: the system's are
    /// trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_from: Option<SecretSource>,
    /// How long a worker may take to answer, from connecting on: between 100ms and 10s. Default: 5s. Too short, and
    /// workers under load are taken for silent, which delays every drain; too long, and one dead worker slows every look.
    #[serde(default = "default_reply_timeout")]
    #[x_kube(validation = between("100ms", "10s", "workers need time to answer, and an answer counts for 15s from its question on"))]
    pub reply_timeout: Duration,
}

fn default_path() -> String {
    String::from("/worker-drain")
}

fn default_reply_timeout() -> Duration {
    Duration::from_secs(5)
}

/// How workers are spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum SchemeSpec {
    #[default]
    /// In the clear.
    Http,
    /// By TLS.
    Https,
}
