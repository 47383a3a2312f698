//! Celery's events on RabbitMQ: published to a topic exchange, which we bind our own queue to.

use std::time::Duration;

use futures::{StreamExt, stream};
use lapin::{
    Channel, Connection, Consumer, Error,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    address::Address,
    error::Problem,
    message::OURS,
    socket::{self, Socket},
};
use crate::workers::celery::transport::Events;

/// What is bound: all events of jobs, which come many at once or one by one, and of workers.
const KEYS: [&str; 2] = ["task.#", "worker.#"];

/// So many may be on their way to us.
const AHEAD: u16 = 256;

/// So many are acknowledged at once.
const AT_ONCE: u16 = AHEAD / 2;

/// An own connection, with its queue.
struct Listening {
    consumer: Consumer,
    unacknowledged: u16,
    _connection: Connection,
    /// Last: what the others say while they are dropped can still be sent.
    _socket: Socket,
}

/// Subscribes, on a separate connection.
pub(super) async fn events(address: &Address, exchange: &str, bound: Duration) -> Result<Events, Problem> {
    let (connection, socket) = socket::open(address, bound).await?;
    let making = make_queue(&connection, exchange.into());
    let consumer = timeout(bound, making).await.map_err(|_| Problem::Silence(bound))?.map_err(Problem::Listen)?;
    let listening = Listening { consumer, unacknowledged: 0, _connection: connection, _socket: socket };
    Ok(Box::pin(stream::unfold(listening, |mut listening| async move { Some((listening.next().await?, listening)) })))
}

impl Listening {
    /// The next body; `None`: the connection, or our queue, is gone.
    async fn next(&mut self) -> Option<Vec<u8>> {
        let delivery = self.consumer.next().await?.ok()?;
        self.unacknowledged += 1;
        if self.unacknowledged >= AT_ONCE {
            self.unacknowledged = 0;
            delivery.acker.ack(BasicAckOptions { multiple: true }).await.ok()?;
        }
        Some(delivery.data)
    }
}

/// A queue as Celery's own listeners have it: exclusive, of messages that live for five seconds. And of so many at most:
/// what is more than we can hear is dropped, the oldest first, and burdens nobody.
async fn make_queue(connection: &Connection, exchange: ShortString) -> Result<Consumer, Error> {
    let channel: Channel = connection.create_channel().await?;
    let queue: ShortString = format!("{OURS}{}.{exchange}", Uuid::new_v4()).into();
    let flags = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-expires".into(), AMQPValue::LongInt(60_000));
    arguments.insert("x-message-ttl".into(), AMQPValue::LongInt(5_000));
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(10_000));
    channel.queue_declare(queue.clone(), flags, arguments).await?;
    for key in KEYS {
        let flags = QueueBindOptions::default();
        channel.queue_bind(queue.clone(), exchange.clone(), key.into(), flags, FieldTable::default()).await?;
    }
    // With acknowledgements only so that no more is sent than we have heard.
    channel.basic_qos(AHEAD, BasicQosOptions::default()).await?;
    channel.basic_consume(queue, "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
}
