//! The resource `WorkerDrain`: the only place where a field is described. Documentation, defaults and rules written here
//! become the CRD that the API server enforces, and the same CRD judges the manifests that `worker-drain run` reads.
//!
//! Arrows go one way: `policy` → `check` → `crd` → `spec` → the files of its parts → `values`, `secret_ref`. `check` and
//! `policy` also use `problem`, and `render` uses `status`.

pub mod celery_spec;
#[cfg(feature = "cli")]
pub mod check;
pub mod crd;
pub mod drain_spec;
pub mod fleet_spec;
pub mod http_spec;
pub mod policy;
pub mod problem;
pub mod render;
pub mod secret_ref;
pub mod spec;
pub mod status;
pub mod values;

pub use self::{
    crd::{GROUP, VERSION, crd},
    policy::DrainSpec,
    spec::{WorkerDrain, WorkerDrainSpec},
    status::WorkerDrainStatus,
};
