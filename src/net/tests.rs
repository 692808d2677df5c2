//! Endpoints on this machine, honest ones and others.

#![expect(clippy::disallowed_methods, reason = "each test owns its tasks and threads, and bounds its own time")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{Endpoint, ServerConfig};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::endpoint::{Admission, Load, Origin, admit, connect};
use super::*;
use crate::id::{ProcessId, PublicKey};
use crate::limits;
use crate::wire::frame::{self, FrameError};

const SOON: Duration = Duration::from_secs(5);

fn here() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn node() -> (NodeEndpoint, SocketAddr, PublicKey) {
    let node = NodeEndpoint::bind(here(), Identity::generate().unwrap()).unwrap();
    let (addr, key) = (node.local_addr().unwrap(), node.public_key());
    (node, addr, key)
}

fn client() -> ClientEndpoint {
    ClientEndpoint::bind_at(here()).unwrap()
}

async fn accept(node: &NodeEndpoint) -> Link {
    timeout(SOON, node.accept()).await.unwrap().unwrap()
}

async fn end(link: &Link) -> LinkEnd {
    timeout(SOON, link.closed()).await.unwrap()
}

/// Somebody else's certificate with one's own key: all that a thief who watched a handshake can have.
fn stolen(victim: &Identity, thief: &Identity) -> Arc<CertifiedKey> {
    Arc::new(CertifiedKey::new(vec![victim.make_certificate().unwrap()], thief.tls_key().unwrap()))
}

#[tokio::test]
async fn both_ends_prove_their_keys() {
    let (a, a_addr, a_key) = node();
    let (b, b_addr, b_key) = node();
    b.expect_peers([a_addr]);
    let dialed = a.dial_peer(b_addr, b_key).await.unwrap();
    let taken = accept(&b).await;
    assert_eq!((dialed.alpn(), dialed.peer_key()), (Alpn::Peer, Some(b_key)));
    assert_eq!((taken.alpn(), taken.peer_key()), (Alpn::Peer, Some(a_key)));
    assert_eq!(dialed.binding(b"test"), taken.binding(b"test"));
    assert_eq!(taken.remote_addr(), a.local_addr().unwrap());
    taken.close(CloseCode::WrongCluster, "other\nplace");
    let expected = LinkEnd::Peer { code: Some(CloseCode::WrongCluster), reason: "otherplace".to_owned() };
    assert_eq!(end(&dialed).await, expected);
    assert_eq!(taken.end(), Some(LinkEnd::Here));
}

#[tokio::test]
async fn one_client_socket_carries_several_people_and_strangers() {
    let (node, addr, key) = node();
    let client = ClientEndpoint::bind().unwrap();
    let (ann, bob) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    for person in [Some(&ann), Some(&bob), None] {
        let link = client.dial(addr, Some(key), person).await.unwrap();
        let taken = accept(&node).await;
        assert_eq!((taken.alpn(), taken.peer_key()), (Alpn::Client, person.map(Identity::public_key)));
        assert_eq!(link.remote_addr(), addr);
    }
    let unpinned = client.dial(addr, None, None).await.unwrap();
    assert_eq!(unpinned.peer_key(), Some(key));
}

#[tokio::test]
async fn another_key_than_the_pinned_one_is_refused() {
    let (a, _, a_key) = node();
    let (b, b_addr, _) = node();
    let error = a.dial_peer(b_addr, a_key).await.unwrap_err();
    assert!(matches!(error, DialError::WrongIdentity { .. }), "{error}");
    let error = client().dial(b_addr, Some(a_key), None).await.unwrap_err();
    assert!(matches!(error, DialError::WrongIdentity { .. }), "{error}");
    assert!(timeout(Duration::from_millis(100), b.accept()).await.is_err());
}

