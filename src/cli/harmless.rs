//! Text of other people, made harmless: a post must not move the cursor, recolour the screen, or turn the reading
//! order of what follows around.

/// Whether a terminal may obey this character instead of showing it.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            // Marks, embeddings, overrides and isolates of the bidirectional algorithm; line and paragraph separators.
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// For people: each harmful character becomes a visible escape.
pub(crate) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_harmful(character) {
            shown.extend(character.escape_unicode());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// For programs: one line of JSON in which harmful characters, which can only stand inside its strings, are written as
/// JSON's own escapes, so that nothing is lost and a terminal stays unharmed.
pub(crate) fn json_line(value: &serde_json::Value) -> String {
    let plain = value.to_string();
    let mut shown = String::with_capacity(plain.len());
    for character in plain.chars() {
        if is_harmful(character) {
            // All of them are below U+10000, where one escape is enough.
            shown.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_become_visible() {
        assert_eq!(harmless("a\u{1b}[31mb\u{7f}\u{9b}"), "a\\u{1b}[31mb\\u{7f}\\u{9b}");
        assert_eq!(harmless("\u{202e}evil\u{2066}"), "\\u{202e}evil\\u{2066}");
        assert_eq!(harmless("añ → 日本 🦢\u{200d}"), "añ → 日本 🦢\u{200d}");
        assert_eq!(harmless("two\nlines\u{2028}"), "two\\u{a}lines\\u{2028}");
    }

    #[test]
    fn json_loses_nothing() {
        let value = serde_json::json!({"v": 1, "text": "x\u{202e}\u{9b}\n\"y"});
        let line = json_line(&value);
        assert!(line.chars().all(|character| !is_harmful(character)));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), value);
    }
}
