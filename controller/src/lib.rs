//! worker-drain lets Celery workers on Amazon ECS finish their long jobs before a deployment stops them.
//!
//! One loop does all of it: **observe** asks the [`fleet`] and the [`workers`]; **plan** (the crate
//! `worker-drain-plan`, pure) decides; **act** does it; **record** ([`record`]) keeps the little that cannot be observed
//! later. [`reconcile`] is one run through it and the only caller of all the others. Arrows point one way: [`cli`] →
//! [`reconcile`] → {fleet, workers, record} and plan. Fleet and workers know nothing of each other, nor of policy; some
//! workers have their queues counted by [`queues`]. Between two reconciliations the loop sleeps, unless one of the [`signals`] says
//! "observe now".

pub mod api;
pub mod aws;
mod batches;
pub mod cli;
pub mod clock;
pub mod fleet;
pub mod identity;
pub mod operator;
pub mod queues;
pub mod reconcile;
pub mod record;
pub mod secret;
pub mod settings;
pub mod signals;
pub mod tls;
pub mod workers;
