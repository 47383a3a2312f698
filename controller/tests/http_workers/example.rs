//! The example that is not Celery.

use std::{fs, process::Command};

use test_support::{Process, free_port, python, repository};
use worker_drain::workers::Workers as _;
use worker_drain_plan::{Outcome, observation::Queue};

use crate::{TOKEN, ids, node, open, queues, settings, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_another_make_is_drained_and_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = folder.path().join("jobs");
    fs::create_dir(&jobs).unwrap();
    let port = free_port();
    let mut command = Command::new(python());
    command.arg(repository().join("examples/http-worker.py")).current_dir(folder.path());
    command.env("WORKER_TOKEN", TOKEN).env("PORT", port.to_string()).env("WORK_SECONDS", "2");
    let _worker = Process::start("examples/http-worker.py", &command);
    let workers = open(&settings(port));
    until(&workers, "127.0.0.1", "it takes jobs", |answer| queues(answer) == Some(vec!["jobs"])).await;
    for job in ["a", "b"] {
        fs::write(jobs.join(job), "").unwrap();
    }
    until(&workers, "127.0.0.1", "it runs one", |answer| ids(answer.active.as_ref()) == ["a"].into()).await;
    assert_eq!(workers.cancel(&[(node(), vec!["jobs".into()])]).await, [Outcome::Done]);
    let drained = |answer: &_| queues(answer) == Some(Vec::new()) && ids(answer.active.as_ref()).is_empty();
    until(&workers, "127.0.0.1", "it is drained", drained).await;
    assert!(
        !jobs.join("a").exists() && jobs.join("b").exists(),
        "it has ended the job that it had, and begun no other"
    );
    let queue = Queue::named("jobs");
    assert_eq!(workers.give_back(&[(node(), vec![queue])]).await, [Outcome::Done]);
    until(&workers, "127.0.0.1", "it runs the other", |answer| ids(answer.active.as_ref()) == ["b"].into()).await;
}
