//! How a command ends when it does not end well: the one table of exit statuses, and how a failure is said.

use std::io::ErrorKind;

use serde_json::json;

use crate::cli::harmless::{harmless, json_line};
use crate::cli::output::Format;
use crate::client::IdentityError;
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
        let hint = self.hint.as_deref().unwrap_or_else(|| hint_by_kind(self.kind));
        let message = format!("{}{}", self.line_text(), self.message);
        let mut value = json!({"v": 1, "error": self.kind.name(), "message": message, "hint": hint});
        if let Some(id) = &self.id {
            value["id"] = json!(id);
        }
        if let Some(line) = self.line {
            value["line"] = json!(line);
        }
        value
    }

    fn line_text(&self) -> String {
        self.line.map(|line| format!("line {line}: ")).unwrap_or_default()
    }

    /// For people, in one line. A refusal's own words say what to do next.
    pub(crate) fn to_text(&self) -> String {
        let hint = match self.kind {
            Kind::OutputClosed => return String::new(),
            Kind::Refused(_) => None,
            Kind::Failed
            | Kind::Usage
            | Kind::Identity
            | Kind::Unreachable
            | Kind::OutcomeUnknown
            | Kind::Degraded
            | Kind::Interrupted => self.hint.as_ref(),
        };
        let hint = hint.map(|hint| format!("; {}", harmless(hint))).unwrap_or_default();
        format!("gaggle: {}{}{hint}", self.line_text(), harmless(&self.message))
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        let kind = match &error {
            // The disk's fault, not the key's: nothing was stored.
            IdentityError::File { source, .. }
                if matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::ReadOnlyFilesystem) =>
            {
                Kind::Failed
            }
            IdentityError::Missing { .. }
            | IdentityError::File { .. }
            | IdentityError::Open { .. }
            | IdentityError::Content { .. }
            | IdentityError::Crypto(_) => Kind::Identity,
        };
        let words = error.to_string();
        // What to do next stands at the end of its words, where it knows.
        match words.rsplit_once("; ") {
            Some((message, hint)) => Self::new(kind, message).hint(hint),
            None => Self::new(kind, words).hint("restore it from a copy, or log in under another name"),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let hint = hint_for(refusal.code);
        Self { hint: Some(hint.into()), ..Self::new(Kind::Refused(refusal.code), refusal.message) }
    }
}

/// What to do when nobody knew better, for programs, which always get a hint.
const fn hint_by_kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Usage => "gaggle --help shows the verbs",
        Kind::Identity => "`gaggle profiles` shows the keys of this machine",
        Kind::Unreachable | Kind::Degraded => "`gaggle status` shows what runs",
        Kind::OutcomeUnknown => "ask again with the same --id",
        Kind::Failed | Kind::Interrupted | Kind::OutputClosed => "remove the cause, then ask again",
        Kind::Refused(code) => hint_for(code),
    }
}

/// What a person can do about a refusal.
const fn hint_for(code: ErrorCode) -> &'static str {
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
        ErrorCode::NotOperator => "drain a process on its own machine, as the user who runs it",
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
        let mut failure = Failure::from(Refusal::new(ErrorCode::UnknownUser, "nobody is called bo\u{1b}b: LIST"));
        assert_eq!(failure.clone().at_line(3).to_text(), "gaggle: line 3: nobody is called bo\\u{1b}b: LIST");
        failure.id = Some("x/3".into());
        assert_eq!(
            failure.to_json(),
            json!({"v": 1, "error": "unknown-user", "message": "nobody is called bo\u{1b}b: LIST",
                   "hint": "`gaggle list` shows all names", "id": "x/3"})
        );
        let failure = Failure::usage("there is no profile carl").hint("log in").at_line(2);
        assert_eq!(failure.to_text(), "gaggle: line 2: there is no profile carl; log in");
        assert_eq!(failure.to_json()["message"], "line 2: there is no profile carl");
    }

    #[test]
    fn every_failure_is_one_line_with_a_hint_for_programs() {
        let mut kinds = vec![
            Kind::Failed,
            Kind::Usage,
            Kind::Identity,
            Kind::Unreachable,
            Kind::OutcomeUnknown,
            Kind::Degraded,
            Kind::Interrupted,
        ];
        kinds.extend(ErrorCode::ALL.iter().copied().map(Kind::Refused));
        for kind in kinds {
            let failure = Failure { hint: Some("do\nthat".into()), ..Failure::new(kind, "two\nlines") };
            assert_eq!(failure.to_text().lines().count(), 1, "{kind:?}");
            assert!(Failure::new(kind, "x").to_json()["hint"].is_string(), "{kind:?}");
        }
    }

    #[test]
    fn a_full_disk_is_not_a_refused_identity() {
        let file = |kind: ErrorKind| IdentityError::File { path: "key".into(), source: kind.into() };
        assert_eq!(Failure::from(file(ErrorKind::StorageFull)).kind, Kind::Failed);
        let failure = Failure::from(file(ErrorKind::PermissionDenied));
        assert_eq!(failure.kind, Kind::Identity);
        assert_eq!(failure.hint.as_deref(), Some("check who owns it, and its folder"));
    }
}
