//! Queries: what people ask, answered from one consistent view of the rows, showing only what may be shown.

use serde::{Deserialize, Serialize};

use crate::error::{ErrorCode, Refusal};
use crate::id::{PublicKey, RequestId, UserId, UserName, Vector};
use crate::limits;
use crate::service::names::{self, Claims};
use crate::service::records::{self, NameRow};
use crate::service::rows::{Rows, Table, Walk};
use crate::service::timeline::{self, Source};
use crate::service::view::{View, holds_any};
use crate::service::{intake, keys};
use crate::time::Hlc;

/// A read that a person asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// Who am I?
    WhoAmI {
        /// Who asks.
        user: UserId,
    },
    /// LIST, one part at a time, in pages.
    List {
        /// Who asks.
        user: UserId,
        /// Which part.
        part: ListPart,
        /// Names after this one (folded); empty at first.
        after: String,
    },
    /// A timeline: the newest `limit` posts, or the first `limit` after a cursor.
    Timeline {
        /// Who asks.
        user: UserId,
        /// The posts that this person made; else one's own timeline.
        of: Option<String>,
        /// At most so many (the answer may hold fewer and says so).
        limit: u32,
        /// Only what came after this cursor.
        since: Option<Vector>,
        /// Only posts before this stamp, to page back through a long answer.
        before: Option<crate::service::entry::Stamp>,
    },
}

/// The three parts of LIST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ListPart {
    /// All users.
    Users,
    /// Whom I joined.
    Joined,
    /// Who joined me.
    JoinedBy,
}

/// A post as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownPost {
    /// The idempotency key it was made with.
    pub id: RequestId,
    /// Who made it, as the name is shown (with a suffix if it is contested).
    pub author: String,
    /// Its place in the total order; its time.
    pub stamp: crate::service::entry::Stamp,
    /// Its place in its origin's log.
    pub seq: crate::id::Seq,
    /// What it says.
    pub text: String,
    /// `--since` this cursor gives what came after this post.
    pub cursor: Vector,
}

/// The answer to a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Who the person is.
    WhoAmI {
        /// The name as it is shown.
        name: String,
        /// The name as it was registered.
        registered: UserName,
        /// The key.
        key: PublicKey,
        /// When it was registered.
        hlc: Hlc,
    },
    /// One page of one part of LIST, sorted without case.
    Names {
        /// The names as they are shown.
        names: Vec<String>,
        /// Ask again with this `after` for more; none when this is all.
        next: Option<String>,
    },
    /// Posts, oldest first.
    Posts {
        /// The posts.
        posts: Vec<ShownPost>,
        /// Whether a limit of the answer cut it short: page back with `before` the first post's stamp, or, with
        /// `since`, on with the last post's cursor.
        more: bool,
        /// What this answer took into account; a feed goes on from here.
        cursor: Vector,
    },
}

/// What became of a query.
pub type QueryResult = Result<Answer, Refusal>;

/// Answers a query, showing only entries within `shown`.
pub fn answer(rows: &dyn Rows, shown: &Vector, query: &Query) -> QueryResult {
    let view = View { rows, shown };
    match query {
        Query::WhoAmI { user } => who_am_i(view, *user),
        Query::List { user, part, after } => Ok(list(view, *user, *part, after)),
        Query::Timeline { user, of, limit, since, before } => {
            let sources = match of {
                Some(name) => vec![Source { author: person(view, name)?, after: None }],
                None => timeline::sources(view, *user),
            };
            Ok(match since {
                Some(since) => timeline::after_cursor(view, &sources, since, *before, *limit),
                None => timeline::newest(view, &sources, *before, *limit),
            })
        }
    }
}

fn who_am_i(view: View<'_>, user: UserId) -> QueryResult {
    let Some((stamp, row)) = view.registration(user) else {
        let message = "this key has no name here yet: log in with a name first (gaggle login NAME)";
        return Err(Refusal::new(ErrorCode::NotRegistered, message));
    };
    let name = names::display_or_id(view.rows, user);
    Ok(Answer::WhoAmI { name, registered: row.name, key: row.key, hlc: stamp.hlc })
}

