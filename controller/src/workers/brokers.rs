//! The Celery workers of a fleet that moves from one broker to another: until its old tasks have gone, some are asked through the
//! one and some through the other.
//!
//! Everybody is asked on every broker, and a failure of one is a failure of all: a worker that could not be asked is not idle.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::future::{join_all, select_all};
use thiserror::Error;
use worker_drain_plan::{
    Awaited, NodeName, Outcome, QueueName, TaskId,
    observation::{Delivered, Failure, Mapping, Queue, QueueCount, Seen, WorkersView},
};

use super::{
    Workers,
    celery::{Broker, Celery, CelerySettings, SettingsError, Transport},
};
use crate::{clock::Clock, identity::Expected};

/// What is wrong with the settings of brokers.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BrokersError {
    /// With those of the only one.
    #[error(transparent)]
    Only(#[from] SettingsError),
    /// With those of one of several.
    #[error("brokers[{place}]: {error}")]
    OneOf {
        /// Which.
        place: usize,
        /// What.
        error: SettingsError,
    },
}

/// The Celery workers of a fleet, on one broker or on several.
pub struct Brokers<T = Broker> {
    brokers: Vec<Celery<T>>,
    /// On which of them each node answered last. A node is asked and told on no other; one that never answered, on all.
    places: Mutex<BTreeMap<NodeName, usize>>,
}

impl Brokers {
    /// Checks the settings, those of each broker, all that can be checked without connecting.
    pub fn open(settings: &[CelerySettings], clock: &Arc<dyn Clock>) -> Result<Self, BrokersError> {
        let open = |(place, one): (usize, &CelerySettings)| {
            let opened = Celery::open(one, Arc::clone(clock));
            opened
                .map_err(|error| if settings.len() == 1 { error.into() } else { BrokersError::OneOf { place, error } })
        };
        let brokers = settings.iter().enumerate().map(open).collect::<Result<_, _>>()?;
        Ok(Self { brokers, places: Mutex::default() })
    }
}

impl<T: Transport + 'static> Brokers<T> {
    /// Leaves nothing of ours on the brokers. They may still be used: they are then connected to again.
    pub async fn close(&self) {
        join_all(self.brokers.iter().map(Celery::close)).await;
    }

    /// A failure, with the broker that it is of where there are several.
    fn of(&self, place: usize, failure: Failure) -> Failure {
        if self.brokers.len() == 1 {
            return failure;
        }
        Failure { message: format!("spec.workers.celery.brokers[{place}]: {}", failure.message), ..failure }
    }

    /// These tasks, without nodes that are known to be elsewhere.
    fn expected(&self, place: usize, tasks: &BTreeMap<TaskId, Expected>) -> BTreeMap<TaskId, Expected> {
        let mut tasks = tasks.clone();
        for expected in tasks.values_mut() {
            expected.nodes.retain(|node| self.is_on(place, node));
        }
        tasks
    }

    /// Those of these orders that go to this broker, each with its number.
    fn orders<O: Clone>(&self, place: usize, orders: &[(NodeName, O)]) -> (Vec<usize>, Vec<(NodeName, O)>) {
        orders.iter().cloned().enumerate().filter(|(_, (node, _))| self.is_on(place, node)).unzip()
    }

    /// This node may be on that broker.
    fn is_on(&self, place: usize, node: &NodeName) -> bool {
        self.places().get(node).is_none_or(|known| *known == place)
    }

    fn places(&self) -> MutexGuard<'_, BTreeMap<NodeName, usize>> {
        // Nothing is left half done while it is held.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outcome of each order. One that went to several brokers has not succeeded before it has on each.
    fn outcomes(&self, number: usize, told: Vec<(Vec<usize>, Vec<Outcome>)>) -> Vec<Outcome> {
        let mut outcomes = vec![Outcome::Done; number];
        for (place, (numbers, said)) in told.into_iter().enumerate() {
            for (number, outcome) in numbers.into_iter().zip(said) {
                let outcome = match outcome {
                    Outcome::Failed(failure) => Outcome::Failed(self.of(place, failure)),
                    other => other,
                };
                if outcomes[number] == Outcome::Done || matches!(outcome, Outcome::Failed(_)) {
                    outcomes[number] = outcome;
                }
            }
        }
        outcomes
    }
}

