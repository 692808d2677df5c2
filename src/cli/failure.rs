//! How a command ends when it does not end well: the one table of exit statuses, and how a failure is said.

use serde_json::json;

use crate::cli::harmless::{harmless, json_line};
use crate::cli::output::Format;
use crate::error::{ErrorCode, Refusal};

/// The kinds of failures that are not a server's refusal, with their names in `--json` and their exit statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The machine refused: ports, files, the terminal.
    Failed,
    /// A value that is not allowed, a file that is broken, a process, host or profile that is not there.
    Usage,
    /// A key that cannot be read, or is not the right one.
    Identity,
    /// No process answered in time.
    Unreachable,
    /// A write was sent, and no answer came.
    OutcomeUnknown,
    /// Something in the cluster is not as it should be.
    Degraded,
    /// Ctrl-C.
    Interrupted,
    /// Standard output was closed by its reader: nobody is left to be told.
    OutputClosed,
    /// A server refused.
    Refused(ErrorCode),
}

impl Kind {
    /// The name in `--json`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Identity => "identity",
            Self::Unreachable => "unreachable",
            Self::OutcomeUnknown => "outcome-unknown",
            Self::Degraded => "degraded",
            Self::Interrupted => "interrupted",
            Self::OutputClosed => "output-closed",
            Self::Refused(code) => code.name(),
        }
    }

    /// The exit status.
    pub(crate) const fn exit_status(self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Identity => 5,
            Self::Unreachable => 6,
            Self::OutcomeUnknown => 7,
            Self::Degraded => 8,
            Self::Interrupted => 130,
            Self::Refused(code) => code.exit_status(),
        }
    }
}

/// Why a command failed, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What kind.
    pub(crate) kind: Kind,
    /// What happened, to what.
    pub(crate) message: String,
    /// What to do next.
    pub(crate) hint: Option<String>,
    /// The request's id, when its outcome is unknown.
    pub(crate) id: Option<String>,
    /// The line of standard input that it is about.
    pub(crate) line: Option<u64>,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, id: None, line: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    pub(crate) fn identity(message: impl Into<String>) -> Self {
        Self::new(Kind::Identity, message)
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A line of standard input that failed.
    #[must_use]
    pub(crate) fn at_line(mut self, line: u64) -> Self {
        self.line = Some(line);
        self
    }

    /// Says it on standard error. What is only a status (degraded, interrupted, closed) is not said to people.
    pub(crate) fn report(&self, format: Format) {
        use std::io::Write;
        let text = match format {
            Format::Json => json_line(&self.to_json()),
            Format::Text => self.to_text(),
        };
        if !text.is_empty() {
            let _ = writeln!(std::io::stderr().lock(), "{text}");
        }
    }

    fn to_json(&self) -> serde_json::Value {
        let mut value = json!({"v": 1, "error": self.kind.name(), "message": self.message, "hint": self.hint});
        if let Some(id) = &self.id {
            value["id"] = json!(id);
        }
        if let Some(line) = self.line {
            value["line"] = json!(line);
        }
        value
    }

    /// For people.
    pub(crate) fn to_text(&self) -> String {
        if matches!(self.kind, Kind::OutputClosed) {
            return String::new();
        }
        let line = self.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        let hint = self.hint.as_ref().map(|hint| format!("\nhint: {}", harmless(hint))).unwrap_or_default();
        format!("gaggle: {line}{}{hint}", harmless(&self.message))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let hint = hint_for(refusal.code);
        Self { hint: Some(hint.into()), ..Self::new(Kind::Refused(refusal.code), refusal.message) }
    }
}

/// What a person can do about a refusal.
fn hint_for(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::NotServing | ErrorCode::Behind | ErrorCode::Leaving => {
            "ask again; `gaggle status` shows which hosts serve"
        }
        ErrorCode::Busy => "the cluster is at a limit: ask again in a moment",
        ErrorCode::DiskFull => "make room on the host's disk; `gaggle status` shows its size",
        ErrorCode::UnknownUser => "`gaggle list` shows all names",
        ErrorCode::AlreadyJoined | ErrorCode::NotJoined => "`gaggle list` shows whom you joined",
        ErrorCode::Oneself => "your own posts are in your timeline already",
        ErrorCode::NameTaken => "choose another name, or log in on the machine that has its key",
        ErrorCode::OtherName => "`gaggle profiles` shows the names of this machine's keys",
        ErrorCode::NotRegistered | ErrorCode::NotLoggedIn => "log in first: gaggle login NAME",
        ErrorCode::IdReused => "use each --id for one request only",
        ErrorCode::TooOld => "ids are remembered for 7 days: use a new one",
        ErrorCode::BadRequest => "the server may run another version: compare `gaggle --version` on both sides",
        ErrorCode::UnknownProcess => "`gaggle status` shows the processes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_statuses_are_the_contracts() {
        let of = |code: ErrorCode| Failure::from(Refusal::new(code, "x")).kind.exit_status();
        assert_eq!(of(ErrorCode::Oneself), 2);
        assert_eq!(of(ErrorCode::UnknownUser), 3);
        assert_eq!((of(ErrorCode::AlreadyJoined), of(ErrorCode::NotJoined)), (4, 4));
        assert_eq!((of(ErrorCode::NameTaken), of(ErrorCode::OtherName)), (5, 5));
        assert_eq!(of(ErrorCode::DiskFull), 1);
        let own = [Kind::Failed, Kind::Usage, Kind::Identity, Kind::Unreachable, Kind::OutcomeUnknown, Kind::Degraded];
        assert_eq!(own.map(Kind::exit_status), [1, 2, 5, 6, 7, 8]);
        assert_eq!(Kind::Interrupted.exit_status(), 130);
    }

    #[test]
    fn a_failure_says_what_to_do_next() {
        let mut failure = Failure::from(Refusal::new(ErrorCode::UnknownUser, "nobody is called bo\u{1b}b"));
        assert_eq!(
            failure.clone().at_line(3).to_text(),
            "gaggle: line 3: nobody is called bo\\u{1b}b\nhint: `gaggle list` shows all names"
        );
        failure.id = Some("x/3".into());
        assert_eq!(
            failure.to_json(),
            json!({"v": 1, "error": "unknown-user", "message": "nobody is called bo\u{1b}b",
                   "hint": "`gaggle list` shows all names", "id": "x/3"})
        );
    }
}
