"""The attacks: each sends something, and tells what was sent and what the server did."""

import asyncio
import collections
import datetime
import os
import pathlib
import subprocess
import sys
import time

from aioquic import tls
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from quic import *  # noqa: F403

ATTACKS = {}


def attack(function):
    ATTACKS[function.__name__] = function
    return function


class Scene:
    """Who is attacked, and with which keys."""

    def __init__(self, cluster, work):
        self.port = cluster.ports[cluster.target]
        self.master = cluster.ports[cluster.master]
        self.stranger, self.mallory = Key(), Key()
        pem = next(pathlib.Path(work, "home").rglob("ann*/*key*"), None) or next(pathlib.Path(work, "home").rglob("*ann*key*"))
        self.ann = Key(load_pem_private_key(pem.read_bytes(), None))

    async def logged_in(self):
        """A connection of a registered person."""
        conn = await client(self.port, self.mallory)
        before = conn.received[0]
        conn.send(0, request(1, write("login-1", register("mallory"))))
        await conn.answered(beyond=before)
        return conn


def ends(found):
    return "; ".join(f"{count} x {end}" if count > 1 else end for end, count in collections.Counter(found).items())


async def all_end(conns, wait):
    found = await asyncio.gather(*(conn.ended(wait) for conn in conns))
    for conn in conns:
        conn.abandon()
    return ends(found)


async def dial_many(count, port, config, at_once=20):
    gate = asyncio.Semaphore(at_once)

    async def one():
        async with gate:
            return await dial(port, config())
    return await asyncio.gather(*(one() for _ in range(count)))


# Who are you?

@attack
async def wrong_alpn(scene):
    conns = [await dial(scene.port, configure(alpn)) for alpn in ("h3", "gaggle-peer/999", "gaggle-client/" + "9" * 200, None)]
    return "ALPN h3, gaggle-peer/999, 214 bytes, none", await all_end(conns, 3)


@attack
async def peer_without_certificate(scene):
    return "the processes' ALPN without a certificate", await all_end([await dial(scene.port, configure(PEER))], 3)


@attack
async def peer_with_other_keys(scene):
    master = await dial(scene.master, configure())
    stolen = Key(scene.stranger.private, master._quic.tls._peer_certificate)
    master.abandon()
    conns = [await dial(scene.port, configure(PEER, key)) for key in (scene.stranger, scene.ann, stolen)]
    for conn in conns[:2]:
        conn.send(conn.stream(uni=True), b"\x00" + frame(b"\x01\x01\x05lenss\x01\x01\x01"))
    return "the processes' ALPN and Hello with a stranger's key, ann's key, M1's certificate and another key", await all_end(conns, 3)


@attack
async def client_with_stolen_certificate(scene):
    stolen = Key(scene.stranger.private, scene.ann.certificate)
    return "a client with ann's certificate and another key", await all_end([await dial(scene.port, configure(CLIENT, stolen))], 3)


@attack
async def resumption_and_early_data(scene):
    now = datetime.datetime.now(datetime.timezone.utc)
    ticket = tls.SessionTicket(
        age_add=1, cipher_suite=tls.CipherSuite.AES_128_GCM_SHA256, not_valid_before=now - datetime.timedelta(hours=1),
        not_valid_after=now + datetime.timedelta(hours=1), resumption_secret=os.urandom(32), server_name="gaggle.invalid",
        ticket=os.urandom(64), max_early_data_size=0xFFFFFFFF, other_extensions=[])
    loop = asyncio.get_running_loop()
    config = configure(session_ticket=ticket)
    _, conn = await loop.create_datagram_endpoint(lambda: Conn(QuicConnection(configuration=config)), sock=udp())
    conn.connect((HERE, scene.port), transmit=False)
    early = conn._quic
    early._remote_max_data = early._remote_max_stream_data_bidi_local = early._remote_max_stream_data_bidi_remote = 1 << 20
    early._remote_max_streams_bidi = 10
    conn.hello()
    greeted = await conn.answered()
    did = f"early data {'accepted' if early.tls.early_data_accepted else 'not accepted'}"
    did += ", the handshake went on in full and Hello was answered" if greeted else f", {await conn.ended(1)}"
    conn.abandon()
    return "a forged session ticket, Hello as 0-RTT", did