impl<T: Transport + 'static> Workers for Brokers<T> {
    async fn observe(&self, tasks: &BTreeMap<TaskId, Expected>) -> Result<WorkersView, Failure> {
        let looks = self.brokers.iter().enumerate().map(async |(place, broker)| {
            let view = broker.observe(&self.expected(place, tasks)).await;
            view.map_err(|failure| self.of(place, failure))
        });
        let views = join_all(looks).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut places = self.places();
        let known: BTreeSet<&NodeName> = tasks.values().flat_map(|expected| &expected.nodes).collect();
        places.retain(|node, _| known.contains(node));
        for (place, view) in views.iter().enumerate() {
            places.extend(view.nodes.keys().map(|node| (node.clone(), place)));
        }
        drop(places);
        Ok(merged(views))
    }

    async fn cancel(&self, cancels: &[(NodeName, Vec<QueueName>)]) -> Vec<Outcome> {
        let told = self.brokers.iter().enumerate().map(async |(place, broker)| {
            let (numbers, orders) = self.orders(place, cancels);
            (numbers, broker.cancel(&orders).await)
        });
        self.outcomes(cancels.len(), join_all(told).await)
    }

    async fn give_back(&self, undos: &[(NodeName, Vec<Queue>)]) -> Vec<Outcome> {
        let told = self.brokers.iter().enumerate().map(async |(place, broker)| {
            let (numbers, orders) = self.orders(place, undos);
            (numbers, broker.give_back(&orders).await)
        });
        self.outcomes(undos.len(), join_all(told).await)
    }

    async fn count(&self, queues: &BTreeSet<QueueName>) -> BTreeMap<QueueName, Seen<QueueCount>> {
        let mut sums: BTreeMap<QueueName, Seen<QueueCount>> = BTreeMap::new();
        let counts = join_all(self.brokers.iter().map(|broker| broker.count(queues))).await;
        for (place, counts) in counts.into_iter().enumerate() {
            for (queue, count) in counts {
                let count = match count {
                    Seen::Err { failure, at } => Seen::Err { failure: self.of(place, failure), at },
                    seen @ Seen::Ok { .. } => seen,
                };
                let sum = match sums.remove(&queue) {
                    None => count,
                    Some(other) => sum(other, count),
                };
                sums.insert(queue, sum);
            }
        }
        sums
    }

    async fn listen(&self, awaited: &Awaited) {
        let listening = self.brokers.iter().enumerate().map(async |(place, broker)| {
            let here = awaited.iter().filter(|(node, _)| self.is_on(place, node));
            broker.listen(&here.map(|(node, ends)| (node.clone(), *ends)).collect()).await;
        });
        join_all(listening).await;
    }

    async fn heard(&self) {
        // There is at least one: a specification without any is refused.
        select_all(self.brokers.iter().map(|broker| Box::pin(broker.heard()))).await;
    }

    fn note(&self) -> Option<String> {
        self.brokers.iter().find_map(Workers::note)
    }
}

