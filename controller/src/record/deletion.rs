//! What a person must know of a drain that is being deleted and still waits: how it can be let go.

use kube::core::ObjectMeta;
use worker_drain_plan::{
    Report,
    report::{Phase, Withdrawal},
};

/// Set to `"true"`, this annotation lets a drain go that cannot give everything back.
pub const ABANDON: &str = "workerdrain.io/abandon";

/// How this drain is let go though it cannot give everything back, and what becomes of that. `None`: it is not being deleted.
pub fn way_out(drain: &ObjectMeta) -> Option<String> {
    drain.deletion_timestamp.as_ref()?;
    let (name, namespace) = (drain.name.as_deref().unwrap_or_default(), drain.namespace.as_deref().unwrap_or_default());
    Some(format!(
        "To let the drain go as it is: kubectl annotate workerdrain {name} --namespace {namespace} {ABANDON}=true. A queue that is not given back \
         comes back when its worker restarts, and a hold expires"
    ))
}

/// Adds the way out to the report of a drain that is being deleted and has not given everything back.
pub fn tell(drain: &ObjectMeta, report: &mut Report) {
    let Some(Withdrawal { left, .. }) = report.withdrawal.as_ref().filter(|_| report.phase != Phase::Withdrawn) else {
        return;
    };
    let Some(way_out) = way_out(drain) else { return };
    report.notes.insert(0, format!("the drain is being deleted; {left}. {way_out}"));
    if report.ready.answer != Some(true) {
        report.ready.message = format!("{}. {way_out}", report.ready.message);
    }
    if report.stalled.answer == Some(true) {
        report.stalled.message = format!("{}. {way_out}", report.stalled.message);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use worker_drain_plan::{
        Memory, Observation, Policy,
        observation::{Failure, FailureKind, Seen},
        plan,
    };

    use super::*;
    use crate::api::{DrainSpec, WorkerDrain};

    /// Of a fleet that cannot be reached.
    fn report(withdrawn: bool) -> Report {
        let drain: WorkerDrain = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "transcoder", "namespace": "media"},
            "spec": {
                "fleet": {"ecs": {"cluster": "media", "service": "transcoder"}},
                "workers": {"celery": {"broker": {"url": "redis://broker"}}},
            },
        }))
        .unwrap();
        let policy = Policy { withdrawn, ..DrainSpec::try_from(&drain).unwrap().policy };
        let (at, failure) = (jiff::Timestamp::UNIX_EPOCH, Failure::new(FailureKind::Denied, "why"));
        let (fleet, workers) = (Seen::Err { failure: failure.clone(), at }, Seen::Err { failure, at });
        plan(&policy, &Observation { fleet, workers, queues: None }, &Memory::default(), at).report
    }

    fn drain(deleted: bool) -> ObjectMeta {
        ObjectMeta {
            name: Some("transcoder".into()),
            namespace: Some("media".into()),
            deletion_timestamp: deleted.then_some(Time(jiff::Timestamp::UNIX_EPOCH)),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn one_that_waits_at_its_end_names_the_command_that_lets_it_go() {
        let command = "kubectl annotate workerdrain transcoder --namespace media workerdrain.io/abandon=true";
        let mut waits = report(true);
        tell(&drain(true), &mut waits);
        for told in [&waits.ready.message, &waits.stalled.message, &waits.notes[0]] {
            assert!(told.contains(command) && told.contains("no hold of ours is left"), "{told}");
        }
        let mut stays = report(false);
        let before = stays.clone();
        tell(&drain(false), &mut stays);
        assert_eq!(stays, before, "nobody deletes it");
        let mut done = Report { phase: Phase::Withdrawn, ..report(true) };
        let before = done.clone();
        tell(&drain(true), &mut done);
        assert_eq!(done, before, "it goes by itself");
    }
}
