//! What series are told apart by: bounded words, which are API, and a drain's name.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use worker_drain_plan::Action;

/// A drain: its namespace and its name.
pub type Key = (String, String);

/// An outside system that may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum System {
    /// Amazon ECS.
    Ecs,
    /// The broker that workers are asked through.
    Broker,
    /// The Kubernetes API server.
    Kubernetes,
}

/// A kind of action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A hold was set or renewed.
    Hold,
    /// A hold was released.
    Release,
    /// A worker was told to stop consuming.
    Cancel,
    /// A worker was told to consume again.
    GiveBack,
}

impl Kind {
    pub(super) fn of(action: &Action) -> Self {
        match action {
            Action::Hold { .. } => Self::Hold,
            Action::Permit { .. } | Action::Release { .. } => Self::Release,
            Action::Cancel { .. } => Self::Cancel,
            Action::GiveBack { .. } => Self::GiveBack,
        }
    }
}

/// How a reconciliation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PassEnd {
    /// Well.
    Ok,
    /// Its memory could not be read or written.
    Error,
    /// It took too long.
    Timeout,
    /// By a bug.
    Panic,
}

macro_rules! words {
    ($($name:ident),*) => {$(
        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                EncodeLabelValue::encode(&format!("{self:?}").as_str(), encoder)
            }
        }
    )*};
}
words!(System, Kind, PassEnd);
