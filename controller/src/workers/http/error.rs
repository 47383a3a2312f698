//! Why a worker did not answer as it should. Messages say what is expected; none shows a token.

use std::time::Duration;

use thiserror::Error;
use worker_drain_plan::observation::FailureKind;

/// Why a worker did not answer as it should.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// Nothing is known of where it is.
    #[error(
        "the task has no private address: HTTP workers can be asked where each task has its own network interface \
         (network mode awsvpc)"
    )]
    NoAddress,
    /// Nobody listens, or the way is barred.
    #[error(
        "cannot connect to {url}: {why}; check that the worker listens on that port, not only on 127.0.0.1, and that the \
         task's security group admits worker-drain"
    )]
    Connect {
        /// Where.
        url: String,
        /// The operating system's words.
        why: String,
    },
    /// It did not answer in time.
    #[error(
        "{url} did not answer within {bound:?}: the worker is frozen or overloaded, or the task's security group does not \
         admit worker-drain"
    )]
    Silent {
        /// Where.
        url: String,
        /// The time it had.
        bound: Duration,
    },
    /// TLS failed.
    #[error(
        "no TLS with {url}: {why}; see scheme, serverName and caFrom of spec.workers.http, and the worker's certificate"
    )]
    Tls {
        /// Where.
        url: String,
        /// Why.
        why: String,
    },
    /// It wants another token, or one at all.
    #[error("{url} answered {status}: {}", if *with_token {
        "the token of spec.workers.http.tokenFrom is not the one that the worker has"
    } else {
        "it wants a token: give spec.workers.http.tokenFrom"
    })]
    Denied {
        /// Where.
        url: String,
        /// The status.
        status: u16,
        /// Whether it was shown one.
        with_token: bool,
    },
    /// Something else is there.
    #[error("{url} answered 404: the contract is not served there; see spec.workers.http.path and the worker's own")]
    NotServed {
        /// Where.
        url: String,
    },
    /// It sends us elsewhere.
    #[error("{url} answered {status}: redirects are not followed; see spec.workers.http.path and scheme")]
    Redirect {
        /// Where.
        url: String,
        /// The status.
        status: u16,
    },
    /// It cannot say now.
    #[error("{url} answered {status}{}", if why.is_empty() { String::new() } else { format!(": {why}") })]
    NotNow {
        /// Where.
        url: String,
        /// The status.
        status: u16,
        /// Its own words.
        why: String,
    },
    /// It refuses an order.
    #[error("{url} refused: {why}")]
    Refused {
        /// Where.
        url: String,
        /// Its own words, after its status.
        why: String,
    },
    /// What it says has no end.
    #[error("{url} answered with more than {limit} bytes: a worker lists at most 1000 jobs of a kind")]
    TooLong {
        /// Where.
        url: String,
        /// The limit.
        limit: usize,
    },
    /// What it says is not the contract.
    #[error("{url} does not answer as docs/http-worker.md says: {why}")]
    Invalid {
        /// Where.
        url: String,
        /// Why.
        why: String,
    },
    /// Another task's worker answers.
    #[error("the worker at {url} says that it is of the task {task}: an address can be given to another task")]
    OtherTask {
        /// Where.
        url: String,
        /// Whose it says it is.
        task: String,
    },
}

impl CallError {
    /// What sort of failure it is.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Connect { .. } | Self::Silent { .. } | Self::NotNow { .. } | Self::OtherTask { .. } => {
                FailureKind::Unreachable
            }
            Self::Denied { .. } => FailureKind::Denied,
            Self::NoAddress
            | Self::Tls { .. }
            | Self::NotServed { .. }
            | Self::Redirect { .. }
            | Self::Refused { .. }
            | Self::TooLong { .. }
            | Self::Invalid { .. } => FailureKind::Invalid,
        }
    }

    /// More is known than that the worker was not reached: if it is so for all, a person must fix something.
    pub fn is_telling(&self) -> bool {
        !matches!(self, Self::Connect { .. } | Self::Silent { .. })
    }
}
