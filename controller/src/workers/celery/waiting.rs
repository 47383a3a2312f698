//! Who waits for replies on a connection, whatever the broker is.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use worker_drain_plan::observation::Failure;

use super::{
    pidbox::Request,
    transport::{Replies, Reply, ReplySink},
};

/// Who waits for replies, or the problem for which nobody can any longer.
#[derive(Debug)]
pub struct Waiting<P> {
    state: Mutex<State<P>>,
    began: Notify,
}

#[derive(Debug)]
struct State<P> {
    ended: Option<P>,
    sinks: Vec<(Vec<String>, ReplySink)>,
}

impl<P: Clone> Waiting<P> {
    /// Nobody.
    #[expect(clippy::new_without_default, reason = "a connection begins; there is no connection by default")]
    pub fn new() -> Self {
        Self { state: Mutex::new(State { ended: None, sinks: Vec::new() }), began: Notify::new() }
    }

    /// Whether replies can still come in.
    pub fn is_alive(&self) -> bool {
        self.state().ended.is_none()
    }

    /// Whether anybody waits.
    pub fn has_anybody(&self) -> bool {
        self.state().sinks.iter().any(|(_, sink)| sink.is_awaited())
    }

    /// Waits until somebody begins to wait. One who began since the last call counts.
    pub async fn begins(&self) {
        self.began.notified().await;
    }

    /// Whether nobody has so much unread that more is to be left at the broker.
    pub fn has_room(&self) -> bool {
        !self.state().sinks.iter().any(|(_, sink)| sink.is_full())
    }

    /// From now on, replies to these requests are kept for whoever reads them. Errors: nothing comes any longer, and why.
    pub fn add(&self, requests: &[Request]) -> Result<Replies, P> {
        let (sink, replies) = Replies::channel();
        let mut state = self.state();
        if let Some(problem) = &state.ended {
            return Err(problem.clone());
        }
        state.sinks.retain(|(_, sink)| !sink.is_closed());
        state.sinks.push((requests.iter().map(|request| request.ticket.clone()).collect(), sink));
        self.began.notify_one();
        Ok(replies)
    }

    /// Hands a reply to whoever waits for its ticket. Any other is late, or not meant for us, and nobody's.
    pub fn deliver(&self, reply: Reply) {
        let state = self.state();
        if let Some((_, sink)) = state.sinks.iter().find(|(tickets, _)| tickets.contains(&reply.ticket)) {
            sink.put(Ok(reply));
        }
    }

    /// Nothing more will come: all who wait, and all who would, get this failure.
    pub fn end(&self, problem: P, failure: &Failure) {
        let mut state = self.state();
        for (_, sink) in state.sinks.drain(..) {
            sink.put(Err(failure.clone()));
        }
        state.ended = Some(problem);
    }

    fn state(&self) -> MutexGuard<'_, State<P>> {
        // Nothing is left half done while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use worker_drain_plan::observation::{Failure, FailureKind};

    use super::{
        super::pidbox::{Method, Recipients},
        Reply, Request, Waiting,
    };

    fn request() -> Request {
        Request::new(Method::Active, Recipients::Everybody, Timestamp::UNIX_EPOCH)
    }

    fn reply(ticket: &str) -> Reply {
        Reply { ticket: ticket.into(), body: ticket.as_bytes().to_vec().into() }
    }

    #[tokio::test]
    async fn no_reply_is_taken_for_one_to_another_request() {
        let waiting = Waiting::<&str>::new();
        let (one, other, given_up) = ([request(), request()], [request()], [request()]);
        let (mut to_one, mut to_other) = (waiting.add(&one).unwrap(), waiting.add(&other).unwrap());
        drop(waiting.add(&given_up).unwrap());
        for ticket in [&other[0].ticket, &one[1].ticket, &given_up[0].ticket, "late", &one[0].ticket] {
            waiting.deliver(reply(ticket));
        }
        assert_eq!(to_one.next().await.unwrap(), Ok(reply(&one[1].ticket)));
        assert_eq!(to_one.next().await.unwrap(), Ok(reply(&one[0].ticket)));
        assert_eq!(to_other.next().await.unwrap(), Ok(reply(&other[0].ticket)));
    }

    #[tokio::test]
    async fn a_connection_that_ends_is_told_to_all_who_wait() {
        let waiting = Waiting::new();
        assert!(waiting.is_alive() && !waiting.has_anybody());
        let mut replies = [waiting.add(&[request()]).unwrap(), waiting.add(&[request()]).unwrap()];
        assert!(waiting.has_anybody());
        let failure = Failure::new(FailureKind::Unreachable, "lost");
        waiting.end("lost", &failure);
        for replies in &mut replies {
            assert_eq!(replies.next().await, Some(Err(failure.clone())));
        }
        assert!(!waiting.is_alive() && !waiting.has_anybody());
        assert_eq!(waiting.add(&[request()]).unwrap_err(), "lost");
    }
}
