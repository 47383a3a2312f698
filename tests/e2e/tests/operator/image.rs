//! The program that the image holds: static, and in need of nothing but what Kubernetes mounts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use e2e::{Cluster, enclosed};
use tempfile::TempDir;
use test_support::repository;

/// The ELF program header that names a dynamic loader (`PT_INTERP`, elf(5)).
const INTERPRETER: u32 = 3;

/// The static program, as `make static` built it. It differs from a release's in how it is optimised, not in how it is
/// linked.
fn program() -> PathBuf {
    let here = std::env::current_exe().expect("a program knows where it is");
    let target = here.ancestors().nth(3).expect("tests are in target/debug/deps");
    let file = target.join(format!("{}-unknown-linux-musl/static/worker-drain", std::env::consts::ARCH));
    assert!(file.is_file(), "there is no {}: run `make static`", file.display());
    file
}

/// A folder with the program in it, and nothing else.
fn image() -> TempDir {
    let folder = tempfile::Builder::new().prefix("worker-drain-image-").tempdir().expect("a temporary folder");
    fs::copy(program(), folder.path().join("worker-drain")).expect("it can be copied");
    folder
}

fn called(folder: &Path, arguments: &[&str]) -> Output {
    let mut command: Command = enclosed(folder, "/worker-drain");
    command.args(arguments).output().expect("it can be started")
}

fn says(folder: &Path, arguments: &[&str]) -> String {
    let output = called(folder, arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}\n{}", output.status, text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn the_program_asks_for_no_loader_and_runs_in_an_empty_folder() {
    let kinds = program_headers(&fs::read(program()).expect("it can be read"));
    assert!(!kinds.is_empty() && !kinds.contains(&INTERPRETER), "it is linked dynamically: {kinds:?}");
    let image = image();
    assert_eq!(says(image.path(), &["--version"]).trim(), format!("worker-drain {}", env!("CARGO_PKG_VERSION")));
    let crd = fs::read_to_string(repository().join("crds/workerdrains.yaml")).expect("it is checked in");
    assert_eq!(says(image.path(), &["crd"]), crd);
    let run = called(image.path(), &["run", "-f", "-"]);
    assert_eq!(run.status.code(), Some(2), "the image is the operator's alone: {run:?}");
}

/// The kinds of a 64-bit little-endian ELF file's program headers.
fn program_headers(elf: &[u8]) -> Vec<u32> {
    assert_eq!(&elf[..6], b"\x7fELF\x02\x01", "a 64-bit little-endian ELF file");
    let number =
        |at: usize, bytes: usize| elf[at..at + bytes].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let index = |number: u64| usize::try_from(number).expect("it is in the file");
    let (table, size, count) = (index(number(32, 8)), index(number(54, 2)), index(number(56, 2)));
    (0..count).map(|header| u32::try_from(number(table + header * size, 4)).expect("four bytes")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_needs_no_file_but_those_that_kubernetes_mounts() {
    let cluster = Cluster::start(&[]).await;
    let image = image();
    let mut operator = cluster.operator_in(0, image.path(), "/worker-drain").await;
    operator.until_ready_as("leader").await;
    assert_eq!(operator.terminate().await, Some(0), "{}", operator.log());
    let left: Vec<_> =
        fs::read_dir(image.path()).expect("it is ours").map(|file| file.expect("a file").file_name()).collect();
    assert_eq!(left.len(), 2, "it has written files: {left:?}");
}
