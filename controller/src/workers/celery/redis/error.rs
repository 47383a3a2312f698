//! What can go wrong between us and Redis, and what a person is to make of it.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};
use thiserror::Error;
use worker_drain_plan::observation::{Failure, FailureKind};

use super::address::Address;

/// What went wrong, doing what.
#[derive(Clone, Debug, Error)]
pub(super) enum Problem {
    #[error("could not connect")]
    Connect(#[source] RedisError),
    #[error("could not publish")]
    Publish(#[source] RedisError),
    #[error("lost the connection while awaiting replies")]
    Receive(#[source] RedisError),
    #[error("could not subscribe to Celery's events")]
    Listen(#[source] RedisError),
    #[error("had no answer within {0:?}")]
    Silence(Duration),
    #[error("gave another answer than Redis gives")]
    Strange,
}

impl Problem {
    /// Whether the connection is of no more use, and a new one may do better.
    pub(super) fn is_lost_connection(&self) -> bool {
        match self {
            Self::Connect(error) | Self::Publish(error) | Self::Receive(error) | Self::Listen(error) => {
                error.is_unrecoverable_error()
            }
            Self::Silence(_) | Self::Strange => true,
        }
    }

    /// Whether it may pass by itself in a moment.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Connect(error) | Self::Publish(error) | Self::Receive(error) | Self::Listen(error) => {
                judge(error, false).0 == FailureKind::Unreachable
            }
            Self::Silence(_) | Self::Strange => true,
        }
    }

    /// For the one who asked: the kind decides what is done about it, the words are for a person.
    pub(super) fn failure(&self, address: &Address) -> Failure {
        let (kind, error, advice) = match self {
            Self::Connect(error) | Self::Publish(error) | Self::Receive(error) => {
                let (kind, advice) = judge(error, address.has_password);
                (kind, error, advice)
            }
            Self::Listen(error) => {
                let (kind, advice) = judge(error, address.has_password);
                (kind, error, if kind == FailureKind::Denied { LISTENING } else { advice })
            }
            Self::Silence(_) | Self::Strange => {
                return Failure::new(FailureKind::Unreachable, format!("{address}: {self}"));
            }
        };
        let advice = if advice.is_empty() { String::new() } else { format!("; {advice}") };
        Failure::new(kind, format!("{address}: {self}: {error}{advice}"))
    }
}

const LISTENING: &str = "the user needs the command PSUBSCRIBE, and the channels of Celery's events";

/// Redis tells most of what it refuses by the first word of its answer.
fn judge(error: &RedisError, has_password: bool) -> (FailureKind, &'static str) {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            (FailureKind::Denied, "the user or the password in the broker's URL is not the one that Redis has")
        }
        ErrorKind::Server(ServerErrorKind::NoPerm) => (
            FailureKind::Denied,
            "the user needs the commands PUBLISH, BRPOP, RPOP, SADD, SREM, SMEMBERS, ZADD, SET, EXISTS and DEL, \
             and the keys and channels of Celery's remote control",
        ),
        ErrorKind::Server(ServerErrorKind::ReadOnly) => {
            (FailureKind::Invalid, "this is a replica: give the URL of the primary")
        }
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::CrossSlot) => {
            (FailureKind::Invalid, "this is a Redis Cluster, which Celery does not run on")
        }
        _ if text.contains("WRONGPASS") || text.contains("invalid password") => {
            (FailureKind::Denied, "the user or the password in the broker's URL is not the one that Redis has")
        }
        _ if text.contains("NOAUTH") || text.contains("Authentication required") => {
            let advice = if has_password {
                "Redis took no password from the broker's URL"
            } else {
                "the broker's URL has no password, and Redis asks for one"
            };
            (FailureKind::Denied, advice)
        }
        _ if text.contains("NOPERM") => (FailureKind::Denied, "the user lacks a permission"),
        _ if text.contains("out of range") || text.contains("database number") => {
            (FailureKind::Invalid, "Redis has no such database: see \"databases\" in its configuration")
        }
        // A certificate does not become right by waiting.
        _ if text.contains("certificate") => {
            (FailureKind::Invalid, "for a private authority, give its certificate; the name in the URL must be in it")
        }
        _ => (FailureKind::Unreachable, ""),
    }
}
