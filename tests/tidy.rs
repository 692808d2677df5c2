//! Reads the source and fails on what a compiler and clippy do not see: the layout rules of this repository.
//!
//! Each rule is a function from text to findings, tested below on small samples, so that a rule that has gone blind is
//! noticed. Each finding names its cure. There is no list of exceptions: a rule that is wrong is changed here, with
//! its reason.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Lines of a file: more cannot be held in mind.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function, its signature and closing brace included: one screen.
const FUNCTION_LINES_MAX: usize = 70;
/// Words that every room may import.
const PLAIN: &[&str] = &["id", "time", "limits", "topology", "error"];
/// Where `unsafe` is allowed, each block with its reason.
const UNSAFE_ALLOWED: &[&str] = &["src/store/lmdb/env.rs", "src/runtime/process.rs"];

/// Each room, and the rooms that it may import besides the plain words and itself.
const ROOMS: &[(&str, &[&str])] = &[
    ("id", &[]),
    ("time", &[]),
    ("limits", &[]),
    ("topology", &[]),
    ("error", &[]),
    ("service", &[]),
    ("wire", &["service"]),
    ("core", &["service", "wire"]),
    ("store", &["service"]),
    ("net", &["wire"]),
    ("runtime", &["service", "wire", "core", "store", "net"]),
    ("client", &["service", "wire", "net"]),
    ("cli", &["client", "runtime"]),
    ("main", &["cli"]),
];

/// Words that a pure room must not hold, each with the cure.
const IMPURE: &[(&str, &str)] = &[
    ("async", "emit an output and take its answer as an input"),
    (".await", "emit an output and take its answer as an input"),
    ("std::time::Instant", "take `now: Now` as an argument and use crate::time::Instant"),
    ("SystemTime", "take `now: Now` as an argument"),
    ("std::net::Udp", "emit Output::Send or Output::Beat"),
    ("std::net::Tcp", "emit Output::Send or Output::Beat"),
    ("std::fs", "emit an output that the shell performs"),
    ("std::thread", "one driver owns the node: emit an output"),
    ("std::sync", "one owner per piece of state: no locks here"),
    ("tokio", "emit an output that the shell performs"),
    ("quinn", "emit an output that the shell performs"),
    ("HashMap", "use BTreeMap: a hash order cannot be replayed"),
    ("HashSet", "use BTreeSet: a hash order cannot be replayed"),
    ("thread_rng", "take a seeded generator at construction"),
    ("OsRng", "take a seeded generator at construction"),
    ("getrandom", "take a seeded generator at construction"),
    ("SystemRandom", "take a seeded generator at construction"),
    ("from_entropy", "take a seeded generator at construction"),
    ("now_v7", "take the id from the caller, who knows the time"),
];

/// The source with comments and literals blanked, line by line, so that rules look at code only.
fn code_of(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < chars.len() {
        let end = literal_or_comment_end(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// Where the comment or literal that begins at `at` ends; `at` itself if none begins there.
fn literal_or_comment_end(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let before_is_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    let length = match rest {
        ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => block_comment(rest),
        ['"', ..] => quoted(rest),
        ['r', '"' | '#', ..] if !before_is_word => raw_quoted(&rest[1..]).map_or(0, |length| length + 1),
        ['b', 'r', '"' | '#', ..] if !before_is_word => raw_quoted(&rest[2..]).map_or(0, |length| length + 2),
        ['\'', '\\', ..] => 3 + rest[3.min(rest.len())..].iter().position(|c| *c == '\'').map_or(0, |i| i + 1),
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    };
    at + length.min(rest.len())
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// The length of `"..."` or `#"..."#` with any number of `#`; none if this is not a raw string (as in `r#type`).
fn raw_quoted(rest: &[char]) -> Option<usize> {
    let hashes = rest.iter().take_while(|c| **c == '#').count();
    if rest.get(hashes) != Some(&'"') {
        return None;
    }
    let mut at = hashes + 1;
    while at < rest.len() {
        if rest[at] == '"' && rest[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(at)
}

/// The room that a file under `src/` belongs to.
fn room_of(path: &str) -> Option<&str> {
    let inner = path.strip_prefix("src/")?;
    let first = inner.split('/').next()?;
    let room = first.strip_suffix(".rs").unwrap_or(first);
    (room != "lib").then_some(room)
}

/// The rooms named after each `crate::` (or `gaggle::`), also inside braces.
fn rooms_imported(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for prefix in ["crate::", "gaggle::"] {
        for (at, _) in code.match_indices(prefix) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            let rest = &code[at + prefix.len()..];
            if let Some(group) = rest.strip_prefix('{') {
                found.extend(top_level_words(group).into_iter().map(|word| (line, word)));
            } else {
                found.push((line, first_word(rest)));
            }
        }
    }
    found.retain(|(_, word)| word.starts_with(|c: char| c.is_ascii_lowercase()));
    found
}

fn first_word(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first word of each member of a use group, up to its closing brace.
fn top_level_words(group: &str) -> Vec<String> {
    let mut words = vec![first_word(group)];
    let mut depth = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => words.push(first_word(&group[at + 1..])),
            _ => {}
        }
    }
    words
}

fn check_imports(path: &str, code: &str) -> Vec<String> {
    let Some(room) = room_of(path) else { return Vec::new() };
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!(
            "{path}: `{room}` is not a room: add it to ROOMS in tests/tidy.rs, with what it may import"
        )];
    };
    let mut findings = Vec::new();
    for (line, imported) in rooms_imported(code) {
        let known = ROOMS.iter().any(|(name, _)| *name == imported);
        let fine = imported == room || PLAIN.contains(&imported.as_str()) || allowed.contains(&imported.as_str());
        if known && !fine {
            findings.push(format!(
                "{path}:{line}: {room} may not import {imported} (only {}): move the type down, or the code up",
                if allowed.is_empty() { "plain words".to_owned() } else { allowed.join(", ") }
            ));
        }
    }
    findings
}

/// Whether a file is held to the core's bans.
fn is_pure(path: &str) -> bool {
    path.starts_with("src/service/")
        || path.starts_with("src/core/")
        || path.starts_with("src/client/session")
        || PLAIN.iter().any(|word| path == format!("src/{word}.rs"))
}

fn check_purity(path: &str, code: &str) -> Vec<String> {
    if !is_pure(path) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (number, line) in code.lines().enumerate() {
        for (word, cure) in IMPURE {
            if holds_word(line, word) {
                findings.push(format!("{path}:{}: `{word}` in a room without effects: {cure}", number + 1));
            }
        }
    }
    findings
}

/// Whether a line holds this text, not as a part of a longer word.
fn holds_word(line: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let open = word.starts_with('.') || !line[..at].ends_with(is_word);
        // `std::net::Udp` stands for all types that begin so.
        let close = word.ends_with("Udp") || word.ends_with("Tcp") || !line[at + word.len()..].starts_with(is_word);
        open && close
    })
}

