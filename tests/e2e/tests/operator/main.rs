//! What a user of Kubernetes goes through: a real API server, the chart, the operator under the chart's identity, and the
//! same real workers as everywhere.

mod common;
mod conflict;
mod drain;
mod errors;
mod fleet_changed;
mod gone;
mod http;
mod image;
mod many;
mod namespace;
mod record;
mod replicas;