# Frames.

@attack
async def garbage_first_frames(scene):
    conns = await dial_many(40, scene.port, configure)
    for index, conn in enumerate(conns):
        garbage = os.urandom(1 + index * 50)
        conn.send(0, garbage if index % 2 else frame(garbage))
    return "40 connections, first 1 to 2,000 random bytes, every other with a right length before them", await all_end(conns, 4)


@attack
async def lengths(scene):
    conns = [await client(scene.port) for _ in range(5)]
    for conn, length in zip(conns, (0, FRAME_BYTES_MAX, FRAME_BYTES_MAX + 1, 0xFFFFFFFF)):
        conn.send(0, length.to_bytes(4, "big"))
    conns[4].send(0, frame(bytes(FRAME_BYTES_MAX)))
    return "after Hello: lengths 0, 4 MiB, 4 MiB + 1, 4 GiB - 1 and then silence; 4 MiB of zeros", await all_end(conns, 5)


@attack
async def slow_hello(scene):
    conns = await dial_many(30, scene.port, configure)
    for byte in HELLO:
        for conn in conns:
            conn.send(0, bytes([byte]))
        await asyncio.sleep(0.4)
    return "30 times a valid Hello, a byte each 400 ms", await all_end(conns, 3)


@attack
async def silence(scene):
    nothing, empty, half = [await dial(scene.port, configure()) for _ in range(3)]
    empty.send(0)
    half.send(0, HELLO[:3])
    return "no stream; a stream with nothing on it; half a prefix", await all_end([nothing, empty, half], 5)


@attack
async def slow_requests(scene):
    conn = await client(scene.port)
    for byte in request(7, ASSIGN):
        conn.send(0, bytes([byte]))
        await asyncio.sleep(0.2)
    did = "answered" if await conn.answered(beyond=40) else await conn.ended(1)
    conn.abandon()
    return "a request, a byte each 200 ms", did


# Streams.

@attack
async def streams(scene):
    conn = await scene.logged_in()
    for index in range(1, 100):
        conn.send(4 * index, follow()[:6])
    at_limit = await conn.ended(1)
    conn._quic._remote_max_streams_bidi = 1 << 20
    conn.send(4 * 1000, b"x")
    return "100 streams with half a Follow each, then one over the limit", f"at 100: {at_limit}; over: {await all_end([conn], 3)}"


@attack
async def feeds(scene):
    conn = await scene.logged_in()
    for index in range(1, 100):
        conn.send(4 * index, follow())
    await until(lambda: sum(1 for stream in range(4, 400, 4) if conn.received[stream]) >= 83, 3)
    told = sum(1 for stream in range(4, 400, 4) if b"too many live feeds" in conn.head[stream])
    refused = sum(1 for stream in range(4, 400, 4) if conn.received[stream] and b"too many live feeds" not in conn.head[stream])
    conn.abandon()
    return "99 live feeds on one connection", f"{told} refused as too many, {refused} otherwise answered"


@attack
async def unidirectional_streams(scene):
    conns = [await client(scene.port) for _ in range(2)]
    for conn in conns:
        for _ in range(8):
            conn.send(conn.stream(uni=True), bytes(1 << 20))
    await asyncio.sleep(1)
    conns[0].send(0, request(1, ASSIGN))
    answered = await conns[0].answered(beyond=60)
    conns[1]._quic._remote_max_streams_uni = 1 << 20
    conns[1].send(2 + 4 * 1000, b"x")
    did = f"{'still answers' if answered else 'no answer'}; over: {await all_end(conns[1:], 3)}"
    conns[0].abandon()
    return "8 unidirectional streams of 1 MiB each, then one over the limit", did


