//! From the resource to what the loop works with: the policy, and where fleet and workers are.

use std::fmt;

use jiff::SignedDuration;
use kube::ResourceExt;
use worker_drain_plan::policy::{
    Deadline, DeadlineAction, DrainPolicy, Gate, HoldMode, HoldPolicy, Mode, Policy, Scheduled,
};

use super::{
    check::{self, Problem},
    http_spec::{HttpSpec, SchemeSpec},
    spec::{
        BrokerSpec, CelerySpec, DeadlineActionSpec, DeadlineSpec, EcsSpec, EventsSpec, GateSpec, HoldModeSpec,
        ModeSpec, ScheduledSpec, SecretKeyRef, SecretSource, TlsSpec, TransportOptionsSpec, WorkerDrain,
        WorkerDrainSpec, WorkersSpec,
    },
};

/// A resource, parsed once. Whoever has one need not look at the resource again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainSpec {
    /// The resource's name.
    pub name: String,
    /// Its namespace; `None` if a manifest leaves it to whoever applies it.
    pub namespace: Option<String>,
    /// What the user asked for.
    pub policy: Policy,
    /// Where the fleet is.
    pub ecs: EcsTarget,
    /// Where the workers are.
    pub workers: WorkersTarget,
}

/// A service of Amazon ECS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EcsTarget {
    /// The cluster's name or ARN.
    pub cluster: String,
    /// The service's name or ARN.
    pub service: String,
    /// The region; `None`: the environment's.
    pub region: Option<String>,
    /// A role to assume; `None`: the environment's credentials are used.
    pub role_arn: Option<String>,
}

/// Workers of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one for each drain")]
pub enum WorkersTarget {
    /// Celery workers, through their broker.
    Celery(CeleryTarget),
    /// Workers that answer for themselves over HTTP.
    Http(HttpTarget),
}

impl WorkersTarget {
    /// The field that describes them.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Celery(_) => "spec.workers.celery",
            Self::Http(_) => "spec.workers.http",
        }
    }

    /// Every key of a Secret that is needed to reach them, after the field that names it.
    pub fn secrets(&self) -> Vec<(&'static str, &SecretKeyRef)> {
        match self {
            Self::Celery(target) => target.secrets(),
            Self::Http(HttpTarget { token, https, .. }) => {
                let authorities = https.as_ref().and_then(|https| https.authorities.as_ref());
                let token = token.iter().map(|key| ("spec.workers.http.tokenFrom.secretKeyRef", key));
                token.chain(authorities.map(|key| ("spec.workers.http.caFrom.secretKeyRef", key))).collect()
            }
        }
    }
}

/// Celery workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CeleryTarget {
    /// Where the broker's URL is.
    pub broker: BrokerSource,
    /// How a task's nodes are named; `None`: they are matched automatically.
    pub node_name: Option<String>,
    /// Celery's `control_exchange`.
    pub control_exchange: String,
    /// Whether Celery's events are listened to.
    pub events: EventsSpec,
    /// Celery's `event_exchange`.
    pub event_exchange: String,
    /// kombu's options for names on a Redis broker.
    pub transport_options: TransportOptionsSpec,
    /// How long replies are awaited.
    pub reply_timeout: SignedDuration,
    /// Certificates for the broker; `None`: nothing is said of TLS but in its URL.
    pub tls: Option<TlsSpec>,
}

impl CeleryTarget {
    fn secrets(&self) -> Vec<(&'static str, &SecretKeyRef)> {
        let mut named = Vec::new();
        if let BrokerSource::Secret(key) = &self.broker {
            named.push(("spec.workers.celery.broker.urlFrom.secretKeyRef", key));
        }
        let TlsSpec { ca_from, certificate_from, key_from } = self.tls.as_ref().unwrap_or(&NO_TLS);
        let password_from = self.transport_options.sentinel_kwargs.as_ref().and_then(|own| own.password_from.as_ref());
        let optional = [
            ("spec.workers.celery.broker.tls.caFrom.secretKeyRef", ca_from.as_ref()),
            ("spec.workers.celery.broker.tls.certificateFrom.secretKeyRef", certificate_from.as_ref()),
            ("spec.workers.celery.broker.tls.keyFrom.secretKeyRef", key_from.as_ref()),
            ("spec.workers.celery.transportOptions.sentinelKwargs.passwordFrom.secretKeyRef", password_from),
        ];
        named.extend(optional.into_iter().filter_map(|(field, source)| Some((field, &source?.secret_key_ref))));
        named
    }
}

