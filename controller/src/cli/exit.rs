//! How the program ends: its exit codes, and errors for the user.

use std::process::ExitCode;

/// How a command ended. The order is from best to worst: of several drains the worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// No old task is left, and no job was cut.
    Done,
    /// The time limit was reached; everything is still safely held.
    TimeLimit,
    /// It could not run: ECS or the workers could not be reached, or denied access.
    CouldNotRun,
    /// The deployment that the run was for is not in place: another one took its place, or it was rolled back.
    Superseded,
    /// No old task is left, but some ended without our permit: their jobs may be lost.
    EndedUnpermitted,
    /// No old task is left, but some were drained and permitted to stop, and ended by SIGKILL.
    Killed,
    /// Jobs were cut, because a deadline with `PermitStop` passed.
    JobsCut,
    /// The manifest or the arguments are wrong; nothing was done.
    BadInput,
    /// A signal ended it; holds were left as they are.
    Interrupted,
}

impl Exit {
    /// The code that is documented.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::CouldNotRun => 1,
            Self::BadInput => 2,
            Self::TimeLimit => 3,
            Self::JobsCut => 4,
            Self::EndedUnpermitted | Self::Killed => 5,
            Self::Superseded => 6,
            Self::Interrupted => 130,
        }
    }

    /// One word for programs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Done => "Drained",
            Self::TimeLimit => "TimeLimit",
            Self::CouldNotRun => "CouldNotRun",
            Self::JobsCut => "JobsCut",
            Self::Superseded => "Superseded",
            Self::EndedUnpermitted => "EndedUnpermitted",
            Self::Killed => "Killed",
            Self::BadInput => "BadInput",
            Self::Interrupted => "Interrupted",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error for the user on standard error, with what would help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserError {
    /// What is wrong: names the thing, its value where that is no secret, and what is allowed.
    pub message: String,
    /// What to do, if it is not part of the message.
    pub hint: Option<String>,
}

impl UserError {
    /// Without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    /// With a hint.
    pub fn with_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()) }
    }
}

/// Prints errors. Each is one line, whatever it was made from.
pub fn print_errors(errors: &[UserError]) {
    for UserError { message, hint } in errors {
        eprintln!("error: {}", one_line(message));
        if let Some(hint) = hint {
            eprintln!("hint: {}", one_line(hint));
        }
    }
}

/// An error of the operating system in words alone, without its number.
pub(super) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::Exit;

    #[test]
    fn lost_jobs_are_worse_than_lost_time() {
        let mut all =
            [Exit::TimeLimit, Exit::Done, Exit::JobsCut, Exit::Killed, Exit::EndedUnpermitted, Exit::CouldNotRun];
        all.sort();
        assert_eq!(all.map(Exit::code), [0, 3, 1, 5, 5, 4]);
        assert_eq!(all[4], Exit::Killed, "our own failure is told before somebody else's");
    }
}
