//! Which node is which task's. Pure.
//!
//! A mistake here would stop a worker that has work to do, so nothing is guessed: a node that could be several tasks' is
//! none's, and every task that has a part in it says so.
//!
//! With templates, a task's nodes have the names that these make. A node that no template names is recognised all the same: a
//! worker that a template forgets would else be no task's, and its jobs nobody's business.
//!
//! A node that says itself which task it runs in (`celery-worker-drain`) is that task's. Any other is recognised by the host part of its name (what follows `@`; Celery's default is the
//! container's host name), by the first of these rules that any task meets:
//!
//! 1. the task's id is in the node's name: how a worker should be named, and Fargate's host name in a VPC without DNS
//!    host names (`<task id>-<number>`);
//! 2. it is a container's runtime id;
//! 3. it begins with the first 12 digits of a container's runtime id (Docker's default, on EC2 in bridge mode), and nothing that
//!    could belong to a longer id follows them;
//! 4. it is the private DNS name of the task's network interface, or its first label (Fargate, and EC2 in awsvpc mode;
//!    both forms have been seen);
//! 5. it contains the task's private address, as `ip-10-0-4-168` or plainly.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use worker_drain_plan::{NodeName, TaskId, observation::Mapping};

use super::{
    host::{DOCKER_HOST_LENGTH, first_label},
    template::Template,
};
use crate::identity::{Expected, Identity};

/// How many names a message shows.
const SHOWN: usize = 3;
/// Ids of at least this length are made to be unique, so that one inside a longer name is no coincidence (ECS: 32).
const UNIQUE_LENGTH: usize = 32;

/// Why a node may be missing that did answer.
pub(super) const NOT_READ: &str =
    "some replies could not be read: workers reply in their task_serializer, which must be json";

/// How a task's nodes are recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// By what is known of the task: see the module.
    Automatic,
    /// By their exact names, and those that have none of these, as above.
    Templates(Vec<Template>),
}

impl Naming {
    /// The exact names of a task's nodes, as far as the templates tell.
    pub fn names(&self, task: &TaskId, identity: &Identity) -> BTreeSet<NodeName> {
        match self {
            Self::Automatic => BTreeSet::new(),
            Self::Templates(templates) => {
                templates.iter().flat_map(|template| template.names(task, identity)).collect()
            }
        }
    }
}

/// Who answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// The names of all nodes that answered.
    pub nodes: BTreeSet<NodeName>,
    /// Those of them under whose name more than one process answered.
    pub shared: BTreeSet<NodeName>,
    /// The tasks that nodes say they run in, by their short ids.
    pub told: BTreeMap<NodeName, String>,
    /// Nodes that have a queue for requests on the broker, whether or not they answered. Some may be gone.
    pub bound: BTreeSet<NodeName>,
    /// Whether something came that was no readable answer: a node that was not understood is not found.
    pub unreadable: bool,
}

/// Which node is which task's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// For every task.
    pub tasks: BTreeMap<TaskId, Mapping>,
    /// Nodes that answered and that no task has a claim to.
    pub unmatched_workers: BTreeSet<NodeName>,
}

/// Maps nodes to tasks. No node is ever mapped to two tasks.
///
/// Made once for an observation, in which it is asked several times: the more nodes have answered, the more is known.
pub struct Matcher<'a> {
    naming: &'a Naming,
    tasks: Vec<Candidate<'a>>,
}

/// A task that nodes may be those of.
struct Candidate<'a> {
    expected: &'a Expected,
    names: BTreeSet<NodeName>,
    known: Known<'a>,
}

impl<'a> Matcher<'a> {
    /// For these tasks, and all of them.
    pub fn new(naming: &'a Naming, tasks: &'a BTreeMap<TaskId, Expected>) -> Self {
        let candidate = |(task, expected): (&'a TaskId, &'a Expected)| Candidate {
            expected,
            names: naming.names(task, &expected.identity),
            known: Known::of(task, &expected.identity),
        };
        Self { naming, tasks: tasks.iter().map(candidate).collect() }
    }

    /// The tasks, each with the exact names of its nodes, as far as the templates tell.
    pub fn named(&self) -> impl Iterator<Item = (&'a Expected, &BTreeSet<NodeName>)> {
        self.tasks.iter().map(|task| (task.expected, &task.names))
    }

    /// Those of the nodes that answered which some task has a claim to.
    pub fn own(&self, answered: &Answered) -> BTreeSet<NodeName> {
        let is_own = |node: &&NodeName| {
            self.tasks.iter().any(|task| task.expected.nodes.contains(*node))
                || match answered.told.get(*node) {
                    Some(told) => self.has_short_id(told).next().is_some(),
                    None => self.tasks.iter().any(|task| task.names.contains(*node)) || self.is_recognised(node),
                }
        };
        answered.nodes.iter().filter(is_own).cloned().collect()
    }

