//! The workers' side of Celery's remote control: requests as they stand on the wire, and replies as Celery writes them.
//! Made from captured messages, and from nothing of the code that it is to test.

use std::fmt::Write as _;

use serde::Deserialize;

use super::{Job, JobId, Node, World};

/// The queues, a bit each.
const QUEUES: [Binding; 2] = [
    Binding { queue: "video", exchange: "media", exchange_type: "topic", routing_key: "video.#" },
    Binding { queue: "audio", exchange: "audio", exchange_type: "direct", routing_key: "audio" },
];

fn bindings(queues: u8) -> impl Iterator<Item = &'static Binding> {
    QUEUES.iter().enumerate().filter(move |(place, _)| queues >> place & 1 == 1).map(|(_, binding)| binding)
}

/// What these queues are called.
pub fn queue_names(queues: u8) -> impl Iterator<Item = &'static str> {
    bindings(queues).map(|binding| binding.queue)
}

struct Binding {
    queue: &'static str,
    exchange: &'static str,
    exchange_type: &'static str,
    routing_key: &'static str,
}

/// A request, as a worker understands it. All workers read the same bytes, so they are read once.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What is asked for.
    pub order: Order,
    /// Who is asked; nobody in particular: everybody.
    pub destination: Option<Vec<String>>,
    /// What the reply is known by.
    pub ticket: String,
    /// Where the reply goes: the number in the client's id.
    pub reply_to: u64,
}

impl Asked {
    /// It is for this node, among others or alone.
    pub fn is_for(&self, node: &str) -> bool {
        self.destination.as_ref().is_none_or(|nodes| nodes.iter().any(|named| named == node))
    }
}

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `ping`.
    Ping,
    /// `stats`.
    Stats,
    /// `report`.
    Report,
    /// `conf`.
    Conf,
    /// `worker_drain`, which only workers with the package know.
    Account,
    /// `registered`.
    Registered,
    /// `active_queues`.
    Queues,
    /// `reserved`.
    Reserved,
    /// `active`.
    Active,
    /// `scheduled`.
    Scheduled,
    /// `cancel_consumer`: which queues.
    Cancel(u8),
    /// `add_consumer`: which queues.
    Add(u8),
}

