//! What Celery's remote control is to do over every broker, on real parts: a broker, and Celery workers of the sample app.
//!
//! Each kind of broker has a test program of its own, which includes this and says what `a_broker` is.

// The whole loop.
mod gate;
pub mod small_fleet;

mod counts;
mod events;
mod hazards;
mod helpers;
mod observations;
mod orders;
mod outages;
mod pools;
mod unseen;

pub use helpers::*;
