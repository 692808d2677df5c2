//! The names of things: newtypes with only the operations that make sense.
//!
//! Invariants: a `ProcessId` and a `HostId` are 1 to 16 characters of `[A-Za-z0-9_-]`; a `RequestId` is 1 to 64
//! printable ASCII characters without spaces; a `UserName` is 1 to 32 characters of `[A-Za-z0-9_-]`. Decoding
//! checks the same rules as parsing, so a peer cannot bring in a name that a person could not type. Tests stand below.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not allowed as a name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {rule}, not {found:?}")]
pub struct InvalidName {
    what: &'static str,
    rule: &'static str,
    found: String,
}

impl InvalidName {
    fn new(what: &'static str, rule: &'static str, found: &str) -> Self {
        let found = found.chars().take(80).collect();
        Self { what, rule, found }
    }
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Up to 16 ASCII bytes, padded with zeros: `Copy`, fixed in width on disk, ordered as text.
macro_rules! short_name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name([u8; 16]);

        impl $name {
            /// The fixed form, for keys on disk.
            pub fn to_bytes(self) -> [u8; 16] {
                self.0
            }

            /// The inverse of [`Self::to_bytes`].
            pub fn from_bytes(bytes: [u8; 16]) -> Result<Self, InvalidName> {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                if bytes[end..].iter().any(|byte| *byte != 0) {
                    return Err(InvalidName::new($what, Self::RULE, "bytes after the end"));
                }
                std::str::from_utf8(&bytes[..end]).unwrap_or("").parse()
            }

            const RULE: &str = "1 to 16 letters, digits, '_' or '-'";
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                if text.is_empty() || text.len() > 16 || !is_word(text) {
                    return Err(InvalidName::new($what, Self::RULE, text));
                }
                let mut bytes = [0; 16];
                bytes[..text.len()].copy_from_slice(text.as_bytes());
                Ok(Self(bytes))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let end = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
                f.pad(std::str::from_utf8(&self.0[..end]).unwrap_or("?"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

short_name!(
    /// A machine with one data folder, as the topology names it.
    HostId, "a host's name"
);
short_name!(
    /// A process of the topology.
    ProcessId, "a process's id"
);

/// Text checked by a rule, kept as it was written.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text as it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                text.to_owned().try_into()
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if check(&text) { Ok(Self(text)) } else { Err(InvalidName::new($what, $rule, &text)) }
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

checked_text!(
    /// What a person is called, compared without case (see [`UserName::folded`]).
    UserName,
    "a name",
    "1 to 32 letters, digits, '_' or '-'",
    |text| !text.is_empty() && text.len() <= 32 && is_word(text)
);
checked_text!(
    /// The idempotency key of one request of one person: a UUIDv7 unless the person chose it.
    RequestId,
    "an id",
    "1 to 64 printable ASCII characters without spaces",
    |text| !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic())
);
checked_text!(
    /// What a person says: 1 to 1,000 characters in one line, without control characters.
    PostText,
    "a post",
    "1 to 1,000 characters in one line, without control characters",
    |text| {
        let count = text.chars().take(crate::limits::POST_CHARS_MAX + 1).count();
        (1..=crate::limits::POST_CHARS_MAX).contains(&count) && !text.chars().any(char::is_control)
    }
);

impl RequestId {
    /// That of every trim: nobody asks for one again.
    pub(crate) fn of_trim() -> Self {
        Self("trim".to_owned())
    }

    /// That of every entry that says where an origin ends: nobody asks for one again.
    pub(crate) fn of_retirement() -> Self {
        Self("retire".to_owned())
    }
}

impl UserName {
    /// The form in which names are compared.
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

/// An Ed25519 public key: the identity of a person or a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

/// A person: the first 16 bytes of the BLAKE3 hash of the person's public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UserId(pub [u8; 16]);

impl UserId {
    /// Who writes what no person asked for.
    pub const NOBODY: Self = Self([0; 16]);

    /// The person whom this key proves.
    pub fn of(key: &PublicKey) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(&key.0).as_bytes()[..16]);
        Self(id)
    }
}

/// Writes bytes as lower-case hexadecimal.
fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0[..4], f)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0[..4], f)
    }
}

/// A host's incarnation: where entries come from. Written `host.1a2b3c4d`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// The host whose primaries commit under this origin.
    pub host: HostId,
    /// Drawn at random when the incarnation began.
    pub incarnation: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08x}", self.host, self.incarnation)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A place in an origin's log; the first entry has 1, and 0 stands for "none".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first entry.
    pub const ZERO: Self = Self(0);

    /// The place after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Counts the primaries that a host has had; 0 before the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl Epoch {
    /// Before the first primary.
    pub const ZERO: Self = Self(0);

    /// The epoch of the next primary.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}", self.0)
    }
}

/// The name of an entry.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EntryId {
    /// Where it was first committed.
    pub origin: Origin,
    /// Its place there.
    pub seq: Seq,
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.origin, self.seq)
    }
}

/// Origin -> highest seq held without a gap (a version vector). An origin at zero is not kept.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vector(BTreeMap<Origin, Seq>);

impl Vector {
    /// The empty vector.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// What is held of `origin`.
    pub fn get(&self, origin: Origin) -> Seq {
        self.0.get(&origin).copied().unwrap_or_default()
    }

    /// Whether this entry is among what is held.
    pub fn holds(&self, entry: EntryId) -> bool {
        entry.seq <= self.get(entry.origin)
    }

