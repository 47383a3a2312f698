//! What one reconciliation is about, and what follows from it.

use std::time::Duration;

use kube::api::DynamicObject;

use super::fencing::OrFailure;
use crate::{
    api::DrainSpec,
    clock::SystemClock,
    fleet::ecs::{EcsFleet, ObserveSlot},
    record::resource::ResourceRecord,
};

/// When a drain must be reconciled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// After so long at the latest.
    After(Duration),
    /// Never: it is gone.
    Gone,
}

/// A drain that can be reconciled.
pub struct Subject {
    /// The resource, as it was read for this reconciliation.
    pub resource: DynamicObject,
    /// What it asks for.
    pub spec: DrainSpec,
    /// Where its status and memory are.
    pub record: ResourceRecord<SystemClock>,
    /// Its fleet, or why there is none.
    pub fleet: OrFailure<EcsFleet>,
    /// The permission to observe it once.
    pub slot: Option<ObserveSlot>,
}