#[tokio::test]
async fn a_client_with_a_stolen_certificate_is_refused() {
    let (node, addr, key) = node();
    let (victim, thief) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let dialer = Endpoint::client(here()).unwrap();
    for alpn in [Alpn::Peer, Alpn::Client] {
        let crypto = tls::dialing(alpn, Some(key), Some(stolen(&victim, &thief))).unwrap();
        // The dialing side may think that it is in, until the other side has seen the signature.
        if let Ok(connection) = connect(&dialer, addr, crypto, transport::peer()).await {
            let end = LinkEnd::from(timeout(SOON, connection.closed()).await.unwrap());
            assert!(matches!(end, LinkEnd::Refused(_)), "{end}");
        }
    }
    assert!(timeout(Duration::from_millis(100), node.accept()).await.is_err());
}

#[tokio::test]
async fn a_server_with_a_stolen_certificate_is_refused() {
    let (victim, thief) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let crypto = tls::accepting(stolen(&victim, &thief)).unwrap();
    let server = Endpoint::server(ServerConfig::with_crypto(Arc::new(crypto)), here()).unwrap();
    let addr = server.local_addr().unwrap();
    let serving = tokio::spawn(async move { server.accept().await.unwrap().await.map(|_| ()) });
    let error = client().dial(addr, Some(victim.public_key()), None).await.unwrap_err();
    assert!(matches!(error, DialError::WrongIdentity { .. }), "{error}");
    assert!(timeout(SOON, serving).await.unwrap().unwrap().is_err());
}

#[tokio::test]
async fn a_process_without_a_key_and_an_unknown_protocol_are_refused() {
    let (node, addr, key) = node();
    let dialer = Endpoint::client(here()).unwrap();
    let crypto = tls::dialing(Alpn::Peer, Some(key), None).unwrap();
    let connection = connect(&dialer, addr, crypto, transport::peer()).await.unwrap();
    let end = LinkEnd::from(timeout(SOON, connection.closed()).await.unwrap());
    assert!(matches!(end, LinkEnd::Peer { code: Some(CloseCode::WrongIdentity), .. }), "{end}");
    let crypto = tls::dialing_as(b"gaggle-peer/999", Some(key), None).unwrap();
    let error = connect(&dialer, addr, crypto, transport::peer()).await.unwrap_err();
    assert!(matches!(error, DialError::Version { .. }), "{error}");
    assert!(timeout(Duration::from_millis(100), node.accept()).await.is_err());
}

#[tokio::test]
async fn silence_is_typed_and_bounded() {
    let quiet = std::net::UdpSocket::bind(here()).unwrap();
    let started = Instant::now();
    let error = client().dial(quiet.local_addr().unwrap(), None, None).await.unwrap_err();
    assert!(matches!(error, DialError::Silence { .. }), "{error}");
    assert!(started.elapsed() < limits::CONNECT_WAIT + Duration::from_secs(1));
}

#[tokio::test]
async fn a_crowd_of_handshakes_gets_in_by_way_of_retry() {
    let (node, addr, key) = node();
    let client = client();
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..3 * limits::HANDSHAKES_MAX {
        let client = client.clone();
        crowd.spawn(async move { client.dial(addr, Some(key), None).await });
    }
    let accepting = tokio::spawn(async move {
        let mut links = Vec::new();
        while let Ok(Some(link)) = timeout(limits::CONNECT_WAIT, node.accept()).await {
            links.push(link);
        }
        links.len()
    });
    let dialed = crowd.join_all().await.into_iter().filter(Result::is_ok).count();
    assert!(dialed >= 2 * limits::HANDSHAKES_MAX, "{dialed}");
    assert_eq!(accepting.await.unwrap(), dialed);
}

#[test]
fn processes_get_in_when_crowds_do_not() {
    let origins = [Origin::Claimed, Origin::Proved, Origin::Expected];
    let calm = Load { handshakes: 0, connections: 0, client_room: 1 };
    let crowd = Load { handshakes: limits::HANDSHAKES_MAX, ..calm };
    let flood = Load { handshakes: 100 * limits::HANDSHAKES_MAX, ..calm };
    let full = Load { connections: 2 * limits::CLIENTS_MAX, client_room: 0, ..calm };
    assert_eq!(origins.map(|origin| admit(calm, origin)), [Admission::Accept; 3]);
    let crowded = [Admission::Retry, Admission::Accept, Admission::Accept];
    assert_eq!(origins.map(|origin| admit(crowd, origin)), crowded);
    let refused = [Admission::Retry, Admission::Refuse, Admission::Accept];
    assert_eq!(origins.map(|origin| admit(flood, origin)), refused);
    assert_eq!(origins.map(|origin| admit(full, origin)), refused);
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let (_node, addr, _) = node();
    let error = NodeEndpoint::bind(addr, Identity::generate().unwrap()).unwrap_err();
    assert!(matches!(error, BindError::InUse { addr: found } if found == addr), "{error}");
    let nowhere: SocketAddr = "192.0.2.1:9".parse().unwrap();
    let error = NodeEndpoint::bind(nowhere, Identity::generate().unwrap()).unwrap_err();
    assert!(matches!(error, BindError::NotHere { .. }), "{error}");
}

