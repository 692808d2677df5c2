//! P5: the state is a function of the set of entries.

use proptest::prelude::*;

use super::*;
use crate::service::keys;
use crate::service::records::{self, Kind, PostRow, RequestRow};
use crate::service::{digest_of, ledger, rules, snapshot, trim};

/// What a random entry is made of: host, user, request, kind, followee or name (or how far a trim reaches).
pub(super) type Recipe = (u8, u8, u8, u8, u8);

/// A step of the clock is a day and a half, so that ids are forgotten within a dozen of them.
const STEP: u64 = 36 * 3_600 * 1_000_000;

/// Ids of every sort: chosen by a person, and made by clients at some time; the last is a UUIDv7 in capitals.
fn id(number: u8) -> String {
    let millis = STEP / 1_000 * u64::from(number);
    match number {
        0 | 1 => format!("id{number}"),
        _ => format!(
            "{:08x}-{:04x}-7000-8000-00000000000{}",
            millis >> 16,
            millis & 0xffff,
            if number == 7 { 'A' } else { 'a' }
        ),
    }
}

/// Entries of several origins with colliding ids, names and pairs, each origin's clock rising.
pub(super) fn entries(recipes: &[Recipe]) -> Vec<Entry> {
    let mut seqs = [0_u64; 3];
    let names = ["ann", "Ann", "bob"];
    let mut made = Vec::new();
    for (at, (host, who, request, kind, detail)) in recipes.iter().enumerate() {
        // Clocks of different hosts collide and run apart; that of one host rises.
        let clock = (at as u64) / 2 + u64::from(*host) * 5 + 1;
        let host = usize::from(*host);
        seqs[host] += 1;
        let hlc = ((clock * STEP) << 12) + seqs[host];
        let op = match kind {
            0 => Op::Register { key: key(*who), name: names[usize::from(detail % 3)].parse().unwrap() },
            1 => Op::Join { followee: user(*detail) },
            2 => Op::Leave { followee: user(*detail) },
            3 if *request > 5 => {
                let before = Hlc((clock * STEP).saturating_sub(u64::from(*detail) * STEP) << 12);
                made.push(own_entry(["a", "b", "c"][host], seqs[host], hlc, Op::Trim { before }));
                continue;
            }
            3 if *request > 4 => {
                let former = Origin { incarnation: 6, ..origin(["a", "b", "c"][host]) };
                let op = Op::Retire { origin: former, last: Seq(u64::from(*detail) + 1) };
                made.push(own_entry(["a", "b", "c"][host], seqs[host], hlc, op));
                continue;
            }
            _ => Op::Post { text: format!("text {}", detail % 2).parse().unwrap() },
        };
        made.push(entry(["a", "b", "c"][host], seqs[host], hlc, *who, &id(*request), op));
    }
    for host in ["a", "b", "c"] {
        let own: Vec<_> = made.iter().filter(|made| made.id.origin == origin(host)).map(|made| made.hlc).collect();
        assert!(own.is_sorted_by(|one, next| one < next));
    }
    made
}

fn apply_all<'a>(rows: &mut MemRows, entries: impl IntoIterator<Item = &'a Entry>) {
    entries.into_iter().for_each(|entry| rules::apply(rows, entry));
}

/// The largest trim.
fn reach(entries: &[Entry]) -> Hlc {
    let trims = entries.iter().map(|entry| match entry.op {
        Op::Trim { before } => before,
        Op::Register { .. } | Op::Join { .. } | Op::Leave { .. } | Op::Post { .. } | Op::Retire { .. } => Hlc::ZERO,
    });
    trims.max().unwrap_or(Hlc::ZERO)
}

/// Nothing below the trim is left, and no post whose id is forgotten.
fn check_trimmed(rows: &MemRows, trim: Hlc) {
    for (key, value) in rows.table(Table::Posts) {
        assert!(keys::parse_made(&key).unwrap().1.hlc >= trim);
        assert!(!trim::forgotten(&records::decode::<PostRow>(&value).unwrap().born.request, trim));
    }
    for (key, value) in rows.table(Table::Requests) {
        let (user, id) = keys::parse_request(&key).unwrap();
        let row: RequestRow = records::decode(&value).unwrap();
        assert!(row.kind != Kind::Post || !trim::forgotten(&id, trim));
        let first = row.entries[0].stamp();
        let (table, place) = row.kind.place(user, first);
        let kept = row.kind != Kind::Post || first.hlc >= trim;
        assert_eq!(rows.get(table, &place).is_some(), kept, "an effect for each element that is kept");
    }
}

