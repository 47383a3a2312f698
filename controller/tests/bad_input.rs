//! Bad input: for each case the binary's exit code and the whole of what it says, and that no secret is in it.
//!
//! A case is a file in `tests/bad_input/`: comments at its beginning say how the binary is called and what it answers,
//! and the rest is the manifest. `MANIFEST` in a line of arguments stands for it. Cases that need ECS or a broker are in
//! `command_line/refusals.rs`.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Stands in for a password in every case that has one.
const SECRET: &str = "hunter2";

struct Case {
    path: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    exit: i32,
    stderr: String,
}

impl Case {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let mut case =
            Self { path: path.into(), arguments: Vec::new(), environment: Vec::new(), exit: 2, stderr: String::new() };
        case.arguments = ["plan", "-f", "MANIFEST"].map(String::from).to_vec();
        for line in text.lines().map_while(|line| line.strip_prefix("#")).map(str::trim) {
            if let Some(arguments) = line.strip_prefix("$ worker-drain ") {
                case.arguments = arguments.split(' ').map(String::from).collect();
            } else if let Some((name, value)) = line.strip_prefix("env ").and_then(|line| line.split_once('=')) {
                case.environment.push((name.into(), value.into()));
            } else if let Some(exit) = line.strip_prefix("exit ") {
                case.exit = exit.parse().unwrap();
            } else if line.starts_with("error: ") || line.starts_with("hint: ") {
                case.stderr.push_str(line);
                case.stderr.push('\n');
            }
        }
        case
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap().to_string_lossy().into_owned()
    }

    fn run(&self) -> Output {
        let folder = self.path.parent().unwrap();
        let state = tempfile::tempdir().unwrap();
        let arguments = self.arguments.iter().map(|argument| argument.replace("MANIFEST", &self.name()));
        let output = Command::new(env!("CARGO_BIN_EXE_worker-drain"))
            .args(arguments)
            .current_dir(folder)
            .env_clear()
            .env("XDG_STATE_HOME", state.path())
            // Nothing of this machine's own configuration may count, and nothing outside may be asked.
            .env("AWS_CONFIG_FILE", "/nonexistent")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(fs::File::open(&self.path).unwrap())
            .output()
            .unwrap();
        let left = fs::read_dir(state.path()).unwrap().count();
        assert_eq!(left, 0, "{}: something was written to the state folder", self.name());
        output
    }
}

#[test]
fn each_is_told_in_one_clear_message() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad_input");
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    let mut failures = Vec::new();
    for case in paths.iter().map(|path| Case::read(path)) {
        let output = case.run();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(!(stderr.clone() + &stdout).contains(SECRET), "{}: the secret was shown: {stderr}", case.name());
        if stderr != case.stderr || output.status.code() != Some(case.exit) || !stdout.is_empty() {
            failures.push(format!(
                "{}: {}\n{stderr}{stdout}  expected: exit {}\n{}",
                case.name(),
                output.status,
                case.exit,
                case.stderr
            ));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n\n{}", failures.len(), paths.len(), failures.join("\n"));
}
