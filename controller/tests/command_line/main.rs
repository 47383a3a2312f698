//! The binary on an emulated ECS and a real Redis: how it refuses, and how it ends.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod another_hand;
mod deployments;
mod endings;
mod gate;
mod proxy;
mod refusals;
mod stage;
mod tls;
mod too_late;
mod unaccounted;
