//! One connection to Redis, as long as it lasts: a pair of sockets, and a task that reads what comes in.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, FromRedisValue, Pipeline, RedisError, RedisResult, Value,
    aio::MultiplexedConnection, cmd, pipe,
};
use tokio::{task::JoinSet, time::timeout};
use tracing::debug;
use worker_drain_plan::NodeName;

use super::{
    address::Address,
    envelope::wrap,
    error::Problem,
    names::{Names, separator_of},
    replies::{Reading, announce},
};
use crate::{
    clock::Clock,
    workers::celery::{pidbox::Request, transport::Sent, waiting::Waiting},
};

/// A connection.
pub(super) struct Link {
    commands: MultiplexedConnection,
    names: Arc<Names>,
    address: Arc<Address>,
    clock: Arc<dyn Clock>,
    bound: Duration,
    waiting: Arc<Waiting<Problem>>,
    /// Ends with us.
    reader: JoinSet<()>,
}

impl Link {
    /// Connects, cleans up after those of us who were killed, and begins to read.
    pub(super) async fn connect(
        address: Arc<Address>,
        names: Arc<Names>,
        clock: Arc<dyn Clock>,
        bound: Duration,
    ) -> Result<Self, Problem> {
        let client = address.place.client(bound).await?;
        // Two sockets: a long reply must not keep a request waiting, and Redis answers nothing else on one whose client waits in
        // BRPOP.
        let (mut commands, reading) =
            tokio::try_join!(connection(&client, Some(bound), bound), connection(&client, None, bound))?;
        if let Err(error) = timeout(bound, clean_up(&mut commands, &names)).await.unwrap_or(Ok(())) {
            debug!(%error, "could not clean up after clients that were killed");
        }
        let waiting = Arc::new(Waiting::new());
        let mut reader = JoinSet::new();
        let reading = Reading::new(reading, names.clone(), clock.clone(), bound);
        reader.spawn(reading.run(address.clone(), waiting.clone()));
        Ok(Self { commands, names, address, clock, bound, waiting, reader })
    }

    /// Whether replies can still come in.
    pub(super) fn is_alive(&self) -> bool {
        self.waiting.is_alive()
    }

    /// Announces our reply queue and publishes, all in one go. Announcing each time costs nothing more, and makes good
    /// what somebody else may have flushed or swept.
    pub(super) async fn publish(&self, requests: &[Request]) -> Result<Sent, Problem> {
        let bound = self.must_agree_on_separator().await?;
        let replies = self.waiting.add(requests)?;
        let mut pipeline = pipe();
        pipeline.ignore_errors();
        let announced = announce(&mut pipeline, &self.names, self.clock.as_ref());
        for request in requests {
            let envelope = wrap(request, &self.names);
            for channel in &self.names.channels {
                pipeline.cmd("PUBLISH").arg(channel).arg(&envelope);
            }
        }
        let mut connection = self.commands.clone();
        let sending = pipeline.query_async::<Vec<RedisResult<Value>>>(&mut connection);
        let answers = timeout(self.bound, sending).await.map_err(|_| Problem::Silence(self.bound))?;
        let answers = answers.map_err(Problem::Publish)?;
        if answers.len() != announced + requests.len() * self.names.channels.len() {
            return Err(Problem::Strange);
        }
        let mut answers = answers.into_iter();
        must_have_worked(answers.by_ref().take(announced)).map_err(Problem::Publish)?;
        let answers: Vec<_> = answers.collect();
        let receivers = answers.chunks(self.names.channels.len()).map(|counts| receivers(counts).map(Some));
        Ok(Sent { receivers: receivers.collect::<Result<_, _>>()?, bound, replies })
    }

