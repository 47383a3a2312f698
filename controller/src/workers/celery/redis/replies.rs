//! What comes back: our reply queue, and the half of a connection that reads it.
//!
//! A reply has no bound of its own, as it lists every job of a node with all arguments, and several come at once. So a script of
//! ours looks at what there is before any of it is sent to us: it hands over so many bytes at a time, and of what is too long
//! only both ends. BRPOP would send whatever comes next, however long, and so would all other commands that wait for it; that is why
//! the script is asked again and again while somebody waits.

use std::{sync::Arc, time::Duration};

use redis::{FromRedisValue, Pipeline, RedisError, RedisResult, Value, aio::MultiplexedConnection, cmd, pipe};
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::{
    address::Address,
    envelope::{unwrap, unwrap_ends},
    error::{Problem, is_refused},
    names::Names,
};
use crate::{
    clock::Clock,
    workers::celery::{pidbox::TooLong, waiting::Waiting},
};

/// The longest reply that is read, as it lies in Redis: some 25,000 jobs with 1 kB of arguments each. While one is read and decoded it
/// takes some five times as much memory (measured), and an operator has 256 MiB by default.
const LONGEST: u64 = 32 << 20;
/// After so many bytes, or so many replies, what follows is left for the next time.
const BATCH_BYTES: u64 = 4 << 20;
const BATCH: usize = 256;
/// How much of both ends of one that is too long is read: they name its node and its ticket.
const ENDS: usize = 2048;
/// Takes replies from our lists, the most urgent first.
const TAKE: &str = include_str!("take.lua");

/// How long is waited before the lists are looked at again while somebody waits: little at first, because most nodes answer within
/// milliseconds, and each time half as much again.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// How long is waited at last while nobody does. What comes then is late.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// Without the script: how long Redis waits for a reply before it says that there is none. A reader that hears nothing for this long
/// and an operation's bound has a dead connection.
const POLL: Duration = Duration::from_secs(1);
/// How many replies are taken at once then: few at first, more as long as there are more.
const SMALLEST_BATCH: usize = 8;
const LARGEST_BATCH: usize = 256;

/// How often we say that we still live, whether or not anything is asked.
const RENEW_EVERY: Duration = Duration::from_mins(2);
/// How long after our last sign of life another client may clean up after us, in seconds. Five times [`RENEW_EVERY`].
const ALIVE_FOR: u64 = 600;
/// For how long, in milliseconds, the set of bindings is wanted: kombu's own `MIN_BINDING_TTL`.
const BINDINGS_WANTED_FOR: i64 = 60 * 60 * 1000;

/// Adds the commands that announce our reply queue; returns how many they are.
///
/// kombu 5.7 removes a set of bindings whose deadline has passed, and raises it in a script that asks Redis for the time.
/// `GT` makes a clock of ours that is behind harmless.
pub(super) fn announce(pipeline: &mut Pipeline, names: &Names, clock: &dyn Clock) -> usize {
    let (deadlines, exchange) = names.deadlines();
    let wanted_until = clock.now().as_millisecond().saturating_add(BINDINGS_WANTED_FOR);
    pipeline.cmd("SADD").arg(names.bindings()).arg(names.binding());
    pipeline.cmd("SET").arg(names.alive()).arg(1).arg("EX").arg(ALIVE_FOR);
    pipeline.cmd("ZADD").arg(deadlines).arg("GT").arg(wanted_until).arg(exchange);
    3
}

/// The half of a connection that reads.
pub(super) struct Reading {
    connection: MultiplexedConnection,
    names: Arc<Names>,
    clock: Arc<dyn Clock>,
    bound: Duration,
    /// Redis refuses our script.
    is_refused: bool,
}

impl Reading {
    pub(super) fn new(
        connection: MultiplexedConnection,
        names: Arc<Names>,
        clock: Arc<dyn Clock>,
        bound: Duration,
    ) -> Self {
        Self { connection, names, clock, bound, is_refused: false }
    }

    pub(super) async fn run(mut self, address: Arc<Address>, waiting: Arc<Waiting<Problem>>) {
        let problem = self.read(&waiting).await;
        let failure = address.failure(&problem);
        debug!(%address, failure = failure.message, "the connection has ended");
        waiting.end(problem, &failure);
    }

    async fn read(&mut self, waiting: &Waiting<Problem>) -> Problem {
        let (mut renewed, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let taken = if self.is_refused {
                self.pop(waiting).await.map(|()| true)
            } else if waiting.has_room() {
                self.take(waiting).await
            } else {
                // What has come is to be taken in first; until then the rest stays with the broker.
                Ok(false)
            };
            pause = match taken {
                Ok(true) => FIRST_PAUSE,
                Ok(false) => rest(waiting, pause).await,
                Err(problem) => return problem,
            };
            if renewed.elapsed() >= RENEW_EVERY {
                renewed = Instant::now();
                if let Err(problem) = self.renew().await {
                    return problem;
                }
            }
        }
    }

