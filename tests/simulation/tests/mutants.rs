//! The faults of `tests/simulation/mutants` fit today's sources. Whether they are found takes hours, and is asked by `run.sh`
//! there; that each still goes in is asked here.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// By the name of the fault.
fn patches() -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("mutants");
    let files = fs::read_dir(folder).expect("the folder of faults can be read");
    let paths = files.map(|file| file.expect("the folder of faults can be read").path());
    let mut patches: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "patch"))
        .map(|path| (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), path))
        .collect();
    patches.sort();
    assert!(!patches.is_empty(), "there is no fault");
    patches
}

/// Outside a checkout (an unpacked archive) Git may take the sources for a part of some other repository, and then skips
/// every patch without a word: `patch` asks for none.
fn applies(root: &Path, patch: &Path) -> io::Result<bool> {
    let mut command = if root.join(".git").exists() {
        let mut git = Command::new("git");
        git.args(["apply", "--check"]).arg(patch);
        git
    } else {
        let mut tool = Command::new("patch");
        tool.args(["--dry-run", "--force", "--fuzz=0", "-p1", "-i"]).arg(patch);
        tool
    };
    Ok(command.current_dir(root).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success())
}

#[test]
fn every_fault_applies_to_the_sources() {
    let root = root();
    let does_apply = |patch: &Path| applies(&root, patch).expect("git, or patch outside a checkout, can be run");
    let rotten: Vec<String> =
        patches().into_iter().filter(|(_, patch)| !does_apply(patch)).map(|(name, _)| name).collect();
    assert!(rotten.is_empty(), "these do not apply to the sources; make them anew: {}", rotten.join(", "));
}

#[test]
fn every_fault_is_listed_with_what_found_it() {
    let text = fs::read_to_string(root().join("docs/proof.md")).expect("docs/proof.md can be read");
    let rows = text.lines().skip_while(|line| !line.starts_with("| fault |")).skip(2);
    let listed: BTreeSet<String> = rows
        .map_while(|line| line.strip_prefix("| "))
        .map(|row| row.split(" |").next().unwrap_or_default().to_owned())
        .collect();
    let names: BTreeSet<String> = patches().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, listed, "left: tests/simulation/mutants; right: the table of docs/proof.md");
}
