//! What the Makefile's goals run, by `make --dry-run`: those that no other test runs.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

use std::process::Command;

use test_support::repository;

/// The commands of a goal.
fn commands(goal: &str) -> String {
    let output = Command::new("make").args(["--dry-run", goal]).current_dir(repository()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_bench_measures_the_release_build() {
    let commands = commands("bench");
    assert!(commands.contains("--release --bin worker-drain --bin bench"), "{commands}");
    assert!(commands.contains("/release/bench") && !commands.contains("/debug/"), "{commands}");
}

#[test]
fn lint_checks_dependencies_and_says_when_it_cannot_check_advisories() {
    let commands = commands("lint");
    assert!(commands.contains("check --deny warnings bans licenses sources"), "{commands}");
    assert!(commands.contains("check --disable-fetch --deny warnings advisories"), "{commands}");
    assert!(commands.contains("cargo install --quiet --debug --locked cargo-deny@"), "{commands}");
    assert!(commands.contains("advisories were NOT checked"), "{commands}");
}