/// What was seen on all brokers.
fn merged(views: Vec<WorkersView>) -> WorkersView {
    let mut all = WorkersView::default();
    let mut twice = BTreeSet::new();
    let mut unread = BTreeMap::new();
    for WorkersView { tasks, nodes, unmatched_workers, silences } in views {
        for (task, mapping) in tasks {
            let mapping = match all.tasks.remove(&task) {
                None => mapping,
                Some(other) => both(other, mapping),
            };
            all.tasks.insert(task, mapping);
        }
        twice.extend(nodes.keys().filter(|node| all.nodes.contains_key(*node)).cloned());
        // Why a node that answered did not answer all is said by its own broker; why it is silent, by those that it is not on.
        let (partly, wholly): (BTreeMap<_, _>, BTreeMap<_, _>) =
            silences.into_iter().partition(|(node, _)| nodes.contains_key(node));
        unread.extend(partly);
        all.silences.extend(wholly);
        all.nodes.extend(nodes);
        all.unmatched_workers.extend(unmatched_workers);
    }
    for mapping in all.tasks.values_mut() {
        if let Mapping::Nodes(nodes) = mapping
            && let Some(node) = nodes.iter().find(|node| twice.contains(*node))
        {
            let why = format!(
                "{node} answers on several brokers: those are several processes, whose answers cannot be told apart; name each \
                 worker by its task, as in worker@<task id>"
            );
            *mapping = Mapping::Ambiguous { why };
        }
    }
    all.nodes.retain(|node, _| !twice.contains(node));
    all.silences.retain(|node, _| !all.nodes.contains_key(node));
    all.silences.extend(unread);
    all
}

fn both(one: Mapping, other: Mapping) -> Mapping {
    match (one, other) {
        (Mapping::Nodes(one), Mapping::Nodes(other)) => Mapping::Nodes(&one | &other),
        (ambiguous @ Mapping::Ambiguous { .. }, _) | (_, ambiguous @ Mapping::Ambiguous { .. }) => ambiguous,
        (nodes @ Mapping::Nodes(_), Mapping::NotFound { .. })
        | (Mapping::NotFound { .. }, nodes @ Mapping::Nodes(_)) => nodes,
        (Mapping::NotFound { hint: one }, Mapping::NotFound { hint: other }) if one == other => {
            Mapping::NotFound { hint: one }
        }
        (Mapping::NotFound { hint: one }, Mapping::NotFound { hint: other }) => {
            Mapping::NotFound { hint: format!("{one}; on another broker: {other}") }
        }
    }
}

/// A queue of this name on both brokers: it is empty if both are. One that could not be counted is not.
fn sum(one: Seen<QueueCount>, other: Seen<QueueCount>) -> Seen<QueueCount> {
    match (one, other) {
        (Seen::Ok { value: one, at }, Seen::Ok { value: other, at: also }) => {
            let value = QueueCount {
                counted_at: one.counted_at.max(other.counted_at),
                ready: one.ready + other.ready,
                delivered: delivered(one.delivered, other.delivered),
                known: one.known || other.known,
                settles_in: one.settles_in.max(other.settles_in),
            };
            Seen::Ok { value, at: at.min(also) }
        }
        (failed @ Seen::Err { .. }, _) | (_, failed @ Seen::Err { .. }) => failed,
    }
}

