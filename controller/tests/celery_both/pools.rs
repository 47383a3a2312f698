//! What docs/idleness.md says of each pool: what a worker has taken, and cannot give back, shows until it is done.

use serde_json::json;
use test_support::{Jobs, SampleApp};
use worker_drain::workers::Workers;
use worker_drain_plan::observation::Answer;

use super::{all_answer, ids, known_tasks, look_until, node, open, queues, settings};
use crate::a_broker;

fn jobs_of(answer: &Answer) -> (usize, usize) {
    (ids(answer.active.as_ref()).len(), ids(answer.reserved.as_ref()).len())
}

#[tokio::test]
async fn whatever_the_pool_and_the_acknowledgement_what_was_taken_shows_until_it_is_done() {
    let pools = ["prefork", "threads", "gevent"];
    for acks_late in [false, true] {
        let broker = a_broker().await;
        let app = SampleApp::new(broker.url()).settings(json!({"task_acks_late": acks_late}));
        let spawn = |pool: &str| app.worker(format!("worker@{pool}")).queues([pool]).pool(pool).prefetch(3).spawn();
        let started: Vec<_> = pools.iter().map(|pool| spawn(pool)).collect();
        let mut workers = Vec::new();
        for worker in started {
            workers.push(worker.ready().await);
        }
        let celery = open(&settings(&broker.url()));
        let tasks = known_tasks(&pools);
        all_answer(&celery, &tasks).await;

        let mut jobs = Vec::new();
        for pool in pools {
            let ids = ["a", "b", "c"].map(|job| format!("{pool}-{job}"));
            jobs.extend(app.submit(Jobs::with_ids(ids).queue(pool).until_told()).await);
        }
        app.journal().wait_started(&jobs, pools.len()).await;
        let all = |wanted: (usize, usize)| {
            move |view: &worker_drain_plan::observation::WorkersView| {
                view.nodes.len() == pools.len() && view.nodes.values().all(|answer| jobs_of(answer) == wanted)
            }
        };
        look_until("each runs one and holds two", &celery, &tasks, all((1, 2))).await;

        let cancels = pools.map(|pool| (node(pool), vec![pool.into()]));
        celery.cancel(&cancels).await;
        let view = look_until("all are cancelled", &celery, &tasks, |view| {
            view.nodes.len() == pools.len() && view.nodes.values().all(|answer| queues(answer).is_empty())
        })
        .await;
        assert!(all((1, 2))(&view), "what was taken stays: acks_late {acks_late}, {view:?}");

        app.tell(&jobs);
        look_until("all are idle", &celery, &tasks, all((0, 0))).await;
        let tally = app.journal().tally(&jobs);
        assert_eq!(tally.finished.len(), jobs.len(), "idle before all was done: acks_late {acks_late}, {tally:?}");
    }
}
