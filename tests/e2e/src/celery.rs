//! What Celery's own command line says of the workers.

use std::{process::Stdio, time::Duration};

use serde_json::Value;
use test_support::{python, repository};

use crate::{stage::Stage, tasks::TaskView};

impl Stage {
    /// What the task's node answers to `celery inspect METHOD`; `None` if it does not answer.
    pub async fn inspect(&self, task: &TaskView, method: &str) -> Option<Value> {
        let node = task.node();
        let mut command = tokio::process::Command::new(python());
        command.args(["-m", "celery", "--app", "app", "inspect", method, "--destination", &node]);
        command.args(["--timeout", "2", "--json"]).current_dir(repository().join("tests/celery"));
        command.envs(self.app().environment()).stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.expect("Python can be run");
        // Without an answer it prints why, which is no JSON.
        let answers: Value = serde_json::from_slice(&output.stdout).ok()?;
        answers.get(node).cloned()
    }

    /// The queues that the task's node takes jobs from, as Celery's own `inspect active_queues` says, or the worker itself
    /// where Celery cannot ask it; `None` if it does not answer.
    pub async fn queues(&self, task: &TaskView) -> Option<Vec<String>> {
        if self.http_port().is_some() {
            // There is no process to start for a question, so that it is asked too fast otherwise.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let state = self.state(task).await?;
            return Some(
                state["queues"].as_array()?.iter().filter_map(|name| name.as_str().map(String::from)).collect(),
            );
        }
        let queues = self.inspect(task, "active_queues").await?;
        Some(queues.as_array()?.iter().filter_map(|queue| queue["name"].as_str().map(String::from)).collect())
    }

    /// Waits until one of these tasks is seen to take no more jobs; which.
    pub async fn until_one_is_cancelled<'a>(&self, tasks: &'a [TaskView]) -> &'a TaskView {
        for _ in 0..240 {
            for task in tasks {
                assert!(self.task(task.id).is_live(), "{} was stopped", task.node());
                if self.queues(task).await.is_some_and(|queues| queues.is_empty()) {
                    return task;
                }
            }
        }
        panic!("celery inspect active_queues was asked 240 times, and every worker still takes jobs");
    }

    /// Waits until each of these tasks is seen to take no more jobs.
    pub async fn until_cancelled(&self, tasks: &[TaskView]) {
        self.until_queues(tasks, &[]).await;
    }

    /// Waits until each of these tasks is seen to take jobs.
    pub async fn until_consuming(&self, tasks: &[TaskView]) {
        self.until_queues(tasks, &["celery"]).await;
    }

    async fn until_queues(&self, tasks: &[TaskView], wanted: &[&str]) {
        for task in tasks {
            let mut seen = None;
            for _ in 0..240 {
                assert!(self.task(task.id).is_live(), "{} was stopped", task.node());
                seen = self.queues(task).await;
                if seen.as_ref().is_some_and(|queues| queues == wanted) {
                    break;
                }
            }
            assert_eq!(seen.as_deref().unwrap_or_default(), wanted, "the queues of {} (none if silent)", task.node());
        }
    }
}
