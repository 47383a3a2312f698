//! Whose turn it is to look at ECS.
//!
//! ECS grants an account and Region a handful of calls a second, which all drains there share. A look that had begun and
//! then waited for its calls would be too old to act on when it ends. So a pass waits before its look begins, in the order
//! of coming, and few looks share the calls: each is young when it ends, however many drains there are.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::policy::EcsTarget;

/// So many looks at one account and Region are under way at once. A look at a small fleet takes three calls of a kind that
/// we make ten times a second: eight wait for one another for some two seconds, and the plan's actions are good for ten.
const LOOKS_AT_ONCE: usize = 8;

/// The permission to look, until the look has ended.
pub type ObserveSlot = OwnedSemaphorePermit;

/// The turns of all accounts and Regions.
#[derive(Debug, Default)]
pub struct ObserveSlots(Mutex<BTreeMap<Place, Arc<Semaphore>>>);

/// Role and Region, as far as they are known before anything is asked.
type Place = (Option<String>, Option<String>);

impl ObserveSlots {
    /// Waits for a turn to look there.
    pub async fn wait(&self, EcsTarget { role_arn, region, .. }: &EcsTarget) -> Option<ObserveSlot> {
        let place = (role_arn.clone(), region.clone());
        let slots = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(place).or_insert_with(|| Arc::new(Semaphore::new(LOOKS_AT_ONCE))))
        };
        // Fails only if it were closed, which it never is.
        slots.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn few_look_at_once_and_other_regions_are_not_waited_for() {
        let slots = ObserveSlots::default();
        let target = |region: &str| EcsTarget {
            cluster: "media".into(),
            service: "transcoder".into(),
            region: Some(region.into()),
            role_arn: None,
        };
        let mut looking = Vec::new();
        for _ in 0..LOOKS_AT_ONCE {
            looking.push(slots.wait(&target("eu-west-1")).await);
        }
        assert!(slots.wait(&target("eu-west-1")).now_or_never().is_none());
        assert!(slots.wait(&target("us-east-1")).now_or_never().is_some());
        looking.pop();
        assert!(slots.wait(&target("eu-west-1")).now_or_never().is_some());
    }
}