#[tokio::test]
async fn datagrams_pass_between_processes_only() {
    let (a, _, _) = node();
    let (b, b_addr, b_key) = node();
    let dialed = a.dial_peer(b_addr, b_key).await.unwrap();
    let taken = accept(&b).await;
    let beat = vec![7; limits::HEARTBEAT_BYTES_MAX];
    dialed.send_datagram(beat.clone()).unwrap();
    assert_eq!(timeout(SOON, taken.read_datagram()).await.unwrap().unwrap(), beat);
    taken.send_datagram(vec![8]).unwrap();
    assert_eq!(timeout(SOON, dialed.read_datagram()).await.unwrap().unwrap(), [8]);
    let (length, max) = (limits::HEARTBEAT_BYTES_MAX + 1, limits::HEARTBEAT_BYTES_MAX);
    assert_eq!(dialed.send_datagram(vec![0; length]), Err(DatagramError::TooLong { length, max }));
    let client = client();
    let _link = client.dial(b_addr, Some(b_key), None).await.unwrap();
    assert_eq!(accept(&b).await.send_datagram(vec![1]), Err(DatagramError::Unsupported));
}

/// The file of the key that the child below listens with.
const CHILD_KEY: &str = "GAGGLE_TEST_CHILD_KEY";
/// Before the address that it says.
const CHILD_MARK: &str = "listens on ";

/// Not a test: a process that listens until it is killed.
#[tokio::test]
#[ignore = "run by another test, as its child"]
async fn child_that_listens() {
    let Some(path) = std::env::var_os(CHILD_KEY) else { return };
    let node = NodeEndpoint::bind(here(), Identity::load(path.as_ref()).unwrap()).unwrap();
    println!("\n{CHILD_MARK}{}", node.local_addr().unwrap());
    let mut links = Vec::new();
    while let Some(link) = node.accept().await {
        // Only what comes back tells the other side that its handshake has arrived.
        match link.alpn() {
            Alpn::Peer => link.send_datagram(vec![0]).unwrap(),
            Alpn::Client => link.accept_bi().await.unwrap().0.write_all(&[0]).await.unwrap(),
        }
        links.push(link);
    }
}

#[tokio::test]
async fn a_restarted_process_resets_its_predecessors_connections() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("old.key");
    let identity = Identity::load_or_make(&path).unwrap();
    let key = identity.public_key();
    // Only a killed process vanishes without a word: one that ends says goodbye on each connection.
    let mut old = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "net::tests::child_that_listens", "--ignored", "--nocapture"])
        .env(CHILD_KEY, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(old.stdout.take().unwrap()).lines().map_while(Result::ok);
    let addr: SocketAddr =
        lines.into_iter().find_map(|line| line.strip_prefix(CHILD_MARK)?.parse().ok()).expect("the child listens");
    let (a, _, _) = node();
    let peer = a.dial_peer(addr, key).await.unwrap();
    let client = client();
    let person = client.dial(addr, Some(key), None).await.unwrap();
    peer.read_datagram().await.unwrap();
    let (mut ask, mut answer) = person.open_bi().await.unwrap();
    ask.write_all(&[0]).await.unwrap();
    answer.read_exact(&mut [0]).await.unwrap();
    old.kill().unwrap();
    old.wait().unwrap();
    let _new = NodeEndpoint::bind(addr, identity.clone()).unwrap();
    let started = Instant::now();
    peer.send_datagram(vec![1; 100]).unwrap();
    let (mut request, _answer) = person.open_bi().await.unwrap();
    request.write_all(&[1; 100]).await.unwrap();
    assert_eq!(end(&peer).await, LinkEnd::Reset);
    assert_eq!(end(&person).await, LinkEnd::Reset);
    assert!(started.elapsed() < limits::PEER_IDLE / 4, "{:?}", started.elapsed());
}