    /// Whether all of `other` is held.
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(origin, seq)| seq <= self.get(origin))
    }

    /// Sets one origin, whichever way it moves.
    pub fn set(&mut self, origin: Origin, seq: Seq) {
        if seq == Seq::ZERO {
            self.0.remove(&origin);
        } else {
            self.0.insert(origin, seq);
        }
    }

    /// Moves one origin forward; never back.
    pub fn raise(&mut self, origin: Origin, seq: Seq) {
        if seq > self.get(origin) {
            self.0.insert(origin, seq);
        }
    }

    /// Moves every origin forward to `other`; never back.
    pub fn merge(&mut self, other: &Self) {
        for (origin, seq) in other.iter() {
            self.raise(origin, seq);
        }
    }

    /// Takes in the vector of an answer to who asked with `asked`. It holds at least that, so what it does not name of it,
    /// it implies (see [`crate::service::retired`]), and that is named here no longer.
    pub fn supersede(&mut self, asked: &Self, answer: &Self) {
        // By a later origin of the same host: an answer that names none tells of nothing.
        let implied = |origin: Origin| answer.0.keys().any(|named| named.host == origin.host);
        for (origin, seq) in asked.iter() {
            if answer.get(origin) == Seq::ZERO && self.get(origin) <= seq && implied(origin) {
                self.0.remove(&origin);
            }
        }
        self.merge(answer);
    }

    /// Moves a cursor on to where it was told to stand next: what it names now is what was asked with.
    pub fn advance(&mut self, to: &Self) {
        let stood = self.clone();
        self.supersede(&stood, to);
    }

    /// What both hold.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        let both = self.iter().map(|(origin, seq)| (origin, seq.min(other.get(origin))));
        both.filter(|(_, seq)| *seq > Seq::ZERO).collect()
    }

    /// The origins held, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Origin, Seq)> + '_ {
        self.0.iter().map(|(origin, seq)| (*origin, *seq))
    }

    /// How many origins are held.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many entries this holds that `other` lacks.
    pub fn ahead_of(&self, other: &Self) -> u64 {
        self.iter().map(|(origin, seq)| seq.0.saturating_sub(other.get(origin).0)).sum()
    }
}

impl FromIterator<(Origin, Seq)> for Vector {
    fn from_iter<I: IntoIterator<Item = (Origin, Seq)>>(items: I) -> Self {
        let mut vector = Self::new();
        for (origin, seq) in items {
            vector.set(origin, seq);
        }
        vector
    }
}

impl fmt::Debug for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter()).finish()
    }
}

/// What a client has seen: reads and writes wait until a host holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Token {
    /// The entries seen.
    pub vector: Vector,
    /// The highest clock seen.
    pub hlc: crate::time::Hlc,
}

impl Token {
    /// Takes in what another token has seen.
    pub fn merge(&mut self, other: &Self) {
        self.vector.merge(&other.vector);
        self.hlc = self.hlc.max(other.hlc);
    }

    /// Takes in the token of an answer to who asked with `asked` (see [`Vector::supersede`]).
    pub fn supersede(&mut self, asked: &Self, answer: &Self) {
        self.vector.supersede(&asked.vector, &answer.vector);
        self.hlc = self.hlc.max(answer.hlc);
    }
}

/// The order-free sum of the hashes of all rows: hosts with the same entries have the same digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Digest(pub u128);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0 >> 96)
    }
}

/// A client's connection to one process, numbered by that process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClientId(pub u64);

/// A live feed of one process, numbered by that process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FeedId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_rules_when_decoded() {
        assert!("a b".parse::<HostId>().is_err());
        assert!("seventeen-letters".parse::<ProcessId>().is_err());
        let host: HostId = "lenss3".parse().unwrap();
        assert_eq!(HostId::from_bytes(host.to_bytes()), Ok(host));
        let bytes = postcard::to_stdvec("bad name").unwrap();
        assert!(postcard::from_bytes::<UserName>(&bytes).is_err());
        assert!(postcard::from_bytes::<PostText>(&postcard::to_stdvec("a\nb").unwrap()).is_err());
    }

    #[test]
    fn posts_are_counted_in_characters() {
        assert!("é".repeat(1000).parse::<PostText>().is_ok());
        assert!("é".repeat(1001).parse::<PostText>().is_err());
        assert!("".parse::<PostText>().is_err());
    }

    #[test]
    fn vectors_cover_and_count() {
        let origin = |n| Origin { host: "h".parse().unwrap(), incarnation: n };
        let small: Vector = [(origin(1), Seq(3))].into_iter().collect();
        let large: Vector = [(origin(1), Seq(5)), (origin(2), Seq(1))].into_iter().collect();
        assert!(large.covers(&small) && !small.covers(&large));
        assert_eq!(large.ahead_of(&small), 3);
        assert_eq!(small.ahead_of(&large), 0);
    }

    #[test]
    fn what_an_answer_implies_is_named_no_longer() {
        let origin = |host: &str, incarnation| Origin { host: host.parse().unwrap(), incarnation };
        let of = |held: &[(&str, u32, u64)]| -> Vector {
            held.iter().map(|(host, incarnation, seq)| (origin(host, *incarnation), Seq(*seq))).collect()
        };
        let asked = of(&[("a", 1, 9), ("b", 1, 4)]);
        let answer = of(&[("a", 2, 3), ("b", 1, 5)]);
        let superseded = |mut seen: Vector, answer: &Vector| {
            seen.supersede(&asked, answer);
            seen
        };
        assert_eq!(superseded(asked.clone(), &answer), answer);
        assert_eq!(superseded(asked.clone(), &Vector::new()), asked, "no answer");
        assert_eq!(superseded(asked.clone(), &of(&[("b", 1, 5)])), of(&[("a", 1, 9), ("b", 1, 5)]), "by what?");
        let more = superseded(of(&[("a", 1, 10)]), &answer);
        assert_eq!(more, of(&[("a", 1, 10), ("a", 2, 3), ("b", 1, 5)]), "seen since it was asked");
    }
}
