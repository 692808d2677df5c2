//! Standard input, line by line, read by a thread of its own: a read of a terminal or a pipe cannot be called off.

use std::io::{BufRead, BufReader, Read};

use tokio::sync::mpsc;

use crate::cli::failure::Failure;

/// Lines that wait to be taken.
const LINES_WAITING_MAX: usize = 256;
/// Bytes of a line that are kept: more than any post may have.
const LINE_BYTES_MAX: usize = 8 * crate::limits::POST_CHARS_MAX;

/// A line of standard input.
#[derive(Debug)]
pub(crate) struct Line {
    /// From 1.
    pub(crate) number: u64,
    /// Without its end; refused if it is no text.
    pub(crate) text: Result<String, Failure>,
}

/// The lines; the channel closes at the end of the input.
pub(crate) fn lines() -> mpsc::Receiver<Line> {
    let (sender, receiver) = mpsc::channel(LINES_WAITING_MAX);
    let read = move || {
        let mut stdin = BufReader::new(std::io::stdin());
        let mut number = 0;
        loop {
            number += 1;
            let (text, broken) = match next_line(&mut stdin) {
                Ok(None) => return,
                Ok(Some(text)) => (text, false),
                Err(error) => (Err(Failure::failed(format!("standard input: {error}"))), true),
            };
            if sender.blocking_send(Line { number, text }).is_err() || broken {
                return;
            }
        }
    };
    // Without a thread there is no input: the channel closes at once.
    let _ = std::thread::Builder::new().name("input".into()).spawn(read);
    receiver
}

/// The next line, of bounded length; what is too long is read over to its end.
fn next_line(input: &mut impl BufRead) -> std::io::Result<Option<Result<String, Failure>>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    if input.by_ref().take(limit).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    } else if bytes.len() >= LINE_BYTES_MAX {
        let mut more: Vec<u8> = Vec::new();
        while more.last() != Some(&b'\n') {
            more.clear();
            if input.by_ref().take(limit).read_until(b'\n', &mut more)? == 0 {
                break;
            }
        }
        let message = format!("a post is 1 to 1,000 characters, and this has over {LINE_BYTES_MAX} bytes");
        return Ok(Some(Err(Failure::usage(message).hint("shorten it"))));
    }
    let text = String::from_utf8(bytes);
    Ok(Some(text.map_err(|_| Failure::usage("the line is not UTF-8").hint("convert it, as with iconv"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_the_rest_goes_on() {
        let long = "x".repeat(3 * LINE_BYTES_MAX);
        let text = [b"one\r\n\n", long.as_bytes(), b"\n\xff\nlast"].concat();
        let mut input = &text[..];
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut input).unwrap() {
            lines.push(line.ok());
        }
        assert_eq!(lines, [Some("one".into()), Some(String::new()), None, None, Some("last".into())]);
    }
}
