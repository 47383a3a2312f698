//! What can be seen of the world: its fleet, its workers' answers, its queues.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use worker_drain_plan::{
    NodeName, Observation,
    observation::{
        Answer, Counted, Delivered, Failure, FailureKind, FleetView, HoldState, Life, Mapping, QueueCount, Seen,
        Strength, Task, WorkersView,
    },
    to_count,
};

use super::{Counting, HOUR, Member, Node, World, queue, task_id};

impl World {
    pub fn observe(&self) -> Observation {
        let fleet = match self.fleet_down {
            Some(kind) => Seen::Err { failure: Failure::new(kind, "ECS could not be reached"), at: self.now },
            None => Seen::Ok { value: self.fleet(), at: self.now },
        };
        let workers = match self.broker_down {
            Some(kind) => {
                Seen::Err { failure: Failure::new(kind, "redis at 10.0.0.7:6379 refused the connection"), at: self.now }
            }
            None => Seen::Ok { value: self.workers(), at: self.now },
        };
        let to_count = fleet.ok().and_then(|fleet| to_count(&self.policy, fleet, &self.memory));
        let queues = to_count.map(|names| names.iter().map(|name| (name.clone(), self.count())).collect());
        Observation { fleet, workers, queues }
    }

    fn count(&self) -> Seen<QueueCount> {
        let failed = |kind| Seen::Err { failure: Failure::new(kind, "it could not be counted"), at: self.now };
        let (ready, unacknowledged) = self.queued;
        let delivered = match self.counting {
            _ if self.broker_down.is_some() => return failed(FailureKind::Unreachable),
            Counting::Fails(kind) => return failed(kind),
            Counting::All => Delivered::Counted(unacknowledged),
            Counting::Ready => {
                let takers = || {
                    let nodes = self.live().flat_map(|(_, member)| &member.nodes);
                    nodes.filter(|(_, node)| node.queues.contains("video"))
                };
                let answer = |(name, node): (&String, &Node)| (name.as_str().into(), self.answer(node));
                Delivered::Told {
                    consumers: takers().count() as u64,
                    nodes: takers().filter(|(_, node)| !node.frozen).map(answer).collect(),
                }
            }
        };
        let settles_in = SignedDuration::ZERO;
        let value = QueueCount { counted_at: self.now, ready, delivered, known: true, settles_in };
        Seen::Ok { value, at: self.now }
    }

    fn fleet(&self) -> FleetView {
        FleetView {
            is_rolling_out: self.is_rolling_out,
            is_deleted: false,
            name: "media/transcoder".into(),
            desired: self.desired,
            minimum_healthy_percent: self.minimum_percent,
            maximum_percent: self.maximum_percent,
            current: self.revisions[self.current].1.as_str().into(),
            revisions: self.revisions.iter().map(|(known, id)| (id.as_str().into(), known.clone())).collect(),
            tasks: self.shown().map(|(name, member)| (name.as_str().into(), self.seen(member))).collect(),
            made_at: self.revisions[0].0.created_at,
            longest_hold: HOUR * 48,
            unplaced: self.unplaced.clone(),
            counted: Some(self.counted()),
            balances_zones: self.balances_zones,
            unread: Vec::new(),
            remembered: Some(self.remembered.clone()),
        }
    }

    fn counted(&self) -> Counted {
        let lives = self.tasks.values().map(|member| &member.life).chain(self.unplaced.values().map(|task| &task.life));
        let (mut running, mut starting) = (self.counts_more, 0);
        for life in lives {
            running += u32::from(*life == Life::Running);
            starting += u32::from(*life == Life::Starting);
        }
        Counted { running, starting, stopping: 0 }
    }

    /// Tasks that ended are shown to those who ask for them by name, and to those who never read them.
    fn shown(&self) -> impl Iterator<Item = (&String, &Member)> {
        let tracked = self.memory.tracked();
        self.tasks.iter().filter(move |(name, member)| {
            !matches!(member.life, Life::Stopped { .. }) || self.shows_ended || tracked.contains(&task_id(name))
        })
    }

    fn seen(&self, member: &Member) -> Task {
        // Of a task that it knows no more a scheduler tells nothing.
        let revision = if member.life == Life::Missing { "" } else { self.revisions[member.revision].1.as_str() };
        Task {
            revision: revision.into(),
            life: member.life.clone(),
            started_at: member.started_at,
            hold: member.held_until.map_or(HoldState::Free, HoldState::Until),
            displaced: member.displaced,
            zone: member.zone.clone(),
            alike: member.alike.clone(),
        }
    }

    fn workers(&self) -> WorkersView {
        let mut view = WorkersView::default();
        for (name, member) in self.live().filter(|(_, member)| member.life == Life::Running) {
            let nodes: BTreeSet<NodeName> = member.nodes.keys().map(|node| node.as_str().into()).collect();
            let mapping = match &member.unmapped {
                Some(mapping) => mapping.clone(),
                None if nodes.is_empty() => Mapping::NotFound { hint: format!("no node is called celery@{name}") },
                None => Mapping::Nodes(nodes),
            };
            view.tasks.insert(name.as_str().into(), mapping);
            for (node, state) in member.nodes.iter().filter(|(_, state)| !state.frozen) {
                view.nodes.insert(node.as_str().into(), self.answer(state));
            }
        }
        view
    }

    fn answer(&self, node: &Node) -> Answer {
        Answer {
            queues: Some(node.queues.iter().map(|name| queue(name)).collect()),
            reserved: Some(node.reserved.clone()),
            active: Some(node.active.clone()),
            scheduled: Some(node.scheduled.clone()),
            unseen: node.unseen.clone(),
            strength: if node.accounts { Strength::Account } else { Strength::Lists },
            hears_later: true,
            instance: Some(format!("start {}", node.restarts)),
            ..Answer::new(self.now, self.now)
        }
    }
}
