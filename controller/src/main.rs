//! The binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    match worker_drain::cli::crd::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