@attack
async def window_hogs(scene):
    conns = [await client(scene.port) for _ in range(40)]
    for conn in conns:
        for _ in range(8):
            conn.send(conn.stream(uni=True), bytes(1 << 20))
    await asyncio.sleep(6)
    unread = sum(stream.sender.highest_offset for conn in conns for stream in conn._quic._streams.values() if hasattr(stream.sender, "highest_offset"))
    did = await all_end(conns, 0.1)
    return "40 connections, 8 MiB each on streams that nobody reads", f"{did}"


@attack
async def cut_streams(scene):
    conn = await scene.logged_in()
    for index in range(1, 1000):
        stream = conn.stream()
        if stream >= 4 * conn._quic._remote_max_streams_bidi:
            if not await until(lambda: stream < 4 * conn._quic._remote_max_streams_bidi or conn.end, 2) or conn.end:
                break
        conn.send(stream, follow()[:index % 8 + 1])
        if index % 2:
            conn._quic.reset_stream(stream, index)
        if index % 3:
            conn._quic.stop_stream(stream, index)
        conn.transmit()
    sent = index
    conn.send(0, request(1, WHO_AM_I)[:5])
    conn._quic.reset_stream(0, 9)
    conn._quic.stop_stream(0, 9)
    conn.transmit()
    return f"{sent} feeds reset and stopped in the middle of a frame, then the request stream", await all_end([conn], 3)


# Packets within a connection.

@attack
async def datagrams(scene):
    conn = await scene.logged_in()
    beat = b"\x01\x02\x01\x01\x02\x01\x00\x00"
    for _ in range(2000):
        conn._quic.send_datagram_frame(beat)
    conn.transmit()
    for size in (0, 1000, 1100):
        for _ in range(300):
            conn._quic.send_datagram_frame(os.urandom(size))
        conn.transmit()
    conn.send(0, request(5, WHO_AM_I))
    did = "still answers" if await conn.answered(beyond=90) else "no answer"
    return "a client's datagrams: 2,000 like heartbeats, 300 each of 0, 1,000 and 1,100 bytes", f"{did}; {await all_end([conn], 1)}"


@attack
async def key_updates(scene):
    conn = await client(scene.port)
    for _ in range(200):
        conn.request_key_update()
        await asyncio.wait_for(conn.ping(), 3)
    conn.request_key_update()
    conn._quic._cryptos[tls.Epoch.ONE_RTT]._update_key("hostile")
    conn.raw(b"\x01")
    return "200 key updates, each after the last was answered; then two at once", f"200 done; {await all_end([conn], 2)}"


@attack
async def migration(scene):
    conn = await scene.logged_in()
    moved = 0
    for _ in range(100):
        await conn.move()
        try:
            await asyncio.wait_for(conn.ping(), 2)
        except (ConnectionError, asyncio.TimeoutError):
            break
        moved += 1
    before = conn.received[0]
    conn.send(0, request(5, WHO_AM_I))
    did = "still answers" if await conn.answered(beyond=before) else await conn.ended(1)
    conn.abandon()
    return "100 moves to another source port", f"{moved} followed; {did}"


async def frames_flood(scene, name, packets):
    conn = await client(scene.port)
    sent = 0
    for batch in packets:
        if conn.end:
            break
        conn.raw(*batch)
        sent += len(batch)
        await asyncio.sleep(0)
    return f"{name} ({sent:,} packets)", await all_end([conn], 1)


@attack
async def path_challenges(scene):
    packets = ([b"\x1a" + os.urandom(8)] * 20 for _ in range(500))
    return await frames_flood(scene, "PATH_CHALLENGE in each packet", packets)


