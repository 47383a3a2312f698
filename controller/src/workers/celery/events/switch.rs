//! In which nodes we have switched events of jobs on, so that they can be switched off.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use worker_drain_plan::{Awaited, NodeName, observation::Answer};

/// A node that did not say whether it sends them is asked again after so long.
const AGAIN: Duration = Duration::from_mins(1);

/// What is known of each node's switch. Kept by this process alone: after its end the switches stay as they are.
#[derive(Debug, Default)]
pub(in super::super) struct Switches(Mutex<BTreeMap<NodeName, Switch>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Switch {
    /// It was asked, and has not answered.
    Asked(Instant),
    /// It had been on before.
    Theirs,
    /// It is on because of us.
    Ours,
    /// It is on because of us, and must be turned off.
    Returned,
}

impl Switches {
    /// Those of the awaited nodes whose events must be turned on now.
    pub(in super::super) fn to_turn_on(&self, awaited: &Awaited) -> Vec<NodeName> {
        let now = Instant::now();
        let mut switches = self.switches();
        let is_due = |switch: Option<&Switch>| match switch {
            None => true,
            Some(Switch::Asked(at)) => now.duration_since(*at) >= AGAIN,
            Some(Switch::Theirs | Switch::Ours | Switch::Returned) => false,
        };
        let due: Vec<NodeName> = awaited.keys().filter(|node| is_due(switches.get(*node))).cloned().collect();
        switches.extend(due.iter().map(|node| (node.clone(), Switch::Asked(now))));
        due
    }

    /// A node has answered that it sends them; and whether it has done so before.
    pub(in super::super) fn is_on(&self, node: NodeName, before: bool) {
        self.switches().insert(node, if before { Switch::Theirs } else { Switch::Ours });
    }

    /// One observation is over. A node that takes jobs again leaves no longer, or it has restarted, and what we know of it is old.
    /// One that nobody asks for any longer is forgotten.
    pub(in super::super) fn observed(&self, answers: &BTreeMap<NodeName, Answer>, known: &BTreeSet<&NodeName>) {
        self.switches().retain(|node, switch| {
            let consumes = answers.get(node).and_then(|answer| answer.queues.as_ref()).is_some_and(|it| !it.is_empty());
            if consumes && matches!(switch, Switch::Ours) {
                *switch = Switch::Returned;
            }
            let is_left = known.contains(node) || answers.contains_key(node);
            is_left && !(consumes && matches!(switch, Switch::Theirs | Switch::Asked(_)))
        });
    }

    /// Those that must be turned off; each is returned once.
    pub(in super::super) fn to_turn_off(&self) -> Vec<NodeName> {
        let mut switches = self.switches();
        let returned: Vec<NodeName> =
            switches.iter().filter(|(_, switch)| **switch == Switch::Returned).map(|(node, _)| node.clone()).collect();
        for node in &returned {
            switches.remove(node);
        }
        returned
    }

    fn switches(&self) -> MutexGuard<'_, BTreeMap<NodeName, Switch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use jiff::Timestamp;
    use worker_drain_plan::observation::Queue;

    use super::*;

    fn awaited() -> Awaited {
        [("a".into(), NonZeroU32::MIN)].into()
    }

    fn observed(switches: &Switches, queues: usize) {
        let queue = Queue::named("celery");
        let at = Timestamp::UNIX_EPOCH;
        let queues = Some(vec![queue; queues]);
        let answer = Answer { queues, ..Answer::new(at, at) };
        switches.observed(&[("a".into(), answer)].into(), &BTreeSet::new());
    }

    #[tokio::test(start_paused = true)]
    async fn what_we_turned_on_is_turned_off_when_it_is_back() {
        let switches = Switches::default();
        assert_eq!(switches.to_turn_on(&awaited()), ["a".into()]);
        assert_eq!(switches.to_turn_on(&awaited()), [], "once is enough");
        switches.is_on("a".into(), false);
        observed(&switches, 0);
        assert_eq!((switches.to_turn_on(&awaited()), switches.to_turn_off()), (vec![], vec![]));
        observed(&switches, 1);
        assert_eq!(switches.to_turn_off(), ["a".into()]);
        assert_eq!(switches.to_turn_off(), []);
        assert_eq!(switches.to_turn_on(&awaited()), ["a".into()], "it may leave another time");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_on_before_stays_on() {
        let switches = Switches::default();
        switches.to_turn_on(&awaited());
        switches.is_on("a".into(), true);
        observed(&switches, 1);
        assert_eq!(switches.to_turn_off(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_node_is_asked_again_and_not_all_the_time() {
        let switches = Switches::default();
        assert_eq!(switches.to_turn_on(&awaited()).len(), 1);
        tokio::time::advance(AGAIN / 2).await;
        assert_eq!(switches.to_turn_on(&awaited()).len(), 0);
        tokio::time::advance(AGAIN / 2).await;
        assert_eq!(switches.to_turn_on(&awaited()).len(), 1);
    }

    #[test]
    fn nodes_that_are_gone_are_forgotten() {
        let switches = Switches::default();
        switches.is_on("a".into(), false);
        switches.observed(&BTreeMap::new(), &[&NodeName::from("a")].into());
        assert_eq!(switches.switches().len(), 1, "a silent one is not gone");
        switches.observed(&BTreeMap::new(), &BTreeSet::new());
        assert!(switches.switches().is_empty());
    }
}
