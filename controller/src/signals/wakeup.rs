//! Which jobs' ends cause an observation.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use worker_drain_plan::{Awaited, NodeName};

/// Between two times that somebody is woken: however much is heard, only so much is done.
const GAP: Duration = Duration::from_millis(250);

/// Of so many nodes is anything kept. Far more than a broker has; a name more is not heard of.
pub const MOST_NODES: usize = 10_000;

/// What was heard of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It has ended a job, one way or another.
    Ended,
    /// It says that it runs none.
    Rests {
        /// How many it has begun in its life: it distinguishes one rest from the next.
        begun: u64,
    },
}

/// Hears of jobs that end, and wakes who waits for the last of them.
///
/// Counts are of the time since the last observation *began*, so that an end is counted rather twice (by the observation, and here)
/// than never: the first costs an observation, the second would cost a poll interval.
#[derive(Debug, Default)]
pub struct Wakeup {
    state: Mutex<State>,
    met: Notify,
}

#[derive(Debug, Default)]
struct State {
    awaited: Awaited,
    nodes: BTreeMap<NodeName, Heard>,
    woke: Option<Instant>,
}

/// Of one node.
#[derive(Debug, Default)]
struct Heard {
    ended: u32,
    rests: bool,
    /// How many jobs it had begun when it was heard to rest. To hear the same again is no news.
    rested_after: Option<u64>,
}

impl Wakeup {
    /// An observation begins: it will see by itself what was heard until now.
    pub fn observation_begins(&self) {
        for heard in self.state().nodes.values_mut() {
            (heard.ended, heard.rests) = (0, false);
        }
    }

    /// From now on, whoever waits is woken for these.
    pub fn await_only(&self, awaited: &Awaited) {
        let mut state = self.state();
        state.awaited.clone_from(awaited);
        if state.met().is_some() {
            self.met.notify_one();
        }
    }

    /// Forgets all that was heard.
    pub fn clear(&self) {
        self.state().nodes.clear();
    }

    /// Takes in what was heard of a node.
    pub fn hear(&self, node: &NodeName, sign: Sign) {
        let mut state = self.state();
        if !state.nodes.contains_key(node) && state.nodes.len() >= MOST_NODES {
            return;
        }
        let heard = state.nodes.entry(node.clone()).or_default();
        match sign {
            Sign::Ended => heard.ended = heard.ended.saturating_add(1),
            Sign::Rests { begun } if heard.rested_after != Some(begun) => {
                (heard.rests, heard.rested_after) = (true, Some(begun));
            }
            Sign::Rests { .. } => {}
        }
        if state.is_met(node) {
            self.met.notify_one();
        }
    }

    /// Waits until a node whose jobs are awaited may have become idle. Returns which. For one waiter.
    pub async fn wait(&self) -> NodeName {
        loop {
            let met = self.state().met().cloned();
            if let Some(node) = met {
                let next = self.state().woke.map(|woke| woke + GAP);
                if let Some(next) = next {
                    sleep_until(next).await;
                }
                self.state().woke = Some(Instant::now());
                return node;
            }
            self.met.notified().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_met(&self, node: &NodeName) -> bool {
        let (Some(wanted), Some(heard)) = (self.awaited.get(node), self.nodes.get(node)) else { return false };
        heard.rests || heard.ended >= wanted.get()
    }

    fn met(&self) -> Option<&NodeName> {
        self.awaited.keys().find(|node| self.is_met(node))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use futures::FutureExt;

    use super::*;

    fn awaited(node: &str, ends: u32) -> Awaited {
        [(node.into(), NonZeroU32::new(ends).unwrap())].into()
    }

    /// Who would be woken now.
    fn woken(wakeup: &Wakeup) -> Option<NodeName> {
        wakeup.wait().now_or_never()
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_last_end_wakes() {
        let wakeup = Wakeup::default();
        wakeup.await_only(&awaited("a", 2));
        wakeup.hear(&"a".into(), Sign::Ended);
        wakeup.hear(&"b".into(), Sign::Ended);
        assert_eq!(woken(&wakeup), None);
        wakeup.hear(&"a".into(), Sign::Ended);
        assert_eq!(woken(&wakeup), Some("a".into()));
        wakeup.observation_begins();
        assert_eq!(woken(&wakeup), None, "it was looked at");
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_comes_while_one_looks_is_not_lost() {
        let wakeup = Wakeup::default();
        wakeup.observation_begins();
        wakeup.hear(&"a".into(), Sign::Ended);
        wakeup.await_only(&awaited("a", 1));
        assert_eq!(woken(&wakeup), Some("a".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_wakes_once() {
        let wakeup = Wakeup::default();
        wakeup.await_only(&awaited("a", 3));
        wakeup.hear(&"a".into(), Sign::Rests { begun: 7 });
        assert_eq!(woken(&wakeup), Some("a".into()));
        wakeup.observation_begins();
        wakeup.hear(&"a".into(), Sign::Rests { begun: 7 });
        assert_eq!(woken(&wakeup), None, "it was looked at in that rest, and has jobs all the same");
        wakeup.hear(&"a".into(), Sign::Rests { begun: 8 });
        tokio::time::advance(GAP).await;
        assert_eq!(woken(&wakeup), Some("a".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn much_to_hear_is_little_to_do() {
        let wakeup = Wakeup::default();
        wakeup.await_only(&awaited("a", 1));
        let began = Instant::now();
        for _ in 0..5 {
            wakeup.observation_begins();
            for _ in 0..1000 {
                wakeup.hear(&"a".into(), Sign::Ended);
            }
            wakeup.wait().await;
        }
        assert_eq!(began.elapsed(), GAP * 4);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_woken_by_what_comes_later() {
        let wakeup = Wakeup::default();
        wakeup.await_only(&awaited("a", 1));
        let (node, ()) = tokio::join!(wakeup.wait(), async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            wakeup.hear(&"a".into(), Sign::Ended);
        });
        assert_eq!(node.as_str(), "a");
    }

    #[test]
    fn names_without_end_fill_no_memory() {
        let wakeup = Wakeup::default();
        for number in 0..2 * MOST_NODES {
            wakeup.hear(&NodeName::from(number.to_string()), Sign::Ended);
        }
        assert_eq!(wakeup.state().nodes.len(), MOST_NODES);
        wakeup.clear();
        assert!(wakeup.state().nodes.is_empty());
    }
}
