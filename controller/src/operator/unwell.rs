//! What a status tells when there is no report to render: the planner was never asked.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::{WorkerDrainStatus, status::condition};

/// The spec cannot be used: surfaces as the reason of `Ready` and `Stalled` until a person has mended it.
pub const INVALID_SPEC: &str = "InvalidSpec";

/// Another drain looks after the same service: surfaces as the reason of `Ready` and `Stalled` until that one is gone.
pub const CONFLICT: &str = "Conflict";

/// A pass ended by a bug of this program: surfaces as the reason of `Ready` and `Stalled` until a pass ends well.
pub const INTERNAL_ERROR: &str = "InternalError";

/// Tells it in the conditions; what was known of tasks and rollouts stays as it was.
pub fn tell(status: &mut WorkerDrainStatus, reason: &str, message: &str, now: Timestamp) {
    let message: String = message.chars().take(1000).collect();
    let condition = |type_: &str, answer: &str| {
        let before = status.conditions.iter().find(|before| before.type_ == type_ && before.status == answer);
        Condition {
            type_: type_.into(),
            status: answer.into(),
            reason: reason.into(),
            message: message.clone(),
            last_transition_time: before.map_or(Time(now), |before| before.last_transition_time.clone()),
            observed_generation: None,
        }
    };
    let conditions = [
        condition(condition::READY, "False"),
        condition(condition::DRAINED, "Unknown"),
        condition(condition::RECONCILING, "False"),
        condition(condition::STALLED, "True"),
    ];
    status.conditions = conditions.into();
    status.phase = Some(String::from("Unknown"));
    status.blocked_by = Some(reason.into());
}
