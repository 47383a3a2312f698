//! Who acts, of several replicas: the one that holds a Lease.
//!
//! A claim to act is a time until which it is good, and is judged when it is used, never remembered as a yes. It ends
//! before anybody else may start: at [`CLAIM_SHARE`] of the Lease's duration after the renewal was *sent*, while another
//! replica waits the whole duration from when it *saw* that renewal. So no clock is compared with another machine's.
//!
//! Two leaders at once would do no harm (docs/decisions/0005: only one of them can write, and nothing that they do is
//! harmful twice). The Lease saves work and keeps reports in order.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Client,
    api::{Api, ObjectMeta, PostParams},
};
use tokio::{
    sync::{OwnedRwLockReadGuard, RwLock, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use worker_drain_plan::observation::{Failure, FailureKind};

use crate::{
    clock::{Clock, SystemClock},
    record::api_server::{call, call_opt},
};

/// For how long a Lease is good. Kubernetes' own components have the same.
pub const DURATION: Duration = Duration::from_secs(15);

/// The part of a Lease's duration for which its holder acts; the rest is for what it has begun.
const CLAIM_SHARE: (u32, u32) = (2, 3);

/// Between two renewals, and between two reads by those who wait.
const RETRY: Duration = Duration::from_secs(2);

/// An attempt may take so long, so that another one can be made before the claim ends.
const ATTEMPT_BOUND: Duration = Duration::from_secs(4);

/// What has begun may take so long when the Lease is given up.
const RESIGN_BOUND: Duration = Duration::from_secs(8);

/// So often it is tried to release the Lease; whoever waits for it would wait for its end otherwise.
const RELEASE_ATTEMPTS: u32 = 3;

/// Which Lease, and who we are.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who we are; no other process may be called the same.
    pub identity: String,
}

/// A claim to act.
#[derive(Clone, Copy, Debug)]
struct Claim {
    until: Instant,
    /// The same on the other clock: the first one stands still while a machine sleeps.
    until_wall: Timestamp,
    /// Counts the times that a claim began again.
    term: u64,
}

/// Tells whether this process may act. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership {
    claim: watch::Receiver<Option<Claim>>,
    acting: Arc<RwLock<()>>,
}

/// While this lives, the Lease is not given up.
pub type Acting = OwnedRwLockReadGuard<()>;

impl Leadership {
    /// May act from now on and for ever: there is no other replica.
    pub fn always() -> (Self, Leader) {
        let claim = Claim { until: Instant::now() + FOR_EVER, until_wall: Timestamp::MAX, term: 1 };
        Self::with(Some(claim))
    }

    fn with(claim: Option<Claim>) -> (Self, Leader) {
        let (sender, claim) = watch::channel(claim);
        let acting = Arc::default();
        (Self { claim, acting: Arc::clone(&acting) }, Leader { claim: sender, acting })
    }

    /// Whether this process may act now.
    pub fn is_current(&self) -> bool {
        self.claim.borrow().is_some_and(|claim| claim.is_good())
    }

    /// Which claim in succession this is; it differs after somebody else may have acted.
    pub fn term(&self) -> u64 {
        self.claim.borrow().map_or(0, |claim| claim.term)
    }

    /// The permission to act now, for one batch of actions; `None`: others may be acting.
    pub async fn act(&self) -> Option<Acting> {
        let acting = Arc::clone(&self.acting).read_owned().await;
        self.is_current().then_some(acting)
    }

    /// Waits until a claim begins that is not of this term; its term. `None`: there will be none any more.
    pub async fn next_term(&mut self, after: u64) -> Option<u64> {
        let new = |claim: &Option<Claim>| claim.is_some_and(|claim| claim.term != after);
        self.claim.wait_for(new).await.ok().and_then(|claim| claim.map(|claim| claim.term))
    }
}

/// Longer than any process lives.
const FOR_EVER: Duration = Duration::from_hours(100 * 365 * 24);

impl Claim {
    fn is_good(&self) -> bool {
        Instant::now() < self.until && SystemClock.now() < self.until_wall
    }
}

/// Publishes claims.
#[derive(Debug)]
pub struct Leader {
    claim: watch::Sender<Option<Claim>>,
    acting: Arc<RwLock<()>>,
}

impl Leader {
    /// A renewal that was sent at these times has been accepted.
    fn extend(&self, sent: Instant, sent_wall: Timestamp, lasting: Duration) {
        let lasting = lasting * CLAIM_SHARE.0 / CLAIM_SHARE.1;
        let wall = SignedDuration::try_from(lasting).unwrap_or(SignedDuration::MAX);
        self.claim.send_modify(|claim| {
            // Those that were refused meanwhile learn of the new beginning.
            let term = claim.map_or(1, |claim| if claim.is_good() { claim.term } else { claim.term + 1 });
            let until_wall = sent_wall.saturating_add(wall).unwrap_or(Timestamp::MAX);
            *claim = Some(Claim { until: sent + lasting, until_wall, term });
        });
    }