    /// Which node is which task's.
    pub fn matched(&self, answered: &Answered) -> Matched {
        let claims = self.claims(answered);
        let mut own: BTreeMap<&TaskId, BTreeSet<NodeName>> = BTreeMap::new();
        let mut contested: BTreeMap<&TaskId, Vec<String>> = BTreeMap::new();
        for (node, claimants) in &claims {
            let why = why_contested(node, claimants, answered);
            for task in claimants {
                match &why {
                    Some(why) => contested.entry(task).or_default().push(why.clone()),
                    None => drop(own.entry(task).or_default().insert((*node).clone())),
                }
            }
        }

        let unmatched_workers: BTreeSet<NodeName> =
            answered.nodes.iter().filter(|node| !claims.contains_key(node)).cloned().collect();
        let mapping = |candidate: &Candidate| {
            let task = candidate.known.task;
            if let Some(why) = contested.get(task) {
                return Mapping::Ambiguous { why: bounded(why.iter().cloned(), "; ") };
            }
            match own.get(task) {
                Some(nodes) => Mapping::Nodes(nodes.clone()),
                None => {
                    Mapping::NotFound { hint: hint(self.naming, candidate, &unmatched_workers, answered.unreadable) }
                }
            }
        };
        let tasks = self.tasks.iter().map(|task| (task.known.task.clone(), mapping(task))).collect();
        Matched { tasks, unmatched_workers }
    }

    /// Who claims each node. What a task was seen to have before is claimed too, whether or not it answers now.
    fn claims<'b>(&self, answered: &'b Answered) -> BTreeMap<&'b NodeName, BTreeSet<&'a TaskId>>
    where
        'a: 'b,
    {
        let mut claims: BTreeMap<&NodeName, BTreeSet<&TaskId>> = BTreeMap::new();
        let mut named: BTreeSet<&NodeName> = BTreeSet::new();
        for Candidate { expected, names, known } in &self.tasks {
            for node in &expected.nodes {
                claims.entry(node).or_default().insert(known.task);
            }
            for name in names {
                let node = answered.nodes.get(name).or_else(|| answered.bound.get(name));
                if let Some(node) = node.filter(|node| !answered.told.contains_key(*node)) {
                    claims.entry(node).or_default().insert(known.task);
                    named.insert(node);
                }
            }
        }
        for node in answered.nodes.iter().filter(|node| !named.contains(node)) {
            let found = match answered.told.get(node) {
                Some(told) => self.has_short_id(told).collect(),
                None => self.recognise(node, RULES),
            };
            if !found.is_empty() {
                claims.entry(node).or_default().extend(found);
            }
        }
        // Addresses are used again, and queues of what was killed stay: one that does not answer is known by what is unique.
        for node in answered.bound.iter().filter(|node| !answered.nodes.contains(*node) && !named.contains(node)) {
            let found = self.recognise(node, UNIQUE_RULES);
            if found.len() == 1 {
                claims.entry(node).or_default().extend(found);
            }
        }
        claims
    }

    /// The tasks of this short id.
    fn has_short_id(&self, id: &str) -> impl Iterator<Item = &'a TaskId> {
        let tasks = self.tasks.iter().map(|candidate| candidate.known.task);
        tasks.filter(move |task| task.short().eq_ignore_ascii_case(id))
    }

    /// Some task meets some rule.
    fn is_recognised(&self, node: &NodeName) -> bool {
        let node = Node::of(node);
        RULES.iter().any(|meets| self.tasks.iter().any(|candidate| meets(&node, &candidate.known)))
    }

    /// The tasks that meet the first of the rules that any task meets.
    fn recognise(&self, node: &NodeName, rules: &[Rule]) -> BTreeSet<&'a TaskId> {
        let node = Node::of(node);
        rules
            .iter()
            .map(|meets| {
                let known = self.tasks.iter().map(|candidate| &candidate.known);
                known.filter(|task| meets(&node, task)).map(|task| task.task).collect()
            })
            .find(|found: &BTreeSet<&TaskId>| !found.is_empty())
            .unwrap_or_default()
    }
}

/// What a task is known by, in lower case.
struct Known<'a> {
    task: &'a TaskId,
    id: String,
    runtime_ids: Vec<String>,
    host_names: Vec<String>,
    addresses: &'a BTreeSet<IpAddr>,
}

impl<'a> Known<'a> {
    fn of(task: &'a TaskId, identity: &'a Identity) -> Self {
        let runtime_ids = identity.containers.iter().filter_map(|container| container.runtime_id.as_ref());
        let lower = |names: Vec<&String>| names.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        Self {
            task,
            id: task.short().to_ascii_lowercase(),
            runtime_ids: lower(runtime_ids.collect()),
            host_names: lower(identity.host_names.iter().collect()),
            addresses: &identity.addresses,
        }
    }
}

/// What a node is recognised by, in lower case.
struct Node {
    name: String,
    /// Where its host begins in its name.
    host_at: usize,
    address: Option<IpAddr>,
}

impl Node {
    fn of(node: &NodeName) -> Self {
        let name = node.as_str().to_ascii_lowercase();
        let host_at = name.find('@').map_or(0, |at| at + 1);
        let address = address(&name[host_at..]);
        Self { name, host_at, address }
    }

    fn host(&self) -> &str {
        &self.name[self.host_at..]
    }
}

