//! One connection to RabbitMQ, as long as it lasts: one channel to publish, and one with our reply queue, which a task
//! reads.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use lapin::{
    Channel, Confirmation, Connection, Consumer, Error, ErrorKind, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::FieldTable,
};
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};
use tracing::debug;

use super::{
    address::Address,
    error::{Problem, is_not_found},
    message::{Names, properties, queue_arguments, reply},
    socket::{self, Socket},
};
use crate::workers::celery::{pidbox::Request, transport::Sent, waiting::Waiting};

/// How often the broker is asked, while anybody waits for replies, whether it and our queue are still there: silence of
/// nodes must be distinguished from silence of a broker. Heartbeats do the same when nobody waits, more slowly.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A connection.
pub(super) struct Link {
    pub(super) connection: Connection,
    publisher: Mutex<Channel>,
    names: Names,
    pub(super) address: Arc<Address>,
    pub(super) bound: Duration,
    /// The exchange for requests was there.
    is_known: AtomicBool,
    waiting: Arc<Waiting<Problem>>,
    /// Ends with us.
    reader: JoinSet<()>,
    /// Last: what the others say while they are dropped can still be sent.
    _socket: Socket,
}

impl Link {
    /// Connects, makes a reply queue and begins to read it.
    pub(super) async fn connect(
        address: Arc<Address>,
        control_exchange: &str,
        bound: Duration,
    ) -> Result<Self, Problem> {
        let names = Names::new(control_exchange);
        let (connection, socket) = socket::open(&address, bound).await?;
        let making = make_queue(&connection, &names);
        let (channel, consumer) =
            timeout(bound, making).await.map_err(|_| Problem::Silence(bound))?.map_err(Problem::ReplyQueue)?;
        let making = make_publisher(&connection);
        let publisher = timeout(bound, making).await.map_err(|_| Problem::Silence(bound))?.map_err(Problem::Publish)?;

        let waiting = Arc::new(Waiting::new());
        let mut reader = JoinSet::new();
        let reading = Reading { channel, consumer, names: names.clone(), waiting: waiting.clone(), bound };
        reader.spawn(reading.run(address.clone()));
        let publisher = Mutex::new(publisher);
        let is_known = AtomicBool::new(false);
        Ok(Self { connection, publisher, names, address, bound, is_known, waiting, reader, _socket: socket })
    }

    /// Whether replies can still come in.
    pub(super) fn is_alive(&self) -> bool {
        self.waiting.is_alive()
    }

    /// Publishes, and waits until the broker has confirmed each request: what it refuses is known then.
    pub(super) async fn publish(&self, requests: &[Request]) -> Result<Sent, Problem> {
        let replies = self.waiting.add(requests)?;
        let sending = timeout(self.bound, self.send(requests));
        let receivers = match sending.await.map_err(|_| self.silence())? {
            // RabbitMQ does not say how many queues an exchange fills.
            Ok(()) => None,
            // The first node to come makes the exchange, and it stays: nobody can be listening. It is not made here, so
            // that we need no permission for.
            Err(Problem::Publish(error)) if is_not_found(&error) => {
                debug!(exchange = %self.names.exchange, "there is no such exchange: no node has been here");
                Some(0)
            }
            Err(problem) => return Err(problem),
        };
        Ok(Sent { receivers: vec![receivers; requests.len()], bound: BTreeSet::new(), replies })
    }

    fn silence(&self) -> Problem {
        if self.connection.status().blocked() { Problem::Blocked } else { Problem::Silence(self.bound) }
    }

    async fn send(&self, requests: &[Request]) -> Result<(), Problem> {
        // A broker that has no such exchange closes the channel; what comes after that has been agreed to costs the whole
        // connection. So as long as it may be so, one is sent alone.
        let alone = if self.is_known.load(Ordering::Relaxed) { 0 } else { requests.len().min(1) };
        self.send_together(&requests[..alone]).await?;
        self.is_known.store(true, Ordering::Relaxed);
        self.send_together(&requests[alone..]).await
    }

    async fn send_together(&self, requests: &[Request]) -> Result<(), Problem> {
        let result = self.send_over(&self.publisher().await?, requests).await;
        match result {
            // Closed meanwhile, for what somebody else published.
            Err(Problem::Publish(error)) if matches!(error.kind(), ErrorKind::InvalidChannelState(..)) => {
                self.send_over(&self.publisher().await?, requests).await
            }
            result => result,
        }
    }

    /// The channel to publish on. The broker closes one when it refuses what is asked on it.
    async fn publisher(&self) -> Result<Channel, Problem> {
        let mut publisher = self.publisher.lock().await;
        if !publisher.status().connected() {
            *publisher = make_publisher(&self.connection).await.map_err(Problem::Publish)?;
        }
        Ok(publisher.clone())
    }

