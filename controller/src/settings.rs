//! From a parsed resource to the settings of the adapters: the one place that knows both.

use std::time::Duration;

use crate::{
    api::{
        celery_spec::{EventsSpec, SentinelKwargsSpec, TlsSpec, TransportOptionsSpec},
        policy::{BrokerSource, BrokerTarget, CeleryTarget, EcsTarget, HttpTarget, HttpsTarget, WorkersTarget},
        secret_ref::{SecretKeyRef, SecretSource},
    },
    fleet::ecs::EcsSettings,
    queues::sqs::SqsSettings,
    secret::{Secret, SecretTexts},
    tls::{Pem, TlsSettings},
    workers::{
        any::WorkersSettings,
        celery::{CelerySettings, FanoutPrefix, Listening, SentinelSettings, TransportOptions},
        http::{HttpSettings, Scheme},
    },
};

/// The settings of the adapter of ECS.
pub fn ecs(EcsTarget { cluster, service, region, role_arn }: &EcsTarget, profile: Option<String>) -> EcsSettings {
    EcsSettings {
        cluster: cluster.clone(),
        service: service.clone(),
        region: region.clone(),
        role_arn: role_arn.clone(),
        profile,
        ..EcsSettings::default()
    }
}

/// The settings of the adapter of these workers. `secrets` must contain all that [`WorkersTarget::secrets`] names; what it
/// does not contain is empty, which the adapter refuses. `queues` is where those of workers are counted that have no broker to ask.
pub fn workers(target: &WorkersTarget, secrets: &SecretTexts, queues: SqsSettings) -> WorkersSettings {
    match target {
        WorkersTarget::Celery(target) => WorkersSettings::Celery(celery(target, secrets)),
        WorkersTarget::Http(target) => WorkersSettings::Http(http(target, secrets), queues),
    }
}

/// Of each broker. What is for Sentinels is given to all, so that one who gives it for nothing is told; or to those that have some.
fn celery(target: &CeleryTarget, secrets: &SecretTexts) -> Vec<CelerySettings> {
    let url = |broker: &BrokerTarget| match &broker.source {
        BrokerSource::Url(url) => url.clone(),
        BrokerSource::Secret(key) => secrets.get(key).map_or("", Secret::expose).to_owned(),
    };
    let has_sentinels = |url: &str| url.trim_start().starts_with("sentinel:");
    let urls: Vec<String> = target.brokers.iter().map(url).collect();
    let some_have = urls.iter().any(|url| has_sentinels(url));
    let brokers = target.brokers.iter().zip(urls);
    brokers
        .map(|(broker, url)| {
            let sentinels = has_sentinels(&url) || !some_have;
            let settings = on_broker(target, broker, url, secrets);
            if sentinels { settings } else { CelerySettings { sentinel: SentinelSettings::default(), ..settings } }
        })
        .collect()
}

/// What is left out is kombu's own.
fn on_broker(target: &CeleryTarget, broker: &BrokerTarget, url: String, secrets: &SecretTexts) -> CelerySettings {
    let CeleryTarget {
        brokers: _,
        node_names,
        control_exchange,
        events,
        event_exchange,
        transport_options,
        reply_timeout,
    } = target;
    let TransportOptionsSpec {
        global_keyprefix,
        fanout_prefix,
        priority_steps,
        sep,
        unacked_key,
        master_name,
        sentinel_kwargs,
    } = transport_options;
    let kombu = TransportOptions::default();
    CelerySettings {
        node_names: node_names.clone(),
        control_exchange: control_exchange.clone(),
        listening: match events {
            EventsSpec::Listen => Listening::Listen,
            EventsSpec::Enable => Listening::Enable,
            EventsSpec::Ignore => Listening::Ignore,
        },
        event_exchange: event_exchange.clone(),
        transport_options: TransportOptions {
            global_keyprefix: global_keyprefix.clone().unwrap_or(kombu.global_keyprefix),
            fanout_prefix: match fanout_prefix.as_deref() {
                None => kombu.fanout_prefix,
                Some("") => FanoutPrefix::None,
                Some(text) => FanoutPrefix::Text(text.to_owned()),
            },
            priority_steps: if priority_steps.is_empty() { kombu.priority_steps } else { priority_steps.clone() },
            sep: sep.clone().unwrap_or(kombu.sep),
            unacked_key: unacked_key.clone().unwrap_or(kombu.unacked_key),
        },
        sentinel: sentinel(master_name.as_ref(), sentinel_kwargs.as_ref(), secrets),
        tls: broker.tls.as_ref().map(|tls| self::tls(broker, tls, secrets)),
        // Its range is checked with the manifest.
        reply_bound: Duration::try_from(*reply_timeout).unwrap_or(Duration::from_secs(1)),
        ..CelerySettings::new(url)
    }
}

fn sentinel(
    master_name: Option<&String>,
    sentinel_kwargs: Option<&SentinelKwargsSpec>,
    secrets: &SecretTexts,
) -> SentinelSettings {
    let nothing = SentinelKwargsSpec::default();
    let SentinelKwargsSpec { username, password_from, ssl } = sentinel_kwargs.unwrap_or(&nothing);
    SentinelSettings {
        master_name: master_name.cloned(),
        username: username.clone(),
        password: password_from.as_ref().map(|source| text(source, secrets).to_owned()),
        tls: *ssl,
    }
}

fn tls(
    BrokerTarget { field, .. }: &BrokerTarget,
    TlsSpec { ca_from, certificate_from, key_from }: &TlsSpec,
    secrets: &SecretTexts,
) -> TlsSettings {
    let broker = field.trim_start_matches("spec.workers.celery.");
    let from = |field: &str, source: &Option<SecretSource>| {
        source.as_ref().map(|source| pem(&format!("{broker}.tls.{field}"), &source.secret_key_ref, secrets))
    };
    TlsSettings {
        authorities: from("caFrom", ca_from),
        certificate: from("certificateFrom", certificate_from),
        key: from("keyFrom", key_from),
    }
}

/// What a key of a Secret holds, called by the field that names it.
fn pem(field: &str, source: &SecretKeyRef, secrets: &SecretTexts) -> Pem {
    let SecretKeyRef { name, key } = source;
    Pem::Text {
        called: format!("{field} (the key {key} of the Secret {name})"),
        text: secrets.get(source).map_or("", Secret::expose).to_owned(),
    }
}

fn text<'a>(SecretSource { secret_key_ref }: &SecretSource, secrets: &'a SecretTexts) -> &'a str {
    secrets.get(secret_key_ref).map_or("", Secret::expose)
}

fn http(target: &HttpTarget, secrets: &SecretTexts) -> HttpSettings {
    let HttpTarget { port, path, token, https, reply_timeout } = target;
    let text = |key| secrets.get(key).map_or("", Secret::expose);
    let scheme = match https {
        None => Scheme::Http,
        Some(HttpsTarget { server_name, authorities }) => Scheme::Https {
            server_name: server_name.clone(),
            authorities: authorities.as_ref().map(|key| pem("caFrom", key, secrets)),
        },
    };
    HttpSettings {
        path: path.clone(),
        scheme,
        token: Secret::from(token.as_ref().map_or("", text)),
        // Its range is checked with the manifest.
        reply_bound: Duration::try_from(*reply_timeout).unwrap_or(Duration::from_secs(5)),
        ..HttpSettings::new(*port)
    }
}
