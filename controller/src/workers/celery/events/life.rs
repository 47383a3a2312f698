//! Which nodes are alive though they do not answer, by what they send unasked.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;
use worker_drain_plan::NodeName;

use crate::signals::MOST_NODES;

/// A node sends a heartbeat every two seconds: one that was not heard for so long sends none.
const BEATS_WITHIN: Duration = Duration::from_secs(10);

/// What was heard of nodes since it is listened.
#[derive(Debug, Default)]
pub(super) struct Signs {
    since: Option<Instant>,
    nodes: BTreeMap<NodeName, Last>,
}

/// What came last from a node.
#[derive(Debug)]
struct Last {
    at: Instant,
    leaves: bool,
}

impl Signs {
    /// From now on all that is sent is heard.
    pub(super) fn begin(&mut self) {
        *self = Self { since: Some(Instant::now()), nodes: BTreeMap::new() };
    }

    /// Nothing is heard any more.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// A node sent something, whatever it is; and whether it was that it stops.
    pub(super) fn hear(&mut self, node: NodeName, leaves: bool) {
        if self.nodes.len() < MOST_NODES || self.nodes.contains_key(&node) {
            self.nodes.insert(node, Last { at: Instant::now(), leaves });
        }
    }

    /// What that amounts to now.
    pub(super) fn lives(&self) -> Lives {
        let mut lives =
            Lives { heard: self.since.is_some_and(|since| since.elapsed() >= BEATS_WITHIN), ..Lives::default() };
        for (node, last) in &self.nodes {
            if last.leaves {
                lives.leaving.insert(node.clone());
            } else if last.at.elapsed() < BEATS_WITHIN {
                lives.beating.insert(node.clone());
            }
        }
        lives
    }
}

/// Who is alive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Lives {
    /// It was listened for long enough to hear everybody who sends heartbeats.
    heard: bool,
    /// They send heartbeats.
    pub(in super::super) beating: BTreeSet<NodeName>,
    /// They have said that they stop, and nothing since.
    leaving: BTreeSet<NodeName>,
}

impl Lives {
    /// Something says that this node is there.
    pub(in super::super) fn is_alive(&self, node: &NodeName) -> bool {
        self.leaving.contains(node) || self.beating.contains(node)
    }

    /// Why this node does not answer, if what it sends, or does not send, tells.
    pub(in super::super) fn why(&self, node: &NodeName) -> Option<&'static str> {
        if self.leaving.contains(node) {
            Some(LEAVING)
        } else if self.beating.contains(node) {
            Some(DEAF)
        } else {
            self.heard.then_some(MUTE)
        }
    }
}

/// Of a node that sends heartbeats.
pub(in super::super) const DEAF: &str = "it sends heartbeats, so it is alive, and answers nothing: its accept_content may lack json, \
                                         worker_enable_remote_control may be off, or it is deaf since its broker was restarted \
                                         (docs/hazards.md)";

/// Of a node whose last word was `worker-offline`.
const LEAVING: &str =
    "it said that it stops (Celery's event worker-offline), and answers nobody since: it ends with its last job";

/// Of a node that is not heard at all.
const MUTE: &str = "it sends no heartbeat either: it is frozen, cut off or gone, or a job keeps its only thread (solo), or it was started \
                    --without-heartbeat; look at its log and at its host";

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_means_something_only_after_a_while() {
        let (node, other) = (NodeName::from("w@a"), NodeName::from("w@b"));
        let mut signs = Signs::default();
        assert_eq!(signs.lives().why(&node), None, "nobody listens");
        signs.begin();
        signs.hear(other.clone(), false);
        assert_eq!((signs.lives().why(&node), signs.lives().why(&other)), (None, Some(DEAF)));
        advance(BEATS_WITHIN).await;
        assert_eq!((signs.lives().why(&node), signs.lives().why(&other)), (Some(MUTE), Some(MUTE)));
        signs.hear(other.clone(), true);
        advance(BEATS_WITHIN * 2).await;
        assert_eq!(signs.lives().why(&other), Some(LEAVING), "its last word");
        signs.hear(other.clone(), false);
        assert_eq!(signs.lives().why(&other), Some(DEAF), "it is there again");
        signs.end();
        assert_eq!(signs.lives(), Lives::default());
    }
}