const NO_TLS: TlsSpec = TlsSpec { ca_from: None, certificate_from: None, key_from: None };
/// Workers that answer for themselves over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTarget {
    /// The port that each listens on.
    pub port: u16,
    /// Where the contract is served.
    pub path: String,
    /// The token that they are shown; `None`: none.
    pub token: Option<SecretKeyRef>,
    /// By TLS; `None`: in the clear.
    pub https: Option<HttpsTarget>,
    /// How long an answer may take.
    pub reply_timeout: SignedDuration,
}

/// HTTP by TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsTarget {
    /// The name that certificates are for; `None`: the address that is asked.
    pub server_name: Option<String>,
    /// The authorities to trust; `None`: the system's.
    pub authorities: Option<SecretKeyRef>,
}

/// Where a broker's URL is.
#[derive(Clone, PartialEq, Eq)]
pub enum BrokerSource {
    /// Here; without a password.
    Url(String),
    /// In a Secret of the resource's namespace.
    Secret(SecretKeyRef),
}

impl fmt::Debug for BrokerSource {
    // A URL is to have no password here, but whoever prints one of these did not check that.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(_) => f.write_str("Url(…)"),
            Self::Secret(secret) => f.debug_tuple("Secret").field(secret).finish(),
        }
    }
}

impl DrainSpec {
    /// Reads one document that says it is a `WorkerDrain`; or tells all that is wrong with it.
    pub fn parse(document: &serde_json::Value) -> Result<Self, Vec<Problem>> {
        Self::try_from(&check::parse(document)?)
    }

