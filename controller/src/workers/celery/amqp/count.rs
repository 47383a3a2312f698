//! Counting a queue without RabbitMQ's management plugin: a passive declaration says what waits and how many consumers
//! there are (AMQP 0-9-1, `queue.declare-ok`). What is delivered and not acknowledged it does not say.

use lapin::{Error, Queue, options::QueueDeclareOptions, types::FieldTable};
use tokio::time::timeout;
use worker_drain_plan::{NodeName, QueueName};

use super::{
    error::{Problem, is_locked, is_not_found},
    link::Link,
};
use crate::workers::celery::transport::{Count, Delivered};

impl Link {
    /// Counts a queue. On a separate channel, which the broker closes if there is no such queue.
    pub(super) async fn count(&self, queue: &QueueName) -> Result<Count, Problem> {
        let asking = timeout(self.bound, self.declared(queue));
        let declared = asking.await.map_err(|_| Problem::Silence(self.bound))?;
        let declared = declared.map_err(|error| Problem::Count(queue.clone(), error))?;
        let consumers = u64::from(declared.consumer_count());
        Ok(Count { ready: u64::from(declared.message_count()), delivered: Delivered::To(consumers), known: true })
    }

    /// How many processes listen on a node's queue for requests. One that is exclusive has one listener, and tells nobody else.
    pub(super) async fn listeners(&self, node: &NodeName, control_exchange: &str) -> Result<u32, Problem> {
        let queue = QueueName::from(format!("{node}.{control_exchange}.pidbox"));
        let asking = timeout(self.bound, self.declared(&queue));
        match asking.await.map_err(|_| Problem::Silence(self.bound))? {
            Ok(declared) => Ok(declared.consumer_count()),
            Err(error) if is_locked(&error) => Ok(1),
            Err(error) if is_not_found(&error) => Ok(0),
            Err(error) => Err(Problem::Count(queue, error)),
        }
    }

    async fn declared(&self, queue: &QueueName) -> Result<Queue, Error> {
        let channel = self.connection.create_channel().await?;
        let flags = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(queue.as_str().into(), flags, FieldTable::default()).await?;
        // It closes with the connection at the latest.
        let _ = channel.close(200, "OK".into()).await;
        Ok(declared)
    }
}