    fn end(&self) {
        let ended = Instant::now();
        self.claim.send_modify(|claim| {
            if let Some(claim) = claim {
                claim.until = ended.min(claim.until);
            }
        });
    }

    /// Ends the claim and waits until nothing acts on it any more, with a bound.
    pub async fn resign(&self) {
        self.end();
        if timeout(RESIGN_BOUND, self.acting.write()).await.is_err() {
            tracing::warn!("an action is still under way while the lease is given up; that does no harm");
        }
    }
}

/// Takes part in the election.
#[derive(Debug)]
pub struct Election {
    api: Api<Lease>,
    settings: LeaseSettings,
    leader: Leader,
    seen: Option<Seen>,
    read: watch::Sender<bool>,
    holder: Option<String>,
}

/// A Lease as somebody else left it, and when we first saw it so.
#[derive(Clone, Debug)]
struct Seen {
    version: Option<String>,
    since: Instant,
}

impl Election {
    /// Nothing is asked yet. The receiver turns true when the Lease has been read once.
    pub fn new(client: Client, settings: LeaseSettings) -> (Leadership, Self, watch::Receiver<bool>) {
        let api = Api::namespaced(client, &settings.namespace);
        let (leadership, leader) = Leadership::with(None);
        let (read, has_read) = watch::channel(false);
        (leadership, Self { api, settings, leader, seen: None, read, holder: None }, has_read)
    }

    /// Takes part until `stop`; then gives the Lease up at once, if it is ours.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut last_error = None;
        loop {
            let attempt = async { timeout(ATTEMPT_BOUND, self.attempt()).await.unwrap_or_else(|_| Err(silent())) };
            match stop.run_until_cancelled(attempt).await {
                None => break,
                Some(Ok(())) => last_error = None,
                Some(Err(failure)) => {
                    if last_error.as_ref() != Some(&failure.message) {
                        tracing::warn!(why = failure.message, "the lease could not be read or written");
                    }
                    last_error = Some(failure.message);
                }
            }
            if stop.run_until_cancelled(sleep(RETRY)).await.is_none() {
                break;
            }
        }
        self.leader.resign().await;
        for _ in 0..RELEASE_ATTEMPTS {
            match self.release().await {
                Ok(Release::Done) => return tracing::info!("the lease is released"),
                Ok(Release::NotOurs) => return,
                Ok(Release::Overtaken) => {}
                Err(failure) => {
                    return tracing::warn!(why = failure.message, "the lease could not be released; it expires");
                }
            }
        }
        tracing::warn!("the lease is written by others all the time; it expires");
    }

    async fn attempt(&mut self) -> Result<(), Failure> {
        let lease = call_opt("read the Lease", self.api.get(&self.settings.name)).await?;
        let (sent, sent_wall) = (Instant::now(), SystemClock.now());
        let spec = lease.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        self.log_holder(holder.as_deref());
        let ours = holder.as_ref() == Some(&self.settings.identity);
        let taken = match lease {
            None => self.create(sent_wall).await?,
            Some(lease) if ours || holder.is_none() || self.has_expired(&lease) => {
                self.take(lease, &spec, ours, sent_wall).await?
            }
            Some(_) => false,
        };
        if taken {
            self.seen = None;
            self.log_holder(Some(&self.settings.identity.clone()));
            self.leader.extend(sent, sent_wall, DURATION);
        } else if !ours {
            self.leader.end();
        }
        self.read.send_replace(true);
        Ok(())
    }

    fn log_holder(&mut self, holder: Option<&str>) {
        if self.holder.as_deref() != holder {
            tracing::info!(
                holder = holder.unwrap_or_default(),
                identity = self.settings.identity,
                "the lease's holder"
            );
            self.holder = holder.map(ToOwned::to_owned);
        }
    }

    /// Its holder has not renewed it for the whole of its duration, by our own clock.
    fn has_expired(&mut self, lease: &Lease) -> bool {
        let version = lease.metadata.resource_version.clone();
        let seen = self.seen.take().filter(|seen| seen.version == version);
        let seen = seen.unwrap_or_else(|| Seen { version, since: Instant::now() });
        let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let duration = seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(DURATION, Duration::from_secs);
        let expired = seen.since.elapsed() >= duration;
        self.seen = Some(seen);
        expired
    }

    async fn create(&self, now: Timestamp) -> Result<bool, Failure> {
        let lease = Lease {
            metadata: ObjectMeta { name: Some(self.settings.name.clone()), ..ObjectMeta::default() },
            spec: Some(self.spec(0, MicroTime(now), now)),
        };
        won(call("create the Lease", lost_is_none(self.api.create(&PostParams::default(), &lease))).await)
    }

    async fn take(&self, mut lease: Lease, before: &LeaseSpec, ours: bool, now: Timestamp) -> Result<bool, Failure> {
        let transitions = before.lease_transitions.unwrap_or(0);
        let acquired = before.acquire_time.clone().filter(|_| ours).unwrap_or(MicroTime(now));
        lease.spec = Some(self.spec(if ours { transitions } else { transitions + 1 }, acquired, now));
        // The version that was read goes with it: of two that try at once, one is refused.
        let params = PostParams::default();
        let request = self.api.replace(&self.settings.name, &params, &lease);
        won(call("renew the Lease", lost_is_none(request)).await)
    }

    fn spec(&self, transitions: i32, acquired: MicroTime, now: Timestamp) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.settings.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(acquired),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self) -> Result<Release, Failure> {
        let Some(mut lease) = call_opt("read the Lease", self.api.get(&self.settings.name)).await? else {
            return Ok(Release::NotOurs);
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() != Some(&self.settings.identity) {
            return Ok(Release::NotOurs);
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(SystemClock.now()));
        let params = PostParams::default();
        let request = self.api.replace(&self.settings.name, &params, &lease);
        let won = won(call("release the Lease", lost_is_none(request)).await)?;
        Ok(if won { Release::Done } else { Release::Overtaken })
    }
}

