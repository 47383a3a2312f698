//! The fleet: the tasks that run workers, and the holds that keep their scheduler from stopping them.
//!
//! Another kind of fleet is another folder here and one line where the trait's implementation is chosen. Nothing in here
//! makes a choice of policy.

pub mod ecs;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
};

use jiff::SignedDuration;
use worker_drain_plan::{
    Outcome, RevisionId, TaskId,
    observation::{Failure, FleetView},
};

use crate::identity::Identity;

/// One observation of a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetObservation {
    /// What policy needs.
    pub view: FleetView,
    /// What each task of it that has not ended is known by.
    pub identities: BTreeMap<TaskId, Identity>,
}

/// The tasks that run workers, and their scheduler.
pub trait Fleet: Send + Sync {
    /// Observes the fleet: all tasks that its scheduler lists, and each of `tracked`, which it may no longer list.
    ///
    /// Errors: the fleet could not be seen whole. Part of a fleet is never passed off as all of it.
    fn observe(&self, tracked: &BTreeSet<TaskId>) -> impl Future<Output = Result<FleetObservation, Failure>> + Send;

    /// Holds each of these tasks for this long from now. One outcome for each, in the same order; an answer that leaves a
    /// task out is a refusal of it.
    fn hold(&self, holds: &[(TaskId, SignedDuration)]) -> impl Future<Output = Vec<Outcome>> + Send;

    /// Releases the holds of these tasks. One outcome for each, in the same order.
    fn release(&self, tasks: &[TaskId]) -> impl Future<Output = Vec<Outcome>> + Send;

    /// Writes down beside the fleet how many workers a task of each revision has, in place of what is written there; nothing, if
    /// `workers_per_task` is empty. `seen` is the observation that this was decided on. [`FleetView::remembered`] shows it later.
    fn remember(
        &self,
        workers_per_task: &BTreeMap<RevisionId, u32>,
        seen: &FleetView,
    ) -> impl Future<Output = Outcome> + Send;
}
