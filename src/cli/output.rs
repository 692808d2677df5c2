//! Where words go: data to standard output, notices to standard error, colour only where a person looks.

use std::io::{ErrorKind, IsTerminal, Write};

use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::failure::{Failure, Kind};
use crate::cli::harmless::{harmless, json_line};
use crate::client::ShownPost;
use crate::id::{Token, Vector};
use crate::time::Wall;

/// Who reads standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A program, which asked for `--json`.
    Program,
    /// A person, without colours.
    Plain,
    /// A person at a terminal that shows colours.
    Coloured,
}

/// A colour, by what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// A person's name.
    Name,
    /// Time, and what is less important.
    Dim,
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
}

/// In which form a command speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// For programs: an object a line.
    Json,
}

/// How this command speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    reader: Reader,
}

impl Out {
    /// For `--json` or for people, with colours if standard output is a terminal and NO_COLOR is not set.
    pub(crate) fn new(format: Format) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let reader = if format == Format::Json {
            Reader::Program
        } else if no_color || !std::io::stdout().is_terminal() {
            Reader::Plain
        } else {
            Reader::Coloured
        };
        Self { reader }
    }

    /// Whether `--json` was asked for.
    pub(crate) fn is_json(self) -> bool {
        self.reader == Reader::Program
    }

    /// In which form failures are said.
    pub(crate) fn format(self) -> Format {
        if self.is_json() { Format::Json } else { Format::Text }
    }

    /// A line of data, already harmless.
    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        self.raw(&format!("{text}\n"))
    }

    /// As it is.
    pub(crate) fn raw(self, text: &str) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        written.map_err(|error| {
            if error.kind() == ErrorKind::BrokenPipe {
                return Failure::new(Kind::OutputClosed, "standard output was closed");
            }
            Failure::failed(format!("standard output: {error}")).hint("make room, or send it elsewhere")
        })
    }

    /// An object for programs.
    pub(crate) fn object(self, value: &Value) -> Result<(), Failure> {
        self.line(&json_line(value))
    }

    /// One of both, by who reads.
    pub(crate) fn say(self, value: &Value, text: &str) -> Result<(), Failure> {
        if self.is_json() { self.object(value) } else { self.line(text) }
    }

    /// Something that a person should know and that is not data.
    pub(crate) fn notice(self, code: &str, message: &str) {
        let text = if self.is_json() {
            json_line(&json!({"v": 1, "notice": code, "message": message}))
        } else {
            format!("gaggle: {}", harmless(message))
        };
        // Standard error that is gone leaves nobody to be told.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Text in a colour, if colours are shown.
    pub(crate) fn paint(self, paint: Paint, text: &str) -> String {
        if self.reader != Reader::Coloured {
            return text.to_owned();
        }
        let code = match paint {
            Paint::Name => "1;36",
            Paint::Dim => "2",
            Paint::Good => "32",
            Paint::Bad => "1;31",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }

    /// A post, as `timeline` and `chat` print it.
    pub(crate) fn post(self, post: &ShownPost) -> String {
        if self.is_json() {
            return json_line(&post_json(post));
        }
        let time = self.paint(Paint::Dim, &seconds_text(post.stamp.hlc.wall()));
        let author = self.paint(Paint::Name, &harmless(&post.author));
        format!("{time}  {author}: {}", harmless(&post.text))
    }
}

fn post_json(post: &ShownPost) -> Value {
    json!({
        "v": 1,
        "id": post.id.as_str(),
        "author": post.author,
        "at": rfc3339(post.stamp.hlc.wall()),
        "text": post.text,
        "cursor": cursor_text(&post.cursor),
    })
}

/// RFC 3339 in UTC, with microseconds.
pub(crate) fn rfc3339(wall: Wall) -> String {
    format!("{:.6}", timestamp(wall))
}

/// For people: to the second.
pub(crate) fn seconds_text(wall: Wall) -> String {
    timestamp(wall).strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

fn timestamp(wall: Wall) -> jiff::Timestamp {
    // A stamp beyond the year 9999 can only come from a broken clock: shown as the last moment that has a name.
    i64::try_from(wall.0)
        .ok()
        .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok())
        .unwrap_or(jiff::Timestamp::MAX)
}

fn opaque<T: Serialize>(value: &T) -> String {
    // Vectors and tokens always have an encoding: they are maps of plain values.
    BASE64URL_NOPAD.encode(&postcard::to_stdvec(value).unwrap_or_default())
}

/// A token as text.
pub(crate) fn token_text(token: &Token) -> String {
    opaque(token)
}

/// The inverse of [`token_text`].
pub(crate) fn token_from_text(text: &str) -> Option<Token> {
    let bytes = BASE64URL_NOPAD.decode(text.trim().as_bytes()).ok()?;
    let (token, rest) = postcard::take_from_bytes(&bytes).ok()?;
    rest.is_empty().then_some(token)
}

/// A cursor as text.
pub(crate) fn cursor_text(cursor: &Vector) -> String {
    opaque(cursor)
}

/// The inverse of [`cursor_text`].
pub(crate) fn cursor_from_text(text: &str) -> Result<Vector, Failure> {
    let decoded = BASE64URL_NOPAD.decode(text.trim().as_bytes()).ok();
    let parsed = decoded.as_deref().and_then(|bytes| postcard::take_from_bytes::<Vector>(bytes).ok());
    match parsed {
        Some((cursor, [])) => Ok(cursor),
        Some(_) | None => Err(Failure::usage(format!("{:?} is not a cursor", harmless(text)))
            .hint("take the \"cursor\" of a post that `gaggle timeline --json` printed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Stamp;
    use crate::id::{Origin, Seq};
    use crate::time::Hlc;

    fn vector() -> Vector {
        [(Origin { host: "lenss3".parse().unwrap(), incarnation: 7 }, Seq(9))].into_iter().collect()
    }

    #[test]
    fn posts_have_the_shape_of_the_contract() {
        let origin = Origin { host: "lenss3".parse().unwrap(), incarnation: 7 };
        let post = ShownPost {
            id: "x/1".parse().unwrap(),
            author: "ann".into(),
            stamp: Stamp { hlc: Hlc::at(Wall(1_700_000_000_000_001)), origin },
            seq: Seq(9),
            text: "hi \u{202e}".into(),
            cursor: vector(),
        };
        let line = Out { reader: Reader::Program }.post(&post);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            value,
            json!({"v": 1, "id": "x/1", "author": "ann", "at": "2023-11-14T22:13:20.000001Z", "text": "hi \u{202e}",
                   "cursor": cursor_text(&vector())})
        );
        assert_eq!(Out { reader: Reader::Plain }.post(&post), "2023-11-14 22:13:20Z  ann: hi \\u{202e}");
    }

    proptest::proptest! {
        #[test]
        fn texts_that_people_mistype_are_refused_or_read(
            text in "\\PC{0,80}",
            bytes in proptest::collection::vec(0_u8.., 0..60),
        ) {
            let longer = token_text(&Token { vector: vector(), hlc: Hlc(7) }) + "A";
            for text in [text, BASE64URL_NOPAD.encode(&bytes), longer] {
                let _ = (token_from_text(&text), cursor_from_text(&text));
            }
        }
    }

    #[test]
    fn cursors_and_tokens_come_back() {
        assert_eq!(cursor_from_text(&cursor_text(&vector())), Ok(vector()));
        let token = Token { vector: vector(), hlc: Hlc(5) };
        assert_eq!(token_from_text(&token_text(&token)), Some(token));
        assert_eq!(cursor_from_text("!").unwrap_err().kind, Kind::Usage);
        assert_eq!(cursor_from_text("AAAA").unwrap_err().kind, Kind::Usage);
    }
}