impl Order {
    /// It only asks.
    pub fn is_question(self) -> bool {
        !matches!(self, Self::Cancel(_) | Self::Add(_))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    method: &'a str,
    #[serde(borrow)]
    arguments: Arguments<'a>,
    #[serde(borrow)]
    destination: Option<Vec<&'a str>>,
    pattern: Option<&'a str>,
    matcher: Option<&'a str>,
    ticket: &'a str,
    reply_to: ReplyTo<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Arguments<'a> {
    safe: Option<bool>,
    #[serde(borrow)]
    taskinfoitems: Option<Vec<&'a str>>,
    queue: Option<&'a str>,
    exchange: Option<&'a str>,
    exchange_type: Option<&'a str>,
    routing_key: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplyTo<'a> {
    exchange: &'a str,
    routing_key: &'a str,
}

/// The exchange that replies go to.
pub const REPLIES: &str = "reply.celery.pidbox";

/// Reads a request. Errors: what is wrong with it.
pub fn read(body: &str) -> Result<Asked, String> {
    let wire: Wire<'_> = serde_json::from_str(body).map_err(|error| format!("{error}: {body}"))?;
    let wrong = |what: &str| format!("{what}: {body}");
    if wire.pattern.is_some() || wire.matcher.is_some() || wire.reply_to.exchange != REPLIES {
        return Err(wrong("a pattern, or replies to nowhere"));
    }
    let order = match wire.method {
        "ping" => Order::Ping,
        "stats" => Order::Stats,
        "report" => Order::Report,
        "conf" => Order::Conf,
        "worker_drain" => Order::Account,
        "registered" => Order::Registered,
        "active_queues" => Order::Queues,
        "reserved" => Order::Reserved,
        "active" => Order::Active,
        "scheduled" => Order::Scheduled,
        "cancel_consumer" => Order::Cancel(place(&wire.arguments).map_or(0, |place| 1 << place)),
        "add_consumer" => Order::Add(bound(&wire.arguments).ok_or_else(|| wrong("a queue that was never told so"))?),
        _ => return Err(wrong("an unknown method")),
    };
    let Arguments { safe, taskinfoitems, .. } = &wire.arguments;
    let is_foreign =
        (order != Order::Active && safe.is_some()) || (order != Order::Registered && taskinfoitems.is_some());
    if is_foreign {
        return Err(wrong("TypeError: unexpected argument"));
    }
    let destination = wire.destination.map(|nodes| nodes.into_iter().map(str::to_owned).collect());
    let reply_to = wire.reply_to.routing_key.parse().map_err(|_| wrong("an unknown client"))?;
    Ok(Asked { order, destination, ticket: wire.ticket.to_owned(), reply_to })
}

fn place(arguments: &Arguments<'_>) -> Option<usize> {
    QUEUES.iter().position(|queue| Some(queue.queue) == arguments.queue)
}

/// The queue, if it is added with the binding that the worker told.
fn bound(arguments: &Arguments<'_>) -> Option<u8> {
    let place = place(arguments)?;
    let Binding { exchange, exchange_type, routing_key, .. } = &QUEUES[place];
    let told = (Some(*exchange), Some(*exchange_type), Some(*routing_key));
    (told == (arguments.exchange, arguments.exchange_type, arguments.routing_key)).then_some(1 << place)
}

/// A reply's body.
pub fn reply(node: &str, answer: &str) -> Vec<u8> {
    [r#"{""#, node, r#"": "#, answer, "}"].concat().into_bytes()
}

impl World {
    /// What a worker answers to a question now; to an order, that it is done.
    pub(super) fn answer(&self, node: &Node, order: Order) -> String {
        match order {
            Order::Ping => r#"{"ok": "pong"}"#.to_owned(),
            Order::Stats => self.stats_told(node),
            Order::Report => r#"{"ok": "\nsoftware -> celery:5.5.3 (immunity) kombu:5.5.4 py:3.11.7"}"#.to_owned(),
            Order::Conf => r#"{"broker_url": "redis://:********@broker/0"}"#.to_owned(),
            Order::Account if self.setup.work.package.is_some() => self.account_told(node),
            Order::Account => r#"{"error": "KeyError('worker_drain')"}"#.to_owned(),
            Order::Registered => registered(self.limit),
            Order::Queues => queues(node.consuming),
            Order::Reserved => self.jobs_told(node, node.reserved.iter(), false),
            Order::Active => self.jobs_told(node, told_as_active(node), true),
            Order::Scheduled => self.scheduled_told(node),
            Order::Cancel(queues) => format!(r#"{{"ok": "no longer consuming from {}"}}"#, name(queues)),
            Order::Add(queues) => format!(r#"{{"ok": "add consumer {}"}}"#, name(queues)),
        }
    }

    /// One process starts one worker: its number is that of the start.
    fn stats_told(&self, node: &Node) -> String {
        let package = self.setup.work.package.map_or_else(String::new, |package| {
            let task = self.members.iter().find(|member| member.nodes.iter().any(|own| own.name == node.name));
            let task = task.filter(|_| package.tells_task).map(|member| member.id.as_str());
            let task = task.map_or_else(|| "null".to_owned(), |task| format!(r#""{task}""#));
            format!(r#", "worker_drain": {{"contract": 1, "task": {task}}}"#)
        });
        format!(
            r#"{{"total": {{"app.transcode": {}}}, "pool": {{"implementation": "celery.concurrency.{}:TaskPool"}}, "pid": {}, "clock": "17", "uptime": {}{package}}}"#,
            node.begun,
            if self.setup.work.solo { "solo" } else { "prefork" },
            7 + node.epoch,
            (self.now - node.started_at) / 1000,
        )
    }

    /// What the package answers: everything that there is, and nothing that there is not.
    fn account_told(&self, node: &Node) -> String {
        let jobs = |ids: &mut dyn Iterator<Item = &JobId>, run| self.jobs_told(node, ids, run);
        let (active, reserved) = (node.active.len(), node.reserved.len());
        let batches = self.setup.work.package.is_some_and(|package| package.batches);
        let (listed, unlisted) = if batches { (0, node.limited.len()) } else { (node.limited.len(), 0) };
        format!(
            r#"{{"contract": 1, "instance": "{}-{}", "pool": "threads", "queues": {}, "own_queues": {}, "active": {}, "reserved": {}, "limited": {}, "scheduled": {}, "counts": {{"active": {active}, "reserved": {reserved}, "limited": {listed}, "pool": {}, "unlisted": {unlisted}}}}}"#,
            node.name,
            node.epoch,
            queues(node.consuming),
            names(self.setup.work.own()),
            jobs(&mut node.active.iter(), true),
            jobs(&mut node.reserved.iter(), false),
            jobs(&mut node.limited.iter().take(listed), false),
            jobs(&mut node.scheduled.iter(), false),
            active + reserved + node.kept.len(),
        )
    }

    fn jobs_told<'a>(&self, node: &Node, ids: impl Iterator<Item = &'a JobId>, run: bool) -> String {
        list(ids.map(|id| self.job_told(node, *id, run)))
    }

    fn scheduled_told(&self, node: &Node) -> String {
        let entry = |id: &JobId| {
            let request = self.job_told(node, *id, false);
            format!(r#"{{"eta": "{}", "priority": 6, "request": {request}}}"#, crate::tap::stamp(self.jobs[*id].eta))
        };
        list(node.scheduled.iter().map(entry))
    }

    /// As `inspect` tells of a job.
    fn job_told(&self, node: &Node, id: JobId, run: bool) -> String {
        let Job { id, queue, started_at, .. } = &self.jobs[id];
        let Binding { exchange, routing_key, .. } = &QUEUES[usize::from(*queue)];
        let start = if run { seconds(*started_at) } else { "null".to_owned() };
        format!(
            r#"{{"id": "{id}", "name": "app.transcode", "args": ["s3://in/{id}"], "kwargs": {{}}, "type": "app.transcode", "hostname": "{}", "time_start": {start}, "acknowledged": {}, "delivery_info": {{"exchange": "{exchange}", "routing_key": "{routing_key}", "priority": 0, "redelivered": false}}, "worker_pid": 7}}"#,
            node.name,
            run && !self.setup.work.acks_late,
        )
    }
}

fn name(queues: u8) -> &'static str {
    QUEUES.iter().enumerate().find(|(place, _)| queues >> place & 1 == 1).map_or("nothing", |(_, queue)| queue.queue)
}

/// Celery tells of some jobs that have ended.
fn told_as_active(node: &Node) -> impl Iterator<Item = &JobId> {
    let ghosts = node.ghosts.iter().filter(|ghost| !node.active.contains(*ghost));
    node.active.iter().chain(ghosts)
}

/// Names of queues.
fn names(queues: u8) -> String {
    list(queue_names(queues).map(|queue| format!(r#""{queue}""#)))
}

/// The answer to `active_queues`.
fn queues(consuming: u8) -> String {
    list(bindings(consuming).map(|Binding { queue, exchange, exchange_type, routing_key }| {
        format!(
            r#"{{"name": "{queue}", "exchange": {{"name": "{exchange}", "type": "{exchange_type}", "durable": true}}, "routing_key": "{routing_key}", "durable": true, "exclusive": false, "auto_delete": false, "no_ack": false, "bindings": []}}"#
        )
    }))
}

/// The answer to `registered`, with one job in so many milliseconds.
fn registered(limit: u64) -> String {
    let rate = 3_600_000_u64.checked_div(limit).map_or_else(String::new, |rate| format!("rate_limit={rate}/h "));
    format!(r#"["app.transcode [{rate}Strategy=celery.worker.strategy:default]"]"#)
}

/// What a worker of another fleet answers.
pub fn of_a_stranger(order: Order) -> &'static str {
    match order {
        Order::Ping => r#"{"ok": "pong"}"#,
        Order::Stats => r#"{"total": {"mail.send": 3}, "pid": 9, "uptime": 5}"#,
        Order::Queues => r#"[{"name": "mail", "exchange": {"name": "mail", "type": "direct"}, "routing_key": "mail"}]"#,
        Order::Active => r#"[{"id": "not-ours", "name": "mail.send", "time_start": 1767225600.25, "worker_pid": 9}]"#,
        _ => "[]",
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    let mut text = String::from("[");
    for (place, item) in items.enumerate() {
        let comma = if place == 0 { "" } else { ", " };
        let _ = write!(text, "{comma}{item}");
    }
    text.push(']');
    text
}

/// Virtual milliseconds as Unix time, with a fraction.
fn seconds(ms: u64) -> String {
    let at = crate::tap::stamp(ms).as_millisecond();
    format!("{}.{:03}", at / 1000, at % 1000)
}