@attack
async def connection_ids(scene):
    def new(seq, retire):
        var = lambda n: (n | 0x80000000).to_bytes(4, "big")
        return b"\x18" + var(seq) + var(retire) + b"\x08" + os.urandom(8) + os.urandom(16)
    polite = await frames_flood(scene, "NEW_CONNECTION_ID, each retiring those before",
                                ([new(index, index)] for index in range(10, 4000)))
    rude = await frames_flood(scene, "NEW_CONNECTION_ID, retiring none", ([new(index, 0)] for index in range(10, 4000)))
    return f"{polite[0]}; {rude[0]}", f"{polite[1]}; {rude[1]}"


@attack
async def odd_frames(scene):
    odd = {"unknown frame": b"\x7f\xff", "ACK of what was not sent": b"\x02\x80\x0f\xff\xff\x00\x00\x00",
           "HANDSHAKE_DONE": b"\x1e", "CRYPTO far ahead": b"\x06\xc0\x00\x00\xff\xff\xff\xff\xff\x04abcd",
           "STREAM at offset 2^61": b"\x0e\x00\xe0\x00\x00\x00\x00\x00\x00\x00abc", "RESET of a stream never opened": b"\x04\x43\xe8\x00\x00",
           "MAX_STREAMS 2^62-1": b"\x12\xff\xff\xff\xff\xff\xff\xff\xff", "a frame cut off": b"\x0e\x00"}
    told = []
    for name, payload in odd.items():
        conn = await client(scene.port)
        conn.raw(payload)
        told.append(f"{name}: {await all_end([conn], 1)}")
    return "frames that no client may send, in packets that decrypt", "; ".join(told)


# Requests.

@attack
async def long_tokens(scene):
    conn = await scene.logged_in()
    told = []
    for count in (100, 1_000, 10_000, 500_000):
        seen = token(many_origins(count, ("b", 1, 1)))
        before = conn.received[0]
        conn.send(0, request(count, WHO_AM_I, seen))
        await conn.answered(beyond=before, wait=6)
        if conn.end:
            told.append(f"{count:,} origins ({len(seen):,} bytes): {await conn.ended(1)}")
            conn.abandon()
            conn = await scene.logged_in()
        else:
            told.append(f"{count:,} origins ({len(seen):,} bytes): {conn.received[0] - before:,} bytes back")
    conn.abandon()
    return "tokens of seqs that nobody has", "; ".join(told)


@attack
async def many_long_tokens(scene):
    conns = [await scene.logged_in() for _ in range(4)]
    seen = token(many_origins(400_000, ("b", 1, 1)))
    for conn in conns:
        for index in range(5):
            conn.send(0, request(index, WHO_AM_I, seen))
    await asyncio.sleep(6)
    return f"4 connections, 5 requests each whose tokens name 400,000 origins ({len(seen):,} bytes each)", await all_end(conns, 1)


@attack
async def waiting_tokens(scene):
    conns = [await scene.logged_in() for _ in range(16)]
    seen = token(many_origins(900, ("b", 1, 1)))
    payload = b"".join(request(index, WHO_AM_I, seen) for index in range(1000))
    for conn in conns:
        conn.send(0, payload)
    await asyncio.sleep(5)
    return "16 connections, 1,000 requests each that wait for a token of 900 origins", await all_end(conns, 1)


@attack
async def long_feeds(scene):
    conn = await scene.logged_in()
    seen = many_origins(300_000, ("b", 1, 1))
    for index in range(1, 17):
        conn.send(4 * index, follow(token(seen), vector(many_origins(100))))
    await asyncio.sleep(5)
    answered = sum(1 for index in range(1, 17) if conn.received[4 * index])
    return "16 feeds whose tokens name 300,000 origins each", f"{answered} answered; {await all_end([conn], 1)}"