    async fn send_over(&self, channel: &Channel, requests: &[Request]) -> Result<(), Problem> {
        let mut confirms = Vec::new();
        let mut unsent = None;
        for request in requests {
            let body = request.body(&self.names.reply_to());
            let exchange = self.names.exchange.clone();
            let flags = BasicPublishOptions::default();
            match channel.basic_publish(exchange, "".into(), flags, body.as_bytes(), properties(request)).await {
                Ok(confirm) => confirms.push(confirm),
                Err(error) => {
                    unsent = Some(error);
                    break;
                }
            }
        }
        // What was said to the first ones is why the next could not be sent.
        for confirm in confirms {
            match confirm.await.map_err(Problem::Publish)? {
                Confirmation::Ack(_) | Confirmation::NotRequested => {}
                Confirmation::Nack(_) => return Err(Problem::NotTaken),
            }
        }
        unsent.map_or(Ok(()), |error| Err(Problem::Publish(error)))
    }

    /// Closes the connection. Our queue, being exclusive to it, goes with it.
    pub(super) async fn withdraw(mut self) {
        self.reader.shutdown().await;
        match timeout(self.bound, self.connection.close(200, "OK".into())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, address = %self.address, "could not close the connection properly"),
            Err(_) => debug!(address = %self.address, "could not close the connection properly in time"),
        }
    }
}

/// A queue as Celery's own clients have it. Exclusive, so that it ends with this connection, and so that RabbitMQ 4,
/// which does without transient queues that are not, allows it.
async fn make_queue(connection: &Connection, names: &Names) -> Result<(Channel, Consumer), Error> {
    ensure_reply_exchange(connection, names).await?;
    let channel = connection.create_channel().await?;
    let flags = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(names.queue.clone(), flags, queue_arguments()).await?;
    let (queue, exchange) = (names.queue.clone(), names.reply_exchange.clone());
    channel.queue_bind(queue, exchange, names.oid.clone(), QueueBindOptions::default(), FieldTable::default()).await?;
    let flags = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consumer = channel.basic_consume(names.queue.clone(), "".into(), flags, FieldTable::default()).await?;
    Ok((channel, consumer))
}

/// Uses the exchange that there is, whatever its flags, and makes one with Celery's flags if there is none: a node that
/// replies declares it with these.
async fn ensure_reply_exchange(connection: &Connection, names: &Names) -> Result<(), Error> {
    let declare = async |passive| {
        let channel = connection.create_channel().await?;
        let flags = ExchangeDeclareOptions { passive, ..ExchangeDeclareOptions::default() };
        let name = names.reply_exchange.clone();
        channel.exchange_declare(name, ExchangeKind::Direct, flags, FieldTable::default()).await
    };
    match declare(true).await {
        Err(error) if is_not_found(&error) => declare(false).await,
        result => result,
    }
}

async fn make_publisher(connection: &Connection) -> Result<Channel, Error> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// The half that reads.
struct Reading {
    channel: Channel,
    consumer: Consumer,
    names: Names,
    waiting: Arc<Waiting<Problem>>,
    bound: Duration,
}

impl Reading {
    async fn run(mut self, address: Arc<Address>) {
        let problem = self.read().await;
        let failure = problem.failure(&address);
        debug!(%address, failure = failure.message, "the connection has ended");
        self.waiting.end(problem, &failure);
    }

    async fn read(&mut self) -> Problem {
        let mut ask = interval(ASK_EVERY);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                delivery = self.consumer.next() => match delivery {
                    Some(Ok(delivery)) => self.deliver(delivery),
                    Some(Err(error)) => return Problem::Receive(error),
                    None => return Problem::QueueGone,
                },
                _ = ask.tick() => {
                    if self.waiting.has_anybody()
                        && let Err(problem) = self.ask().await
                    {
                        return problem;
                    }
                }
            }
        }
    }

    fn deliver(&self, delivery: lapin::message::Delivery) {
        let bytes = delivery.data.len();
        if let Some(reply) = reply(delivery) {
            self.waiting.deliver(reply);
        } else {
            debug!(bytes, "something in our reply queue is no reply");
        }
    }

    /// Asks for our queue, which also asks whether the broker is there.
    async fn ask(&self) -> Result<(), Problem> {
        let flags = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let asking = self.channel.queue_declare(self.names.queue.clone(), flags, FieldTable::default());
        match timeout(self.bound, asking).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Problem::Receive(error)),
            Err(_) => Err(Problem::Silence(self.bound)),
        }
    }
}