    /// Namespace and name, as people write them.
    pub fn full_name(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

impl TryFrom<&WorkerDrain> for DrainSpec {
    type Error = Vec<Problem>;

    fn try_from(resource: &WorkerDrain) -> Result<Self, Vec<Problem>> {
        // An API server has refused these already; but it may have had an older CRD.
        let mut problems = Vec::new();
        let WorkerDrainSpec { fleet, workers, .. } = &resource.spec;
        if fleet.ecs.is_none() {
            problems.push(Problem::new("spec.fleet", "give exactly one kind of fleet: ecs"));
        }
        let target = workers_target(workers).map_err(|problem| problems.push(problem)).ok();
        let policy = policy(resource).map_err(|problem| problems.push(problem)).ok();
        match (&fleet.ecs, target, policy) {
            (Some(ecs), Some(workers), Some(policy)) if problems.is_empty() => Ok(Self {
                name: resource.name_any(),
                namespace: resource.namespace(),
                policy,
                ecs: ecs_target(ecs),
                workers,
            }),
            _ => Err(problems),
        }
    }
}

fn ecs_target(EcsSpec { cluster, service, region, role_arn }: &EcsSpec) -> EcsTarget {
    EcsTarget { cluster: cluster.clone(), service: service.clone(), region: region.clone(), role_arn: role_arn.clone() }
}

fn workers_target(WorkersSpec { celery, http }: &WorkersSpec) -> Result<WorkersTarget, Problem> {
    match (celery, http) {
        (Some(celery), None) => celery_target(celery).map(WorkersTarget::Celery),
        (None, Some(http)) => Ok(WorkersTarget::Http(http_target(http))),
        _ => Err(Problem::new("spec.workers", "give exactly one kind of workers: celery or http")),
    }
}

fn http_target(spec: &HttpSpec) -> HttpTarget {
    let HttpSpec { port, path, scheme, token_from, server_name, ca_from, reply_timeout } = spec;
    let key = |source: &Option<SecretSource>| source.as_ref().map(|source| source.secret_key_ref.clone());
    let https = HttpsTarget { server_name: server_name.clone(), authorities: key(ca_from) };
    HttpTarget {
        port: *port,
        path: path.clone(),
        token: key(token_from),
        https: (*scheme == SchemeSpec::Https).then_some(https),
        reply_timeout: reply_timeout.get(),
    }
}

fn celery_target(spec: &CelerySpec) -> Result<CeleryTarget, Problem> {
    let CelerySpec { broker, node_name, control_exchange, events, event_exchange, transport_options, reply_timeout } =
        spec;
    Ok(CeleryTarget {
        broker: broker_source(broker)?,
        node_name: node_name.clone(),
        control_exchange: control_exchange.clone(),
        events: *events,
        event_exchange: event_exchange.clone(),
        transport_options: transport_options.clone(),
        reply_timeout: reply_timeout.get(),
        tls: broker.tls.clone(),
    })
}

fn broker_source(BrokerSpec { url, url_from, tls: _ }: &BrokerSpec) -> Result<BrokerSource, Problem> {
    match (url, url_from) {
        (Some(url), None) => Ok(BrokerSource::Url(url.clone())),
        (None, Some(source)) => Ok(BrokerSource::Secret(source.secret_key_ref.clone())),
        _ => Err(Problem::new("spec.workers.celery.broker", "give exactly one of url and urlFrom")),
    }
}

fn policy(resource: &WorkerDrain) -> Result<Policy, Problem> {
    let WorkerDrainSpec { fleet: _, workers: _, hold, drain, mode, paused } = &resource.spec;
    let hold_mode = match hold.mode {
        HoldModeSpec::Standing => HoldMode::Standing,
        HoldModeSpec::OnRollout => HoldMode::OnRollout,
    };
    let scale_in = drain.scale_in.unwrap_or(hold_mode == HoldMode::Standing);
    if scale_in && hold_mode == HoldMode::OnRollout {
        return Err(Problem::new("spec.drain.scaleIn", "true needs hold.mode Standing"));
    }
    Ok(Policy {
        hold: HoldPolicy { mode: hold_mode, expires_in: hold.expires_in.get() },
        drain: DrainPolicy {
            min_consuming_percent: drain.min_consuming.map(super::values::Percent::get),
            idle_for: drain.idle_for.get(),
            scheduled: match drain.scheduled {
                ScheduledSpec::Ignore => Scheduled::Ignore,
                ScheduledSpec::Wait => Scheduled::Wait,
            },
            deadline: drain.deadline.as_ref().map(deadline),
            scale_in,
            gate: drain.gate.as_ref().map(gate),
        },
        mode: match mode {
            ModeSpec::Enforce => Mode::Enforce,
            ModeSpec::Plan => Mode::Plan,
        },
        paused: *paused,
        withdrawn: resource.metadata.deletion_timestamp.is_some(),
    })
}

fn deadline(DeadlineSpec { after, action }: &DeadlineSpec) -> Deadline {
    let action = match action {
        DeadlineActionSpec::Hold => DeadlineAction::Hold,
        DeadlineActionSpec::PermitStop => DeadlineAction::PermitStop,
    };
    Deadline { after: after.get(), action }
}

fn gate(GateSpec { queues_empty }: &GateSpec) -> Gate {
    Gate { queues_empty: queues_empty.iter().map(|name| name.as_str().into()).collect(), awaited: false }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use rstest::rstest;
    use serde_json::{Value, json};
    use worker_drain_plan::policy::{DeadlineAction, HoldMode, Mode, Scheduled};

    use super::{BrokerSource, DrainSpec, HttpTarget, HttpsTarget, SecretKeyRef, WorkersTarget};

    fn manifest(change: impl FnOnce(&mut Value)) -> Value {
        let mut manifest = json!({
            "apiVersion": "workerdrain.io/v1alpha1",
            "kind": "WorkerDrain",
            "metadata": {"name": "transcoder", "namespace": "media"},
            "spec": {
                "fleet": {"ecs": {"cluster": "media", "service": "transcoder"}},
                "workers": {"celery": {"broker": {"url": "redis://cache:6379/0"}}},
            },
        });
        change(&mut manifest);
        manifest
    }

    fn problems(manifest: &Value) -> Vec<String> {
        DrainSpec::parse(manifest).err().into_iter().flatten().map(|problem| problem.to_string()).collect()
    }

    #[test]
    fn the_least_manifest_has_the_defaults_that_are_documented() {
        let drain = DrainSpec::parse(&manifest(|_| {})).unwrap();
        assert_eq!(drain.full_name(), "media/transcoder");
        let WorkersTarget::Celery(celery) = drain.workers else { panic!("celery was asked for") };
        assert_eq!(celery.broker, BrokerSource::Url("redis://cache:6379/0".into()));
        assert_eq!(celery.control_exchange, "celery");
        assert_eq!(celery.reply_timeout, SignedDuration::from_secs(1));
        let policy = drain.policy;
        assert_eq!(policy.hold.mode, HoldMode::Standing);
        assert_eq!(policy.hold.expires_in, SignedDuration::from_hours(2));
        assert_eq!(policy.drain.min_consuming_percent, None);
        assert_eq!(policy.drain.idle_for, SignedDuration::from_secs(1));
        assert_eq!(policy.drain.scheduled, Scheduled::Ignore);
        assert_eq!(policy.drain.deadline, None);
        assert!(policy.drain.scale_in);
        assert_eq!(policy.mode, Mode::Enforce);
        assert!(!policy.paused && !policy.withdrawn);
    }

    #[test]
    fn every_field_that_is_given_counts() {
        let drain = DrainSpec::parse(&manifest(|manifest| {
            manifest["spec"]["hold"] = json!({"mode": "OnRollout", "expiresIn": "1h30m"});
            manifest["spec"]["drain"] = json!({
                "minConsuming": "0%", "idleFor": "5s", "scheduled": "Wait",
                "deadline": {"after": "12h", "action": "PermitStop"}, "gate": {"queuesEmpty": ["slow", "fast", "slow"]},
            });
            manifest["spec"]["mode"] = json!("Plan");
            manifest["spec"]["paused"] = json!(true);
        }))
        .unwrap();
        assert_eq!(drain.policy.hold.expires_in, SignedDuration::from_mins(90));
        assert_eq!(drain.policy.drain.min_consuming_percent, Some(0));
        assert_eq!(drain.policy.drain.scheduled, Scheduled::Wait);
        assert_eq!(drain.policy.drain.deadline.unwrap().action, DeadlineAction::PermitStop);
        assert!(!drain.policy.drain.scale_in, "left out, it is false with OnRollout");
        let gate = drain.policy.drain.gate.unwrap();
        assert_eq!((gate.queues_empty, gate.awaited), (["fast".into(), "slow".into()].into(), false));
        assert_eq!(drain.policy.mode, Mode::Plan);
        assert!(drain.policy.paused);
    }

    fn http(http: &Value) -> Value {
        manifest(|manifest| manifest["spec"]["workers"] = json!({"http": http}))
    }

    #[test]
    fn http_workers_have_the_defaults_that_are_documented() {
        let drain = DrainSpec::parse(&http(&json!({"port": 8765}))).unwrap();
        let reply_timeout = SignedDuration::from_secs(5);
        let least = HttpTarget { port: 8765, path: "/worker-drain".into(), token: None, https: None, reply_timeout };
        assert_eq!(drain.workers, WorkersTarget::Http(least));
        assert!(drain.workers.secrets().is_empty());
    }

    #[test]
    fn every_field_of_http_workers_counts() {
        let from = |key: &str| json!({"secretKeyRef": {"name": "drain", "key": key}});
        let given = json!({
            "port": 443, "path": "/x", "scheme": "https", "tokenFrom": from("token"), "caFrom": from("ca"),
            "serverName": "worker.internal", "replyTimeout": "2s",
        });
        let drain = DrainSpec::parse(&http(&given)).unwrap();
        let key = |key: &str| SecretKeyRef { name: "drain".into(), key: key.into() };
        let https = HttpsTarget { server_name: Some("worker.internal".into()), authorities: Some(key("ca")) };
        let expected = HttpTarget {
            port: 443,
            path: "/x".into(),
            token: Some(key("token")),
            https: Some(https),
            reply_timeout: SignedDuration::from_secs(2),
        };
        assert_eq!(drain.workers, WorkersTarget::Http(expected));
        let fields: Vec<&str> = drain.workers.secrets().into_iter().map(|(field, _)| field).collect();
        let expected = ["spec.workers.http.tokenFrom.secretKeyRef", "spec.workers.http.caFrom.secretKeyRef"];
        assert_eq!(fields, expected);
    }

    #[rstest]
    #[case(json!({}), "spec.workers.http.port: is missing")]
    #[case(json!({"port": 0}), "spec.workers.http.port: 0 is to be a number from 1 to 65535")]
    #[case(json!({"port": 70000}), "spec.workers.http.port: 70000 is to be a number from 1 to 65535")]
    #[case(json!({"port": "8765"}), "spec.workers.http.port: '8765' is to be a whole number")]
    #[case(json!({"port": 1, "path": "drain"}), "spec.workers.http.path: 'drain' is not a path: write one that begins with \
        /, such as /worker-drain, without ? and #")]
    #[case(json!({"port": 1, "path": "/a?b"}), "spec.workers.http.path: '/a?b' is not a path: write one that begins with \
        /, such as /worker-drain, without ? and #")]
    #[case(json!({"port": 1, "scheme": "HTTPS"}), "spec.workers.http.scheme: 'HTTPS' is to be one of http, https (did you \
        mean https?)")]
    #[case(json!({"port": 1, "serverName": "a.b"}), "spec.workers.http.scheme: serverName and caFrom are for scheme https: \
        add it, or leave them out")]
    #[case(json!({"port": 1, "token": "hunter2"}), "spec.workers.http.token: unknown field (did you mean tokenFrom?)")]
    #[case(json!({"port": 1, "replyTimeout": "1m"}), "spec.workers.http.replyTimeout: 1m is not between 100ms and 10s: \
        workers need time to answer, and an answer counts for 15s from its question on")]
    fn what_is_wrong_with_http_workers_is_said(#[case] given: Value, #[case] expected: &str) {
        assert_eq!(problems(&http(&given)), [expected]);
    }

    #[test]
    fn the_sum_of_a_proof_is_that_of_the_kind_of_workers() {
        let mut manifest = http(&json!({"port": 1}));
        manifest["spec"]["hold"] = json!({"expiresIn": "1m"});
        manifest["spec"]["drain"] = json!({"idleFor": "30s"});
        let expected = "spec.hold.expiresIn: hold.expiresIn (1m) is too short: half of it must last for a proof of \
                        idleness, drain.idleFor (30s) + 2 × workers.http.replyTimeout (5s) = 40s; make it 80s or more";
        assert_eq!(problems(&manifest), [expected]);
    }

    #[rstest]
    #[case("sqs://")]
    #[case("SQS://queue.internal")]
    #[case(" sqs+https://queue.internal")]
    fn a_broker_that_has_no_remote_control_is_refused_with_the_way_out(#[case] url: &str) {
        let manifest = manifest(|manifest| manifest["spec"]["workers"]["celery"]["broker"]["url"] = json!(url));
        let problems = problems(&manifest);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(
            problems[0].starts_with("spec.workers.celery.broker.url: Celery has no remote control over Amazon SQS")
        );
        assert!(problems[0].contains("spec.workers.http") && problems[0].contains("docs/http-worker.md"));
    }

    #[rstest]
    #[case(json!({}))]
    #[case(json!({"celery": {"broker": {"url": "redis://cache"}}, "http": {"port": 1}}))]
    fn exactly_one_kind_of_workers_is_taken(#[case] workers: Value) {
        let manifest = manifest(|manifest| manifest["spec"]["workers"] = workers);
        assert_eq!(problems(&manifest), ["spec.workers: give exactly one kind of workers: celery or http"]);
    }

    #[rstest]
    #[case::two_hours_and_a_bit(json!({"hold": {"expiresIn": "48h1s"}}), &[
        "spec.hold.expiresIn: 48h1s is not between 1m and 48h: ECS grants holds of whole minutes, of 48 hours at most",
    ])]
    #[case::days(json!({"hold": {"expiresIn": "2d"}}), &[
        "spec.hold.expiresIn: '2d' is not a length of time: write one such as 90s, 30m or 1h30m (h, m, s, ms)",
    ])]
    #[case::no_unit(json!({"drain": {"idleFor": 5}}), &[
        "spec.drain.idleFor: 5 is to be a text (in quotes, if it looks like a number)",
    ])]
    #[case::zero(json!({"drain": {"idleFor": "0s"}}), &[
        "spec.drain.idleFor: 0s is not between 1ms and 1h: idleness is proven by two looks with time between them",
    ])]
    #[case::the_sum_is_shown(json!({"hold": {"expiresIn": "1m"}, "drain": {"idleFor": "1m"}}), &[
        "spec.hold.expiresIn: hold.expiresIn (1m) is too short: half of it must last for a proof of idleness, \
         drain.idleFor (1m) + 2 × workers.celery.replyTimeout (1s) = 62s; make it 124s or more",
    ])]
    #[case::a_deadline_before_any_proof(json!({"drain": {"idleFor": "1s500ms", "deadline": {"after": "2s"}}}), &[
        "spec.drain.deadline.after: drain.deadline.after (2s) would pass before any task can be proven idle: that takes \
         drain.idleFor (1s500ms) + 2 × workers.celery.replyTimeout (1s) = 3500ms",
    ])]
    #[case::scale_in_without_standing_holds(json!({"hold": {"mode": "OnRollout"}, "drain": {"scaleIn": true}}), &[
        "spec.drain.scaleIn: true needs hold.mode Standing: with OnRollout no task is held when a scale-in begins. \
         Leave scaleIn out, or set hold.mode to Standing",
    ])]
    #[case::a_gate_of_nothing(json!({"drain": {"gate": {"queuesEmpty": []}}}), &["spec.drain.gate.queuesEmpty: is empty"])]
    #[case::a_gate_of_a_queue_without_a_name(json!({"drain": {"gate": {"queuesEmpty": ["slow", ""]}}}), &[
        "spec.drain.gate.queuesEmpty[1]: is empty",
    ])]
    #[case::a_wrong_word(json!({"hold": {"mode": "standing"}}), &[
        "spec.hold.mode: 'standing' is to be one of Standing, OnRollout (did you mean Standing?)",
    ])]
    #[case::over_the_top(json!({"drain": {"minConsuming": "150%"}}), &[
        "spec.drain.minConsuming: '150%' is not a percentage from 0% to 100%: write one such as 50%",
    ])]
    #[case::several_at_once(json!({"hold": {"expirsIn": "1h", "mode": 3}, "pause": true}), &[
        "spec.hold.expirsIn: unknown field (did you mean expiresIn?)",
        "spec.hold.mode: 3 is to be a text (in quotes, if it looks like a number)",
        "spec.pause: unknown field (did you mean paused?)",
    ])]
    fn what_is_wrong_is_said(#[case] change: Value, #[case] expected: &[&str]) {
        let manifest = manifest(|manifest| {
            for (key, value) in change.as_object().unwrap() {
                manifest["spec"][key] = value.clone();
            }
        });
        assert_eq!(problems(&manifest), expected);
    }

    #[rstest]
    #[case(json!({"url": "redis://:hunter2@cache:6379/0"}))]
    #[case(json!({"url": "redis://app:hunt/er2@cache:6379/0"}))]
    #[case(json!({"url": "redis://cache:6379/0?password=hunter2"}))]
    #[case(json!({"url": ["hunter2"]}))]
    #[case(json!({"url": "redis://cache:6379/0", "urlFrom": {"secretKeyRef": {"name": "broker", "key": "hunter2"}}}))]
    #[case(json!({"urlFrom": {"secretKeyRef": "hunter2"}}))]
    fn a_secret_is_refused_and_not_shown(#[case] broker: Value) {
        let problems = problems(&manifest(|manifest| manifest["spec"]["workers"]["celery"]["broker"] = broker));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(!problems[0].contains("er2"), "{problems:?}");
    }

    #[rstest]
    #[case::one_without_the_other(
        json!({"url": "amqps://rabbit", "tls": {"certificateFrom": {"secretKeyRef": {"name": "tls", "key": "crt"}}}}),
        "spec.workers.celery.broker.tls: certificateFrom and keyFrom go together: give both, or neither",
    )]
    #[case::no_tls_there(
        json!({"url": "redis://cache", "tls": {"caFrom": {"secretKeyRef": {"name": "tls", "key": "ca"}}}}),
        "spec.workers.celery.broker.tls: tls needs a broker that speaks it: write rediss:// or amqps:// (or sentinel://) \
         in url, or leave tls out",
    )]
    #[case::the_thing_itself(
        json!({"url": "amqps://rabbit", "tls": {"caFrom": "-----BEGIN hunter2"}}),
        "spec.workers.celery.broker.tls.caFrom: the value is to be a group of fields",
    )]
    fn what_is_wrong_with_tls_is_said(#[case] broker: Value, #[case] expected: &str) {
        let problems = problems(&manifest(|manifest| manifest["spec"]["workers"]["celery"]["broker"] = broker));
        assert_eq!(problems, [expected]);
    }

    #[test]
    fn every_secret_that_is_named_is_read() {
        let key = |key: &str| json!({"secretKeyRef": {"name": "broker", "key": key}});
        let drain = DrainSpec::parse(&manifest(|manifest| {
            manifest["spec"]["workers"]["celery"] = json!({
                "broker": {
                    "urlFrom": key("url"),
                    "tls": {"caFrom": key("ca"), "certificateFrom": key("crt"), "keyFrom": key("key")},
                },
                "transportOptions": {
                    "masterName": "main", "sentinelKwargs": {"passwordFrom": key("sentinel"), "ssl": true},
                },
            });
        }))
        .unwrap();
        let named = drain.workers.secrets();
        assert_eq!(
            named.iter().map(|(_, key)| key.key.as_str()).collect::<Vec<_>>(),
            ["url", "ca", "crt", "key", "sentinel"]
        );
        assert!(named.iter().all(|(field, _)| field.ends_with("From.secretKeyRef")), "{named:?}");
    }

    #[test]
    fn a_clear_password_for_sentinels_has_no_place_and_is_not_shown() {
        for own in [json!({"password": "hunter2"}), json!({"passwordFrom": "hunter2"}), json!("hunter2")] {
            let problems = problems(&manifest(|manifest| {
                manifest["spec"]["workers"]["celery"]["transportOptions"] = json!({"sentinelKwargs": own});
            }));
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(!problems[0].contains("hunter2"), "{problems:?}");
        }
    }

    #[rstest]
    #[case("redis://cache:6379/0")]
    #[case("sentinel://a:26379;sentinel://b:26379/0")]
    #[case("rediss://app@cache/0")]
    #[case("redis+socket:///run/redis.sock?virtual_host=1")]
    fn a_url_without_a_password_is_fine(#[case] url: &str) {
        let manifest = manifest(|manifest| manifest["spec"]["workers"]["celery"]["broker"]["url"] = json!(url));
        assert_eq!(problems(&manifest), [""; 0]);
    }

    #[rstest]
    #[case("worker@{taskId}", true)]
    #[case("{containerName}@{runtimeId}", true)]
    #[case("worker@{taskid}", false)]
    #[case("worker@{taskId", false)]
    #[case("worker@%h", false)]
    #[case("worker-{taskId}", false)]
    #[case("worker@host", false)]
    fn a_template_must_tell_tasks_apart(#[case] template: &str, #[case] fine: bool) {
        let manifest = manifest(|manifest| manifest["spec"]["workers"]["celery"]["nodeName"] = json!(template));
        assert_eq!(problems(&manifest).is_empty(), fine, "{:?}", problems(&manifest));
    }

    #[test]
    fn no_fleet_and_two_fleets_are_refused() {
        let none = manifest(|manifest| manifest["spec"]["fleet"] = json!({}));
        assert_eq!(problems(&none), ["spec.fleet: give exactly one kind of fleet: ecs"]);
        let two = manifest(|manifest| manifest["spec"]["fleet"]["kubernetes"] = json!({"deployment": "transcoder"}));
        assert_eq!(problems(&two), ["spec.fleet.kubernetes: unknown field (known here: ecs)"]);
    }
}
