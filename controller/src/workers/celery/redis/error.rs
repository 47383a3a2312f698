//! What can go wrong between us and Redis, and what helps.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};
use thiserror::Error;
use worker_drain_plan::observation::FailureKind;

/// What went wrong, doing what.
#[derive(Clone, Debug, Error)]
pub(super) enum Problem {
    #[error("could not connect")]
    Connect(#[source] RedisError),
    #[error("could not publish")]
    Publish(#[source] RedisError),
    #[error("lost the connection while awaiting replies")]
    Receive(#[source] RedisError),
    #[error("could not count the queues of drain.gate")]
    Count(#[source] RedisError),
    #[error("could not subscribe to Celery's events")]
    Listen(#[source] RedisError),
    #[error("had no answer within {0:?}")]
    Silence(Duration),
    #[error("gave another answer than Redis gives")]
    Strange,
    /// Each Sentinel, and why it could not be asked.
    #[error("no Sentinel could be asked")]
    Sentinels(Vec<(String, Problem)>),
    #[error("{} no master called {name}", watch(sentinels))]
    NoSuchMaster { name: String, sentinels: Vec<String> },
    /// The server that the Sentinels name.
    #[error("the Sentinels name {at}, which")]
    Master { at: String, problem: Box<Problem> },
    #[error("the Sentinels name {at}, which is a replica still: a failover is under way")]
    NoMasterYet { at: String },
    /// A binding that another client joined with another separator.
    #[error("an application on this database joins the fields of bindings with {}, as {binding:?} shows, and transportOptions.sep is {ours:?}", separator(theirs.as_deref()))]
    Separator { ours: String, theirs: Option<String>, binding: String },
    #[error("{0}")]
    Settings(String),
}

fn separator(theirs: Option<&str>) -> String {
    theirs.map_or_else(|| String::from("another separator"), |theirs| format!("{theirs:?}"))
}

fn watch(sentinels: &[String]) -> String {
    let verb = if sentinels.len() == 1 { "watches" } else { "watch" };
    format!("{} {verb}", sentinels.join(", "))
}

impl Problem {
    /// Whether the connection is of no more use, and a new one may do better.
    pub(super) fn is_lost_connection(&self) -> bool {
        match self {
            Self::Connect(error)
            | Self::Publish(error)
            | Self::Receive(error)
            | Self::Count(error)
            | Self::Listen(error) => {
                // A master that was made a replica is one no longer, and another may be it now.
                error.is_unrecoverable_error() || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
            }
            Self::Separator { .. } => false,
            _ => true,
        }
    }

    /// Whether it may pass by itself in a moment.
    pub(super) fn may_pass(&self) -> bool {
        self.explain(false).0 == FailureKind::Unreachable
    }

    /// What sort of failure it is, and what helps. `has_password`: whether the broker's URL has one.
    pub(super) fn explain(&self, has_password: bool) -> (FailureKind, String) {
        match self {
            Self::Connect(error) | Self::Publish(error) | Self::Receive(error) => {
                let (kind, advice) = judge(error, has_password);
                (kind, with_advice(&format!("{self}: {error}"), advice))
            }
            Self::Count(error) => {
                let (kind, advice) = if is_refused(error) {
                    (FailureKind::Denied, PERMISSIONS_TO_COUNT)
                } else if error.code() == Some("WRONGTYPE") {
                    (FailureKind::Invalid, "what has that name is no queue")
                } else {
                    judge(error, has_password)
                };
                (kind, with_advice(&format!("{self}: {error}"), advice))
            }
            Self::Listen(error) => {
                let (kind, advice) = judge(error, has_password);
                let advice = if kind == FailureKind::Denied { LISTENING } else { advice };
                (kind, with_advice(&format!("{self}: {error}"), advice))
            }
            Self::Silence(_) | Self::Strange | Self::NoMasterYet { .. } => (FailureKind::Unreachable, self.to_string()),
            Self::NoSuchMaster { .. } => {
                let advice = "transportOptions.masterName is what follows \"sentinel monitor\" in their configuration";
                (FailureKind::Invalid, with_advice(&self.to_string(), advice))
            }
            Self::Settings(_) => (FailureKind::Invalid, self.to_string()),
            Self::Separator { .. } => (FailureKind::Invalid, with_advice(&self.to_string(), SEPARATORS)),
            Self::Master { problem, .. } => {
                let (kind, why) = problem.explain(has_password);
                (kind, format!("{self} {why}"))
            }
            Self::Sentinels(problems) => {
                let explained: Vec<_> =
                    problems.iter().map(|(at, problem)| (at, problem.kind(), problem.of_sentinel())).collect();
                // What a person has to do comes before what may pass by itself.
                let kinds = explained.iter().map(|(_, kind, _)| *kind);
                let kind = kinds.clone().find(|kind| *kind != FailureKind::Unreachable);
                let each: Vec<String> = explained.iter().map(|(at, _, why)| format!("{at}: {why}")).collect();
                (kind.unwrap_or(FailureKind::Unreachable), format!("{self}: {}", each.join("; ")))
            }
        }
    }

    fn kind(&self) -> FailureKind {
        self.explain(false).0
    }

    /// The password of a Sentinel is another one than that in the URL.
    fn of_sentinel(&self) -> String {
        match self {
            Self::Connect(error) if self.kind() == FailureKind::Denied => {
                let advice = "transportOptions.sentinelKwargs has the Sentinels' own user and password; those in the URL \
                              are the Redis servers'";
                with_advice(&format!("{self}: {error}"), advice)
            }
            _ => self.explain(false).1,
        }
    }
}

fn with_advice(text: &str, advice: &str) -> String {
    if advice.is_empty() { text.to_owned() } else { format!("{text}; {advice}") }
}

/// What a user needs beyond remote control.
const PERMISSIONS_TO_COUNT: &str = "to count queues the user needs the commands LLEN, EXISTS, HSCAN and SMEMBERS, and the queues' \
                               own keys: see docs/brokers.md";

/// The user has not the right.
pub(super) fn is_refused(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::NoPerm)) || error.to_string().contains("NOPERM")
}

/// What helps against two separators on one database.
const SEPARATORS: &str = "nothing was asked and nothing is left there, because an entry with the wrong one stops workers from \
                          answering anybody (kombu#2023): set transportOptions.sep to the application's own \
                          broker_transport_options[\"sep\"]; if two applications disagree, give each a database or a \
                          global_keyprefix; an entry of a worker that is gone for good may be removed (SREM)";

const LISTENING: &str = "the user needs the command PSUBSCRIBE, and the channels of Celery's events";

/// Redis says most of what it refuses by the first word of its answer.
fn judge(error: &RedisError, has_password: bool) -> (FailureKind, &'static str) {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::AuthenticationFailed => {
            (FailureKind::Denied, "the user or the password in the broker's URL is not the one that Redis has")
        }
        ErrorKind::Server(ServerErrorKind::NoPerm) => (
            FailureKind::Denied,
            "the user needs the commands PUBLISH, EVAL, BRPOP, RPOP, SADD, SREM, SMEMBERS, ZADD, SET, EXISTS and DEL, \
             and the keys and channels of Celery's remote control",
        ),
        ErrorKind::Server(ServerErrorKind::ReadOnly) => {
            (FailureKind::Invalid, "this is a replica: give the URL of the primary")
        }
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::CrossSlot) => (
            FailureKind::Invalid,
            "this is a Redis Cluster, which Celery does not run on: kombu has no transport for it",
        ),
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
        _ if text.to_lowercase().contains("certificate") => (
            FailureKind::Invalid,
            "for a private authority, give its certificate; the name in the URL must be in the broker's; and a broker \
                 may want one of ours",
        ),
        _ => (FailureKind::Unreachable, ""),
    }
}
