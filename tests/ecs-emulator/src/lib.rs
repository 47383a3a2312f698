//! Amazon ECS on one machine, as far as a rolling service and its tasks are concerned.
//!
//! - [`model`]: the service scheduler as a pure state machine on a logical clock. Simulations use it directly.
//! - [`Emulator`]: the model on real time, behind the API of ECS on `127.0.0.1`, running each task as local
//!   processes. Tests start one in their own process; the binary `ecs-emulator` serves one to anybody.
//!
//! ```no_run
//! # async fn example() -> Result<(), ecs_emulator::EmulatorError> {
//! use ecs_emulator::{Config, Emulator};
//!
//! let logs = std::path::Path::new("/tmp/ecs-logs");
//! let emulator = Emulator::start(Config::fast(logs)).await?;
//! println!("aws --endpoint-url {} ecs list-services", emulator.endpoint());
//! let running = emulator.with_world(|world| world.state().tasks.len());
//! emulator.stop().await;
//! # Ok(())
//! # }
//! ```

mod clock;
mod emulator;
mod http;
pub mod model;
mod runner;

pub use emulator::{Config, Emulator, EmulatorError};
