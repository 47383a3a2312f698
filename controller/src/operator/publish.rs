//! Publishes events, one after another and beside the reconciliations, which never wait for
//! one: an event that cannot be published is lost. Only where nothing can be made because the namespace is being deleted, it is
//! published as an event of that namespace.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{sync::mpsc::Receiver, time::timeout};

use super::{
    events::{DrainEvent, clipped},
    metrics::Metrics,
};
use crate::record::api_server::is_for_deletion;

/// An event is not worth waiting for.
const BOUND: Duration = Duration::from_secs(5);

/// Publishes what it is handed, until nobody can hand over any more.
pub async fn run(
    client: Client,
    identity: String,
    mut waiting: Receiver<(ObjectReference, DrainEvent)>,
    metrics: Arc<Metrics>,
) -> &'static str {
    let reporter = Reporter { controller: "workerdrain.io/controller".into(), instance: Some(identity) };
    let recorder = Recorder::new(client, reporter);
    while let Some((drain, happening)) = waiting.recv().await {
        let DrainEvent { warning, reason, subject, note } = happening;
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            reason: reason.into(),
            // Repeats are counted as one by type, reason and this, not by the note; so it tells two tasks apart.
            action: subject.chars().take(128).collect(),
            note: Some(note),
            secondary: None,
        };
        let published = timeout(BOUND, publish(&recorder, event, &drain)).await;
        match published {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                metrics.event_lost();
                tracing::warn!(reason, %error, "an event could not be published");
            }
            Err(_) => metrics.event_lost(),
        }
    }
    "the publisher of events"
}

async fn publish(recorder: &Recorder, mut event: Event, drain: &ObjectReference) -> kube::Result<()> {
    match recorder.publish(&event, drain).await {
        Err(error) if is_for_deletion(&error) => {
            let name = drain.name.as_deref().unwrap_or_default();
            event.note = event.note.map(|note| clipped(format!("WorkerDrain {name}: {note}")));
            recorder.publish(&event, &namespace_of(drain)).await
        }
        result => result,
    }
}

/// The namespace of a drain, as what an event is about. Such events are in the namespace `default`.
fn namespace_of(drain: &ObjectReference) -> ObjectReference {
    ObjectReference {
        api_version: Some(String::from("v1")),
        kind: Some(String::from("Namespace")),
        name: drain.namespace.clone(),
        ..ObjectReference::default()
    }
}
