//! `spec.workers.http`: workers that answer over HTTP themselves. The comments on fields are what `kubectl explain` shows.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    secret_ref::SecretSource,
    values::{Duration, between},
};

/// Workers that answer over HTTP themselves, each at its task's private address, as docs/http-worker.md says: Celery workers
/// on Amazon SQS, or on any other broker, with a bootstep of one file; and workers that are not Celery.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("self.scheme == 'https' || !(has(self.serverName) || has(self.caFrom))")
        .message("serverName and caFrom need scheme https: set scheme to https, or leave them out")
        .field_path(".scheme")
)]
#[serde(rename_all = "camelCase")]
pub struct HttpSpec {
    /// The port that each worker listens on, from 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// The path under which a worker serves the contract. Default: `/worker-drain`.
    #[serde(default = "default_path")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(
        validation = Rule::new("self.matches('^/[^?#\\\\s]*$')").message(Message::Expression(
            "\"'\" + self + \"' is not a path: write one that begins with /, such as /worker-drain, without ? and #\""
                .into()
        ))
    )]
    pub path: String,
    /// `http` (default): no encryption; anyone who can read the network traffic can read the token. `https`: TLS.
    #[serde(default)]
    pub scheme: SchemeSpec,
    /// The source of the bearer token that is sent to the workers. Default: none is sent. It may contain several tokens,
    /// one on each line. Each is tried after a worker refused the one before, so a token can be replaced while workers run
    /// that accept only the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_from: Option<SecretSource>,
    /// With `https`: the name in the workers' certificate. Default: the private address of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
    /// With `https`: the source of the certificates (PEM) of the authorities to trust. Default: the system's are trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_from: Option<SecretSource>,
    /// How long a worker may take to answer, the connection included: between 100ms and 10s. Default: 5s. If it is too
    /// short, workers under load count as silent, which delays every drain; if it is too long, one dead worker slows
    /// every observation.
    #[serde(default = "default_reply_timeout")]
    #[x_kube(validation = between("100ms", "10s", "workers need time to answer, and an answer counts for 15s after its question"))]
    pub reply_timeout: Duration,
}

fn default_path() -> String {
    String::from("/worker-drain")
}

fn default_reply_timeout() -> Duration {
    Duration::from_secs(5)
}

/// The protocol in which workers are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum SchemeSpec {
    #[default]
    /// Without encryption.
    Http,
    /// With TLS.
    Https,
}
