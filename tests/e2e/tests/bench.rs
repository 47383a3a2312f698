//! What `make bench` measures is an optimised build.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

use std::process::Command;

#[test]
fn a_debug_build_measures_nothing() {
    let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(["--only", "inspect"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert!(said.contains("debug build") && said.contains("make bench"), "{said}");
}
