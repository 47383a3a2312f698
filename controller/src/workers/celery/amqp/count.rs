//! Counting a queue without RabbitMQ's management plugin: a passive declaration says what waits and how many consumers
//! there are (AMQP 0-9-1, `queue.declare-ok`). What is delivered and not acknowledged it does not say.

use lapin::{Error, Queue, options::QueueDeclareOptions, types::FieldTable};
use tokio::time::timeout;
use worker_drain_plan::QueueName;

use super::{error::Problem, link::Link};
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

    async fn declared(&self, queue: &QueueName) -> Result<Queue, Error> {
        let channel = self.connection.create_channel().await?;
        let flags = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(queue.as_str().into(), flags, FieldTable::default()).await?;
        // It closes with the connection at the latest.
        let _ = channel.close(200, "OK".into()).await;
        Ok(declared)
    }
}