#[tokio::test]
async fn frames_cross_a_real_stream_in_order() {
    let (node, addr, key) = node();
    let link = client().dial(addr, Some(key), None).await.unwrap();
    let taken = accept(&node).await;
    let (send, receive) = link.open_bi().await.unwrap();
    let (sender, writer) = FrameWriter::new(send, 16);
    let writing = tokio::spawn(writer.run());
    let reading = tokio::spawn(async move {
        let (_send, receive) = taken.accept_bi().await.unwrap();
        let mut reader = FrameReader::new(receive);
        let mut got = Vec::new();
        while let Some(frame) = reader.read::<Vec<u8>>().await.unwrap() {
            got.push(frame);
        }
        // Its link ends the connection, so it must live until all is read.
        drop(taken);
        got
    });
    let sizes = [0, 1, 70_000, 3, 2 << 20, 5];
    for size in sizes {
        sender.send(&vec![9u8; size]).await.unwrap();
    }
    drop(sender);
    writing.await.unwrap().unwrap();
    let got = timeout(SOON, reading).await.unwrap().unwrap();
    assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), sizes);
    // The other side is gone: reading says so.
    let mut reader = FrameReader::new(receive);
    assert!(matches!(reader.read::<u8>().await, Ok(None) | Err(ReadError::Ended(_) | ReadError::Cut)));
}

#[tokio::test]
async fn a_frame_over_the_limit_is_refused_before_its_bytes_come() {
    let (mut there, here) = tokio::io::duplex(64);
    let mut reader = FrameReader::with_max(here, 100);
    there.write_all(&101u32.to_be_bytes()).await.unwrap();
    let error = reader.read::<Vec<u8>>().await.unwrap_err();
    assert!(matches!(error, ReadError::Frame(FrameError::TooLong { length: 101, max: 100 })), "{error}");

    let (sender, _writer) = FrameWriter::new(tokio::io::sink(), 4);
    let error = sender.try_send(&vec![0u8; limits::FRAME_BYTES_MAX]).unwrap_err();
    assert!(matches!(error, SendError::Frame(FrameError::TooLong { .. })), "{error}");
}

