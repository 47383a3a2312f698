//! The command line.

pub mod crd;
