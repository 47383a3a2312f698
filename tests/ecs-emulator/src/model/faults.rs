//! Faults that can be switched on and off while the world runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{definition::TaskDefinition, operation::Operation, time::seconds};

/// How calls of one operation fail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallFault {
    /// The exception's name, such as `ServerException`. Without one calls are only delayed.
    #[serde(default)]
    pub error: Option<String>,
    /// The exception's message.
    #[serde(default)]
    pub message: String,
    /// So many calls; all of them if absent.
    #[serde(default)]
    pub times: Option<u32>,
    /// Whether the call takes effect before it fails, as when a reply is lost.
    #[serde(default)]
    pub after_effect: bool,
    /// How long the HTTP face waits before it answers. The model itself knows no such delay.
    #[serde(default, with = "seconds", rename = "delay_seconds")]
    pub delay: Duration,
}

/// The faults in force. The default is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// By operation, such as `UpdateTaskProtection`; `*` stands for every operation without an entry of its own.
    pub fail: BTreeMap<String, CallFault>,
    /// `UpdateTaskProtection` with `protectionEnabled` is refused for every task, with this reason.
    pub refuse_protection: Option<String>,
    /// `UpdateTaskProtection` and `GetTaskProtection` answer empty lists, as has been reported; the former does
    /// nothing.
    pub empty_protection_answers: bool,
    /// Reads answer what was true up to so many seconds ago, a random time for each read.
    #[serde(with = "seconds", rename = "stale_reads_seconds")]
    pub stale_reads: Duration,
    /// Overrides the token buckets: at most so many calls per second and bucket, without burst. Zero refuses all.
    pub throttle: Option<u32>,
    /// Tasks of these definitions (`family:revision`, or `family` for all) fail to start.
    pub unstartable: BTreeSet<String>,
    /// No task can be placed: nothing is started.
    pub no_capacity: bool,
}

impl Faults {
    /// The fault that calls of this operation meet now.
    fn entry(&mut self, operation: Operation) -> Option<&mut CallFault> {
        let key = if self.fail.contains_key(operation.as_str()) { operation.as_str() } else { "*" };
        self.fail.get_mut(key).filter(|fault| fault.times != Some(0))
    }

    /// Uses up one failure of this operation, if there is any.
    pub(super) fn take(&mut self, operation: Operation) -> Option<CallFault> {
        let fault = self.entry(operation)?;
        fault.times = fault.times.map(|times| times - 1);
        Some(fault.clone())
    }

    /// How long the next call of this operation shall be delayed.
    pub fn delay(&mut self, operation: Operation) -> Duration {
        self.entry(operation).map_or(Duration::ZERO, |fault| fault.delay)
    }

    /// Whether tasks of this definition cannot be started.
    pub(super) fn hits_start(&self, definition: &TaskDefinition) -> bool {
        !self.unstartable.is_empty()
            && (self.unstartable.contains(&definition.family) || self.unstartable.contains(&definition.name()))
    }
}
