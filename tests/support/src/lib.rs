//! Starts and ends the real parts that the tests need: Redis, RabbitMQ, an SQS, Celery workers of the sample app, jobs and their
//! journal, a Kubernetes control plane.
//!
//! Everything listens on 127.0.0.1 on a free port, keeps its files in a folder of its own, and ends with the value that
//! stands for it, or with the test process, however that ends. A part that is not installed is a panic that says how to
//! install it, never a test that is skipped.
//!
//! ```no_run
//! # async fn example() {
//! use test_support::{Jobs, Redis, SampleApp};
//!
//! let redis = Redis::start().await;
//! let app = SampleApp::new(redis.url());
//! let worker = app.worker("worker@one").concurrency(2).start().await;
//! let ids = app.submit(Jobs::new(5).seconds(0.5, 2.0).seed(7)).await;
//! app.journal().wait_finished(&ids).await;
//! drop(worker);
//! # }
//! ```

mod app;
mod certificates;
mod journal;
mod kube;
mod nodes;
mod process;
mod rabbitmq;
mod redis;
mod sentinel;
mod sqs;
mod wait;

pub use app::{CeleryWorker, Jobs, SampleApp, WorkerOptions, python, python_with_celery, python_with_sqs, repository};
pub use certificates::Certificates;
pub use journal::{Journal, Record, Tally};
pub use kube::{Call, CallOutput, ControlPlane, PodCommand, kube_tool};
pub use nodes::ModelledNodes;
pub use process::{Process, Signal};
pub use rabbitmq::{RabbitMq, RabbitMqOptions, VirtualHost};
pub use redis::{Redis, RedisOptions};
pub use sentinel::{MASTER_NAME, RedisSentinels, SentinelOptions};
pub use sqs::Sqs;
pub use wait::{LONG, free_port, wait_until};
