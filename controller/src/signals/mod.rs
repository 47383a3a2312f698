//! What makes the loop observe before its time.
//!
//! A signal only says "observe now". What is true is found by observing, and nothing is ever decided on what was heard: losing
//! every signal costs latency, never correctness. So nothing here is kept for long, nothing is acknowledged, and nothing
//! that cannot be heard is an error.
//!
//! [`Wakeup`] is for jobs that end: it knows how many ends are awaited of each node, counts those that it hears of, and wakes
//! whoever waits when a node may have become idle.

mod wakeup;

pub use wakeup::{MOST_NODES, Sign, Wakeup};