    /// Takes some of what has come in. Returns whether there is more, perhaps.
    async fn take(&mut self, waiting: &Waiting<Problem>) -> Result<bool, Problem> {
        let lists = self.names.lists();
        let mut eval = cmd("EVAL");
        eval.arg(TAKE).arg(lists.len()).arg(lists).arg(BATCH).arg(BATCH_BYTES).arg(LONGEST).arg(ENDS);
        let taking = eval.query_async::<Vec<Value>>(&mut self.connection);
        let taken = match timeout(self.bound, taking).await.map_err(|_| Problem::Silence(self.bound))? {
            Ok(taken) => taken,
            Err(error) if has_no_scripts(&error) => {
                debug!(%error, "replies are read whole, however long, because Redis runs no script for us");
                self.is_refused = true;
                return Ok(true);
            }
            Err(error) => return Err(Problem::Receive(error)),
        };
        let is_any = !taken.is_empty();
        for reply in taken {
            match reply {
                Value::BulkString(envelope) => deliver(waiting, envelope),
                ends => deliver_ends(waiting, &ends)?,
            }
        }
        Ok(is_any)
    }

    /// Without the script: waits for a reply, and takes it and what came with it.
    async fn pop(&mut self, waiting: &Waiting<Problem>) -> Result<(), Problem> {
        let mut brpop = cmd("BRPOP");
        brpop.arg(self.names.lists()).arg(POLL.as_secs());
        // Dropped on time-out only, and then for good: a BRPOP that nobody awaits would swallow a reply.
        let waits = timeout(POLL + self.bound, brpop.query_async::<Option<(Vec<u8>, Vec<u8>)>>(&mut self.connection));
        match waits.await {
            Ok(Ok(Some((_, envelope)))) => {
                deliver(waiting, envelope);
                self.drain(waiting).await
            }
            Ok(Ok(None)) => Ok(()),
            Ok(Err(error)) => Err(Problem::Receive(error)),
            Err(_) => Err(Problem::Silence(POLL + self.bound)),
        }
    }

    /// Takes what else has come in, many at once: a round trip for each reply is too slow for a thousand nodes. Workers
    /// reply with priority 0, so that it is in the first list; what is not comes by BRPOP.
    async fn drain(&mut self, waiting: &Waiting<Problem>) -> Result<(), Problem> {
        let Some(list) = self.names.lists().into_iter().next() else { return Ok(()) };
        let mut batch = SMALLEST_BATCH;
        loop {
            let mut pipeline = pipe();
            for _ in 0..batch {
                pipeline.cmd("RPOP").arg(&list);
            }
            let taking = pipeline.query_async::<Vec<Option<Vec<u8>>>>(&mut self.connection);
            let taken = timeout(self.bound, taking).await.map_err(|_| Problem::Silence(self.bound))?;
            let taken: Vec<Vec<u8>> = taken.map_err(Problem::Receive)?.into_iter().flatten().collect();
            let count = taken.len();
            for envelope in taken {
                deliver(waiting, envelope);
            }
            if count < batch {
                return Ok(());
            }
            batch = (batch * 2).min(LARGEST_BATCH);
        }
    }

    async fn renew(&mut self) -> Result<(), Problem> {
        let mut pipeline = pipe();
        pipeline.ignore_errors();
        announce(&mut pipeline, &self.names, self.clock.as_ref());
        let renewing = pipeline.query_async::<Vec<RedisResult<Value>>>(&mut self.connection);
        timeout(self.bound, renewing).await.map_err(|_| Problem::Silence(self.bound))?.map_err(Problem::Receive)?;
        Ok(())
    }
}

/// The user may not run scripts, or the server knows none.
fn has_no_scripts(error: &RedisError) -> bool {
    is_refused(error) || error.to_string().contains("unknown command")
}

/// Waits until it is time to look at the lists again. Returns how long to wait after that.
async fn rest(waiting: &Waiting<Problem>, pause: Duration) -> Duration {
    let longest = if waiting.has_anybody() { LONGEST_PAUSE } else { IDLE_PAUSE };
    tokio::select! {
        () = waiting.begins() => FIRST_PAUSE,
        () = sleep(pause.min(longest)) => (pause * 3 / 2).min(IDLE_PAUSE),
    }
}

/// Takes the envelope, so that it is gone as soon as the reply is out of it.
#[expect(clippy::needless_pass_by_value, reason = "it may be long")]
fn deliver(waiting: &Waiting<Problem>, envelope: Vec<u8>) {
    if let Some(reply) = unwrap(&envelope) {
        waiting.deliver(reply);
    } else {
        debug!(bytes = envelope.len(), "something in our reply queue is no reply");
    }
}

fn deliver_ends(waiting: &Waiting<Problem>, ends: &Value) -> Result<(), Problem> {
    let (bytes, head, tail) = <(u64, Vec<u8>, Vec<u8>)>::from_redis_value_ref(ends).map_err(|_| Problem::Strange)?;
    if let Some(reply) = unwrap_ends(TooLong { bytes, most: LONGEST }, &head, &tail) {
        waiting.deliver(reply);
    } else {
        debug!(bytes, "something long in our reply queue is no reply");
    }
    Ok(())
}
