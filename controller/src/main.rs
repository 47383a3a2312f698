//! The binary: one crypto provider for all of TLS, then the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Fails only if there is one already, and that would do as well.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    worker_drain::cli::main().into()
}