/// Whom a name means, if that person's registration is shown.
fn person(view: View<'_>, name: &str) -> Result<UserId, Refusal> {
    let user = intake::resolve(view.rows, name)?;
    if view.registration(user).is_none() {
        let message = format!("nobody is called {name}: look at the names with LIST");
        return Err(Refusal::new(ErrorCode::UnknownUser, message));
    }
    Ok(user)
}

fn list(view: View<'_>, user: UserId, part: ListPart, after: &str) -> Answer {
    let mut page = Page { after: sort_key(after), names: Vec::new() };
    match part {
        ListPart::Users => list_users(view, &mut page),
        ListPart::Joined => {
            for (followee, _) in view.joined(user) {
                page.offer(names::display_or_id(view.rows, followee));
            }
        }
        ListPart::JoinedBy => {
            // The inverse rows follow what is held; whose leave is not shown yet is missing here for that moment.
            let mut followers = Vec::new();
            view.rows.ascend(Table::JoinedBy, &user.0, &keys::end(&user.0), &mut |key, _| {
                followers.extend(keys::parse_pair(key).map(|(_, follower)| follower));
                Walk::On
            });
            for follower in followers.into_iter().filter(|follower| view.join_stamp(*follower, user).is_some()) {
                page.offer(names::display_or_id(view.rows, follower));
            }
        }
    }
    page.close()
}

/// Names without case, those with the same base together, its owner first.
type SortKey = (String, String);

fn sort_key(name: &str) -> SortKey {
    let folded = name.to_ascii_lowercase();
    let (base, digits) = folded.split_once('~').unwrap_or((&folded, ""));
    (base.to_owned(), digits.to_owned())
}

/// One page of names.
struct Page {
    after: SortKey,
    names: Vec<(SortKey, String)>,
}

impl Page {
    fn offer(&mut self, name: String) {
        let key = sort_key(&name);
        if key > self.after {
            self.names.push((key, name));
        }
    }

    fn close(mut self) -> Answer {
        let max = usize::try_from(limits::ANSWER_NAMES_MAX).unwrap_or(usize::MAX);
        self.names.sort_unstable();
        let more = self.names.len() > max;
        self.names.truncate(max);
        let names: Vec<String> = self.names.into_iter().map(|(_, name)| name).collect();
        let next = names.last().filter(|_| more).map(|name| name.to_ascii_lowercase());
        Answer::Names { names, next }
    }
}

/// Walks the claims group by group from the page's first name, until the page is full.
fn list_users(view: View<'_>, page: &mut Page) {
    let max = usize::try_from(limits::ANSWER_NAMES_MAX).unwrap_or(usize::MAX);
    let mut group: (String, Claims) = Default::default();
    let from = page.after.0.clone();
    view.rows.ascend(Table::Names, from.as_bytes(), &[], &mut |key, value| {
        let Some(((folded, stamp, user), row)) = keys::parse_name(key).zip(records::decode::<NameRow>(value)) else {
            return Walk::On;
        };
        if folded != group.0 {
            offer_group(view, page, &group.1);
            group = (folded, Claims::new());
        }
        group.1.push((user, stamp, row));
        if page.names.len() > max { Walk::Stop } else { Walk::On }
    });
    offer_group(view, page, &group.1);
}

fn offer_group(view: View<'_>, page: &mut Page, claims: &Claims) {
    for (index, (user, stamp, row)) in claims.iter().enumerate() {
        // The claim comes from the person's first registration; a later one, at another host, may be all that is shown.
        let claimed = holds_any(view.shown, stamp.origin, row.seq, &row.also);
        if claimed || view.registration(*user).is_some() {
            page.offer(names::shown(claims, index));
        }
    }
}
