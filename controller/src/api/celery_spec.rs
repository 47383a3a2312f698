//! `spec.workers.celery`: Celery workers. The comments on fields are what `kubectl explain` shows.

#![allow(
    clippy::struct_field_names,
    reason = "…From says that it is read from elsewhere; KubeSchema repeats the struct"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    spec::SecretSource,
    values::{Duration, between},
};

/// Celery workers. Names of settings are Celery's and kombu's own, in camel case; give what the application gives, or
/// nobody will answer.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CelerySpec {
    /// Where the broker is: what the application has as `broker_url`.
    pub broker: BrokerSpec,
    /// How a task's workers are named, such as `worker@{taskId}`. Variables: `{taskId}`, `{privateDnsName}`,
    /// `{privateIp}`, `{runtimeId}`, `{containerName}`. Default: not given; workers are then matched to tasks by the
    /// names and addresses that ECS knows, and a task whose worker is not found is held and reported.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(
        validation = Rule::new(
            "self.contains('@') && self.matches('^[^{}%]*(\\\\{(taskId|privateDnsName|privateIp|runtimeId|containerName)\\\\}[^{}%]*)+$')"
        )
        .message(Message::Expression(
            "\"'\" + self + \"' does not tell one task's worker from another's: write name@host with one or more of \
             {taskId}, {privateDnsName}, {privateIp}, {runtimeId}, {containerName}, as in worker@{taskId}; \
             Celery's own %h, %n and %d are not known here\"".into()
        ))
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// Celery's `control_exchange`. Default: `celery`.
    #[serde(default = "default_control_exchange")]
    #[schemars(length(min = 1, max = 128))]
    pub control_exchange: String,
    /// Celery's events, by which a worker's last job is known to have ended at once and not only at the next look.
    /// `Listen` (default): while jobs are waited for, it is listened to what workers send by themselves: heartbeats, every
    /// two seconds, and with `-E` the ends of jobs. `Enable`: and workers that leave are told to send the ends of jobs; one
    /// that comes back is told to stop, if it was us who told it and the same process still runs; otherwise it goes on
    /// until `celery control disable_events` or its restart. `Ignore`: nobody listens. Nothing is ever decided on an
    /// event: it is a reason to look. Where the broker does not let us listen, a stop comes up to 10s later.
    #[serde(default)]
    pub events: EventsSpec,
    /// Celery's `event_exchange`. Default: `celeryev`.
    #[serde(default = "default_event_exchange")]
    #[schemars(length(min = 1, max = 128))]
    pub event_exchange: String,
    /// Celery's `broker_transport_options`, as far as they tell where things are on a Redis broker. Default: kombu's own.
    #[serde(default, skip_serializing_if = "TransportOptionsSpec::is_default")]
    pub transport_options: TransportOptionsSpec,
    /// How long replies are awaited when a worker that is expected does not answer: between 100ms and 1m. Default: 1s,
    /// Celery's own. Too short, and workers under load are taken for silent, which delays every drain; too long, and
    /// one dead worker slows every look.
    #[serde(default = "default_reply_timeout")]
    #[x_kube(validation = between("100ms", "1m", "workers need time to answer, and one dead worker must not stop all looks"))]
    pub reply_timeout: Duration,
}

fn default_control_exchange() -> String {
    String::from("celery")
}

fn default_event_exchange() -> String {
    String::from("celeryev")
}

fn default_reply_timeout() -> Duration {
    Duration::from_secs(1)
}

/// Whether Celery's events are listened to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum EventsSpec {
    #[default]
    /// To those that workers send by themselves.
    Listen,
    /// And workers that leave are told to send them.
    Enable,
    /// No.
    Ignore,
}

