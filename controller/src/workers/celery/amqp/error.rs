//! What can go wrong between us and RabbitMQ, and what helps.

use std::time::Duration;

use lapin::{Error, ErrorKind, protocol::AMQPError};
use thiserror::Error;
use worker_drain_plan::{
    QueueName,
    observation::{Failure, FailureKind},
};

use super::address::Address;

/// What went wrong, doing what.
#[derive(Clone, Debug, Error)]
pub(super) enum Problem {
    #[error("could not connect")]
    Connect(#[source] Error),
    #[error("could not create a queue for replies")]
    ReplyQueue(#[source] Error),
    #[error("could not publish")]
    Publish(#[source] Error),
    #[error("lost the connection while awaiting replies")]
    Receive(#[source] Error),
    #[error("could not count the queue {0}")]
    Count(QueueName, #[source] Error),
    #[error("could not listen to Celery's events")]
    Listen(#[source] Error),
    #[error("our queue for replies was deleted")]
    QueueGone,
    #[error("did not take a request")]
    NotTaken,
    #[error("takes no messages, as it does when it is short of memory or of disk: see its alarms")]
    Blocked,
    #[error("had no answer within {0:?}")]
    Silence(Duration),
}

impl Problem {
    fn error(&self) -> Option<&Error> {
        match self {
            Self::Connect(error)
            | Self::ReplyQueue(error)
            | Self::Publish(error)
            | Self::Receive(error)
            | Self::Listen(error)
            | Self::Count(_, error) => Some(error),
            Self::QueueGone | Self::NotTaken | Self::Blocked | Self::Silence(_) => None,
        }
    }

    /// Whether the connection is of no more use, and a new one may do better. What AMQP calls a soft error costs a
    /// channel only.
    pub(super) fn is_lost_connection(&self) -> bool {
        match self {
            Self::Publish(error) | Self::Count(_, error) => !error.is_amqp_soft_error(),
            _ => true,
        }
    }

    /// For the one who asked: the kind decides what is done about it, the words are for a person.
    pub(super) fn failure(&self, address: &Address) -> Failure {
        let Some(error) = self.error() else {
            return Failure::new(FailureKind::Unreachable, format!("{address}: {self}"));
        };
        let (kind, advice) = match self {
            Self::Count(..) if is_not_found(error) => (FailureKind::NotFound, "check its spelling".into()),
            // The first worker that sends one makes the exchange.
            Self::Listen(error) if is_not_found(error) => (FailureKind::Unreachable, String::new()),
            _ => judge(error, address),
        };
        let advice = if advice.is_empty() { advice } else { format!("; {advice}") };
        Failure::new(kind, format!("{address}: {self}: {}{advice}", words(error)))
    }
}

/// Whether the broker said that something does not exist.
pub(super) fn is_not_found(error: &Error) -> bool {
    protocol_error(error).is_some_and(|error| error.get_id() == NOT_FOUND)
}

/// Whether the broker said that something is exclusive to another connection.
pub(super) fn is_locked(error: &Error) -> bool {
    protocol_error(error).is_some_and(|error| error.get_id() == RESOURCE_LOCKED)
}

const ACCESS_REFUSED: u16 = 403;
const NOT_FOUND: u16 = 404;
const RESOURCE_LOCKED: u16 = 405;
const PRECONDITION_FAILED: u16 = 406;
const NOT_ALLOWED: u16 = 530;

fn protocol_error(error: &Error) -> Option<&AMQPError> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error),
        _ => None,
    }
}

/// The broker's own words where there are any: lapin's begin with what they are made of.
fn words(error: &Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        ErrorKind::IOError(error) => error.to_string(),
        _ => error.to_string(),
    }
}

fn judge(error: &Error, address: &Address) -> (FailureKind, String) {
    if let Some(error) = protocol_error(error) {
        return judge_answer(error.get_id(), error.get_message().as_str(), address);
    }
    let text = error.to_string();
    match error.kind() {
        // A certificate does not become right by waiting.
        _ if text.to_lowercase().contains("certificate") => (
            FailureKind::Invalid,
            "for a private authority, give its certificate; the name in the URL must be in the broker's; and a broker may \
             want one of yours"
                .into(),
        ),
        _ if text.contains("InvalidContentType") => {
            (FailureKind::Invalid, "that port does not speak TLS: amqp:// is for those that do not".into())
        }
        ErrorKind::ParsingError(_) | ErrorKind::InvalidProtocolVersion(_) => {
            (FailureKind::Invalid, "what answers there is no AMQP 0-9-1: amqps:// is for ports with TLS".into())
        }
        _ => (FailureKind::Unreachable, String::new()),
    }
}

/// RabbitMQ says what it refuses by AMQP's reply codes.
fn judge_answer(code: u16, text: &str, address: &Address) -> (FailureKind, String) {
    let vhost = &address.uri.vhost;
    let user = &address.uri.authority.userinfo.username;
    match code {
        ACCESS_REFUSED if text.contains("Login was refused") || text.contains("refused using authentication") => {
            let advice = if address.has_user {
                format!(
                    "the password of user {user} in the broker's URL is not the one that RabbitMQ has, or there is no such user"
                )
            } else {
                "the broker's URL names no user, and guest may log in from RabbitMQ's own host only".into()
            };
            (FailureKind::Denied, advice)
        }
        // 530 in RabbitMQ 3.10.
        ACCESS_REFUSED | NOT_ALLOWED if text.contains("access to vhost") => (
            FailureKind::Denied,
            format!(
                "user {user} needs permissions on virtual host {vhost}: rabbitmqctl set_permissions -p {vhost} {user} …"
            ),
        ),
        ACCESS_REFUSED => (
            FailureKind::Denied,
            format!(
                "user {user} lacks a permission on virtual host {vhost}: docs/brokers.md lists the least that is needed"
            ),
        ),
        NOT_ALLOWED if text.contains("vhost") => (
            FailureKind::Denied,
            format!(
                "the virtual host is what follows the host's / in the URL: // or nothing is the default one, and {vhost} is not there"
            ),
        ),
        NOT_FOUND | RESOURCE_LOCKED | PRECONDITION_FAILED | NOT_ALLOWED => (FailureKind::Invalid, String::new()),
        // It closes connections with a code when it stops, when an administrator wants it, and when it has a problem.
        _ => (FailureKind::Unreachable, String::new()),
    }
}
