//! What our keys and channels are called on the broker. The names are kombu's (`kombu/transport/redis.py`), observed on
//! kombu 5.5.4 and 5.7.0.

use uuid::Uuid;
use worker_drain_plan::NodeName;

use crate::workers::celery::{pidbox::ReplyTo, settings::CelerySettings};

/// How long a separator is looked for, in characters.
const LONGEST_SEPARATOR: usize = 8;
/// What our reply queues begin with, so that those of a process that was killed are known for ours.
const OURS: &str = "worker-drain-";
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
    sep: String,
    steps: Vec<u8>,
    reply_exchange: String,
    oid: String,
    event_channels: String,
    /// The hash of messages that are delivered and not acknowledged.
    pub(super) unacked: String,
    /// The channels that nodes listen on: first the one that every node of today does, then that of older ones.
    pub(super) channels: Vec<String>,
    /// The exchange in the envelope.
    pub(super) exchange: String,
}

impl Names {
    pub(super) fn new(settings: &CelerySettings, database: u32) -> Self {
        let options = &settings.transport_options;
        let exchange = format!("{}.pidbox", settings.control_exchange);
        let fanout = options.fanout_prefix.for_database(database);
        let events = format!("{}{fanout}{}/", options.global_keyprefix, settings.event_exchange);
        let mut prefixes = vec![fanout];
        if settings.sentinel.master_name.is_some() {
            prefixes.extend(options.fanout_prefix.unfilled());
        }
        let channel = |fanout: &String| format!("{}{fanout}{exchange}", options.global_keyprefix);
        Self {
            channels: prefixes.iter().map(channel).collect(),
            prefix: options.global_keyprefix.clone(),
            sep: options.sep.clone(),
            steps: options.priority_steps.clone(),
            reply_exchange: format!("reply.{exchange}"),
            event_channels: literally(&events) + "*",
            oid: format!("{OURS}{}", Uuid::new_v4()),
            unacked: format!("{}{}", options.global_keyprefix, options.unacked_key),
            exchange,
        }
    }

    pub(super) fn reply_to(&self) -> ReplyTo {
        ReplyTo { exchange: self.reply_exchange.clone(), routing_key: self.oid.clone() }
    }

    /// The channels that events are published on, as a pattern.
    pub(super) fn event_channels(&self) -> &str {
        &self.event_channels
    }

    /// The set of all reply queues of all clients.
    pub(super) fn bindings(&self) -> String {
        self.bindings_of(&self.reply_exchange)
    }

    /// Our entry in it: routing key, pattern (none), queue. kombu joins them with the option `sep`, and splits every entry of
    /// the set by its own: one that was joined with another separator breaks the look-up for everybody (kombu#2023).
    pub(super) fn binding(&self) -> String {
        self.binding_of(&self.oid)
    }

    /// The set of the nodes' own queues.
    pub(super) fn node_bindings(&self) -> String {
        self.bindings_of(&self.exchange)
    }

    /// Where kombu keeps until when the sets of bindings are wanted.
    pub(super) fn deadlines(&self) -> (String, &str) {
        (format!("{}_kombu.binding_deadlines", self.prefix), &self.reply_exchange)
    }

    /// The lists that our replies may come in: one for each priority, the most urgent first.
    pub(super) fn lists(&self) -> Vec<String> {
        self.lists_of(&self.oid)
    }

    /// A key that exists as long as we live.
    pub(super) fn alive(&self) -> String {
        self.alive_of(&self.oid)
    }

    /// The client whose binding this is, if it is one of ours.
    pub(super) fn oid_of<'a>(&self, binding: &'a str) -> Option<&'a str> {
        let (oid, _) = self.parts_of(binding)?;
        (oid.starts_with(OURS) && binding == self.binding_of(oid)).then_some(oid)
    }

    /// The node whose own queue this is the binding of.
    pub(super) fn node_of(&self, binding: &str) -> Option<NodeName> {
        let (_, queue) = self.parts_of(binding)?;
        queue.strip_suffix(&format!(".{}", self.exchange)).map(NodeName::from)
    }

    pub(super) fn alive_of(&self, oid: &str) -> String {
        format!("{}{oid}.alive", self.prefix)
    }

    pub(super) fn lists_of(&self, oid: &str) -> Vec<String> {
        self.lists_named(&self.queue_of(oid))
    }

    /// The lists that a queue consists of: one for each priority.
    pub(super) fn lists_named(&self, queue: &str) -> Vec<String> {
        let list = |step: &u8| match step {
            0 => format!("{}{queue}", self.prefix),
            step => format!("{}{queue}{}{step}", self.prefix, self.sep),
        };
        self.steps.iter().map(list).collect()
    }

    /// The set of an exchange's bindings.
    pub(super) fn bindings_of(&self, exchange: &str) -> String {
        format!("{}_kombu.binding.{exchange}", self.prefix)
    }

    /// Routing key and queue of a binding; `None`: it was joined with another separator than ours.
    pub(super) fn parts_of<'a>(&self, binding: &'a str) -> Option<(&'a str, &'a str)> {
        let mut fields = binding.split(self.sep.as_str());
        let parts = (fields.next()?, fields.next()?, fields.next()?);
        fields.next().is_none().then_some((parts.0, parts.2))
    }

    /// The separator that bindings are joined with.
    pub(super) fn separator(&self) -> &str {
        &self.sep
    }

    fn binding_of(&self, oid: &str) -> String {
        [oid, "", &self.queue_of(oid)].join(&self.sep)
    }

    fn queue_of(&self, oid: &str) -> String {
        format!("{oid}.{}", self.reply_exchange)
    }
}

