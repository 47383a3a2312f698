//! Which drain looks after a service that several name. Two that act on one service would undo each other's work, so one
//! acts; the others stand by, say so, and take over when it is gone.
//!
//! The one that is at work already goes on, because it alone remembers which queues have to be given back; of those that
//! have not begun, the oldest begins. A drain in mode `Plan` does nothing and is in nobody's way.
//!
//! A service is known by its ARN, which ECS tells: specs may write the same one by name or by ARN, with or without its
//! Region. Before ECS has told, drains whose cluster and service have the same short names *may* be of one service, and
//! the others wait until the first in rank was looked at. Every drain that is watched is known from the beginning of a term
//! on, so that none acts before its better because its turn came first.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use kube::api::DynamicObject;
use tokio::sync::Mutex as AsyncMutex;
use worker_drain_plan::observation::Failure;

use super::metrics::Key;

/// What is known of all drains that want to act.
#[derive(Debug, Default)]
pub struct Claims {
    /// The term for which the drains that there are were read.
    term: AsyncMutex<Option<u64>>,
    drains: Mutex<BTreeMap<Key, Claim>>,
}

/// One drain's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    uid: Option<String>,
    created: Option<Timestamp>,
    /// It remembers something, so it has acted and may have to give something back.
    at_work: bool,
    /// The short names of cluster and service.
    names: (String, String),
    service: Known,
}

/// What is known of the service that a drain names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    /// ECS was not asked yet.
    Unasked,
    /// ECS was asked, and did not tell; so nothing can be done on it either.
    Untold,
    /// Its ARN.
    Arn(String),
}

/// Whether a drain may act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Free,
    /// Not yet: this drain comes first if it is of the same service, and was not looked at yet.
    After(Key),
    /// No: this drain is of the same service, and comes first.
    Rival(Key),
}

impl Claims {
    /// Knows the claims of all drains that there are, once a term; `read` reads them. Errors: they cannot be read.
    pub async fn know_all<R>(&self, term: u64, read: impl FnOnce() -> R + Send) -> Result<(), Failure>
    where
        R: Future<Output = Result<BTreeMap<Key, Claim>, Failure>> + Send,
    {
        let mut known = self.term.lock().await;
        if *known == Some(term) {
            return Ok(());
        }
        *self.lock() = read().await?;
        *known = Some(term);
        Ok(())
    }

    /// Knows a drain as it was just read.
    pub fn know(&self, key: &Key, drain: &DynamicObject) {
        let mut drains = self.lock();
        let Some(mut claim) = Claim::of(drain) else {
            drains.remove(key);
            return;
        };
        if let Some(before) = drains.get(key).filter(|it| it.uid == claim.uid && it.names == claim.names) {
            claim.service = before.service.clone();
        }
        drains.insert(key.clone(), claim);
    }

    /// Whether a drain may act on the service that it names, whose ARN is this, if ECS has told it.
    pub fn judge(&self, key: &Key, arn: Option<String>) -> Verdict {
        let mut drains = self.lock();
        let Some(claim) = drains.get_mut(key) else { return Verdict::Free };
        claim.service = arn.map_or(Known::Untold, Known::Arn);
        let claim = claim.clone();
        let Known::Arn(_) = claim.service else { return Verdict::Free };
        let rank = |key: &Key, claim: &Claim| (!claim.at_work, claim.created, key.clone());
        let before = drains.iter().filter(|(other, it)| rank(other, it) < rank(key, &claim));
        let mut verdict = Verdict::Free;
        for (other, it) in before {
            if it.service == claim.service {
                return Verdict::Rival(other.clone());
            }
            if it.service == Known::Unasked && it.names == claim.names {
                verdict = Verdict::After(other.clone());
            }
        }
        verdict
    }

