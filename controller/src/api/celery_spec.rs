//! `spec.workers.celery`: Celery workers. The comments on fields are what `kubectl explain` shows.

#![allow(
    clippy::struct_field_names,
    reason = "…From says that it is read from elsewhere; KubeSchema repeats the struct"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    secret_ref::SecretSource,
    values::{Duration, between},
};

/// Celery workers. The settings have Celery's and kombu's own names, in camel case. Give the values that the application
/// has; with others, no worker answers.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.broker) != (has(self.brokers) && self.brokers.size() > 0)")
        .message("give exactly one of broker and brokers"),
    validation = Rule::new("!has(self.nodeName) || !has(self.nodeNames)").message("give one of nodeName and nodeNames")
)]
pub struct CelerySpec {
    /// The broker: the application's `broker_url`. Give exactly one of `broker` and `brokers`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<BrokerSpec>,
    /// The brokers of a fleet that moves from one to another: the new one, and the old one until the last task that uses it has
    /// ended. All of them are asked, and while one cannot be reached nothing is released. `transportOptions` and the
    /// exchanges are those of all.
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub brokers: Vec<BrokerSpec>,
    /// The names of a task's workers, such as `worker@{taskId}`. Variables: `{taskId}`, `{privateDnsName}`, `{hostName}`
    /// (its first label: Celery's `%n`), `{privateIp}`, `{runtimeId}`, `{containerId}` (its first twelve digits), `{containerName}`. One without `@` is a host, as for Celery: `w-{taskId}` is
    /// `celery@w-{taskId}`. Default: none; workers are matched to tasks by the names and
    /// addresses that ECS knows, and a task whose worker is not found is held and reported.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(
        validation = Rule::new(
            "self.matches('^[^{}%]*(\\\\{(taskId|privateDnsName|hostName|privateIp|runtimeId|containerId|containerName)\\\\}[^{}%]*)+$')"
        )
        .message(Message::Expression(
            "\"'\" + self + \"' does not tell one task's worker from another's: write what stands after -n, with one or more of \
             {taskId}, {privateDnsName}, {hostName}, {privateIp}, {runtimeId}, {containerId}, {containerName}, as in worker@{taskId}; \
             Celery's own %h, %n and %d have no meaning here\"".into()
        ))
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// As `nodeName`, where a task has several workers: a name for each, such as `heavy@{taskId}` and `light@{taskId}`. A task whose
    /// workers of all these names do not answer is not idle.
    #[schemars(length(max = 16), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(
        validation = Rule::new(
            "self.all(name, name.matches('^[^{}%]*(\\\\{(taskId|privateDnsName|hostName|privateIp|runtimeId|containerId|containerName)\\\\}[^{}%]*)+$'))"
        )
        .message(
            "each of nodeNames must tell one task's worker from another's: write what stands after -n, with one or more of \
             {taskId}, {privateDnsName}, {hostName}, {privateIp}, {runtimeId}, {containerId}, {containerName}, as in heavy@{taskId}"
        )
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_names: Vec<String>,
    /// How many workers each task has. As long as fewer are known, the task is not idle: one that has not answered yet may run
    /// jobs. Default: as many as `nodeNames` has names, if it has several; or else as many as were ever seen to answer together in a
    /// task of the same revision, and as the task has running containers of one image. Write 1 if the others of these containers are
    /// no workers.
    #[schemars(range(min = 1, max = 64))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers_per_task: Option<u32>,
    /// Celery's `control_exchange`. Default: `celery`.
    #[serde(default = "default_control_exchange")]
    #[schemars(length(min = 1, max = 128))]
    pub control_exchange: String,
    /// Whether worker-drain listens to Celery's events, which tell at once that a worker's last job has ended. `Listen`
    /// (default): while it waits for jobs, it listens to what workers send by default: heartbeats, every two seconds, and
    /// with `-E` the ends of jobs. `Enable`: it also tells leaving workers to send the ends of jobs. It tells a worker
    /// that is restored to stop, if it had told that worker to begin and the same process still runs; otherwise the
    /// worker goes on until `celery control disable_events` or its restart. `Ignore`: it does not listen. Nothing is
    /// decided on an event; an event only leads to an observation. Where the broker does not allow listening, a stop
    /// comes up to 10s later.
    #[serde(default)]
    pub events: EventsSpec,
    /// Celery's `event_exchange`. Default: `celeryev`.
    #[serde(default = "default_event_exchange")]
    #[schemars(length(min = 1, max = 128))]
    pub event_exchange: String,
    /// Those of Celery's `broker_transport_options` that name keys and channels on a Redis broker. Default: kombu's own.
    #[serde(default, skip_serializing_if = "TransportOptionsSpec::is_default")]
    pub transport_options: TransportOptionsSpec,
    /// How long to wait for the reply of an expected worker: between 100ms and 1m. Default: 1s, Celery's own. If it is too
    /// short, workers under load count as silent, which delays every drain; if it is too long, one dead worker slows
    /// every observation.
    #[serde(default = "default_reply_timeout")]
    #[x_kube(validation = between("100ms", "1m", "workers need time to answer, and one dead worker must not stop all observations"))]
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

/// Whether worker-drain listens to Celery's events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum EventsSpec {
    #[default]
    /// It listens to those that workers send by default.
    Listen,
    /// It also tells leaving workers to send them.
    Enable,
    /// It does not listen.
    Ignore,
}

