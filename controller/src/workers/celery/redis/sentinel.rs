//! Redis Sentinel: which of several Redis servers is the broker at the moment.
//!
//! All Sentinels are asked at once, and the server that most of them name is connected to; it must say itself that it is
//! a master. The redis crate's own Sentinel support decides by the first answer in the order of the list
//! (docs/decisions/0014). A Sentinel that was cut off may name a server that is no longer the master, and a master that was
//! cut off may still take itself for one: no worker answers there, and silence proves nothing.

use std::time::Duration;

use futures::{StreamExt, stream::FuturesUnordered};
use redis::{AsyncConnectionConfig, Client, RedisResult, Value, aio::MultiplexedConnection, cmd};
use tokio::time::timeout;
use tracing::debug;

use super::{error::Problem, target::Target};

/// Sentinels, and how to reach the servers that they name.
#[derive(Clone)]
pub(super) struct Sentinels {
    master_name: String,
    askable: Vec<Target>,
    servers: Target,
}

/// What a Sentinel answered: a host and a port, or that it watches no such master.
type Answer = Option<(String, u16)>;

impl Sentinels {
    pub(super) fn new(master_name: String, askable: Vec<Target>, servers: Target) -> Self {
        Self { master_name, askable, servers }
    }

    /// A client of the server that is the master now.
    pub(super) async fn master(&self, bound: Duration) -> Result<Client, Problem> {
        let (host, port) = self.named(bound).await?;
        let server = self.servers.moved_to(&host, port);
        let at = server.at();
        let fault = |problem: Problem| Problem::Master { at: at.clone(), problem: Box::new(problem) };
        let client = server.client().map_err(|error| Problem::Settings(error.to_string()))?;
        let mut connection = connect(&client, bound).await.map_err(fault)?;
        let question = cmd("ROLE");
        let asking = question.query_async::<Value>(&mut connection);
        match timeout(bound, asking).await.map_err(|_| fault(Problem::Silence(bound)))? {
            Ok(role) if is_master(&role) => {}
            Ok(_) => return Err(Problem::NoMasterYet { at }),
            // Only this needs the permission. A replica refuses what we write, too.
            Err(error) => debug!(%error, at, "could not ask for its role"),
        }
        Ok(client)
    }

    /// The server that most Sentinels name, of those that answer.
    async fn named(&self, bound: Duration) -> Result<(String, u16), Problem> {
        // Half of it, so that one that is gone leaves time for the server itself.
        let bound = bound / 2;
        let mut asking: FuturesUnordered<_> = self
            .askable
            .iter()
            .map(|sentinel| async move { (sentinel.at(), self.ask(sentinel, bound).await) })
            .collect();
        let mut votes: Vec<((String, u16), usize)> = Vec::new();
        let mut problems = Vec::new();
        let mut without_master = Vec::new();
        while let Some((at, answer)) = asking.next().await {
            match answer {
                Ok(Some(server)) => match votes.iter_mut().find(|(known, _)| *known == server) {
                    Some((_, count)) => *count += 1,
                    None => votes.push((server, 1)),
                },
                Ok(None) => without_master.push(at),
                Err(problem) => problems.push((at, problem)),
            }
            if let Some((server, _)) = votes.iter().find(|(_, count)| count * 2 > self.askable.len()) {
                return Ok(server.clone());
            }
        }
        match votes.into_iter().max_by_key(|(_, count)| *count) {
            Some((server, _)) => Ok(server),
            None if without_master.is_empty() => Err(Problem::Sentinels(problems)),
            None => Err(Problem::NoSuchMaster { name: self.master_name.clone(), sentinels: without_master }),
        }
    }

    async fn ask(&self, sentinel: &Target, bound: Duration) -> Result<Answer, Problem> {
        let client = sentinel.client().map_err(|error| Problem::Settings(error.to_string()))?;
        let asking = async {
            let mut connection = connect(&client, bound).await?;
            let mut question = cmd("SENTINEL");
            question.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master_name);
            question.query_async::<Answer>(&mut connection).await.map_err(Problem::Connect)
        };
        timeout(bound, asking).await.map_err(|_| Problem::Silence(bound))?
    }
}

async fn connect(client: &Client, bound: Duration) -> Result<MultiplexedConnection, Problem> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(bound)).set_response_timeout(Some(bound));
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    let connection: RedisResult<_> = timeout(bound, connecting).await.map_err(|_| Problem::Silence(bound))?;
    connection.map_err(Problem::Connect)
}

/// `ROLE` begins with "master", "slave" or "sentinel".
fn is_master(role: &Value) -> bool {
    let Value::Array(parts) = role else { return false };
    matches!(parts.first(), Some(Value::BulkString(word)) if word == b"master")
}
