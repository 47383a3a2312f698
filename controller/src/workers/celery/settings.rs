//! The settings of a Celery broker and its workers: plain data, checked before anything is connected to.

use std::{fmt, time::Duration};

use thiserror::Error;

use super::{
    match_nodes::Naming,
    template::{Template, TemplateError},
};
use crate::tls::{TlsError, TlsSettings};

/// How to reach a fleet's Celery workers.
///
/// [`CelerySettings::new`] has Celery's own defaults for all but the URL. Nothing is checked before
/// [`Broker::open`](super::Broker::open) or [`Celery::open`](super::Celery::open).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CelerySettings {
    /// Where the broker is: what Celery calls `broker_url`.
    pub url: BrokerUrl,
    /// How nodes are named, such as `worker@{taskId}`. Those that no name fits are matched by what is known of their task.
    pub node_names: Vec<String>,
    /// Celery's `control_exchange`.
    pub control_exchange: String,
    /// Whether Celery's events are listened to.
    pub listening: Listening,
    /// Celery's `event_exchange`.
    pub event_exchange: String,
    /// Celery's `broker_transport_options`, as far as they change names.
    pub transport_options: TransportOptions,
    /// How Redis Sentinels are asked, for `sentinel://`.
    pub sentinel: SentinelSettings,
    /// Whom we trust, and who we are. For `sentinel://` it may be present and empty: then the Redis servers speak TLS.
    pub tls: Option<TlsSettings>,
    /// How long replies are awaited when not all are known to have come.
    pub reply_bound: Duration,
    /// How long it may take to connect, and each single operation on the broker.
    pub operation_bound: Duration,
}

/// Whether Celery's events are listened to while jobs are waited for, so that their ends are known at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listening {
    /// No.
    Ignore,
    /// To those that workers send by themselves: heartbeats, and with `-E` the ends of jobs.
    Listen,
    /// And the events of jobs are switched on in workers whose jobs are waited for.
    Enable,
}

/// The options of Celery's `broker_transport_options` that change names on a Redis broker, with kombu's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportOptions {
    /// `global_keyprefix`: comes before every key and channel.
    pub global_keyprefix: String,
    /// `fanout_prefix`: comes before every channel.
    pub fanout_prefix: FanoutPrefix,
    /// `priority_steps`: the priorities that have their own lists.
    pub priority_steps: Vec<u8>,
    /// `sep`: stands between a queue's name and a priority.
    pub sep: String,
    /// `unacked_key`: the hash of messages that are delivered and not acknowledged.
    pub unacked_key: String,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self {
            global_keyprefix: String::new(),
            fanout_prefix: FanoutPrefix::Database,
            priority_steps: vec![0, 3, 6, 9],
            sep: "\x06\x16".into(),
            unacked_key: "unacked".into(),
        }
    }
}

/// What comes before a channel's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FanoutPrefix {
    /// `true`: `/{db}.`, with the number of the database.
    #[default]
    Database,
    /// `false`: nothing.
    None,
    /// This text, in which `{db}` is the number of the database. kombu understands its own messages only when it begins
    /// with `/` and its only dot is its end, as in `/{db}/ours.`.
    Text(String),
}

impl FanoutPrefix {
    pub(super) fn for_database(&self, database: u32) -> String {
        match self {
            Self::Database => format!("/{database}."),
            Self::None => String::new(),
            Self::Text(text) => text.replace("{db}", &database.to_string()),
        }
    }

    /// What kombu before 5.4 has with Sentinel, where it forgets to fill in the number of the database; `None`: the same.
    pub(super) fn unfilled(&self) -> Option<String> {
        match self {
            Self::Database => Some("/{db}.".into()),
            Self::Text(text) if text.contains("{db}") => Some(text.clone()),
            Self::None | Self::Text(_) => None,
        }
    }
}

/// How Redis Sentinels are asked: kombu's `master_name` and `sentinel_kwargs`. The user and the password in the URL are
/// for the Redis servers, and not for them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SentinelSettings {
    /// `master_name`: which of the masters that they watch is the broker.
    pub master_name: Option<String>,
    /// Their user, if they have any but the default one.
    pub username: Option<String>,
    /// Their password, if they have one.
    pub password: Option<String>,
    /// Whether they speak TLS. They are trusted as the Redis servers are.
    pub tls: bool,
}

impl fmt::Debug for SentinelSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { master_name, username, password, tls } = self;
        let password = password.as_ref().map(|_| "***");
        f.debug_struct("SentinelSettings")
            .field("master_name", master_name)
            .field("username", username)
            .field("password", &password)
            .field("tls", tls)
            .finish()
    }
}

