//! One call to ECS: its turn in the token bucket, its time limit, its retries, and its failure.

use std::{future::Future, sync::Arc, time::Duration};

use aws_sdk_ecs::error::{ProvideErrorMetadata, SdkError};
use worker_drain_plan::observation::{Failure, FailureKind};

use super::{
    failure::describe,
    limiter::{Crowded, Limiter},
    operation::{Calls, Operation},
    target::Target,
};

/// How many calls of one kind are under way at once: enough to hide their latency, few enough for one connection pool.
pub(super) const AT_ONCE: usize = 8;

/// How often one call is tried, all in all, if ECS cannot be reached. A call that is throttled is tried for as long as it
/// may take: throttling slows us down and fails nothing.
const ATTEMPTS: u32 = 4;
/// The pause before the second attempt; it doubles with each. The pause is drawn between half of it and all of it, so
/// that drains that failed together do not come back together.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Whatever is asked of ECS goes through here.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) target: Target,
    pub(super) limiter: Arc<Limiter>,
    pub(super) calls: Arc<Calls>,
    /// How long one call may take with all its retries, not counting the time that it waits for its turn.
    pub(super) time_limit: Duration,
}

impl Caller {
    /// Makes one call, as [`Attempts::call`] does.
    pub(super) async fn call<T, E, F>(&self, operation: Operation, send: impl Fn() -> F) -> Result<T, Failure>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        F: Future<Output = Result<T, SdkError<E>>>,
    {
        let label = self.target.label();
        let jitter = || rand::random_range(0.0..=1.0);
        let attempts =
            Attempts { limiter: &self.limiter, time_limit: self.time_limit, service: &label, jitter: &jitter };
        let attempt = || {
            self.calls.count(operation);
            let answer = send();
            async { answer.await.map_err(|error| describe(operation, &self.target, &error)) }
        };
        attempts.call(operation, attempt).await
    }
}

/// How calls are made, whatever carries them: each attempt takes its turn in the bucket, and passing failures are retried.
/// Apart from the AWS client, so that a simulation drives this very code.
#[derive(Clone, Copy)]
pub struct Attempts<'a> {
    /// The buckets of the account and Region.
    pub limiter: &'a Limiter,
    /// How long one call may take with all its retries, not counting the time that it waits for its turn.
    pub time_limit: Duration,
    /// How people call the service, for messages.
    pub service: &'a str,
    /// Chance, between 0 and 1: how much of a pause's second half is waited.
    pub jitter: &'a (dyn Fn() -> f64 + Send + Sync),
}

impl Attempts<'_> {
    /// Makes one call. All operations that we use may be repeated without harm, so it is tried again when ECS cannot be
    /// reached or throttles us. Errors: what the last attempt failed of.
    pub async fn call<T, F>(&self, operation: Operation, send: impl Fn() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut left = self.time_limit;
        for attempt in 1.. {
            self.limiter.acquire(operation).await.map_err(|crowded| self.crowded(operation, &crowded))?;
            let begun = tokio::time::Instant::now();
            let answer = tokio::time::timeout(left, send()).await;
            left = left.saturating_sub(begun.elapsed());
            let failure = match answer {
                Ok(Ok(answer)) => {
                    self.limiter.answered(operation);
                    return Ok(answer);
                }
                Ok(Err(failure)) => failure,
                Err(_) => self.late(operation),
            };
            if failure.kind == FailureKind::Throttled {
                self.limiter.throttled(operation);
            }
            let pause = pause_before(attempt + 1, (self.jitter)());
            let again = match failure.kind {
                FailureKind::Throttled => true,
                FailureKind::Unreachable => attempt < ATTEMPTS,
                FailureKind::Denied | FailureKind::NotFound | FailureKind::Invalid => false,
            };
            if !again || left <= pause {
                return Err(failure);
            }
            tracing::debug!(operation = operation.name(), attempt, kind = ?failure.kind, "retrying an ECS call");
            tokio::time::sleep(pause).await;
            left = left.saturating_sub(pause);
        }
        unreachable!("the last attempt returns")
    }

    fn crowded(&self, operation: Operation, crowded: &Crowded) -> Failure {
        let (name, service) = (operation.name(), self.service);
        Failure::new(
            FailureKind::Throttled,
            format!(
                "ECS {name} for {service} was not sent: {crowded}. ECS throttles this account and Region; nothing needs \
                 to be done unless it lasts"
            ),
        )
    }

    fn late(&self, operation: Operation) -> Failure {
        let (name, service, limit) = (operation.name(), self.service, self.time_limit.as_secs());
        Failure::new(FailureKind::Unreachable, format!("ECS {name} for {service} had no answer within {limit}s"))
    }
}

/// Half of it is waited in any case, and so much of the other half.
fn pause_before(attempt: u32, jitter: f64) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(1 << attempt.saturating_sub(2).min(10)).min(LONGEST_PAUSE);
    whole / 2 + (whole / 2).mul_f64(jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_vary() {
        for (attempt, whole_ms) in [(2, 100), (3, 200), (4, 400), (9, 2000), (40, 2000)] {
            assert_eq!(pause_before(attempt, 0.0), Duration::from_millis(whole_ms / 2));
            assert_eq!(pause_before(attempt, 1.0), Duration::from_millis(whole_ms));
        }
    }
}
