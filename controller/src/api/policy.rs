//! From the resource to what the loop works with: the policy, and where fleet and workers are.

use std::fmt;

use jiff::SignedDuration;
use kube::ResourceExt;
use worker_drain_plan::policy::{
    Deadline, DeadlineAction, DrainPolicy, Gate, HoldMode, HoldPolicy, MinConsuming, Mode, Policy, Scheduled,
};

use super::{
    celery_spec::{BrokerSpec, CelerySpec, EventsSpec, TlsSpec, TransportOptionsSpec},
    drain_spec::{DeadlineActionSpec, DeadlineSpec, GateSpec, ScaleInSpec, ScheduledSpec},
    fleet_spec::EcsSpec,
    http_spec::{HttpSpec, SchemeSpec},
    problem::Problem,
    secret_ref::{SecretKeyRef, SecretSource},
    spec::{HoldModeSpec, ModeSpec, WorkerDrain, WorkerDrainSpec, WorkersSpec},
    values::{Duration, TasksOrPercent},
};

/// A resource, parsed once: all that the loop needs of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainSpec {
    /// The resource's name.
    pub name: String,
    /// Its namespace; `None`: the manifest names none.
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
pub enum WorkersTarget {
    /// Celery workers, through their broker.
    Celery(CeleryTarget),
    /// Workers that answer over HTTP themselves.
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
    pub fn secrets(&self) -> Vec<(String, &SecretKeyRef)> {
        match self {
            Self::Celery(target) => target.secrets(),
            Self::Http(HttpTarget { token, https, .. }) => {
                let authorities = https.as_ref().and_then(|https| https.authorities.as_ref());
                let token = token.iter().map(|key| ("tokenFrom", key));
                let named = token.chain(authorities.map(|key| ("caFrom", key)));
                named.map(|(field, key)| (format!("spec.workers.http.{field}.secretKeyRef"), key)).collect()
            }
        }
    }
}

/// Celery workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CeleryTarget {
    /// The brokers: more than one while a fleet moves.
    pub brokers: Vec<BrokerTarget>,
    /// How a task's nodes are named; those that no name fits are matched automatically.
    pub node_names: Vec<String>,
    /// Celery's `control_exchange`.
    pub control_exchange: String,
    /// Whether worker-drain listens to Celery's events.
    pub events: EventsSpec,
    /// Celery's `event_exchange`.
    pub event_exchange: String,
    /// kombu's options for names on a Redis broker.
    pub transport_options: TransportOptionsSpec,
    /// How long to wait for a reply.
    pub reply_timeout: SignedDuration,
}

impl CeleryTarget {
    fn secrets(&self) -> Vec<(String, &SecretKeyRef)> {
        let password_from = self.transport_options.sentinel_kwargs.as_ref().and_then(|own| own.password_from.as_ref());
        let password = password_from.map(|source| {
            let field = "spec.workers.celery.transportOptions.sentinelKwargs.passwordFrom.secretKeyRef";
            (field.to_owned(), &source.secret_key_ref)
        });
        self.brokers.iter().flat_map(BrokerTarget::secrets).chain(password).collect()
    }
}

/// A broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerTarget {
    /// The field that describes it.
    pub field: String,
    /// Where its URL is.
    pub source: BrokerSource,
    /// Certificates for it; `None`: only its URL says whether TLS is used.
    pub tls: Option<TlsSpec>,
}

impl BrokerTarget {
    fn secrets(&self) -> impl Iterator<Item = (String, &SecretKeyRef)> {
        let url = match &self.source {
            BrokerSource::Url(_) => None,
            BrokerSource::Secret(key) => Some(("urlFrom", key)),
        };
        let TlsSpec { ca_from, certificate_from, key_from } = self.tls.as_ref().unwrap_or(&NO_TLS);
        let certificates =
            [("tls.caFrom", ca_from), ("tls.certificateFrom", certificate_from), ("tls.keyFrom", key_from)];
        let given =
            certificates.into_iter().filter_map(|(field, source)| Some((field, &source.as_ref()?.secret_key_ref)));
        url.into_iter().chain(given).map(|(field, key)| (format!("{}.{field}.secretKeyRef", self.field), key))
    }
}

const NO_TLS: TlsSpec = TlsSpec { ca_from: None, certificate_from: None, key_from: None };

/// Workers that answer over HTTP themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTarget {
    /// The port that each listens on.
    pub port: u16,
    /// The path of the contract.
    pub path: String,
    /// The token that is sent to them; `None`: none.
    pub token: Option<SecretKeyRef>,
    /// TLS; `None`: without encryption.
    pub https: Option<HttpsTarget>,
    /// How long an answer may take.
    pub reply_timeout: SignedDuration,
}

