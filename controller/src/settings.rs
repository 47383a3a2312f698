//! From a parsed resource to what the adapters are told: the one place that knows both.

use std::time::Duration;

use crate::{
    api::{
        policy::{BrokerSource, CeleryTarget, EcsTarget, WorkersTarget},
        spec::{EventsSpec, TransportOptionsSpec},
    },
    fleet::ecs::EcsSettings,
    secret::{Secret, SecretTexts},
    workers::{
        any::WorkersSettings,
        celery::{CelerySettings, FanoutPrefix, Listening, TransportOptions},
    },
};

/// What the adapter of ECS is told.
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

/// What the adapter of these workers is told. `secrets` is to hold all that [`WorkersTarget::secrets`] names; what it does
/// not hold is empty, which the adapter refuses.
pub fn workers(target: &WorkersTarget, secrets: &SecretTexts) -> WorkersSettings {
    match target {
        WorkersTarget::Celery(target) => WorkersSettings::Celery(celery(target, secrets)),
    }
}

/// What is left out is kombu's own.
fn celery(target: &CeleryTarget, secrets: &SecretTexts) -> CelerySettings {
    let CeleryTarget { broker, node_name, control_exchange, events, event_exchange, transport_options, reply_timeout } =
        target;
    let TransportOptionsSpec { global_keyprefix, fanout_prefix, priority_steps, sep } = transport_options;
    let url = match broker {
        BrokerSource::Url(url) => url,
        BrokerSource::Secret(key) => secrets.get(key).map_or("", Secret::expose),
    };
    let kombu = TransportOptions::default();
    CelerySettings {
        node_name: node_name.clone(),
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
        },
        // Its range is checked with the manifest.
        reply_bound: Duration::try_from(*reply_timeout).unwrap_or(Duration::from_secs(1)),
        ..CelerySettings::new(url)
    }
}