#[tokio::test]
async fn a_cancelled_read_loses_nothing() {
    let (mut there, here) = tokio::io::duplex(64);
    let mut reader = FrameReader::new(here);
    let mut bytes = Vec::new();
    for text in ["first", "second", "third"] {
        frame::encode(&text, 100, &mut bytes).unwrap();
    }
    let mut got = Vec::new();
    for byte in bytes {
        there.write_all(&[byte]).await.unwrap();
        tokio::select! {
            biased;
            text = reader.read::<String>() => got.push(text.unwrap().unwrap()),
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(got, ["first", "second", "third"]);
    there.write_all(&[0, 0]).await.unwrap();
    drop(there);
    assert!(matches!(reader.read::<String>().await, Err(ReadError::Cut)));
}

#[tokio::test]
async fn a_hello_that_does_not_come_is_silence() {
    let (_there, here) = tokio::io::duplex(64);
    let wait = Duration::from_millis(10);
    let error = FrameReader::new(here).read_within::<String>(wait).await.unwrap_err();
    assert!(matches!(error, ReadError::Silence(found) if found == wait), "{error}");
}

#[tokio::test]
async fn a_slow_reader_fills_the_queue_and_then_ends_the_writer() {
    let (_there, here) = tokio::io::duplex(8);
    let wait = Duration::from_millis(20);
    let (sender, writer) = FrameWriter::with_wait(here, 2, wait);
    sender.try_send(&1u8).unwrap();
    sender.try_send(&2u8).unwrap();
    assert_eq!(sender.try_send(&3u8), Err(SendError::Full));
    assert_eq!(writer.run().await, Err(WriteError::Silence(wait)));
    assert_eq!(sender.try_send(&3u8), Err(SendError::Ended));
    timeout(SOON, sender.ended()).await.unwrap();

    // Bytes are bounded too, whatever the number of frames.
    let (sender, writer) = FrameWriter::new(tokio::io::sink(), 1_000);
    let large = vec![0u8; limits::FRAME_BYTES_MAX - 8];
    let queued = std::iter::repeat_with(|| sender.try_send(&large)).take_while(Result::is_ok).count();
    assert_eq!(queued, 4);
    let running = tokio::spawn(writer.run());
    timeout(SOON, sender.send(&large)).await.unwrap().unwrap();
    drop(sender);
    assert_eq!(running.await.unwrap(), Ok(()));
}

#[test]
fn a_key_file_is_private_whole_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("private").join("n1.key");
    assert!(matches!(Identity::load(&path), Err(IdentityError::Missing { .. })));
    let starters: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || Identity::load_or_make(&path).unwrap().public_key())
        })
        .collect();
    let keys: Vec<_> = starters.into_iter().map(|starter| starter.join().unwrap()).collect();
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);

    let (one, two) = (Identity::load(&path).unwrap(), Identity::load(&path).unwrap());
    assert_eq!(one.derive("x"), two.derive("x"));
    assert_ne!(one.derive("x"), one.derive("y"));
    assert!(identity::is_signature(&two.public_key(), b"text", &one.sign(b"text")));
    assert!(!identity::is_signature(&two.public_key(), b"tex", &one.sign(b"text")));
    assert_eq!(tls::key_of(&one.make_certificate().unwrap()), Some(two.public_key()));

    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = Identity::load_or_make(&path).unwrap_err();
    assert!(matches!(error, IdentityError::Open { mode: 0o640, .. }), "{error}");
}

#[test]
fn garbage_in_a_key_file_is_an_error_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let rsa = "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n";
    for garbage in ["", "hello", rsa] {
        fs::write(&path, garbage).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = Identity::load_or_make(&path).unwrap_err();
        assert!(matches!(error, IdentityError::Content { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), garbage);
    }
    let error = Identity::load_or_make(folder.path()).unwrap_err();
    assert!(matches!(error, IdentityError::Content { .. }), "{error}");
}

#[test]
fn published_keys_are_found_and_never_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let certs = folder.path().join("certs");
    let mut book = certs::lookup(&certs).unwrap();
    let [n1, n2]: [ProcessId; 2] = ["n1", "n2"].map(|id| id.parse().unwrap());
    let [one, two] = [1, 2].map(|byte| PublicKey([byte; 32]));
    certs::publish(&certs, n1, &one).unwrap();
    certs::publish(&certs, n1, &one).unwrap();
    let error = certs::publish(&certs, n1, &two).unwrap_err();
    assert!(matches!(error, CertError::Conflict { published, own, .. } if published == one && own == two), "{error}");

    assert_eq!(book.find_key(n1), None, "read just now");
    std::thread::sleep(Duration::from_millis(210));
    assert_eq!((book.find_key(n1), book.find_process(&one)), (Some(one), Some(n1)));
    fs::write(certs.join("n2.pub"), format!("{two}")).unwrap();
    fs::write(certs.join("README.txt"), "not a key").unwrap();
    assert_eq!(CertBook::load(&certs).unwrap().iter().collect::<Vec<_>>(), [(n1, one), (n2, two)]);

    fs::write(certs.join("n2.pub"), "# only a remark\n").unwrap();
    assert!(matches!(CertBook::load(&certs), Err(CertError::Content { .. })));
    fs::write(certs.join("n2.pub"), format!("{one}\n")).unwrap();
    assert!(matches!(CertBook::load(&certs), Err(CertError::Shared { .. })));
}

#[test]
fn close_codes_are_used_once() {
    for code in CloseCode::ALL {
        assert_eq!(CloseCode::from_number(u64::from(code.number())), Some(*code));
    }
    assert_eq!(CloseCode::from_number(0), None);
}
