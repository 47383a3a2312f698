//! Who waits for replies on a connection, whatever the broker is.

use std::sync::{Mutex, MutexGuard, PoisonError};

use worker_drain_plan::observation::Failure;

use super::{
    pidbox::Request,
    transport::{Replies, Reply, ReplySink},
};

/// Who waits for replies, or the problem for which nobody can any longer.
pub(super) struct Waiting<P>(Mutex<State<P>>);

struct State<P> {
    ended: Option<P>,
    sinks: Vec<(Vec<String>, ReplySink)>,
}

impl<P: Clone> Waiting<P> {
    /// Nobody.
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { ended: None, sinks: Vec::new() }))
    }

    /// Whether replies can still come in.
    pub(super) fn is_alive(&self) -> bool {
        self.state().ended.is_none()
    }

    /// Whether anybody waits.
    pub(super) fn has_anybody(&self) -> bool {
        self.state().sinks.iter().any(|(_, sink)| !sink.is_closed())
    }

    /// From now on, replies to these requests are kept for whoever reads them.
    pub(super) fn add(&self, requests: &[Request]) -> Result<Replies, P> {
        let (sink, replies) = Replies::channel();
        let mut state = self.state();
        if let Some(problem) = &state.ended {
            return Err(problem.clone());
        }
        state.sinks.retain(|(_, sink)| !sink.is_closed());
        state.sinks.push((requests.iter().map(|request| request.ticket.clone()).collect(), sink));
        Ok(replies)
    }

    /// Hands a reply to whoever waits for its ticket. Any other is late, or not meant for us, and nobody's.
    pub(super) fn deliver(&self, reply: Reply) {
        let state = self.state();
        if let Some((_, sink)) = state.sinks.iter().find(|(tickets, _)| tickets.contains(&reply.ticket)) {
            sink.put(Ok(reply));
        }
    }

    /// Nothing will come any longer: tells it to all who wait, and to all who would.
    pub(super) fn end(&self, problem: P, failure: &Failure) {
        let mut state = self.state();
        for (_, sink) in state.sinks.drain(..) {
            sink.put(Err(failure.clone()));
        }
        state.ended = Some(problem);
    }

    fn state(&self) -> MutexGuard<'_, State<P>> {
        // Nothing is left half done while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
