//! Names: who is registered under which, and how a contested name is shown.
//!
//! A name belongs to the claim with the smallest stamp. Later claims (possible only during a partition) are shown with
//! `~`, which names cannot hold, and the first digits of the user's id: four, or as many as tell the claimants apart.

use crate::id::{UserId, UserName};
use crate::service::entry::Stamp;
use crate::service::keys;
use crate::service::records::{self, NameRow, UserRow};
use crate::service::rows::{Rows, Table, Walk};

/// The fewest digits of a suffix.
const SUFFIX_DIGITS: usize = 4;

/// Who claims a name, in the order of the claims.
pub(super) type Claims = Vec<(UserId, Stamp, NameRow)>;

/// A person's registration that counts: the one with the smallest stamp.
pub(super) fn registration(rows: &dyn Rows, user: UserId) -> Option<(Stamp, UserRow)> {
    let mut found = None;
    rows.ascend(Table::Users, &user.0, &keys::end(&user.0), &mut |key, value| {
        found = keys::parse_made(key).map(|(_, stamp)| stamp).zip(records::decode(value));
        Walk::Stop
    });
    found
}

/// Who owns a name.
pub(super) fn owner(rows: &dyn Rows, folded: &str) -> Option<UserId> {
    let group = keys::name_group(folded);
    let mut owner = None;
    rows.ascend(Table::Names, &group, &keys::end(&group), &mut |key, _| {
        owner = keys::parse_name(key).map(|(_, _, user)| user);
        Walk::Stop
    });
    owner
}

fn claims(rows: &dyn Rows, folded: &str) -> Claims {
    let group = keys::name_group(folded);
    let mut claims = Claims::new();
    rows.ascend(Table::Names, &group, &keys::end(&group), &mut |key, value| {
        if let Some(((_, stamp, user), row)) = keys::parse_name(key).zip(records::decode(value)) {
            claims.push((user, stamp, row));
        }
        Walk::On
    });
    claims
}

/// How the claimant at `index` is shown.
pub(super) fn shown(claims: &Claims, index: usize) -> String {
    let (user, _, row) = &claims[index];
    if index == 0 {
        return row.name.to_string();
    }
    let digits = user.to_string();
    let others: Vec<String> =
        claims.iter().filter(|(other, ..)| other != user).map(|(id, ..)| id.to_string()).collect();
    let length = (SUFFIX_DIGITS..digits.len())
        .find(|length| others.iter().all(|other| other[..*length] != digits[..*length]))
        .unwrap_or(digits.len());
    format!("{}~{}", row.name, &digits[..length])
}

/// The name under which a person is shown; none if the person is not registered.
pub fn display_name(rows: &dyn Rows, user: UserId) -> Option<String> {
    let (_, row) = registration(rows, user)?;
    let folded = row.name.folded();
    if owner(rows, &folded) == Some(user) {
        return Some(row.name.to_string());
    }
    let claims = claims(rows, &folded);
    let index = claims.iter().position(|(claimant, ..)| *claimant == user)?;
    Some(shown(&claims, index))
}

/// The name of somebody whom an entry names: registered, unless rows are missing.
pub(super) fn display_or_id(rows: &dyn Rows, user: UserId) -> String {
    display_name(rows, user).unwrap_or_else(|| format!("~{user}"))
}

/// A name as it was typed, parted: the folded name, and the digits after `~`.
pub(super) fn parts(text: &str) -> Option<(String, Option<String>)> {
    let (base, digits) = match text.split_once('~') {
        Some((base, digits)) => (base, Some(digits.to_ascii_lowercase())),
        None => (text, None),
    };
    Some((base.parse::<UserName>().ok()?.folded(), digits))
}

/// Whom a name means: `ann` its owner, `ann~3f2a` the claimant with that id; case does not matter.
pub fn resolve_name(rows: &dyn Rows, text: &str) -> Option<UserId> {
    let (folded, digits) = parts(text)?;
    let Some(digits) = digits else { return owner(rows, &folded) };
    if digits.len() < SUFFIX_DIGITS {
        return None;
    }
    let mut matching =
        claims(rows, &folded).into_iter().map(|(user, ..)| user).filter(|user| user.to_string().starts_with(&digits));
    let found = matching.next()?;
    matching.next().is_none().then_some(found)
}