/// Whether this node is that task's.
type Rule = fn(&Node, &Known<'_>) -> bool;

/// In the order of the module's list.
const RULES: &[Rule] = &[
    |node, task| names_task(&node.name, node.host(), &task.id),
    |node, task| task.runtime_ids.iter().any(|id| id == node.host()),
    |node, task| task.runtime_ids.iter().any(|id| begins_with_container_id(node.host(), id)),
    |node, task| task.host_names.iter().any(|full| is_host_name(node.host(), full)),
    |node, task| node.address.is_some_and(|address| task.addresses.contains(&address)),
];
/// Those by which no two tasks are ever the same.
const UNIQUE_RULES: &[Rule] = RULES.split_at(3).0;

/// Rule 1. A short id, such as a pod's name, could be the beginning of another's, so it has to be the whole host.
fn names_task(name: &str, host: &str, id: &str) -> bool {
    if id.len() < UNIQUE_LENGTH {
        return !id.is_empty() && (host == id || first_label(host) == id);
    }
    name.match_indices(id).any(|(at, _)| {
        let touches = |neighbour: Option<char>| neighbour.is_some_and(|c| c.is_ascii_alphanumeric());
        !touches(name[..at].chars().next_back()) && !touches(name[at + id.len()..].chars().next())
    })
}

/// Rule 3.
fn begins_with_container_id(host: &str, runtime_id: &str) -> bool {
    let rest = runtime_id.get(..DOCKER_HOST_LENGTH).and_then(|id| host.strip_prefix(id));
    rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric()))
}

/// Rule 4.
fn is_host_name(host: &str, full: &str) -> bool {
    !full.is_empty() && (host == full || host == first_label(full))
}

/// Rule 5.
fn address(host: &str) -> Option<IpAddr> {
    if let Ok(address) = host.parse() {
        return Some(address);
    }
    let numbers = first_label(host).strip_prefix("ip-")?.replace('-', ".");
    numbers.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

/// Why a node cannot be mapped to one task, if it cannot.
fn why_contested(node: &NodeName, claimants: &BTreeSet<&TaskId>, answered: &Answered) -> Option<String> {
    if claimants.len() > 1 {
        let tasks = bounded(claimants.iter().map(|task| task.short().to_owned()), ", ");
        return Some(format!("node {node} could be that of several tasks: {tasks}"));
    }
    answered.shared.contains(node).then(|| {
        format!(
            "several processes answer as {node}: their answers cannot be told apart; \
             name each worker by its task, as in worker@<task id>"
        )
    })
}

fn hint(
    naming: &Naming,
    Candidate { expected: Expected { identity, .. }, names, known: Known { task, .. } }: &Candidate<'_>,
    unmatched_workers: &BTreeSet<NodeName>,
    unreadable: bool,
) -> String {
    let (looked_for, like) = match naming {
        Naming::Templates(templates) => {
            let expected = bounded(names.iter().map(ToString::to_string), " or ");
            let like = names.first().map(ToString::to_string).unwrap_or_default();
            if names.is_empty() {
                let made_of = bounded(templates.iter().map(ToString::to_string), " or ");
                (format!("the task has not all that {made_of} is made of"), like)
            } else {
                (format!("no node answered as {expected}"), like)
            }
        }
        Naming::Automatic => {
            let known: Vec<String> = [task.short().to_owned()]
                .into_iter()
                .chain(identity.containers.iter().filter_map(|container| container.runtime_id.clone()))
                .chain(identity.host_names.iter().cloned())
                .chain(identity.addresses.iter().map(ToString::to_string))
                .collect();
            let like = identity.host_names.first().cloned().unwrap_or_else(|| task.short().to_owned());
            (format!("no node that answered has the host {}", bounded_to(5, known.into_iter(), " or ")), like)
        }
    };
    let not_read = if unreadable { format!("; {NOT_READ}") } else { String::new() };
    format!("{looked_for}; {}{not_read}", nearest(&like, unmatched_workers))
}

fn nearest(like: &str, unmatched_workers: &BTreeSet<NodeName>) -> String {
    if unmatched_workers.is_empty() {
        return "no node answered that is not already some task's".into();
    }
    let mut names: Vec<&str> = unmatched_workers.iter().map(NodeName::as_str).collect();
    // Likeness as an integer, so that the order is total; equals stay in the order of their names.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 1000")]
    names.sort_by_key(|name| std::cmp::Reverse((strsim::jaro_winkler(like, name) * 1000.0) as u32));
    format!("nodes that are no task's: {}", bounded(names.into_iter().map(String::from), ", "))
}

fn bounded(items: impl ExactSizeIterator<Item = String>, separator: &str) -> String {
    bounded_to(SHOWN, items, separator)
}

fn bounded_to(most: usize, items: impl ExactSizeIterator<Item = String>, separator: &str) -> String {
    let more = items.len().saturating_sub(most);
    let text = items.take(most).collect::<Vec<_>>().join(separator);
    if more > 0 { format!("{text} and {more} more") } else { text }
}

#[cfg(test)]
mod tests;
