//! The settings of workers that answer over HTTP: plain data, checked before anything is connected to.

use std::time::Duration;

use thiserror::Error;

use crate::{
    secret::Secret,
    tls::{Pem, TlsError},
};

/// How to reach a fleet's HTTP workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// The port that each worker listens on, at its task's own address.
    pub port: u16,
    /// Where the contract is served, such as `/worker-drain`.
    pub path: String,
    /// How they are spoken to.
    pub scheme: Scheme,
    /// What we show them: one token a line. The second and further ones are shown to workers that refuse those before,
    /// so that a token can be replaced while workers run that know only the old one. Empty: none is shown.
    pub token: Secret,
    /// How long an answer may take, from the first byte of the connection to the last of the answer.
    pub reply_bound: Duration,
}

/// How workers are spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// By TLS.
    Https {
        /// The name that their certificates are for; `None`: the address that they are asked at.
        server_name: Option<String>,
        /// Certificates of the authorities to trust; `None`: the system's.
        authorities: Option<Pem>,
    },
}

impl HttpSettings {
    /// The settings that the documentation promises, without a token.
    pub fn new(port: u16) -> Self {
        Self {
            port,
            path: "/worker-drain".into(),
            scheme: Scheme::Http,
            token: Secret::from(""),
            reply_bound: Duration::from_secs(5),
        }
    }
}

/// What is wrong with [`HttpSettings`]. Messages name the thing and what is right, and show no token.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// No port.
    #[error("port is 0: give the one that the workers listen on, from 1 to 65535")]
    Port,
    /// A path that cannot be asked for.
    #[error("path {path:?} cannot be asked for: write one such as /worker-drain, without ? and #")]
    Path {
        /// The path.
        path: String,
    },
    /// A token that no header can carry.
    #[error(
        "the token contains characters that no HTTP header can carry: use letters, digits and punctuation of ASCII, no spaces"
    )]
    Token,
    /// A name that no certificate can be for.
    #[error("serverName {name:?} is no host name: write the one that the workers' certificate is for")]
    ServerName {
        /// The name.
        name: String,
    },
    /// Authorities that cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A bound that makes no sense.
    #[error("the reply bound of {bound:?} is not between 10 ms and 10 s")]
    Bound {
        /// Its value.
        bound: Duration,
    },
}
