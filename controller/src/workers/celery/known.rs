//! What is kept of nodes from one observation to the next: how each start of them is asked, and what they may still answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{Mutex, PoisonError},
};

use worker_drain_plan::NodeName;

use super::{
    match_nodes::Answered,
    poll::Poll,
    profile::{Gaps, Hidden, Kind, Profile},
    transport::Replies,
};

/// What is kept of nodes from one observation to the next.
#[derive(Default)]
pub(super) struct Known(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    profiles: BTreeMap<NodeName, Profile>,
    /// What was asked in the last observation of those who were met in it. A reply that came too late for it counts in the next
    /// one: before anything is proven, everybody had from one observation to another to answer.
    late: Vec<(Poll, Replies)>,
}

impl Known {
    /// What was asked before of those who may have answered since.
    pub(super) fn take_late(&self) -> Vec<(Poll, Replies)> {
        self.with(|inner| mem::take(&mut inner.late))
    }

    /// Keeps what was asked, for replies that come too late for this observation.
    pub(super) fn keep_late(&self, late: Vec<(Poll, Replies)>) {
        self.with(|inner| inner.late = late);
    }

    /// Forgets all other nodes.
    pub(super) fn keep_only(&self, here: &BTreeSet<NodeName>) {
        self.with(|inner| inner.profiles.retain(|node, _| here.contains(node)));
    }

    /// This node is to be met again.
    pub(super) fn forget(&self, node: &NodeName) {
        self.with(|inner| inner.profiles.remove(node));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut inner)
    }

    pub(super) fn profile(&self, node: &NodeName) -> Option<Profile> {
        self.with(|inner| inner.profiles.get(node).cloned())
    }

    /// It was never met, or as nobody's.
    pub(super) fn is_strange(&self, node: &NodeName) -> bool {
        self.profile(node).is_none_or(|profile| profile.kind == Kind::Stranger)
    }

    /// Nodes that were met before, with what they told of their tasks.
    pub(super) fn met(&self) -> Answered {
        self.with(|inner| {
            let told = inner.profiles.iter().filter_map(|(node, profile)| match &profile.kind {
                Kind::Package(package) => Some((node.clone(), package.task.clone()?)),
                Kind::Lists(_) | Kind::Stranger => None,
            });
            Answered { told: told.collect(), nodes: inner.profiles.keys().cloned().collect(), ..Answered::default() }
        })
    }

    /// What is registered with a node now is added to what its lists would not show. `None`: it is not asked for lists.
    pub(super) fn widen(&self, node: &NodeName, registered: &[Hidden]) -> Option<Gaps> {
        self.with(|inner| match &mut inner.profiles.get_mut(node)?.kind {
            Kind::Lists(gaps) => {
                gaps.widen(registered);
                Some(gaps.clone())
            }
            Kind::Package(_) | Kind::Stranger => None,
        })
    }

    /// Keeps what nodes told when they were asked how they want to be asked. One that has told a part only is asked again.
    pub(super) fn learn(&self, poll: &Poll) {
        let profiles = poll.heard.iter().filter_map(|(node, heard)| Some((node.clone(), poll.profile(node, heard)?)));
        self.with(|inner| inner.profiles.extend(profiles));
    }
}
