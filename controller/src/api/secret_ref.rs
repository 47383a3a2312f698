//! How the spec names a value that is kept in a Secret. The comments on fields are what `kubectl explain` shows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a confidential value is read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretSource {
    /// A key of a Secret in the same namespace. Without Kubernetes, `worker-drain run` takes the value from
    /// `--secret` or from a Secret in the same file.
    #[schemars(extend("x-kubernetes-map-type" = "atomic"))]
    pub secret_key_ref: SecretKeyRef,
}

/// A key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key within the Secret, such as `url`.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}
