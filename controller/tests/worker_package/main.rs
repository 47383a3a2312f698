//! Real Celery workers with the package `celery-worker-drain` (`contrib/celery`): what they tell of themselves, where
//! Celery's own answers do not show it.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod added;
mod counted;
mod disconnected;

use std::path::PathBuf;

use serde_json::{Value, json};
use test_support::{LONG, SampleApp, repository, wait_until};

/// What a worker answers.
#[derive(Clone, Debug)]
struct Told(Value);

impl Told {
    /// A count of the answer; none if it is null.
    fn count(&self, of: &str) -> Option<u64> {
        self.0["counts"][of].as_u64()
    }

    /// These counts, in this order.
    fn counts<const N: usize>(&self, of: [&str; N]) -> [u64; N] {
        of.map(|of| self.count(of).unwrap_or_else(|| panic!("{of} is unknown: {}", self.0)))
    }

    /// Whether a worker that answers this may have work. Jobs that wait for their time alone are none.
    fn has_work(&self) -> bool {
        let sure = ["active", "reserved", "limited", "pool", "unlisted"];
        sure.iter().any(|of| self.count(of).is_none_or(|count| count > 0))
    }

    /// The ids in one of its lists.
    fn ids(&self, list: &str) -> Vec<&str> {
        self.0[list].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect()
    }

    fn consumes(&self) -> bool {
        self.0["queues"].as_array().is_none_or(|queues| !queues.is_empty())
    }
}

/// The folder of the package.
fn package() -> PathBuf {
    repository().join("contrib/celery")
}

/// The sample app, whose workers include the package and these modules.
fn with_package(broker: impl Into<String>, modules: &[&str], settings: &Value) -> SampleApp {
    let mut all = settings.as_object().cloned().unwrap_or_default();
    let include: Vec<&str> = ["celery_worker_drain"].iter().chain(modules).copied().collect();
    all.insert("include".into(), json!(include));
    SampleApp::new(broker).settings(Value::Object(all)).variable("PYTHONPATH", package().display().to_string())
}

/// The package's answers of these nodes, of all that answer.
async fn told(app: &SampleApp, nodes: &[String]) -> Vec<(String, Told)> {
    app.ask("worker_drain", nodes, json!({})).await.into_iter().map(|(node, answer)| (node, Told(answer))).collect()
}

/// Asks one worker until its answer is as wanted.
async fn told_until(app: &SampleApp, what: &str, wanted: impl Fn(&Told) -> bool) -> Told {
    let nodes = ["worker@one".to_owned()];
    let mut last = None;
    wait_until(what, LONG, async || {
        last = told(app, &nodes).await.pop().map(|(_, told)| told);
        let holds = last.as_ref().is_some_and(&wanted);
        if !holds {
            eprintln!("not yet, {what}: {last:?}");
        }
        holds
    })
    .await;
    last.unwrap()
}

/// How many entries each of Celery's own three lists of jobs has.
async fn celery_lists(app: &SampleApp, node: &str) -> [usize; 3] {
    let mut sizes = [0; 3];
    for (size, list) in sizes.iter_mut().zip(["reserved", "active", "scheduled"]) {
        let answers = app.ask(list, &[node.to_owned()], json!({})).await;
        *size = answers[node].as_array().unwrap_or_else(|| panic!("{node} answers {list}: {answers:?}")).len();
    }
    sizes
}