/// HTTP with TLS.
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
    // A URL must not contain a password, but nothing has checked that when this is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(_) => f.write_str("Url(…)"),
            Self::Secret(secret) => f.debug_tuple("Secret").field(secret).finish(),
        }
    }
}

impl DrainSpec {
    /// Reads one document that says it is a `WorkerDrain`. Errors: all of its problems.
    #[cfg(feature = "cli")]
    pub fn parse(document: &serde_json::Value) -> Result<Self, Vec<Problem>> {
        Self::try_from(&super::check::parse(document)?)
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

fn workers_target(WorkersSpec { celery, http, start_timeout: _ }: &WorkersSpec) -> Result<WorkersTarget, Problem> {
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
    let CelerySpec {
        broker,
        brokers: several,
        node_name,
        node_names,
        workers_per_task: _,
        control_exchange,
        events,
        event_exchange,
        transport_options,
        reply_timeout,
    } = spec;
    Ok(CeleryTarget {
        brokers: brokers(broker.as_ref(), several)?,
        node_names: node_name.iter().chain(node_names).cloned().collect(),
        control_exchange: control_exchange.clone(),
        events: *events,
        event_exchange: event_exchange.clone(),
        transport_options: transport_options.clone(),
        reply_timeout: reply_timeout.get(),
    })
}

fn brokers(broker: Option<&BrokerSpec>, several: &[BrokerSpec]) -> Result<Vec<BrokerTarget>, Problem> {
    match (broker, several) {
        (Some(broker), []) => Ok(vec![broker_target(String::from("spec.workers.celery.broker"), broker)?]),
        (None, [_, ..]) => {
            let field = |place: usize| format!("spec.workers.celery.brokers[{place}]");
            several.iter().enumerate().map(|(place, broker)| broker_target(field(place), broker)).collect()
        }
        _ => Err(Problem::new("spec.workers.celery", "give exactly one of broker and brokers")),
    }
}

fn broker_target(field: String, BrokerSpec { url, url_from, tls }: &BrokerSpec) -> Result<BrokerTarget, Problem> {
    let source = match (url, url_from) {
        (Some(url), None) => BrokerSource::Url(url.clone()),
        (None, Some(source)) => BrokerSource::Secret(source.secret_key_ref.clone()),
        _ => return Err(Problem::new(field, "give exactly one of url and urlFrom")),
    };
    Ok(BrokerTarget { field, source, tls: tls.clone() })
}

fn policy(resource: &WorkerDrain) -> Result<Policy, Problem> {
    let WorkerDrainSpec { fleet: _, workers, hold, drain, mode, paused } = &resource.spec;
    let hold_mode = match hold.mode {
        HoldModeSpec::Standing => HoldMode::Standing,
        HoldModeSpec::OnRollout => HoldMode::OnRollout,
    };
    let scale_in = match (drain.scale_in, hold_mode) {
        (ScaleInSpec::Auto | ScaleInSpec::Drain, HoldMode::Standing) => true,
        (ScaleInSpec::Drain, HoldMode::OnRollout) => {
            return Err(Problem::new("spec.drain.scaleIn", "Drain needs hold.mode Standing"));
        }
        (ScaleInSpec::Auto, HoldMode::OnRollout) | (ScaleInSpec::Ignore, _) => false,
    };
    Ok(Policy {
        hold: HoldPolicy { mode: hold_mode, expires_in: hold.expires_in.get() },
        drain: DrainPolicy {
            min_consuming: drain.min_consuming.map(min_consuming),
            idle_for: drain.idle_for.get(),
            scheduled: match drain.scheduled {
                ScheduledSpec::Ignore => Scheduled::Ignore,
                ScheduledSpec::Wait => Scheduled::Wait,
            },
            deadline: drain.deadline.as_ref().map(deadline),
            scale_in,
            // An HTTP worker is the task's only one.
            workers_per_task: workers.celery.as_ref().map_or(Some(1), workers_per_task),
            start_timeout: workers.start_timeout.map(Duration::get),
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

/// Each of several names is a worker's.
fn workers_per_task(CelerySpec { workers_per_task, node_names, .. }: &CelerySpec) -> Option<u32> {
    let named = u32::try_from(node_names.len()).ok().filter(|names| *names > 1);
    workers_per_task.or(named)
}

fn min_consuming(spec: TasksOrPercent) -> MinConsuming {
    match spec {
        TasksOrPercent::Tasks(tasks) => MinConsuming::Tasks(tasks),
        TasksOrPercent::Percent(percent) => MinConsuming::Percent(percent.into()),
    }
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
mod tests;
