//! The product on real parts: a real Redis or RabbitMQ, real Celery workers, the real `worker-drain`. Only ECS is emulated.
//!
//! A [`Stage`] is one service of workers with everything that it needs. What becomes of its jobs is read from their
//! journal, and what the workers do is asked with Celery's own tools: worker-drain is never asked about itself.

mod broker;
mod celery;
mod cluster;
mod containers;
mod drain;
mod faults;
mod figures;
mod http;
mod stage;
mod tasks;

pub use broker::{Broker, BrokerKind, TOKEN};
pub use cluster::{Cluster, NAMESPACE, Operator, enclosed, patient};
pub use containers::Second;
pub use drain::{WorkerDrain, aws_environment, binary};
pub use figures::{Figures, percentile};
pub use stage::{SERVICE, Setup, Stage};
pub use tasks::TaskView;