/// A broker. Give exactly one of `url` and `urlFrom`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("[has(self.url), has(self.urlFrom)].exists_one(given, given)")
        .message("give exactly one of url and urlFrom"),
    // On the broker, not on the field itself, so that no version of the API server can show the value.
    validation = Rule::new(
        "!has(self.url) || !(self.url.matches('//[^@]*:.*@') || self.url.contains('password='))"
    )
    .message("url contains a password: put the whole URL in a Secret and name that in urlFrom.secretKeyRef")
    .field_path(".url"),
    validation = Rule::new("!has(self.tls) || !has(self.url) || self.url.matches('^ *(rediss|amqps|sentinel)://')")
    .message(
        "tls needs a broker that uses TLS: write rediss:// or amqps:// (or sentinel://) in url, or leave tls out"
    )
    .field_path(".tls"),
    validation = Rule::new("!has(self.url) || !self.url.matches('^\\\\s*(?i:sqs)(\\\\+[a-z]+)?:')")
        .message(
            "Celery has no remote control over Amazon SQS: let the workers answer over HTTP, with spec.workers.http in \
             place of spec.workers.celery (docs/http-worker.md)"
        )
        .field_path(".url")
)]
#[serde(rename_all = "camelCase")]
pub struct BrokerSpec {
    /// The URL of a broker without a password, such as `redis://cache.internal:6379/0`. A URL with a password belongs
    /// in a Secret: see `urlFrom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub url: Option<String>,
    /// The source of the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_from: Option<SecretSource>,
    /// Certificates for a broker that uses TLS: `rediss://`, `amqps://`. With `sentinel://` it says that the Redis servers
    /// use TLS, and may be empty (`{}`). Default: the system's certificate authorities are trusted, and no client
    /// certificate is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,
}

/// The sources of certificates, in PEM.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("has(self.certificateFrom) == has(self.keyFrom)")
        .message("certificateFrom and keyFrom go together: give both, or neither")
)]
#[serde(rename_all = "camelCase")]
pub struct TlsSpec {
    /// The certificates of the authorities to trust, in place of the system's. Default: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_from: Option<SecretSource>,
    /// The client certificate, followed by its intermediate certificates, for a broker that requires one. The operator
    /// reads a changed Secret within 30 s. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_from: Option<SecretSource>,
    /// The private key of the client certificate, without a password. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_from: Option<SecretSource>,
}

/// Those of kombu's transport options that name keys and channels on a Redis broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransportOptionsSpec {
    /// `global_keyprefix`: the prefix of every key and channel. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub global_keyprefix: Option<String>,
    /// `fanout_prefix`: the prefix of every channel; `{db}` stands for the number of the database. Default: `/{db}.`,
    /// kombu's value for `True`. Where the application has `False`, write `""`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub fanout_prefix: Option<String>,
    /// `priority_steps`: the priorities that have their own lists. Default: 0, 3, 6 and 9.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub priority_steps: Vec<u8>,
    /// `sep`: the separator between a queue's name and a priority, and between the fields of a binding. Default: U+0006 and
    /// U+0016, as in kombu. With another one than the application's nothing is asked, because that would stop its workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8))]
    pub sep: Option<String>,
    /// `unacked_key`: the hash of messages that are delivered and not acknowledged. Default: `unacked`. Only `drain.gate`
    /// uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub unacked_key: Option<String>,
    /// `master_name`: which of the masters that the Sentinels watch is the broker. Required for a broker at `sentinel://`;
    /// no other broker uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub master_name: Option<String>,
    /// `sentinel_kwargs`: the connection to the Sentinels of a broker at `sentinel://`. Default: no password and no TLS. The
    /// user and the password in the URL are those of the Redis servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel_kwargs: Option<SentinelKwargsSpec>,
}

/// The connection to Redis Sentinels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SentinelKwargsSpec {
    /// `username`. Default: Redis' default user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub username: Option<String>,
    /// The source of `password`. Default: no password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_from: Option<SecretSource>,
    /// `ssl`: whether the Sentinels use TLS. `broker.tls` says which authorities are trusted. Default: false.
    #[serde(default)]
    pub ssl: bool,
}

impl TransportOptionsSpec {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
