//! The rules of the scheduler, each told as a small story on virtual time.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod determinism;
mod faults;
mod invariants;
mod lab;
mod lifecycle;
mod moves;
mod protection;
mod rollback;
mod rollout;
mod scaling;
mod tags;
