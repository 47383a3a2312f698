//! Celery's remote control over one transport: how long requests are good for, and how long replies are awaited.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, timeout_at};
use worker_drain_plan::observation::{Failure, FailureKind};

use super::transport::{Replies, Reply};
use crate::clock::Clock;

/// How long after the last moment at which a reply is of use a request expires. Clocks differ between machines, and a node
/// that dropped what its own clock takes for old would never answer.
const CLOCKS_DIFFER_BY: Duration = Duration::from_secs(15);

/// Remote control over this transport.
pub(super) struct Remote<T> {
    pub(super) transport: Arc<T>,
    pub(super) clock: Arc<dyn Clock>,
    /// How long replies are awaited when not all are known to have come.
    pub(super) bound: Duration,
}

impl<T> Remote<T> {
    /// When a request of then expires.
    pub(super) fn expires(&self, asked_at: Timestamp) -> Timestamp {
        let after = SignedDuration::try_from(self.bound + CLOCKS_DIFFER_BY).unwrap_or(SignedDuration::MAX);
        asked_at.saturating_add(after).unwrap_or(asked_at)
    }

    /// Until when replies to a request of now are awaited.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.bound
    }
}

/// The next reply. `None`: the time is up.
pub(super) async fn next(replies: &mut Replies, deadline: Instant) -> Result<Option<Reply>, Failure> {
    match timeout_at(deadline, replies.next()).await {
        Err(_) => Ok(None),
        Ok(Some(reply)) => reply.map(Some),
        Ok(None) => Err(Failure::new(FailureKind::Unreachable, "the connection to the broker was closed meanwhile")),
    }
}