pub(super) fn recipes() -> impl Strategy<Value = Vec<Recipe>> {
    prop::collection::vec((0..3_u8, 1..4_u8, 0..8_u8, 0..5_u8, 0..5_u8), 1..60)
}

/// A set of entries, an order of them with repeats, and a place that parts them.
fn orders() -> impl Strategy<Value = (Vec<Entry>, Vec<Entry>, usize)> {
    recipes().prop_flat_map(|recipes| {
        let set = entries(&recipes);
        let repeats = prop::sample::subsequence(set.clone(), 0..=set.len());
        let shuffled = repeats.prop_flat_map({
            let set = set.clone();
            move |repeats| Just([set.clone(), repeats].concat()).prop_shuffle()
        });
        let length = set.len();
        (Just(set), shuffled, 0..=length)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn any_order_and_repetition_gives_the_same_rows((set, shuffled, _) in orders()) {
        let (mut one, mut other) = (MemRows::default(), MemRows::default());
        apply_all(&mut one, &set);
        apply_all(&mut other, &shuffled);
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(ledger::standing(&one).digest, digest_of(&other));
        prop_assert_eq!(ledger::standing(&one).trim, reach(&set));
        check_trimmed(&one, reach(&set));
    }

    #[test]
    fn snapshots_and_entries_merge_in_any_order((set, shuffled, part) in orders(), bytes_max in 1..400_usize) {
        let mut all = MemRows::default();
        apply_all(&mut all, &set);
        // One host holds a part, and streams it to another that holds and gets other entries meanwhile.
        let mut source = MemRows::default();
        apply_all(&mut source, &shuffled[..part]);
        let mut target = MemRows::default();
        apply_all(&mut target, &shuffled[part / 2..]);
        let mut at = Some(Vec::new());
        while let Some(from) = at {
            let chunk = snapshot::read_chunk(&source, &from, bytes_max);
            snapshot::merge_chunk(&mut target, &chunk.bytes).unwrap();
            at = chunk.next;
        }
        apply_all(&mut target, &shuffled[..part / 2]);
        prop_assert_eq!(all.merged(), target.merged());
        prop_assert_eq!(ledger::standing(&all).trim, ledger::standing(&target).trim);
        prop_assert_eq!(ledger::standing(&all).retired, ledger::standing(&target).retired);
        prop_assert_eq!(ledger::standing(&target).digest, digest_of(&target));
    }

    #[test]
    fn decoders_refuse_random_bytes_and_change_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Entry::decode(&bytes);
        let mut rows = MemRows::default();
        if snapshot::merge_chunk(&mut rows, &bytes).is_err() {
            prop_assert_eq!(rows, MemRows::default());
        }
    }

    #[test]
    fn damaged_chunks_never_leave_half_a_change(recipes in recipes(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut rows = MemRows::default();
        apply_all(&mut rows, &entries(&recipes));
        let mut bytes = snapshot::read_chunk(&rows, &[], usize::MAX).bytes;
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let before = rows.clone();
        if snapshot::merge_chunk(&mut rows, &bytes).is_err() {
            prop_assert_eq!(&rows, &before);
        }
        prop_assert_eq!(ledger::standing(&rows).digest, digest_of(&rows));
    }

    #[test]
    fn entries_survive_their_encoding(recipes in recipes()) {
        for entry in entries(&recipes) {
            prop_assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
        }
    }
}

#[test]
fn a_smaller_stamp_takes_the_effect_over() {
    let text = |text: &str| Op::Post { text: text.parse().unwrap() };
    let late = entry("b", 1, 20, 1, "id", text("late"));
    let early = entry("a", 9, 10, 1, "id", Op::Join { followee: user(2) });
    let mut rows = MemRows::default();
    rules::apply(&mut rows, &late);
    assert_eq!(rows.table(Table::Posts).len(), 1);
    rules::apply(&mut rows, &early);
    assert_eq!(rows.table(Table::Posts).len(), 0);
    assert_eq!(rows.table(Table::JoinedBy).len(), 1);
    assert_eq!(rows.table(Table::Requests).len(), 1);
}