    /// Nothing is written where another client joins bindings with another separator than ours: a node that looks its own
    /// client up meets our entry too, fails, and on Celery 5.3 to 5.6 takes no more jobs until it is restarted (kombu#2023).
    /// Such a client may come later, so this is asked each time, and then ours is taken away. Returns the nodes of the set.
    async fn must_agree_on_separator(&self) -> Result<BTreeSet<NodeName>, Problem> {
        let mut pipeline = pipe();
        pipeline.cmd("SMEMBERS").arg(self.names.node_bindings()).cmd("SMEMBERS").arg(self.names.bindings());
        let (nodes, clients): (BTreeSet<String>, BTreeSet<String>) = self.query(&pipeline, Problem::Publish).await?;
        let Some(other) = nodes.iter().chain(&clients).find(|binding| self.names.parts_of(binding).is_none()) else {
            return Ok(nodes.iter().filter_map(|binding| self.names.node_of(binding)).collect());
        };
        let withdrawal = withdrawal(&self.names);
        if let Err(problem) = self.query::<()>(&withdrawal, Problem::Publish).await {
            debug!(%problem, "could not delete our reply queue");
        }
        Err(Problem::Separator {
            ours: self.names.separator().to_owned(),
            theirs: separator_of(other).map(str::to_owned),
            binding: other.clone(),
        })
    }

    /// Asks for something else than replies, in bounded time.
    pub(super) async fn ask<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, Problem> {
        self.query(pipeline, Problem::Count).await
    }

    async fn query<T: FromRedisValue>(
        &self,
        pipeline: &Pipeline,
        problem: impl FnOnce(RedisError) -> Problem,
    ) -> Result<T, Problem> {
        let mut connection = self.commands.clone();
        let asking = pipeline.query_async(&mut connection);
        timeout(self.bound, asking).await.map_err(|_| Problem::Silence(self.bound))?.map_err(problem)
    }

    /// Takes away all that is ours on the broker.
    pub(super) async fn withdraw(mut self) {
        self.reader.shutdown().await;
        let withdrawal = withdrawal(&self.names);
        match timeout(self.bound, withdrawal.query_async::<()>(&mut self.commands)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, address = %self.address, "could not delete our reply queue"),
            Err(_) => debug!(address = %self.address, "could not delete our reply queue in time"),
        }
    }
}

/// To how many a request was handed, over all channels; the first one must have worked. One who listens on two counts
/// twice, so that an observation may wait longer than it must, and never too little.
fn receivers(counts: &[RedisResult<Value>]) -> Result<u64, Problem> {
    let mut sum = 0;
    for (number, count) in counts.iter().enumerate() {
        match count {
            Ok(count) => sum += u64::from_redis_value_ref(count).map_err(|_| Problem::Strange)?,
            Err(error) if number == 0 => return Err(Problem::Publish(error.clone())),
            Err(error) => debug!(%error, "could not publish where an older kombu listens"),
        }
    }
    Ok(sum)
}

async fn connection(
    client: &Client,
    response_bound: Option<Duration>,
    bound: Duration,
) -> Result<MultiplexedConnection, Problem> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(bound)).set_response_timeout(response_bound);
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    timeout(bound, connecting).await.map_err(|_| Problem::Silence(bound))?.map_err(Problem::Connect)
}

/// `ZADD … GT` needs Redis 6.2, and is wanted by kombu 5.7 only, which needs it too: where it fails nobody sweeps.
fn must_have_worked(answers: impl Iterator<Item = RedisResult<Value>>) -> RedisResult<()> {
    let answers: Vec<_> = answers.collect();
    let needed = answers.len().saturating_sub(1);
    answers.into_iter().take(needed).try_for_each(|answer| answer.map(drop))
}

fn withdrawal(names: &Names) -> Pipeline {
    let mut pipeline = pipe();
    pipeline.cmd("SREM").arg(names.bindings()).arg(names.binding()).ignore();
    pipeline.cmd("DEL").arg(names.lists()).arg(names.alive()).ignore();
    pipeline
}

/// Takes away what a client of ours that was killed has left: a list cannot be given a time to live before it exists.
async fn clean_up(connection: &mut MultiplexedConnection, names: &Names) -> RedisResult<()> {
    let bindings: Vec<String> = cmd("SMEMBERS").arg(names.bindings()).query_async(connection).await?;
    for binding in &bindings {
        let Some(oid) = names.oid_of(binding) else { continue };
        if !cmd("EXISTS").arg(names.alive_of(oid)).query_async::<bool>(connection).await? {
            let mut pipeline = pipe();
            pipeline.cmd("SREM").arg(names.bindings()).arg(binding).ignore();
            pipeline.cmd("DEL").arg(names.lists_of(oid)).ignore();
            pipeline.query_async::<()>(connection).await?;
        }
    }
    Ok(())
}
