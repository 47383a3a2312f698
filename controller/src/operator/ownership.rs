//! Which drain acts on a service that several name. Two that act on one service would undo each other's work, so one
//! acts; the others stand by, say so, and take over when it is gone.
//!
//! The one that is at work already goes on, because it alone remembers which queues have to be given back; of those that
//! have not begun, the oldest begins. A drain in mode `Plan` does nothing and is in nobody's way, unless it took queues
//! before: another one could not give them back. If one is at work all the same, that one goes on.
//!
//! A service is known by its ARN, as ECS answers: specs may write the same one by name or by ARN, with or without its
//! Region. Before ECS has answered, drains of the same short names *may* be of one service, unless their specs name different
//! Regions or accounts, and the others wait until the first in rank was reconciled. Every drain that is watched is known from
//! the beginning of a term on, so that none acts before the one that comes first in rank.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::Value;
use tokio::sync::Mutex as AsyncMutex;
use worker_drain_plan::observation::{Failure, FailureKind};

use super::{leftovers::Work, metrics::Key};

/// What is known of all drains that want to act.
#[derive(Debug, Default)]
pub struct Ownership {
    /// The term for which the drains that there are were read.
    term: AsyncMutex<Option<u64>>,
    drains: Mutex<BTreeMap<Key, Claim>>,
}

/// One drain's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    uid: Option<String>,
    created: Option<Timestamp>,
    /// What it has to undo.
    work: Work,
    /// It is in mode `Plan`, and so does not act until it is deleted.
    plans: bool,
    named: Named,
    service: Known,
}

/// What a spec says of its service.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    /// The short names of cluster and service.
    names: (String, String),
    region: Option<String>,
    account: Option<String>,
}

/// What is known of the service that a drain names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    /// ECS was not asked yet, or did not answer.
    Unasked,
    /// There is none, or it is none of ours; so nothing can be done on it either.
    Absent,
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
    Owner(Owner),
}

/// The drain that comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Which.
    pub drain: Key,
    /// It is in mode `Plan`, and in the way for what it took before.
    pub plans: bool,
}

impl Ownership {
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

    /// Knows a drain as it was just read, and whether it has a claim.
    pub fn know(&self, key: &Key, claim: Option<Claim>) -> bool {
        let mut drains = self.lock();
        let Some(mut claim) = claim else {
            drains.remove(key);
            return false;
        };
        if let Some(before) = drains.get(key).filter(|it| it.uid == claim.uid && it.named == claim.named) {
            claim.service = before.service.clone();
        }
        drains.insert(key.clone(), claim);
        true
    }

