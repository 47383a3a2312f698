//! `worker-drain controller`: the operator, as the chart starts it.

use std::net::{Ipv6Addr, SocketAddr};

use clap::{ArgAction, Args, builder::NonEmptyStringValueParser};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{
    exit::{Exit, UserError, print_errors},
    logs::{self, LogFormat},
};
use crate::operator::{self, LeaseRef, OperatorError, Settings};

/// Run the operator, which drains as the `WorkerDrain`s of a Kubernetes cluster specify
///
/// It reaches the API server as a process in a Pod does, or through `KUBECONFIG`.
#[derive(Clone, Debug, Args)]
pub struct ControllerArgs {
    /// Only `WorkerDrain`s of this namespace; may be repeated [default: of all namespaces]
    #[arg(long = "namespace", value_name = "NAME")]
    namespaces: Vec<String>,

    /// Let only the holder of a Lease act, so that several replicas can run
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    leader_election: bool,

    /// The namespace of the Lease [default: the one that this runs in]
    #[arg(long, value_name = "NAME")]
    lease_namespace: Option<String>,

    /// The name of the Lease
    #[arg(long, value_name = "NAME", default_value = "worker-drain")]
    lease_name: String,

    /// Where `/livez`, `/readyz` and `/metrics` are served, such as `:8080` or `127.0.0.1:8080`
    #[arg(long, value_name = "ADDRESS", default_value = ":8080", value_parser = address)]
    metrics_address: SocketAddr,

    /// The format of logs
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    log_format: LogFormat,

    /// The level of logs: `error`, `warn`, `info`, `debug` or `trace` (`RUST_LOG` sets levels by module)
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: tracing::level_filters::LevelFilter,

    /// The name of this replica in the Lease and in events
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "worker-drain",
        value_parser = NonEmptyStringValueParser::new())]
    identity: String,
}

/// An address; without a host it is every one of this machine.
fn address(text: &str) -> Result<SocketAddr, String> {
    let parsed = match text.strip_prefix(':') {
        Some(port) => port.parse().ok().map(|port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
        None => text.parse().ok(),
    };
    parsed.ok_or_else(|| String::from("write :PORT or IP:PORT, such as :8080 or 127.0.0.1:8080"))
}

impl ControllerArgs {
    /// Runs until SIGTERM or SIGINT; a second one ends it at once.
    pub async fn run(self) -> Exit {
        let Self {
            namespaces,
            leader_election,
            lease_namespace,
            lease_name,
            metrics_address,
            log_format,
            log_level,
            identity,
        } = self;
        logs::start_operator(log_format, log_level);
        let lease = leader_election.then_some(LeaseRef { namespace: lease_namespace, name: lease_name });
        let settings = Settings { namespaces, lease, identity, admin: metrics_address };
        let stop = CancellationToken::new();
        let (mut terminate, mut interrupt) = match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
            (Ok(terminate), Ok(interrupt)) => (terminate, interrupt),
            (Err(error), _) | (_, Err(error)) => return failed(&format!("cannot wait for signals: {error}")),
        };
        let operator = operator::run(settings, stop.clone());
        tokio::pin!(operator);
        let ended = tokio::select! {
            ended = &mut operator => ended,
            () = either(&mut terminate, &mut interrupt) => {
                stop.cancel();
                tokio::select! {
                    ended = &mut operator => ended,
                    () = either(&mut terminate, &mut interrupt) => return Exit::Interrupted,
                }
            }
        };
        match ended {
            Ok(()) => Exit::Done,
            Err(error) => failed(&with_causes(&error)),
        }
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// The error with its causes. kube's own texts have their causes in them already.
fn with_causes(error: &OperatorError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

fn failed(why: &str) -> Exit {
    tracing::error!(why, "worker-drain cannot run");
    print_errors(&[UserError::new(why)]);
    Exit::CouldNotRun
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::address;

    #[rstest]
    #[case(":8080", Some("[::]:8080"))]
    #[case("127.0.0.1:0", Some("127.0.0.1:0"))]
    #[case("[::1]:9", Some("[::1]:9"))]
    #[case("8080", None)]
    #[case("localhost:8080", None)]
    fn addresses_are_as_the_chart_writes_them(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(address(text).ok().map(|address| address.to_string()).as_deref(), expected);
    }
}
