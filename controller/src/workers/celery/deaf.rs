//! A fleet that hears nothing of what it is asked is not asked at every observation: a worker that refuses a request, such as
//! one whose `accept_content` lacks json, logs an error each time.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use worker_drain_plan::{TaskId, observation::WorkersView};

use crate::identity::Expected;

/// Before that it may be a worker that connects again, which is heard before it hears.
const SURE_AFTER: Duration = Duration::from_secs(10);

/// It is asked again after so long: it may have been mended.
const AGAIN: Duration = Duration::from_mins(1);

/// What was seen while nobody answered and somebody was alive.
#[derive(Default)]
pub(super) struct Deaf(Mutex<Option<Seen>>);

struct Seen {
    since: Instant,
    asked: Instant,
    tasks: BTreeMap<TaskId, Expected>,
    view: WorkersView,
}

impl Deaf {
    /// What would be seen of these tasks if they were asked: that nobody answers.
    pub(super) fn seen(&self, tasks: &BTreeMap<TaskId, Expected>) -> Option<WorkersView> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_sure = |seen: &&Seen| {
            seen.asked - seen.since >= SURE_AFTER && seen.asked.elapsed() < AGAIN && seen.tasks == *tasks
        };
        seen.as_ref().filter(is_sure).map(|seen| seen.view.clone())
    }

    /// They were asked; and whether nobody answered and somebody is alive.
    pub(super) fn asked(&self, tasks: &BTreeMap<TaskId, Expected>, view: &WorkersView, is_deaf: bool) {
        let asked = Instant::now();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = is_deaf.then(|| Seen {
            since: seen.as_ref().map_or(asked, |seen| seen.since),
            asked,
            tasks: tasks.clone(),
            view: view.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_is_deaf_for_long_is_asked_now_and_then() {
        let (deaf, tasks, view) = (Deaf::default(), [("a".into(), Expected::default())].into(), WorkersView::default());
        deaf.asked(&tasks, &view, true);
        assert_eq!(deaf.seen(&tasks), None, "it may just connect again");
        advance(SURE_AFTER).await;
        deaf.asked(&tasks, &view, true);
        assert_eq!(deaf.seen(&tasks), Some(view.clone()));
        assert_eq!(deaf.seen(&BTreeMap::new()), None, "other tasks");
        advance(AGAIN).await;
        assert_eq!(deaf.seen(&tasks), None);
        deaf.asked(&tasks, &view, false);
        deaf.asked(&tasks, &view, true);
        assert_eq!(deaf.seen(&tasks), None, "somebody answered meanwhile");
    }
}
