//! Why the operator cannot run.

use std::net::SocketAddr;

use thiserror::Error;

/// Why the operator ended other than by a signal.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// Neither a kubeconfig nor the environment of a Pod.
    #[error("cannot find out how to reach the Kubernetes API server: run it in a Pod, or set KUBECONFIG")]
    Config(#[source] kube::config::InferConfigError),
    /// It was found, and cannot be used.
    #[error("the configuration for the Kubernetes API server cannot be used")]
    Client(#[source] kube::Error),
    /// The port is taken, or not ours to take.
    #[error("cannot listen on {address} for health and metrics: is another process there?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A part that runs for ever has ended.
    #[error("{0} has ended by itself, which is a bug")]
    Ended(&'static str),
}