    /// Whether a drain may act on the service that it names, whose ARN ECS was asked for.
    pub fn judge(&self, key: &Key, arn: Result<String, Failure>) -> Verdict {
        let mut drains = self.lock();
        let Some(claim) = drains.get_mut(key) else { return Verdict::Free };
        match arn {
            Ok(arn) => claim.service = Known::Arn(arn),
            // What was known of it is still true.
            Err(failure) if matches!(failure.kind, FailureKind::Unreachable | FailureKind::Throttled) => {}
            Err(_) => claim.service = Known::Absent,
        }
        let claim = claim.clone();
        let rank = |key: &Key, claim: &Claim| (claim.place(), claim.created, key.clone());
        let mut before: Vec<_> = drains.iter().filter(|(other, it)| rank(other, it) < rank(key, &claim)).collect();
        before.sort_by_key(|(other, it)| rank(other, it));
        let first = |same: Option<bool>| before.iter().find(|(_, it)| it.is_of_same(&claim) == same);
        match (first(Some(true)), first(None)) {
            (Some((owner, it)), _) => Verdict::Owner(Owner { drain: (*owner).clone(), plans: it.plans }),
            (None, Some((other, _))) => Verdict::After((*other).clone()),
            (None, None) => Verdict::Free,
        }
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
    /// That of a drain with so much to undo; `None`: it does nothing, and nobody needs what it remembers.
    pub fn of(drain: &DynamicObject, work: Work) -> Option<Self> {
        let spec = drain.data.get("spec")?;
        let plans = spec.get("mode").and_then(Value::as_str) == Some("Plan");
        // One that is deleted undoes what it did, whatever its mode is.
        if plans && work != Work::Taken && drain.metadata.deletion_timestamp.is_none() {
            return None;
        }
        let ecs = spec.pointer("/fleet/ecs")?;
        Some(Self {
            uid: drain.metadata.uid.clone(),
            created: drain.metadata.creation_timestamp.as_ref().map(|time| time.0),
            work,
            plans,
            named: Named::of(ecs)?,
            service: Known::Unasked,
        })
    }

    /// The lower, the sooner it acts. One that only plans is not to stop another one that holds tasks: nobody would renew
    /// them.
    fn place(&self) -> u8 {
        match (self.plans, self.work) {
            (false, Work::Taken) => 0,
            (false, Work::Held) => 1,
            (true, _) => 2,
            (false, Work::Nothing) => 3,
        }
    }

    /// Whether both are of one service; `None`: that is not known yet.
    fn is_of_same(&self, other: &Self) -> Option<bool> {
        match (&self.service, &other.service) {
            (Known::Arn(one), Known::Arn(another)) => Some(one == another),
            (Known::Absent, _) | (_, Known::Absent) => Some(false),
            _ if self.named.may_be(&other.named) => None,
            _ => Some(false),
        }
    }
}

impl Named {
    fn of(ecs: &Value) -> Option<Self> {
        let text = |field: &str| ecs.get(field).and_then(Value::as_str);
        let (cluster, service) = (text("cluster")?, text("service")?);
        let short = |text: &str| text.rsplit('/').next().unwrap_or(text).to_owned();
        // arn:partition:service:region:account:resource; a name has no colon.
        let part = |text: &str, number| text.split(':').nth(number).filter(|part| !part.is_empty()).map(str::to_owned);
        let of_arns = |number| part(service, number).or_else(|| part(cluster, number));
        Some(Self {
            names: (short(cluster), short(service)),
            region: text("region").map(str::to_owned).or_else(|| of_arns(3)),
            account: of_arns(4).or_else(|| text("roleArn").and_then(|role| part(role, 4))),
        })
    }