fn delivered(one: Delivered, other: Delivered) -> Delivered {
    match (one, other) {
        (Delivered::Counted(one), Delivered::Counted(other)) => Delivered::Counted(one + other),
        // Some are delivered on the one, whatever is told of the other.
        (told @ Delivered::Told { .. }, Delivered::Counted(0))
        | (Delivered::Counted(0), told @ Delivered::Told { .. }) => told,
        (Delivered::Told { .. }, counted @ Delivered::Counted(_))
        | (counted @ Delivered::Counted(_), Delivered::Told { .. }) => counted,
        (Delivered::Told { consumers, mut nodes }, Delivered::Told { consumers: more, nodes: others }) => {
            nodes.extend(others);
            Delivered::Told { consumers: consumers + more, nodes }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use worker_drain_plan::observation::{Answer, FailureKind};

    use super::*;

    const AT: Timestamp = Timestamp::UNIX_EPOCH;

    fn view(task: &str, mapping: Mapping, answers: &[&str]) -> WorkersView {
        WorkersView {
            tasks: [(task.into(), mapping)].into(),
            nodes: answers.iter().map(|node| ((*node).into(), Answer::new(AT, AT))).collect(),
            silences: answers.is_empty().then(|| ("w@a".into(), "silent".into())).into_iter().collect(),
            ..WorkersView::default()
        }
    }

    fn nodes(names: &[&str]) -> Mapping {
        Mapping::Nodes(names.iter().map(|name| NodeName::from(*name)).collect())
    }

    #[test]
    fn a_worker_is_one_task_s_on_whichever_broker_it_answers() {
        let nothing = || Mapping::NotFound { hint: "none".into() };
        for views in [
            [view("a", nodes(&["w@a"]), &["w@a"]), view("a", nothing(), &[])],
            [view("a", nothing(), &[]), view("a", nodes(&["w@a"]), &["w@a"])],
        ] {
            let all = merged(views.into());
            assert_eq!(all.tasks[&"a".into()], nodes(&["w@a"]));
            assert!(all.nodes.contains_key(&"w@a".into()) && all.silences.is_empty(), "{all:?}");
        }
        let unread = ("w@a".into(), String::from("its answer is too long"));
        let partly = WorkersView { silences: [unread.clone()].into(), ..view("a", nodes(&["w@a"]), &["w@a"]) };
        for views in [[partly.clone(), view("a", nothing(), &[])], [view("a", nothing(), &[]), partly]] {
            assert_eq!(merged(views.into()).silences, [unread.clone()].into(), "its own broker's word counts");
        }
        let both = merged(vec![view("a", nodes(&["w@a"]), &["w@a"]), view("a", nodes(&["v@a"]), &[])]);
        assert_eq!(both.tasks[&"a".into()], nodes(&["w@a", "v@a"]), "it has a worker on each");
    }

    #[test]
    fn one_name_on_two_brokers_is_nobodys() {
        let all = merged(vec![view("a", nodes(&["w@a"]), &["w@a"]), view("a", nodes(&["w@a"]), &["w@a"])]);
        assert!(matches!(&all.tasks[&"a".into()], Mapping::Ambiguous { .. }) && all.nodes.is_empty(), "{all:?}");
    }

    #[test]
    fn an_order_goes_where_its_node_may_be_and_is_done_when_it_is_done_there() {
        let brokers = Brokers::<Broker> { brokers: Vec::new(), places: Mutex::new([("w@a".into(), 1)].into()) };
        let orders = [("w@a".into(), ()), ("w@silent".into(), ())];
        assert_eq!(brokers.orders(0, &orders), (vec![1], vec![orders[1].clone()]));
        assert_eq!(brokers.orders(1, &orders), (vec![0, 1], orders.to_vec()));
        let refused = Outcome::Refused { reason: "no".into() };
        let failed = |message: &str| Outcome::Failed(Failure::new(FailureKind::Unreachable, message));
        let told = vec![(vec![1], vec![failed("gone")]), (vec![0, 1], vec![refused.clone(), Outcome::Done])];
        let expected = [refused, failed("spec.workers.celery.brokers[0]: gone")];
        assert_eq!(brokers.outcomes(2, told), expected);
    }

    #[test]
    fn a_queue_is_empty_only_if_it_is_on_every_broker() {
        let count = |ready, delivered| Seen::Ok {
            value: QueueCount { counted_at: AT, ready, delivered, known: true, settles_in: SignedDuration::ZERO },
            at: AT,
        };
        let told = |consumers| Delivered::Told { consumers, nodes: BTreeMap::new() };
        for (one, other, ready, delivered) in [
            ((0, Delivered::Counted(0)), (2, Delivered::Counted(1)), 2, Delivered::Counted(1)),
            ((0, Delivered::Counted(0)), (0, told(1)), 0, told(1)),
            ((0, told(2)), (0, Delivered::Counted(3)), 0, Delivered::Counted(3)),
            ((1, told(2)), (0, told(1)), 1, told(3)),
        ] {
            let summed = sum(count(one.0, one.1), count(other.0, other.1));
            assert_eq!(summed, count(ready, delivered));
        }
        let failed = Seen::Err { failure: Failure::new(FailureKind::Unreachable, "gone"), at: AT };
        assert_eq!(sum(count(0, told(0)), failed.clone()), failed);
        assert_eq!(sum(failed.clone(), count(0, told(0))), failed);
    }
}
