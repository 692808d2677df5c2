//! A view that is drawn again and again in one place of a terminal: never taller or wider than it, or the top would
//! scroll away, and never cleared first, or it would flicker.

use std::io::IsTerminal;

use rustix::termios::tcgetwinsize;

use crate::cli::failure::Failure;
use crate::cli::output::Out;

/// To the first row, first column.
const HOME: &str = "\u{1b}[H";
/// What is left of this row.
const END_ROW: &str = "\u{1b}[K";
/// All rows below.
const END_SCREEN: &str = "\u{1b}[J";
/// The colours' end.
const PLAIN: &str = "\u{1b}[0m";

/// A terminal that a view fills.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    out: Out,
}

impl Screen {
    /// The terminal of standard output, if it is one and a person reads it.
    pub(crate) fn of(out: Out) -> Option<Self> {
        (!out.is_json() && std::io::stdout().is_terminal()).then_some(Self { out })
    }

    /// Draws the view, and below it as many of the last lines as there is room for.
    pub(crate) fn draw(self, view: &str, last: &[String]) -> Result<(), Failure> {
        // As large as people's terminals are at least, where the kernel does not know.
        let (rows, columns) = match tcgetwinsize(std::io::stdout()) {
            Ok(size) if size.ws_row > 1 && size.ws_col > 1 => (usize::from(size.ws_row), usize::from(size.ws_col)),
            Ok(_) | Err(_) => (24, 80),
        };
        // The cursor waits in the row below.
        let lines = fit(view, last, rows - 1, columns);
        let text: String = lines.iter().map(|line| format!("{line}{END_ROW}\n")).collect();
        self.out.raw(&format!("{HOME}{text}{END_SCREEN}"))
    }
}

fn fit(view: &str, last: &[String], rows: usize, columns: usize) -> Vec<String> {
    let mut lines: Vec<&str> = view.lines().take(rows).collect();
    // One row stays empty between them.
    let room = rows.saturating_sub(lines.len() + 1).min(last.len());
    if room > 0 {
        lines.push("");
        lines.extend(last[last.len() - room..].iter().map(String::as_str));
    }
    lines.into_iter().map(|line| cut(line, columns)).collect()
}

/// A line cut to so many columns. Our own colours take none; a character that may take two counts as two.
fn cut(line: &str, columns: usize) -> String {
    let mut shown = String::with_capacity(line.len());
    let (mut used, mut in_colour) = (0, false);
    for character in line.chars() {
        if character == '\u{1b}' {
            in_colour = true;
        }
        let width = match character {
            _ if in_colour => 0,
            '\u{1100}'.. => 2,
            _ => 1,
        };
        if used + width > columns {
            shown.push_str(PLAIN);
            return shown;
        }
        used += width;
        shown.push(character);
        in_colour &= character != 'm';
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_never_larger_than_the_terminal() {
        let last: Vec<String> = (1..=9).map(|n| format!("line {n}")).collect();
        assert_eq!(fit("a\nb", &last, 5, 80), ["a", "b", "", "line 8", "line 9"]);
        assert_eq!(fit("a\nb", &last, 3, 80), ["a", "b"]);
        assert_eq!(fit("a\nb\nc", &[], 2, 80), ["a", "b"]);
        assert_eq!(fit("a", &last[..1], 5, 80), ["a", "", "line 1"]);
    }

    #[test]
    fn colours_take_no_room_and_end() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdef", 4), format!("abcd{PLAIN}"));
        assert_eq!(cut("\u{1b}[1;31mab\u{1b}[0mcd", 3), format!("\u{1b}[1;31mab\u{1b}[0mc{PLAIN}"));
        assert_eq!(cut("a日本", 4), format!("a日{PLAIN}"));
    }
}