/// A pattern that means this very text.
fn literally(text: &str) -> String {
    let escaped = |sign: char| if "*?[]^\\".contains(sign) { format!("\\{sign}") } else { sign.to_string() };
    text.chars().map(escaped).collect()
}

/// The separator that another client joined this binding with, as far as that can be told: a binding without a routing key,
/// as those of nodes are, begins with it twice.
pub(super) fn separator_of(binding: &str) -> Option<&str> {
    let ends = binding.char_indices().map(|(at, _)| at).skip(1).take(LONGEST_SEPARATOR);
    ends.map(|at| &binding[..at]).find(|start| binding[start.len()..].starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::{Names, separator_of};
    use crate::workers::celery::settings::{CelerySettings, FanoutPrefix};

    #[test]
    fn names_are_kombus() {
        let names = Names::new(&CelerySettings::new("redis://a"), 2);
        let oid = &names.oid;
        assert_eq!(names.channels, ["/2.celery.pidbox"]);
        assert_eq!(names.event_channels(), "/2.celeryev/*");
        assert_eq!(names.bindings(), "_kombu.binding.reply.celery.pidbox");
        assert_eq!(names.binding(), format!("{oid}\x06\x16\x06\x16{oid}.reply.celery.pidbox"));
        assert_eq!(names.deadlines(), ("_kombu.binding_deadlines".to_owned(), "reply.celery.pidbox"));
        let queue = format!("{oid}.reply.celery.pidbox");
        assert_eq!(names.lists(), ["", "\x06\x163", "\x06\x166", "\x06\x169"].map(|step| format!("{queue}{step}")));
    }

    #[test]
    fn options_change_names() {
        let mut settings = CelerySettings::new("redis://a");
        settings.control_exchange = "media".into();
        settings.event_exchange = "told[1]".into();
        settings.transport_options.global_keyprefix = "team:".into();
        settings.transport_options.fanout_prefix = FanoutPrefix::None;
        let names = Names::new(&settings, 2);
        assert_eq!(names.channels, ["team:media.pidbox"]);
        assert_eq!(names.event_channels(), "team:told\\[1\\]/*");
        assert_eq!(names.bindings(), "team:_kombu.binding.reply.media.pidbox");
        assert!(names.lists()[0].starts_with("team:worker-drain-"));
        assert!(names.binding().starts_with("worker-drain-"));
    }

    /// kombu before 5.4 forgets to fill in the number of the database, with Sentinel only.
    #[test]
    fn with_sentinel_older_nodes_listen_elsewhere() {
        let mut settings = CelerySettings::new("sentinel://a");
        settings.sentinel.master_name = Some("main".into());
        assert_eq!(Names::new(&settings, 2).channels, ["/2.celery.pidbox", "/{db}.celery.pidbox"]);
        settings.transport_options.fanout_prefix = FanoutPrefix::Text("/ours.".into());
        assert_eq!(Names::new(&settings, 2).channels, ["/ours.celery.pidbox"]);
    }

    #[test]
    fn only_our_own_bindings_are_ours() {
        let names = Names::new(&CelerySettings::new("redis://a"), 0);
        assert_eq!(names.oid_of(&names.binding()), Some(names.oid.as_str()));
        assert_eq!(names.oid_of("0af3\x06\x16\x06\x160af3.reply.celery.pidbox"), None);
        assert_eq!(names.oid_of("worker-drain-1\x06\x16\x06\x16somebody.elses.queue"), None);
        assert_eq!(names.oid_of("junk"), None);
    }

    /// kombu#2023: the fields of a binding are joined with the same separator as priorities.
    #[test]
    fn the_separator_joins_the_fields_of_bindings_too() {
        let mut settings = CelerySettings::new("redis://a");
        settings.transport_options.sep = ":".into();
        let names = Names::new(&settings, 0);
        let oid = names.oid.clone();
        assert_eq!(names.binding(), format!("{oid}::{oid}.reply.celery.pidbox"));
        assert_eq!(names.oid_of(&names.binding()), Some(oid.as_str()));
        assert_eq!(names.parts_of("key::queue"), Some(("key", "queue")));
        assert_eq!(names.parts_of("\x06\x16\x06\x16worker@1.celery.pidbox"), None, "joined by another");
        assert_eq!(names.parts_of("a:b:c:d"), None, "one field too many, as kombu sees it");
        assert_eq!(names.node_of("::heavy@1.celery.pidbox"), Some("heavy@1".into()));
        assert_eq!(names.node_of("::heavy@1.another.queue"), None);
    }

    #[test]
    fn another_separator_is_told_from_the_binding_of_a_node() {
        assert_eq!(separator_of("::worker@1.celery.pidbox"), Some(":"));
        assert_eq!(separator_of("\x06\x16\x06\x16worker@1.celery.pidbox"), Some("\x06\x16"));
        assert_eq!(separator_of("celery"), None);
    }
}