async def pipelined(scene, body, count, reads, port=None, at_once=1):
    conns = []
    for _ in range(at_once):
        conn = await scene.logged_in() if port is None else await client(port)
        if not reads:
            conn._quic._write_connection_limits = conn._quic._write_stream_limits = lambda *_, **__: None
        conns.append(conn)
    for conn in conns:
        conn.send(0, b"".join(request(index, body) for index in range(count)))
    limit = time.monotonic() + 8
    while time.monotonic() < limit and not all(conn.end for conn in conns):
        await asyncio.sleep(0.1)
    answers = sum(conn.received[0] for conn in conns)
    return f"{answers:,} bytes of answers came; {await all_end(conns, 0.1)}"


@attack
async def unread_small_answers(scene):
    return "100,000 WHO AM I at once, no answer read", await pipelined(scene, WHO_AM_I, 100_000, False)


@attack
async def unread_large_answers(scene):
    await fill(scene)
    return "100,000 timelines of 500 posts at once, no answer read", await pipelined(scene, timeline(), 100_000, False)


@attack
async def unread_large_answers_of_many(scene):
    await fill(scene)
    return "30 connections, 5,000 timelines of 500 posts each, no answer read", await pipelined(scene, timeline(), 5_000, False, at_once=30)


@attack
async def read_large_answers(scene):
    await fill(scene)
    return "4 connections, 25,000 timelines of 500 posts each, answers read", await pipelined(scene, timeline(), 25_000, True, at_once=4)


@attack
async def assignments(scene):
    return "100,000 assignments asked of M1 by one connection", await pipelined(scene, ASSIGN, 100_000, True, port=scene.master)


@attack
async def statuses(scene):
    return "100,000 statuses asked of the serving process by one connection", await pipelined(scene, STATUS, 100_000, True, port=scene.port)


async def fill(scene):
    """500 posts of mallory's, once."""
    conn = await scene.logged_in()
    before = conn.received[0]
    conn.send(0, b"".join(request(9 + index, write(f"fill-{index}", post("\U0001f9a2" * 40))) for index in range(500)))
    await until(lambda: conn.received[0] > before + 500 * 60, 5)
    conn.abandon()


# Packets without a connection.

async def flooders(kind, port, seconds, count=1, more=()):
    """Separate processes: Python sends more that way, and the one that listens is not in their way."""
    command = [sys.executable, str(pathlib.Path(__file__).with_name("flood.py")), kind, str(port), str(seconds), *more]
    children = [await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE) for _ in range(count)]
    told = [(await child.communicate())[0].decode().strip() for child in children]
    return "; ".join(told)


@attack
async def version_negotiation(scene):
    return "first packets of unknown versions, 2 s", await flooders("versions", scene.port, 2)


@attack
async def random_packets(scene):
    return "random UDP packets of 1 to 1,400 bytes, 10 s", await flooders("random", scene.port, 10)


@attack
async def truncated_initials(scene):
    return "valid Initials cut off or with a byte changed, 10 s", await flooders("truncated", scene.port, 10)


@attack
async def forged_handshakes(scene):
    return "Initials of 2,000 clients from 500 source ports, again and again, no answer heeded, 10 s", await flooders("initials", scene.port, 10)


@attack
async def complete_handshakes(scene):
    limit, done, failed = time.monotonic() + 10, 0, collections.Counter()

    async def dialer():
        nonlocal done
        while time.monotonic() < limit:
            conn = await dial(scene.port, configure())
            if conn.end is None and conn._connected:
                done += 1
            else:
                failed[await conn.ended(0.1)] += 1
            conn.close()
            conn.abandon()
    await asyncio.gather(*(dialer() for _ in range(50)))
    return "50 dialers, whole handshakes one after another, 10 s", f"{done} handshakes{'; ' + ends(failed.elements()) if failed else ''}"


@attack
async def idle_connections(scene):
    conns = await dial_many(500, scene.port, configure)
    for conn in conns:
        conn.hello()
    await asyncio.sleep(2)
    greeted = sum(1 for conn in conns if conn.received[0])
    for conn in conns:
        conn.abandon()
    return "500 connections that say Hello and nothing more", f"{greeted} greeted"