fn check_unsafe(path: &str, code: &str) -> Vec<String> {
    if UNSAFE_ALLOWED.contains(&path) {
        return Vec::new();
    }
    let lines = code.lines().enumerate().filter(|(_, line)| holds_word(line, "unsafe"));
    lines
        .map(|(number, _)| {
            format!("{path}:{}: `unsafe` outside {}: use a safe wrapper", number + 1, UNSAFE_ALLOWED.join(", "))
        })
        .collect()
}

fn check_file_length(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    if lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    vec![format!("{path}: {lines} lines, {FILE_LINES_MAX} allowed: split it by state machine, not by size")]
}

fn check_function_length(path: &str, code: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let lines: Vec<&str> = code.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        if !holds_word(line, "fn") || !line.contains('(') && !line.contains('<') || line.contains("fn(") {
            continue;
        }
        let Some(length) = function_length(&lines[start..]) else { continue };
        if length > FUNCTION_LINES_MAX {
            findings.push(format!(
                "{path}:{}: a function of {length} lines, {FUNCTION_LINES_MAX} allowed: keep the branches here and \
                 move straight-line work into helpers",
                start + 1
            ));
        }
    }
    findings
}

/// Lines from the signature to the closing brace; none for a declaration without a body.
fn function_length(lines: &[&str]) -> Option<usize> {
    let (mut depth, mut brackets, mut open) = (0_i32, 0_i32, false);
    for (number, line) in lines.iter().enumerate() {
        for c in line.chars() {
            match c {
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets -= 1,
                ';' if !open && brackets == 0 => return None,
                '{' => (depth, open) = (depth + 1, true),
                '}' => depth -= 1,
                _ => {}
            }
            if open && depth == 0 {
                return Some(number + 1);
            }
        }
    }
    None
}

fn check_module_docs(path: &str, text: &str) -> Vec<String> {
    if !path.starts_with("src/") || text.starts_with("//!") {
        return Vec::new();
    }
    vec![format!("{path}: begins without `//!`: say what it is for, its invariants, and where its test stands")]
}

/// What in a page reads as a path of this repository: words that begin with one of its folders, and relative links.
fn paths_in(page: &str) -> BTreeSet<String> {
    const TOPS: &[&str] = &["src/", "tests/", "docs/", "topology/", "examples/", "benches/", "fuzz/", ".ci/"];
    let is_path = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
    let mut found = BTreeSet::new();
    for word in page.split(|c: char| !(is_path(c) || "*{}<>".contains(c))) {
        let word = word.trim_end_matches(['.', '/', '-']);
        if TOPS.iter().any(|top| word.starts_with(top)) && word.chars().all(is_path) {
            found.insert(word.to_owned());
        }
    }
    for (at, _) in page.match_indices("](") {
        let link: String = page[at + 2..].chars().take_while(|c| !")# ".contains(*c)).collect();
        if !link.is_empty() && !link.contains(':') {
            found.insert(link);
        }
    }
    found
}

fn check_paths(page: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    // What a running cluster makes, and git does not keep.
    const MADE: &[&str] = &["topology/data", "topology/certs"];
    let folder = page.rfind('/').map_or("", |at| &page[..=at]);
    paths_in(text)
        .into_iter()
        .filter(|path| !MADE.iter().any(|made| path.starts_with(made)))
        .filter(|path| !exists(path) && !exists(&format!("{folder}{path}")))
        .map(|path| format!("{page}: names {path}, which does not exist: correct the page, or bring the file back"))
        .collect()
}

