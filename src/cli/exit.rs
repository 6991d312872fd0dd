//! The exit codes: one closed list, documented in `--help`.

use std::process::ExitCode;

use crate::fit::Verdict;

/// What a command answers to the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// Done; of a verdict: full GPU offload possible.
    Yes,
    /// fitwatch or the machine failed.
    Failed,
    /// The arguments make no sense.
    Usage,
    /// No such model or file, or nothing is left to list.
    NotFound,
    /// A file that cannot be read or judged.
    Unreadable,
    /// No fitwatch is running.
    NotRunning,
    /// `doctor` or `config check` found something wrong.
    Unwell,
    /// Partial GPU offload possible.
    Partial,
    /// Likely fit (CPU only).
    CpuOnly,
    /// Likely too large.
    TooLarge,
    /// Not known yet: still downloading, or the machine's memory cannot be read.
    Unknown,
}

/// The exit codes in words, for `--help`.
pub(super) const HELP: &str = "\
Exit codes:
   0  done; of `show` and `estimate`: full GPU offload possible
   1  fitwatch or the machine failed
   2  the arguments make no sense
   3  no such model or file, or nothing to list
   4  the file cannot be read or judged
   5  fitwatch is not running
   6  `doctor` or `config check` found something wrong
  10  partial GPU offload possible
  11  likely fit (CPU only)
  12  likely too large
  13  verdict not known yet";

impl Exit {
    /// Returns the code.
    pub(super) const fn code(self) -> u8 {
        match self {
            Exit::Yes => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::Unreadable => 4,
            Exit::NotRunning => 5,
            Exit::Unwell => 6,
            Exit::Partial => 10,
            Exit::CpuOnly => 11,
            Exit::TooLarge => 12,
            Exit::Unknown => 13,
        }
    }
}

impl From<Verdict> for Exit {
    fn from(verdict: Verdict) -> Exit {
        match verdict {
            Verdict::FullGpu => Exit::Yes,
            Verdict::PartialGpu => Exit::Partial,
            Verdict::CpuOnly => Exit::CpuOnly,
            Verdict::TooLarge => Exit::TooLarge,
            Verdict::Unknown => Exit::Unknown,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_is_documented_and_none_twice() {
        let all = [
            Exit::Yes,
            Exit::Failed,
            Exit::Usage,
            Exit::NotFound,
            Exit::Unreadable,
            Exit::NotRunning,
            Exit::Unwell,
            Exit::Partial,
            Exit::CpuOnly,
            Exit::TooLarge,
            Exit::Unknown,
        ];
        let code = |line: &str| line[..4].trim().parse::<u8>().expect("a line begins with its code");
        let documented: Vec<u8> = HELP.lines().skip(1).map(code).collect();
        assert_eq!(documented, all.map(Exit::code));
    }
}
