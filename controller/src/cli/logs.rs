//! Logs, for those who look into worker-drain itself. Users read the view; logs are quiet unless asked for.

use std::env;

use tracing_subscriber::EnvFilter;

/// Sends logs to standard error: as `RUST_LOG` says, else as many `-v` as were given. True if there will be any.
pub fn start(verbose: u8) -> bool {
    let asked = env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let filter = match (asked, verbose) {
        (Some(filter), _) => filter,
        (None, 0) => return false,
        (None, 1) => "worker_drain=info".into(),
        (None, 2) => "worker_drain=debug".into(),
        (None, _) => "debug".into(),
    };
    let subscriber = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_writer(std::io::stderr);
    // Fails only if it was done before, and then there are logs too.
    let _ = subscriber.try_init();
    true
}