    /// A drain is gone, or cannot act.
    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Claim>> {
        self.drains.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// A drain's; `None`: it does nothing.
    pub fn of(drain: &DynamicObject) -> Option<Self> {
        let spec = drain.data.get("spec")?;
        if spec.get("mode").and_then(|mode| mode.as_str()) == Some("Plan") {
            return None;
        }
        let ecs = spec.pointer("/fleet/ecs")?;
        let short = |field: &str| Some(ecs.get(field)?.as_str()?.rsplit('/').next()?.to_owned());
        Some(Self {
            uid: drain.metadata.uid.clone(),
            created: drain.metadata.creation_timestamp.as_ref().map(|time| time.0),
            at_work: drain.data.pointer("/status/memory").is_some_and(|memory| memory.is_string()),
            names: (short("cluster")?, short("service")?),
            service: Known::Unasked,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ARN: &str = "arn:aws:ecs:eu-west-1:123456789012:service/media/transcoder";

    fn drain(name: &str, created: &str, spec: &serde_json::Value) -> DynamicObject {
        let metadata = json!({"name": name, "namespace": "media", "uid": name, "creationTimestamp": created});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn named(cluster: &str, service: &str) -> serde_json::Value {
        json!({"fleet": {"ecs": {"cluster": cluster, "service": service}}})
    }

    fn at(name: &str) -> Key {
        ("media".into(), name.into())
    }

    /// The first was made before the second; `judge` is asked for the second.
    fn second(first: &serde_json::Value, first_arn: Option<&str>, second: &serde_json::Value, arn: &str) -> Verdict {
        let claims = Claims::default();
        claims.know(&at("first"), &drain("first", "2026-01-01T00:00:00Z", first));
        claims.know(&at("second"), &drain("second", "2026-01-01T00:00:01Z", second));
        assert_eq!(claims.judge(&at("first"), first_arn.map(Into::into)), Verdict::Free, "the oldest always may");
        claims.judge(&at("second"), Some(arn.into()))
    }

    #[test]
    fn the_older_one_acts_however_the_service_is_written() {
        let short = named("media", "transcoder");
        let long = named("arn:aws:ecs:eu-west-1:123456789012:cluster/media", ARN);
        for (a, b) in [(&short, &long), (&long, &short), (&short, &short)] {
            assert_eq!(second(a, Some(ARN), b, ARN), Verdict::Rival(at("first")));
        }
    }

    #[test]
    fn the_same_names_elsewhere_are_another_service() {
        let elsewhere = "arn:aws:ecs:us-east-1:123456789012:service/media/transcoder";
        assert_eq!(
            second(&named("media", "transcoder"), Some(ARN), &named("media", "transcoder"), elsewhere),
            Verdict::Free
        );
    }

    #[test]
    fn one_that_cannot_see_its_service_or_only_plans_is_in_nobodys_way() {
        let spec = named("media", "transcoder");
        assert_eq!(second(&spec, None, &spec, ARN), Verdict::Free);
        let mut plans = spec.clone();
        plans["mode"] = json!("Plan");
        assert_eq!(second(&plans, Some(ARN), &spec, ARN), Verdict::Free);
    }

    #[test]
    fn who_is_at_work_goes_on() {
        let claims = Claims::default();
        let spec = named("media", "transcoder");
        let mut young = drain("young", "2026-01-01T00:00:01Z", &spec);
        young.data["status"] = json!({"memory": "here:x"});
        claims.know(&at("young"), &young);
        claims.know(&at("old"), &drain("old", "2026-01-01T00:00:00Z", &spec));
        assert_eq!(claims.judge(&at("young"), Some(ARN.into())), Verdict::Free);
        assert_eq!(claims.judge(&at("old"), Some(ARN.into())), Verdict::Rival(at("young")));
    }

    #[tokio::test]
    async fn the_younger_one_waits_until_the_older_one_was_looked_at_and_takes_over_when_it_is_gone() {
        let claims = Claims::default();
        let spec = named("media", "transcoder");
        let (old, young) = (at("z-old"), at("a-young"));
        let (old_drain, young_drain) =
            (drain("z-old", "2026-01-01T00:00:00Z", &spec), drain("a-young", "2026-01-01T00:00:01Z", &spec));
        let all: BTreeMap<Key, Claim> = [
            (old.clone(), Claim::of(&old_drain).unwrap()),
            (young.clone(), Claim::of(&young_drain).unwrap()),
            (at("other"), Claim::of(&drain("other", "2025-01-01T00:00:00Z", &named("media", "other"))).unwrap()),
        ]
        .into();
        claims.know_all(1, async || Ok(all)).await.unwrap();
        claims.know(&young, &young_drain);
        assert_eq!(claims.judge(&young, Some(ARN.into())), Verdict::After(old.clone()));
        claims.know(&old, &old_drain);
        assert_eq!(claims.judge(&old, Some(ARN.into())), Verdict::Free);
        assert_eq!(claims.judge(&young, Some(ARN.into())), Verdict::Rival(old.clone()));
        // Once a term is enough, and what ECS has told is kept from pass to pass.
        claims.know_all(1, async || Ok(BTreeMap::new())).await.unwrap();
        claims.know(&old, &old_drain);
        assert_eq!(claims.judge(&young, Some(ARN.into())), Verdict::Rival(old.clone()));
        claims.forget(&old);
        assert_eq!(claims.judge(&young, Some(ARN.into())), Verdict::Free);
        claims.know_all(2, async || Ok(BTreeMap::new())).await.unwrap();
        assert_eq!(claims.judge(&young, Some(ARN.into())), Verdict::Free);
    }

    #[test]
    fn of_two_that_were_made_in_the_same_second_the_name_decides() {
        let claims = Claims::default();
        for name in ["b", "a"] {
            claims.know(&at(name), &drain(name, "2026-01-01T00:00:00Z", &named("media", "transcoder")));
        }
        assert_eq!(claims.judge(&at("b"), Some(ARN.into())), Verdict::After(at("a")));
        assert_eq!(claims.judge(&at("a"), Some(ARN.into())), Verdict::Free);
        assert_eq!(claims.judge(&at("b"), Some(ARN.into())), Verdict::Rival(at("a")));
    }
}
