//! Logs, for those who debug worker-drain itself. Users read the view; there are no logs unless they are asked for.

use std::env;

use clap::ValueEnum;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::filter_fn,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// The format of logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// An object a line, for machines.
    Json,
    /// For people.
    Text,
}

/// Sends logs to standard error: as `RUST_LOG` says, else as many `-v` as were given. True if there will be any.
pub fn start(verbose: u8) -> bool {
    let filter = match (asked(), verbose) {
        (Some(filter), _) => filter,
        (None, 0) => return false,
        (None, 1) => "worker_drain=info".into(),
        (None, 2) => "worker_drain=debug".into(),
        (None, _) => "debug".into(),
    };
    send(&filter, LogFormat::Text);
    true
}

/// Sends the operator's logs to standard error: as `RUST_LOG` says, else its own of this level and warnings of others.
pub fn start_operator(format: LogFormat, level: tracing::level_filters::LevelFilter) {
    send(&asked().unwrap_or_else(|| format!("warn,worker_drain={level}")), format);
}

fn asked() -> Option<String> {
    env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty())
}

fn send(filter: &str, format: LogFormat) {
    // Fails only if it was done before, and then there are logs too.
    let _ = subscriber(filter, format, std::io::stderr).try_init();
}

fn subscriber<W>(filter: &str, format: LogFormat, writer: W) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_writer(writer);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).boxed(),
        LogFormat::Text => lines.boxed(),
    };
    tracing_subscriber::registry().with(EnvFilter::new(filter)).with(filter_fn(may_be_shown)).with(lines)
}

/// What libraries trace is what goes over the wire, and that may be a password: lapin traces its own login. So they are
/// heard up to debug only, whatever `RUST_LOG` asks for.
fn may_be_shown(of: &Metadata<'_>) -> bool {
    *of.level() <= Level::DEBUG || of.target().starts_with("worker_drain")
}

#[cfg(test)]
mod tests {
    use std::{fs::File, sync::Arc};

    use rstest::rstest;

    use super::*;

    #[rstest]
    fn what_libraries_trace_is_never_shown(
        #[values("trace", "lapin=trace,worker_drain=trace", "lapin::channel=trace,trace")] filter: &str,
        #[values(LogFormat::Json, LogFormat::Text)] format: LogFormat,
    ) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log = Arc::new(File::create(file.path()).unwrap());
        tracing::subscriber::with_default(subscriber(filter, format, log), || {
            tracing::trace!(target: "lapin::channel", response = "guest", "Sending connection.start-ok");
            tracing::debug!(target: "lapin::channel", "create channel");
            tracing::trace!(target: "worker_drain::workers", "asked");
        });
        let log = std::fs::read_to_string(file.path()).unwrap();
        assert!(log.contains("create channel") && log.contains("asked"), "{log}");
        assert!(!log.contains("guest"), "{log}");
    }
}