    /// What is not said may be anything.
    fn may_be(&self, other: &Self) -> bool {
        let same = |a: &Option<String>, b: &Option<String>| a.is_none() || b.is_none() || a == b;
        self.names == other.names && same(&self.region, &other.region) && same(&self.account, &other.account)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ARN: &str = "arn:aws:ecs:eu-west-1:123456789012:service/media/transcoder";

    fn drain(name: &str, created: &str, spec: &Value) -> DynamicObject {
        let metadata = json!({"name": name, "namespace": "media", "uid": name, "creationTimestamp": created});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    /// Of a drain that has done nothing yet.
    fn new(drain: &DynamicObject) -> Option<Claim> {
        Claim::of(drain, Work::Nothing)
    }

    fn owner(name: &str) -> Verdict {
        Verdict::Owner(Owner { drain: at(name), plans: false })
    }

    fn named(cluster: &str, service: &str) -> Value {
        json!({"fleet": {"ecs": {"cluster": cluster, "service": service}}})
    }

    fn at(name: &str) -> Key {
        ("media".into(), name.into())
    }

    fn failed(kind: FailureKind) -> Result<String, Failure> {
        Err(Failure::new(kind, "no"))
    }

    /// The first was made before the second; `judge` is asked for the second.
    fn second(first: &Value, first_arn: Result<String, Failure>, second: &Value, arn: &str) -> Verdict {
        let ownership = Ownership::default();
        ownership.know(&at("first"), new(&drain("first", "2026-01-01T00:00:00Z", first)));
        ownership.know(&at("second"), new(&drain("second", "2026-01-01T00:00:01Z", second)));
        assert_eq!(ownership.judge(&at("first"), first_arn), Verdict::Free, "the oldest always may");
        ownership.judge(&at("second"), Ok(arn.into()))
    }

    #[test]
    fn the_older_one_acts_however_the_service_is_written() {
        let short = named("media", "transcoder");
        let long = named("arn:aws:ecs:eu-west-1:123456789012:cluster/media", ARN);
        for (a, b) in [(&short, &long), (&long, &short), (&short, &short)] {
            assert_eq!(second(a, Ok(ARN.into()), b, ARN), owner("first"));
        }
    }

    #[test]
    fn the_same_names_elsewhere_are_another_service() {
        let elsewhere = "arn:aws:ecs:us-east-1:123456789012:service/media/transcoder";
        assert_eq!(
            second(&named("media", "transcoder"), Ok(ARN.into()), &named("media", "transcoder"), elsewhere),
            Verdict::Free
        );
    }

    #[test]
    fn one_that_cannot_see_its_service_or_only_plans_is_in_nobodys_way() {
        let spec = named("media", "transcoder");
        assert_eq!(second(&spec, failed(FailureKind::NotFound), &spec, ARN), Verdict::Free);
        let mut plans = spec.clone();
        plans["mode"] = json!("Plan");
        assert_eq!(second(&plans, Ok(ARN.into()), &spec, ARN), Verdict::Free);
    }

    #[test]
    fn an_ecs_that_does_not_answer_lets_nobody_act_before_its_better() {
        let spec = named("media", "transcoder");
        assert_eq!(second(&spec, failed(FailureKind::Unreachable), &spec, ARN), Verdict::After(at("first")));
        let mut elsewhere = spec.clone();
        elsewhere["fleet"]["ecs"]["region"] = json!("us-east-1");
        let here = named("arn:aws:ecs:eu-west-1:123456789012:cluster/media", "transcoder");
        assert_eq!(second(&elsewhere, failed(FailureKind::Unreachable), &here, ARN), Verdict::Free);
        let ownership = Ownership::default();
        ownership.know(&at("a"), new(&drain("a", "2026-01-01T00:00:00Z", &spec)));
        ownership.know(&at("b"), new(&drain("b", "2026-01-01T00:00:01Z", &spec)));
        assert_eq!(ownership.judge(&at("a"), Ok(ARN.into())), Verdict::Free);
        assert_eq!(ownership.judge(&at("b"), failed(FailureKind::Throttled)), Verdict::After(at("a")));
        assert_eq!(ownership.judge(&at("b"), Ok(ARN.into())), owner("a"));
        assert_eq!(ownership.judge(&at("b"), failed(FailureKind::Throttled)), owner("a"), "it is known");
    }

    #[test]
    fn of_three_the_one_that_acts_is_named() {
        let ownership = Ownership::default();
        for (name, created) in [("m-first", "00"), ("a-second", "01"), ("z-third", "02")] {
            let created = format!("2026-01-01T00:00:{created}Z");
            ownership.know(&at(name), new(&drain(name, &created, &named("media", "transcoder"))));
        }
        assert_eq!(ownership.judge(&at("m-first"), Ok(ARN.into())), Verdict::Free);
        for name in ["a-second", "z-third"] {
            assert_eq!(ownership.judge(&at(name), Ok(ARN.into())), owner("m-first"));
        }
    }

    /// A service with an older and a younger drain, in these modes and with so much to undo: which of them may act.
    fn who_acts(old: (&str, Work), young: (&str, Work)) -> (Verdict, Verdict) {
        let ownership = Ownership::default();
        let claim = |name: &str, created: &str, (mode, work): (&str, Work)| {
            let mut spec = named("media", "transcoder");
            spec["mode"] = json!(mode);
            Claim::of(&drain(name, created, &spec), work)
        };
        ownership.know(&at("old"), claim("old", "2026-01-01T00:00:00Z", old));
        ownership.know(&at("young"), claim("young", "2026-01-01T00:00:01Z", young));
        // What ECS says of one may be what the other one waits for.
        ownership.judge(&at("old"), Ok(ARN.into()));
        ownership.judge(&at("young"), Ok(ARN.into()));
        (ownership.judge(&at("old"), Ok(ARN.into())), ownership.judge(&at("young"), Ok(ARN.into())))
    }

    #[test]
    fn who_is_at_work_goes_on_and_first_who_alone_can_give_queues_back() {
        let young_acts = (owner("young"), Verdict::Free);
        assert_eq!(who_acts(("Enforce", Work::Nothing), ("Enforce", Work::Held)), young_acts);
        assert_eq!(who_acts(("Enforce", Work::Held), ("Enforce", Work::Taken)), young_acts);
        for work in [Work::Nothing, Work::Held, Work::Taken] {
            assert_eq!(who_acts(("Enforce", work), ("Enforce", work)), (Verdict::Free, owner("old")));
        }
    }

    #[test]
    fn one_that_only_plans_is_in_the_way_for_queues_that_it_took_and_of_nobody_at_work() {
        let planning = Verdict::Owner(Owner { drain: at("old"), plans: true });
        assert_eq!(who_acts(("Plan", Work::Taken), ("Enforce", Work::Nothing)), (Verdict::Free, planning));
        assert_eq!(who_acts(("Plan", Work::Taken), ("Enforce", Work::Held)).1, Verdict::Free);
        assert_eq!(who_acts(("Plan", Work::Held), ("Enforce", Work::Nothing)).1, Verdict::Free);
    }

    #[test]
    fn one_that_is_deleted_acts_in_every_mode_and_not_beside_one_that_works() {
        let ownership = Ownership::default();
        let mut spec = named("media", "transcoder");
        let young = drain("young", "2026-01-01T00:00:01Z", &spec);
        spec["mode"] = json!("Plan");
        let mut old = drain("old", "2026-01-01T00:00:00Z", &spec);
        old.metadata.deletion_timestamp = old.metadata.creation_timestamp.clone();
        ownership.know(&at("young"), Claim::of(&young, Work::Held));
        ownership.know(&at("old"), Claim::of(&old, Work::Held));
        ownership.judge(&at("young"), Ok(ARN.into()));
        assert_eq!(ownership.judge(&at("old"), Ok(ARN.into())), owner("young"));
        ownership.know(&at("young"), Claim::of(&young, Work::Nothing));
        assert_eq!(ownership.judge(&at("old"), Ok(ARN.into())), Verdict::Free);
    }

    #[tokio::test]
    async fn the_younger_one_waits_until_the_older_one_was_looked_at_and_takes_over_when_it_is_gone() {
        let ownership = Ownership::default();
        let spec = named("media", "transcoder");
        let (old, young) = (at("z-old"), at("a-young"));
        let (old_drain, young_drain) =
            (drain("z-old", "2026-01-01T00:00:00Z", &spec), drain("a-young", "2026-01-01T00:00:01Z", &spec));
        let all: BTreeMap<Key, Claim> = [
            (old.clone(), new(&old_drain).unwrap()),
            (young.clone(), new(&young_drain).unwrap()),
            (at("other"), new(&drain("other", "2025-01-01T00:00:00Z", &named("media", "other"))).unwrap()),
        ]
        .into();
        ownership.know_all(1, async || Ok(all)).await.unwrap();
        ownership.know(&young, new(&young_drain));
        assert_eq!(ownership.judge(&young, Ok(ARN.into())), Verdict::After(old.clone()));
        ownership.know(&old, new(&old_drain));
        assert_eq!(ownership.judge(&old, Ok(ARN.into())), Verdict::Free);
        assert_eq!(ownership.judge(&young, Ok(ARN.into())), owner("z-old"));
        // Once a term is enough, and what ECS has answered is kept from reconciliation to reconciliation.
        ownership.know_all(1, async || Ok(BTreeMap::new())).await.unwrap();
        ownership.know(&old, new(&old_drain));
        assert_eq!(ownership.judge(&young, Ok(ARN.into())), owner("z-old"));
        ownership.forget(&old);
        assert_eq!(ownership.judge(&young, Ok(ARN.into())), Verdict::Free);
        ownership.know_all(2, async || Ok(BTreeMap::new())).await.unwrap();
        assert_eq!(ownership.judge(&young, Ok(ARN.into())), Verdict::Free);
    }

    #[test]
    fn of_two_that_were_made_in_the_same_second_the_name_decides() {
        let ownership = Ownership::default();
        for name in ["b", "a"] {
            ownership.know(&at(name), new(&drain(name, "2026-01-01T00:00:00Z", &named("media", "transcoder"))));
        }
        assert_eq!(ownership.judge(&at("b"), Ok(ARN.into())), Verdict::After(at("a")));
        assert_eq!(ownership.judge(&at("a"), Ok(ARN.into())), Verdict::Free);
        assert_eq!(ownership.judge(&at("b"), Ok(ARN.into())), owner("a"));
    }
}