impl CelerySettings {
    /// Celery's defaults, a reply bound of 1 s (Celery's own) and an operation bound of 2 s.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: BrokerUrl(url.into()),
            node_names: Vec::new(),
            control_exchange: "celery".into(),
            listening: Listening::Listen,
            event_exchange: "celeryev".into(),
            transport_options: TransportOptions::default(),
            sentinel: SentinelSettings::default(),
            tls: None,
            reply_bound: Duration::from_secs(1),
            operation_bound: Duration::from_secs(2),
        }
    }

    /// How nodes are recognised.
    pub fn naming(&self) -> Result<Naming, SettingsError> {
        if self.node_names.is_empty() {
            return Ok(Naming::Automatic);
        }
        let templates = self.node_names.iter().map(|template| template.parse::<Template>());
        Ok(Naming::Templates(templates.collect::<Result<_, _>>().map_err(SettingsError::NodeName)?))
    }

    /// The parts that no transport checks.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        if self.control_exchange.is_empty() {
            return Err(SettingsError::NoControlExchange);
        }
        for (name, bound) in [("reply bound", self.reply_bound), ("operation bound", self.operation_bound)] {
            if bound < Duration::from_millis(10) || bound > Duration::from_mins(1) {
                return Err(SettingsError::Bound { name, bound });
            }
        }
        Ok(())
    }
}

/// A broker's URL. It may hold a password, so that neither `Display` nor `Debug` shows one.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl(String);

impl BrokerUrl {
    /// The URL with its password. For connecting, never for showing.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The URLs of a list. Celery parts them at `;`; at `,` too is what the configuration of many other clients does. What
    /// follows must begin with a scheme, because both characters may be part of a password.
    pub(super) fn list(&self) -> Vec<&str> {
        let begins_url = |text: &str| {
            let scheme = text.trim_start().split_once("://").map(|(scheme, _)| scheme);
            scheme.is_some_and(|scheme| {
                !scheme.is_empty() && scheme.chars().all(|sign| sign.is_ascii_alphanumeric() || "+-.".contains(sign))
            })
        };
        let list = self.0.as_str();
        let mut urls = Vec::new();
        let mut begin = 0;
        for (at, _) in list.match_indices([',', ';']) {
            let rest = &list[at + 1..];
            if begins_url(rest) || rest.trim().is_empty() {
                urls.push(&list[begin..at]);
                begin = at + 1;
            }
        }
        urls.push(&list[begin..]);
        urls.into_iter().map(str::trim).filter(|url| !url.is_empty()).collect()
    }

    /// What stands before the first `://`, in small letters.
    pub(super) fn scheme(&self) -> Result<String, SettingsError> {
        if self.0.trim().is_empty() {
            return Err(SettingsError::NoUrl);
        }
        let scheme = self.0.trim_start().split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        scheme.ok_or_else(|| SettingsError::Url { why: "it has no scheme, such as redis:// or amqp://".into() })
    }
}

impl<T: Into<String>> From<T> for BrokerUrl {
    fn from(url: T) -> Self {
        Self(url.into())
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else { return f.write_str("***") };
        // Passwords stand before the last @, and may stand in the query too. A password that was not encoded may hold
        // any of these characters: rather too little is shown than too much.
        match rest.rsplit_once('@') {
            Some((user, rest)) => {
                let user = user.split_once(':').map_or("", |(user, _)| user);
                write!(f, "{scheme}://{user}:***@{}", rest.split('?').next().unwrap_or_default())
            }
            None => write!(f, "{scheme}://{}", rest.split('?').next().unwrap_or_default()),
        }
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BrokerUrl({self})")
    }
}

