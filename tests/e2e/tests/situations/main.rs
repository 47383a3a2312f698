//! What a user goes through, on real parts. In each: no job is lost, none is doubled, the rollout ends, and what
//! worker-drain says tells what happened. One file a situation; how many run at once is up to `--test-threads`.

mod broker_restart;
mod common;
mod events;
mod frozen_worker;
mod killed;
mod kills;
mod moves;
mod queue_gate;
mod rollback;
mod rollout;
mod scale_in;
mod second_deployment;
mod second_worker;
