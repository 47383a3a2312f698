//! Listening for the ends of jobs by Celery's events, while any is waited for.
//!
//! Workers send a heartbeat every two seconds, which says how many jobs they run; with `-E`, or when switched on, also an
//! event when a job ends. Both are hints. Nothing is listened to when nobody waits, because a busy fleet sends thousands of
//! events a second; a broker that does not let us listen costs a poll interval, and a note reports it.
//!
//! It is listened, too, while a node is silent: whether it sends heartbeats tells a deaf one from a frozen one, for a person.

mod life;
mod message;
mod switch;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::debug;
use worker_drain_plan::{
    Awaited,
    observation::{Failure, FailureKind},
};

use self::{life::Signs, message::Told};
pub(super) use self::{
    life::{DEAF, Lives},
    switch::Switches,
};
use super::transport::{Events, Transport};
use crate::signals::Wakeup;

/// One goes on listening for so long after it was last wanted: others may follow. Longer than any time between two
/// looks, and an end for a process that looks no more because another one leads.
const LINGER: Duration = Duration::from_mins(2);

/// Where nothing at all is heard for so long, the connection may be dead, and is created again. Heartbeats come every two
/// seconds, from every worker.
const SILENCE: Duration = Duration::from_mins(1);

/// Before connecting again: this long, then twice as long each time.
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// At most so long.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// When a person must change something first.
const PAUSE_REFUSED: Duration = Duration::from_mins(2);

/// Listens while it is wanted.
pub(super) struct Listener<T> {
    transport: Arc<T>,
    shared: Arc<Shared>,
    /// Ends with us.
    listening: Mutex<JoinSet<()>>,
}

/// What the one who listens and those who wait share.
#[derive(Default)]
struct Shared {
    wakeup: Wakeup,
    signs: Mutex<Signs>,
    /// When jobs were last waited for, or a node was silent.
    wanted: Mutex<Option<Instant>>,
    /// Why it may not listen.
    refused: Mutex<Option<Failure>>,
}

impl<T: Transport + 'static> Listener<T> {
    pub(super) fn new(transport: Arc<T>) -> Self {
        Self { transport, shared: Arc::default(), listening: Mutex::default() }
    }

    /// Where it is heard who may have become idle.
    pub(super) fn wakeup(&self) -> &Wakeup {
        &self.shared.wakeup
    }

    /// From now on, whoever waits is woken for these. Does not wait for anything.
    pub(super) fn listen(&self, awaited: &Awaited) {
        self.shared.wakeup.await_only(awaited);
        if !awaited.is_empty() {
            self.go_on();
        }
    }

    /// Listens, or goes on listening.
    pub(super) fn go_on(&self) {
        *lock(&self.shared.wanted) = Some(Instant::now());
        let mut listening = lock(&self.listening);
        while listening.try_join_next().is_some() {}
        if listening.is_empty() {
            listening.spawn(listen(self.transport.clone(), self.shared.clone()));
        }
    }

    /// Listens to nothing any more.
    pub(super) fn stop(&self) {
        *lock(&self.listening) = JoinSet::new();
        lock(&self.shared.signs).end();
        self.shared.wakeup.clear();
    }

    /// Who is alive, as far as it was listened.
    pub(super) fn lives(&self) -> Lives {
        lock(&self.shared.signs).lives()
    }

    /// Why it may not listen, if it may not.
    pub(super) fn refused(&self) -> Option<Failure> {
        lock(&self.shared.refused).clone()
    }
}

/// Connects, again and again, until nobody wants it any longer.
async fn listen<T: Transport>(transport: Arc<T>, shared: Arc<Shared>) {
    let mut pause = PAUSE_MIN;
    while shared.is_wanted() {
        let (why, wait) = match transport.events().await {
            Ok(events) => {
                *lock(&shared.refused) = None;
                lock(&shared.signs).begin();
                hear(events, &shared).await;
                lock(&shared.signs).end();
                pause = PAUSE_MIN;
                (String::from("the connection has ended"), pause)
            }
            Err(failure) if failure.kind == FailureKind::Unreachable => (failure.message, pause),
            Err(failure) => {
                *lock(&shared.refused) = Some(failure.clone());
                (failure.message, PAUSE_REFUSED)
            }
        };
        debug!(why, again_in = ?wait, "no events are heard");
        sleep(wait.mul_f64(rand::random_range(0.7..1.0))).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    shared.wakeup.clear();
}

impl Shared {
    fn is_wanted(&self) -> bool {
        lock(&self.wanted).is_some_and(|wanted| wanted.elapsed() < LINGER)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears all that comes, until nothing does, or nobody wants it any longer.
async fn hear(mut events: Events, shared: &Shared) {
    while let Ok(Some(body)) = timeout(SILENCE, events.next()).await {
        for Told { node, leaves, sign } in message::told(&body) {
            if let Some(sign) = sign {
                shared.wakeup.hear(&node, sign);
            }
            lock(&shared.signs).hear(node, leaves);
        }
        if !shared.is_wanted() {
            return;
        }
    }
}