/// Every file below `folder` with this ending, as paths from the root, in order.
fn files(root: &Path, folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending)
                && let Ok(inner) = path.strip_prefix(root)
            {
                found.push(inner.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    found.sort();
    found
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_source_is_tidy() {
    let mut findings = Vec::new();
    for folder in ["src", "tests", "examples", "benches"] {
        for path in files(&root(), folder, ".rs") {
            let text = std::fs::read_to_string(root().join(&path)).unwrap();
            let code = code_of(&text);
            findings.extend(check_file_length(&path, &text));
            findings.extend(check_function_length(&path, &code));
            findings.extend(check_unsafe(&path, &code));
            findings.extend(check_imports(&path, &code));
            findings.extend(check_purity(&path, &code));
            findings.extend(check_module_docs(&path, &text));
        }
    }
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn the_pages_name_only_what_exists() {
    let mut pages = files(&root(), "docs", ".md");
    pages.extend(std::fs::read_dir(root()).unwrap().flatten().filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.ends_with(".md").then_some(name)
    }));
    let mut findings = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(root().join(&page)).unwrap();
        findings.extend(check_paths(&page, &text, |path| root().join(path).exists()));
    }
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

#[test]
fn comments_and_literals_are_not_code() {
    let text = "let a = \"HashMap\"; // HashMap\n/* HashMap /* nested */ */ let b = r#\"HashMap\"#; let c = '\"';";
    assert!(!code_of(text).contains("HashMap"));
    assert_eq!(code_of(text).lines().count(), 2);
    assert!(code_of("fn f<'a>(x: &'a str) { unsafe_call(x) }").contains("unsafe_call"));
    assert!(code_of("let quote = '\\''; HashMap").contains("HashMap"));
}

#[test]
fn imports_against_the_direction_are_found() {
    let found = check_imports("src/service/feed.rs", "use crate::wire::frame;\nuse crate::id::Seq;\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("src/service/feed.rs:1: service may not import wire"));
    assert_eq!(check_imports("src/core/node.rs", "use crate::{id::Seq, store::Store, wire::{frame, peer}};").len(), 1);
    assert_eq!(check_imports("src/net/mod.rs", "fn f() { crate::core::io::go() }").len(), 1);
    assert_eq!(check_imports("src/id.rs", "use crate::limits::X;"), Vec::<String>::new());
    assert_eq!(check_imports("src/cellar.rs", "").len(), 1);
}

#[test]
fn effects_in_pure_rooms_are_found() {
    for sample in ["use std::time::Instant;", "async fn f() {}", "let m: HashMap<u8, u8>;", "std::net::UdpSocket::bind"]
    {
        assert_eq!(check_purity("src/core/node.rs", sample).len(), 1, "{sample}");
        assert_eq!(check_purity("src/client/session.rs", sample).len(), 1, "{sample}");
        assert!(check_purity("src/runtime/mod.rs", sample).is_empty(), "{sample}");
    }
    assert!(check_purity("src/core/node.rs", "use std::net::SocketAddr; let asynchronous = 1;").is_empty());
}

#[test]
fn unsafe_outside_its_list_is_found() {
    assert_eq!(check_unsafe("src/net/mod.rs", "let x = unsafe { y };").len(), 1);
    assert!(check_unsafe("src/store/lmdb/env.rs", "let x = unsafe { y };").is_empty());
    assert!(check_unsafe("src/net/mod.rs", "#![deny(unsafe_code)]").is_empty());
}

#[test]
fn long_files_and_functions_are_found() {
    assert!(check_file_length("a.rs", &"x\n".repeat(600)).is_empty());
    assert_eq!(check_file_length("a.rs", &"x\n".repeat(601)).len(), 1);
    let function = |lines: usize| format!("fn f(\n) {{\n{}}}\n", "x;\n".repeat(lines - 3));
    assert!(check_function_length("a.rs", &function(70)).is_empty());
    assert_eq!(check_function_length("a.rs", &function(71)).len(), 1);
    assert!(check_function_length("a.rs", &format!("fn f(x: [u8; 4]);\n{}", function(70))).is_empty());
}

#[test]
fn rooms_without_docs_are_found() {
    assert_eq!(check_module_docs("src/core/mod.rs", "pub mod io;").len(), 1);
    assert!(check_module_docs("src/core/mod.rs", "//! Why.\npub mod io;").is_empty());
}

#[test]
fn pages_that_name_missing_files_are_found() {
    let exists = |path: &str| path == "src/id.rs" || path == "docs/model.md";
    let page = "See `src/id.rs`, `src/gone.rs`, src/*.rs, [m](model.md), [x](https://x.org/y), [n](nowhere.md).";
    let found = check_paths("docs/architecture.md", page, exists);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found.iter().any(|line| line.contains("src/gone.rs")) && found.iter().any(|line| line.contains("nowhere.md"))
    );
}