/// What became of an attempt to release the Lease.
enum Release {
    /// It was ours, and is free now.
    Done,
    /// It is somebody else's, or nobody's.
    NotOurs,
    /// It was written meanwhile, as by our own last renewal, which was on its way when we were stopped.
    Overtaken,
}

fn silent() -> Failure {
    Failure::new(FailureKind::Unreachable, "the Kubernetes API server did not answer in time")
}

/// Somebody else was faster: no failure.
async fn lost_is_none<T>(request: impl Future<Output = kube::Result<T>> + Send) -> kube::Result<Option<T>> {
    match request.await {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}

fn won<T>(result: Result<Option<T>, Failure>) -> Result<bool, Failure> {
    match result {
        Ok(value) => Ok(value.is_some()),
        // Deleted meanwhile: it is created again next time.
        Err(failure) if failure.kind == FailureKind::NotFound => Ok(false),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A renewal that was sent so long ago.
    fn extend(leader: &Leader, ago: Duration) {
        let wall = SystemClock.now() - SignedDuration::try_from(ago).unwrap();
        leader.extend(Instant::now() - ago, wall, DURATION);
    }

    #[tokio::test]
    async fn a_claim_ends_before_the_lease_does() {
        let (leadership, leader) = Leadership::with(None);
        assert!(!leadership.is_current());
        extend(&leader, Duration::ZERO);
        assert!(leadership.act().await.is_some());
        extend(&leader, Duration::from_secs(8));
        assert!(leadership.is_current());
        extend(&leader, Duration::from_secs(10));
        assert!(!leadership.is_current(), "others start after 15 s at the earliest");
        assert!(leadership.act().await.is_none());
    }

    #[tokio::test]
    async fn a_machine_that_slept_has_no_claim() {
        let (leadership, leader) = Leadership::with(None);
        leader.extend(Instant::now(), SystemClock.now() - SignedDuration::from_mins(5), DURATION);
        assert!(!leadership.is_current());
    }

    #[tokio::test]
    async fn a_renewal_in_time_is_the_same_term_and_one_after_a_lapse_is_another() {
        let (mut leadership, leader) = Leadership::with(None);
        extend(&leader, Duration::ZERO);
        extend(&leader, DURATION);
        assert_eq!(leadership.next_term(0).await, Some(1));
        extend(&leader, Duration::ZERO);
        assert_eq!(leadership.next_term(1).await, Some(2));
        drop(leader);
        assert_eq!(leadership.next_term(2).await, None);
    }

    #[tokio::test]
    async fn who_resigns_waits_for_what_has_begun_and_lets_nothing_begin() {
        let (leadership, leader) = Leadership::always();
        let acting = leadership.act().await.unwrap();
        let resigning = async {
            leader.resign().await;
            Instant::now()
        };
        let ending = async {
            sleep(Duration::from_millis(100)).await;
            drop(acting);
            Instant::now()
        };
        let (resigned, ended) = tokio::join!(resigning, ending);
        assert!(resigned >= ended);
        assert!(leadership.act().await.is_none());
    }
}
