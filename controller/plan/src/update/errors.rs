//! Since when the fleet or its workers cannot be observed, and how often that was tried.

use crate::{memory::ObserveError, observation::Seen};

/// Counts a failure once, and forgets all of them when something is seen.
pub fn follow<T>(before: Option<ObserveError>, seen: &Seen<T>) -> Option<ObserveError> {
    let Seen::Err { at, .. } = seen else { return None };
    match before {
        Some(before) if before.last == *at => Some(before),
        Some(before) => {
            Some(ObserveError { since: before.since.min(*at), last: *at, times: before.times.saturating_add(1) })
        }
        None => Some(ObserveError { since: *at, last: *at, times: 1 }),
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::follow;
    use crate::{
        memory::ObserveError,
        observation::{Failure, FailureKind, Seen},
    };

    #[test]
    fn a_failure_is_counted_once_and_forgotten_when_something_is_seen() {
        let (first, later) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH + SignedDuration::from_secs(5));
        let fails = |at| Seen::<()>::Err { failure: Failure::new(FailureKind::Unreachable, "no answer"), at };
        let once = follow(None, &fails(first));
        assert_eq!(once, Some(ObserveError { since: first, last: first, times: 1 }));
        assert_eq!(follow(once.clone(), &fails(first)), once, "the same failure");
        let twice = follow(once, &fails(later));
        assert_eq!(twice, Some(ObserveError { since: first, last: later, times: 2 }));
        assert_eq!(follow(twice, &Seen::Ok { value: (), at: later }), None);
    }
}