/// What is wrong with [`CelerySettings`]. Messages name the thing, its value unless that is secret, and what is right.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// No URL, or one of spaces.
    #[error(
        "the broker's URL is empty: give what Celery has as broker_url, such as redis://host:6379/0 or amqp://host:5672//"
    )]
    NoUrl,
    /// It is no URL.
    #[error("the broker's URL cannot be read: {why}; it must be of the form redis://[user][:password]@host:port/db")]
    Url {
        /// What is wrong with it.
        why: String,
    },
    /// It is no URL of a RabbitMQ broker.
    #[error(
        "the broker's URL cannot be read: {why}; it must be of the form amqp://[user[:password]]@host:port/virtual-host"
    )]
    AmqpUrl {
        /// What is wrong with it.
        why: String,
    },
    /// Brokers of several kinds.
    #[error("{scheme}:// among URLs of the same broker that begin with {first}://")]
    Mixed {
        /// The scheme that is not like the first.
        scheme: String,
        /// The first.
        first: &'static str,
    },
    /// Several URLs, which Celery takes as replacements for one another.
    #[error("the broker's URL is a list of {count}: give the one that is in use")]
    SeveralUrls {
        /// How many.
        count: usize,
    },
    /// Sentinels without the name of what they watch.
    #[error(
        "a broker at sentinel:// needs transportOptions.masterName: what the application has as \"master_name\" in \
         broker_transport_options, and the Sentinels after \"sentinel monitor\""
    )]
    NoMasterName,
    /// Sentinels' settings for something else.
    #[error("{field} is for Redis Sentinel: the broker's URL begins with {scheme}://, and not with sentinel://")]
    NotForSentinel {
        /// Which.
        field: &'static str,
        /// The URL's scheme.
        scheme: String,
    },
    /// A list of Sentinels whose URLs say different things.
    #[error(
        "the URLs of the Sentinels name different {what}: Celery takes it from whichever URL it connects with, so give all \
         of them the same"
    )]
    SentinelsDiffer {
        /// What differs.
        what: &'static str,
    },
    /// TLS where none is spoken.
    #[error("broker.tls is given, and {scheme}:// speaks no TLS: write {instead}, or leave broker.tls out")]
    NoTls {
        /// The URL's scheme.
        scheme: String,
        /// What speaks TLS.
        instead: &'static str,
    },
    /// Redis Cluster.
    #[error(
        "a broker at {scheme}:// is a Redis Cluster, on which Celery itself does not run: kombu has no transport for it"
    )]
    Cluster {
        /// The scheme.
        scheme: String,
    },
    /// Amazon SQS.
    #[error(
        "a broker at {scheme}:// cannot be asked anything: Celery has no remote control over Amazon SQS, so that its \
         workers can neither be told to stop consuming nor say what they run; let them answer for themselves, with \
         spec.workers.http in place of spec.workers.celery (docs/http-worker.md)"
    )]
    Sqs {
        /// The scheme.
        scheme: String,
    },
    /// A scheme that nobody has.
    #[error(
        "{scheme}:// is not a broker that is known: amqp://, amqps://, redis://, rediss://, sentinel://, redis+socket:// \
         and unix:// are"
    )]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// A database that cannot be.
    #[error("{value:?} is not a database of Redis: give a number, as in redis://host:6379/0")]
    Database {
        /// What the URL has.
        value: String,
    },
    /// The naming of nodes.
    #[error(transparent)]
    NodeName(TemplateError),
    /// No name for the control exchange.
    #[error("controlExchange is empty: Celery's default is \"celery\"")]
    NoControlExchange,
    /// A bound that makes no sense.
    #[error("the {name} of {bound:?} is not between 10 ms and 1 min")]
    Bound {
        /// Which.
        name: &'static str,
        /// Its value.
        bound: Duration,
    },
    /// A certificate or a key that cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{BrokerUrl, CelerySettings, FanoutPrefix};

    #[rstest]
    #[case("redis://:hunter2@cache:6379/3", "redis://:***@cache:6379/3")]
    #[case("rediss://app:hunter2@cache/0?ssl_cert_reqs=none", "rediss://app:***@cache/0")]
    #[case("redis://cache:6379/0?password=hunter2", "redis://cache:6379/0")]
    #[case("redis://:hun@ter2/@cache:6379/0", "redis://:***@cache:6379/0")]
    #[case("redis+socket://:hunter2@/run/redis.sock", "redis+socket://:***@/run/redis.sock")]
    #[case("amqp://app:hunter2@a;amqp://app:hunter2@b:5673//", "amqp://app:***@b:5673//")]
    #[case("hunter2", "***")]
    fn a_password_is_never_shown(#[case] url: &str, #[case] shown: &str) {
        assert_eq!(BrokerUrl::from(url).to_string(), shown);
        assert!(!format!("{:?}", CelerySettings::new(url)).contains("ter2"));
    }

    #[test]
    fn a_channel_has_the_prefix_that_kombu_gives_it() {
        assert_eq!(FanoutPrefix::default().for_database(3), "/3.");
        assert_eq!(FanoutPrefix::None.for_database(3), "");
        assert_eq!(FanoutPrefix::Text("/team-{db}/".into()).for_database(3), "/team-3/");
    }
}
