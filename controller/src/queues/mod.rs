//! Queues that are counted apart from the workers that take jobs from them: for workers that are not asked through their
//! broker, and for nothing but the queue gate (docs/decisions/0019).

mod name;
pub mod sqs;
