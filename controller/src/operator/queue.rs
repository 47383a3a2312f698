//! Which drain is reconciled when: a queue for each watched namespace, over the metadata of its drains.

use std::{convert::Infallible, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt, Stream, StreamExt, TryFutureExt, stream};
use kube::{
    Client,
    api::Api,
    core::PartialObjectMeta,
    runtime::{
        Predicate, PredicateConfig, WatchStreamExt,
        controller::{self, Action, Controller},
        predicates, reflector,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use tokio::{
    sync::{
        OwnedMutexGuard,
        broadcast::{self, error::RecvError},
    },
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use worker_drain_plan::observation::{Failure, FailureKind};

use super::{
    admin::Health,
    context::{Context, Entry},
    failure_status,
    lease::Leadership,
    metrics::{Key, PassEnd},
    reconcile,
    subject::Next,
};
use crate::{
    api::WorkerDrain,
    clock::{Clock, SystemClock},
};

/// Only what a signal needs: a spec that cannot be read does no harm here, and statuses are not kept in memory.
type Signal = PartialObjectMeta<WorkerDrain>;

/// A reconciliation that takes longer is cut off. Each of its calls has its own bound; but it may wait for its turn at ECS.
const RECONCILIATION_BOUND: Duration = Duration::from_mins(10);

/// Signals that come so close to one another are one.
const DEBOUNCE: Duration = Duration::from_millis(20);

/// A watch is created again after so long, in seconds: a connection that died unnoticed costs no more.
const WATCH_SECONDS: u32 = 120;

/// After a reconciliation that failed: this long, then twice as long each time.
const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// At most so long.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// One for all namespaces, or one for each of these.
pub fn apis(client: &Client, namespaces: &[String]) -> Vec<Api<Signal>> {
    if namespaces.is_empty() {
        return vec![Api::all(client.clone())];
    }
    let unique: std::collections::BTreeSet<&String> = namespaces.iter().collect();
    unique.into_iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
}

/// Lets reconciliations run as signals and plans ask for them, until `stop`; then waits for those under way.
pub async fn run(api: Api<Signal>, context: Arc<Context>, health: Health, stop: CancellationToken) -> &'static str {
    let (store, writer) = reflector::store();
    // An annotation may abandon a drain. Nothing of ours changes one, so no reconciliation of ours makes the next one.
    let changes = predicates::generation.combine(predicates::finalizers).combine(predicates::annotations);
    let signals = watcher(api, watcher::Config::default().timeout(WATCH_SECONDS))
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(changes, PredicateConfig::default());
    let synced = health.wait_for(store.clone());
    let filled = store.clone();
    let wakes = wakes(context.wakes.subscribe(), store.clone());
    let reconciliations = Controller::for_stream(signals, store)
        .with_config(controller::Config::default().debounce(DEBOUNCE).concurrency(u16::MAX))
        .reconcile_all_on(new_terms(context.leadership.clone()))
        .reconcile_on(wakes)
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(one, |_, never: &Infallible, _| match *never {}, Arc::clone(&context));
    let ended = reconciliations.for_each(|result| {
        let context = Arc::clone(&context);
        async move {
            match result {
                Ok(_) => {}
                Err(controller::Error::ObjectNotFound(gone)) => {
                    context.forget(&(gone.namespace.unwrap_or_default(), gone.name)).await;
                }
                Err(controller::Error::QueueError(error)) => {
                    tracing::warn!(%error, "WorkerDrains cannot be watched");
                }
                Err(error) => tracing::warn!(%error, "the queue of reconciliations"),
            }
        }
    });
    tokio::select! {
        _ = async { tokio::join!(ended, synced) } => {}
        // The queue would wait for a list that may never come; no reconciliation is under way then.
        () = stopped_empty(&stop, &filled) => {}
    }
    "the queue of reconciliations"
}

/// Stopped before the drains that there are could be read once.
async fn stopped_empty(stop: &CancellationToken, drains: &reflector::Store<Signal>) {
    stop.cancelled().await;
    if drains.wait_until_ready().now_or_never().is_some() {
        std::future::pending::<()>().await;
    }
}

/// Every time that this process may act again, every drain is reconciled.
fn new_terms(leadership: Leadership) -> impl futures::Stream<Item = ()> + Send + 'static {
    stream::unfold((leadership, 0), |(mut leadership, term)| async move {
        let term = leadership.next_term(term).await?;
        Some(((), (leadership, term)))
    })
}

/// Those drains of this queue that are to be reconciled now.
fn wakes(from: broadcast::Receiver<Key>, store: Store<Signal>) -> impl Stream<Item = ObjectRef<Signal>> {
    stream::unfold((from, store), |(mut from, store)| async move {
        loop {
            match from.recv().await {
                Ok((namespace, name)) => {
                    let reference = ObjectRef::new(&name).within(&namespace);
                    if store.get(&reference).is_some() {
                        return Some((reference, (from, store)));
                    }
                }
                // They are reconciled a poll interval later.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

/// Reconciles the drain that a signal names.
async fn one(signal: Arc<Signal>, context: Arc<Context>) -> Result<Action, Infallible> {
    let reference = ObjectRef::from_obj(&*signal);
    let key = (reference.namespace.clone().unwrap_or_default(), reference.name.clone());
    let _slot = context.slots.acquire().await;
    // Judged as late as possible. All drains are reconciled when a claim begins.
    if !context.leadership.is_current() {
        return Ok(Action::await_change());
    }
    context.metrics.drains().expect(&key, SystemClock.now());
    let entry = context.entries.of(&key).lock_owned().await;
    let span = tracing::info_span!("reconcile", namespace = key.0, drain = key.1);
    Ok(fenced(&context, &key, entry).instrument(span).await)
}

/// Whatever becomes of the reconciliation is this drain's trouble alone.
async fn fenced(context: &Context, key: &Key, mut entry: OwnedMutexGuard<Entry>) -> Action {
    let began = tokio::time::Instant::now();
    // Without its type: the compiler gives up on whether a future so deep may be sent.
    let (end, next) = judged(reconcile::reconcile(context, key, &mut entry).boxed(), RECONCILIATION_BOUND).await;
    context.metrics.passed(end, began.elapsed());
    match next {
        Ok(Next::After(wait)) => {
            entry.failures = 0;
            context.wait_for_signals(key, &mut entry);
            Action::requeue(wait)
        }
        Ok(Next::Gone) => {
            drop(entry);
            context.forget(key).await;
            Action::await_change()
        }
        Err(failure) => {
            reconcile::count_failure(context, &failure);
            if end == PassEnd::Panic {
                tracing::error!(why = failure.message, "the reconciliation panicked; other drains are not affected");
            }
            let reported =
                failure_status::report_failure(context, key, &mut entry, end, &failure).map_ok(|()| Next::Gone);
            if let (_, Err(unreported)) = judged(Box::pin(reported), RECONCILIATION_BOUND).await {
                tracing::warn!(why = unreported.message, "the status could not report the failed reconciliation");
            }
            let wait = backoff(entry.failures);
            entry.failures = entry.failures.saturating_add(1);
            tracing::warn!(why = failure.message, again_in = ?wait, "the reconciliation failed; every hold is kept");
            Action::requeue(wait)
        }
    }
}

/// How a reconciliation ends: it may fail, hang, or panic.
async fn judged(
    reconciliation: impl Future<Output = Result<Next, Failure>>,
    bound: Duration,
) -> (PassEnd, Result<Next, Failure>) {
    match timeout(bound, AssertUnwindSafe(reconciliation).catch_unwind()).await {
        Ok(Ok(Ok(next))) => (PassEnd::Ok, Ok(next)),
        Ok(Ok(Err(failure))) => (PassEnd::Error, Err(failure)),
        Ok(Err(panic)) => (PassEnd::Panic, Err(Failure::new(FailureKind::Invalid, panic_text(&*panic)))),
        Err(_) => {
            let message = format!("the reconciliation was cut off after {bound:?}");
            (PassEnd::Timeout, Err(Failure::new(FailureKind::Unreachable, message)))
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| String::from("no message"))
}

fn backoff(failures: u32) -> Duration {
    let wait = BACKOFF_MIN.saturating_mul(1 << failures.min(8)).min(BACKOFF_MAX);
    wait.mul_f64(rand::random_range(0.7..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reconciliation_may_fail_hang_or_panic_without_others_suffering() {
        let bound = Duration::from_millis(50);
        let next = Next::After(Duration::from_secs(1));
        assert_eq!(judged(async { Ok(next) }, bound).await, (PassEnd::Ok, Ok(next)));
        let failure = Failure::new(FailureKind::Denied, "no");
        assert_eq!(judged(async { Err(failure.clone()) }, bound).await, (PassEnd::Error, Err(failure.clone())));
        assert_eq!(judged(std::future::pending(), bound).await.0, PassEnd::Timeout);
        let (end, next) = judged(async { panic!("a bug in {}", "the plan") }, bound).await;
        assert_eq!((end, next.unwrap_err().message.as_str()), (PassEnd::Panic, "a bug in the plan"));
    }

    #[tokio::test]
    async fn stopping_before_the_drains_were_read_does_not_wait_for_them() {
        let stop = CancellationToken::new();
        let (store, mut writer) = reflector::store::<Signal>();
        assert!(stopped_empty(&stop, &store).now_or_never().is_none(), "it was not stopped");
        stop.cancel();
        assert!(stopped_empty(&stop, &store).now_or_never().is_some());
        writer.apply_watcher_event(&watcher::Event::Init);
        writer.apply_watcher_event(&watcher::Event::InitDone);
        assert!(stopped_empty(&stop, &store).now_or_never().is_none(), "reconciliations may be under way");
    }

    #[test]
    fn a_failing_reconciliation_is_retried_ever_less_often_and_never_given_up() {
        assert!(backoff(0) <= BACKOFF_MIN);
        assert!(backoff(3) >= Duration::from_secs(5));
        assert!(backoff(u32::MAX) <= BACKOFF_MAX);
    }
}