/// Where a broker is. Give exactly one of `url` and `urlFrom`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("[has(self.url), has(self.urlFrom)].exists_one(given, given)")
        .message("give exactly one of url and urlFrom"),
    // On the broker, not on the field itself, so that no version of the API server can show the value.
    validation = Rule::new(
        "!has(self.url) || !(self.url.matches('//[^@]*:.*@') || self.url.contains('password='))"
    )
    .message("url holds a password: put the whole URL into a Secret and name that in urlFrom.secretKeyRef")
    .field_path(".url"),
    validation = Rule::new("!has(self.tls) || !has(self.url) || self.url.matches('^ *(rediss|amqps|sentinel)://')")
    .message(
        "tls needs a broker that speaks it: write rediss:// or amqps:// (or sentinel://) in url, or leave tls out"
    )
    .field_path(".tls"),
    validation = Rule::new("!has(self.url) || !self.url.matches('^\\\\s*(?i:sqs)(\\\\+[a-z]+)?:')")
        .message(
            "Celery has no remote control over Amazon SQS: let the workers answer for themselves, with \
             spec.workers.http in place of spec.workers.celery (docs/http-worker.md)"
        )
        .field_path(".url")
)]
#[serde(rename_all = "camelCase")]
pub struct BrokerSpec {
    /// The URL of a broker without a password, such as `redis://cache.internal:6379/0`. One with a password belongs into
    /// a Secret: see `urlFrom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub url: Option<String>,
    /// Where the URL is read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_from: Option<SecretSource>,
    /// Certificates for a broker that speaks TLS: `rediss://`, `amqps://`. With `sentinel://` it says that the Redis
    /// servers speak TLS, and may be empty (`{}`). Default: the system's authorities are trusted, and we have no
    /// certificate of our own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
}

/// Certificates, in PEM, and where they are read from.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("has(self.certificateFrom) == has(self.keyFrom)")
        .message("certificateFrom and keyFrom go together: give both, or neither")
)]
#[serde(rename_all = "camelCase")]
pub struct TlsSpec {
    /// The certificates of the authorities to trust, instead of the system's. Default: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_from: Option<SecretSource>,
    /// Our own certificate, followed by those that lead to its authority, for a broker that wants one. A changed Secret
    /// is taken up by the operator within 30 s. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_from: Option<SecretSource>,
    /// The key of our own certificate, without a password. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_from: Option<SecretSource>,
}

/// kombu's transport options, as far as they tell where things are on a Redis broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransportOptionsSpec {
    /// `global_keyprefix`: comes before every key and channel. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub global_keyprefix: Option<String>,
    /// `fanout_prefix`: comes before every channel; `{db}` stands for the number of the database. Default: `/{db}.`, as
    /// kombu has for `True`. Where the application has `False`, write `""`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub fanout_prefix: Option<String>,
    /// `priority_steps`: the priorities that have lists of their own. Default: 0, 3, 6 and 9.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub priority_steps: Vec<u8>,
    /// `sep`: stands between a queue's name and a priority. Default: the two signs U+0006 and U+0016, as in kombu.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8))]
    pub sep: Option<String>,
    /// `unacked_key`: the hash of messages that are delivered and not acknowledged. Default: `unacked`. Of use to
    /// `drain.gate` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub unacked_key: Option<String>,
    /// `master_name`, for a broker at `sentinel://`: which of the masters that the Sentinels watch is the broker. There it
    /// must be given, and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub master_name: Option<String>,
    /// `sentinel_kwargs`, for a broker at `sentinel://`: how the Sentinels themselves are asked. Default: without a
    /// password and without TLS. The user and the password in the URL are the Redis servers'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel_kwargs: Option<SentinelKwargsSpec>,
}

/// How Redis Sentinels are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SentinelKwargsSpec {
    /// `username`. Default: the default user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub username: Option<String>,
    /// Where `password` is read from. Default: they have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_from: Option<SecretSource>,
    /// `ssl`: whether they speak TLS. They are trusted as `broker.tls` says. Default: false.
    #[serde(default)]
    pub ssl: bool,
}

impl TransportOptionsSpec {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
