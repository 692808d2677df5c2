"""What the attacks are made of: a QUIC client that can be told to break the rules, and Gaggle's messages in postcard."""

import asyncio
import collections
import datetime
import os
import socket
import ssl
import time

from aioquic import tls
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import NameOID

CLIENT = "gaggle-client/1"
PEER = "gaggle-peer/1"
FRAME_BYTES_MAX = 4 << 20
HERE = "127.0.0.1"

# Close codes of src/net/close.rs, and the transport errors that attacks meet.
CODES = {1: "goodbye", 2: "another cluster", 3: "wrong identity", 4: "version", 5: "bad frame", 6: "too slow", 7: "busy"}
TRANSPORT = {2: "CONNECTION_REFUSED", 3: "FLOW_CONTROL_ERROR", 4: "STREAM_LIMIT_ERROR", 5: "STREAM_STATE_ERROR",
             7: "FRAME_ENCODING_ERROR", 9: "CONNECTION_ID_LIMIT_ERROR", 10: "PROTOCOL_VIOLATION", 14: "KEY_UPDATE_ERROR"}


# Postcard (src/wire): little-endian base-128 numbers, texts and lists with their length before them.

def number(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def text(value):
    encoded = value.encode()
    return number(len(encoded)) + encoded


def vector(origins):
    return number(len(origins)) + b"".join(text(h) + number(i) + number(s) for h, i, s in origins)


def token(origins=(), hlc=0):
    return vector(origins) + number(hlc)


def frame(body):
    return len(body).to_bytes(4, "big") + body


HELLO = frame(b"\x00\x01\x01")
NO_TOKEN = token()
ASSIGN, STATUS, WHO_AM_I = b"\x00", b"\x01", b"\x04"


def write(request, op):
    return b"\x03" + text(request) + op + b"\x00"


def register(name):
    return b"\x00" + text(name)


def post(line):
    return b"\x03" + text(line)


def timeline(limit=500):
    return b"\x06\x00" + number(limit) + b"\x00\x00"


def request(count, body, seen=NO_TOKEN):
    return frame(b"\x01" + number(count) + seen + body)


def follow(seen=NO_TOKEN, since=b"\x00"):
    return frame(b"\x02" + seen + since)


def many_origins(count, last=None):
    """A vector whose origins nobody has; with seq 0 every host holds them, save the last."""
    origins = [("a", incarnation, 0) for incarnation in range(count)]
    return origins + ([last] if last else [])


# Identities.

class Key:
    """An Ed25519 key and a certificate for it, or somebody else's certificate."""

    def __init__(self, private=None, certificate=None):
        self.private = private or ed25519.Ed25519PrivateKey.generate()
        self.certificate = certificate or self._certify()

    def _certify(self):
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gaggle.invalid")])
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self.private.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        return builder.not_valid_after(now + datetime.timedelta(days=1)).sign(self.private, None)


def configure(alpn=CLIENT, key=None, **more):
    config = QuicConfiguration(is_client=True, alpn_protocols=[alpn] if alpn else None, verify_mode=ssl.CERT_NONE,
                               server_name="gaggle.invalid", max_datagram_frame_size=65535, **more)
    if key:
        config.private_key, config.certificate = key.private, key.certificate
    return config


class Conn(QuicConnectionProtocol):
    """A connection that notes what the server does, and sends what a good client never would."""

    def __init__(self, quic, **_):
        super().__init__(quic)
        self.received = collections.Counter()
        self.head = collections.defaultdict(bytes)
        self.resets, self.end, self.deaf = 0, None, False
        self.sockets = []

    def quic_event_received(self, event):
        if isinstance(event, events.StreamDataReceived):
            self.received[event.stream_id] += len(event.data)
            if len(self.head[event.stream_id]) < 65536:
                self.head[event.stream_id] += event.data
        elif isinstance(event, (events.StreamReset, events.StopSendingReceived)):
            self.resets += 1
        elif isinstance(event, events.ConnectionTerminated):
            self.end = event

    def datagram_received(self, data, addr):
        if not self.deaf:
            super().datagram_received(data, addr)

    def send(self, stream, data=b"", fin=False):
        self._quic.send_stream_data(stream, data, fin)
        self.transmit()

    def stream(self, uni=False):
        return self._quic.get_next_available_stream_id(is_unidirectional=uni)

    def hello(self):
        """Opens the request stream."""
        self.send(0, HELLO)
        return 0

    def raw(self, *payloads):
        """Sends each payload as a packet of its own, encrypted, and told to nobody: aioquic does not repeat it."""
        quic = self._quic
        builder = QuicPacketBuilder(host_cid=quic.host_cid, is_client=True, max_datagram_size=quic._max_datagram_size,
                                    packet_number=quic._packet_number, peer_cid=quic._peer_cid.cid, version=quic._version)
        for payload in payloads:
            builder.start_packet(QuicPacketType.ONE_RTT, quic._cryptos[tls.Epoch.ONE_RTT])
            builder.start_frame(payload[0], len(payload)).push_bytes(payload[1:])
        datagrams, _ = builder.flush()
        quic._packet_number = builder.packet_number
        for datagram in datagrams:
            self._transport.sendto(datagram, quic.get_peer_address())

    async def move(self):
        """Goes on from another port."""
        sock = udp()
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: Relay(self), sock=sock)
        self.sockets.append(sock)

    async def answered(self, stream=0, beyond=0, wait=3.0):
        """Whether more than so many bytes come on a stream."""
        return await until(lambda: self.received[stream] > beyond or self.end, wait) and self.received[stream] > beyond

    async def ended(self, wait):
        """How long the server let it live, and how it ended it."""
        began = time.monotonic()
        if not await until(lambda: self.end is not None, wait):
            return f"open after {wait:.0f} s"
        code, transport = self.end.error_code, self.end.frame_type is not None
        if transport and 0x100 <= code < 0x200:
            how = f"TLS alert {code - 0x100}"
        elif transport:
            how = TRANSPORT.get(code, f"transport error {code}")
            if self.end.reason_phrase == "Idle timeout":
                how = "silence"
        else:
            how = CODES.get(code, f"code {code}")
        reason = f" ({self.end.reason_phrase})" if self.end.reason_phrase and how != "silence" else ""
        return f"closed after {time.monotonic() - began:.1f} s: {how}{reason}"

    def abandon(self):
        """Forgets the connection without a word."""
        if self._timer:
            self._timer.cancel()
        self._transport.close()


class Relay(asyncio.DatagramProtocol):
    """A second socket of a connection."""

    def __init__(self, conn):
        self.conn = conn

    def connection_made(self, transport):
        self.conn._transport.close()
        self.conn._transport = transport

    def datagram_received(self, data, addr):
        self.conn.datagram_received(data, addr)


def udp():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((HERE, 0))
    sock.setblocking(False)
    return sock


async def until(condition, wait):
    limit = time.monotonic() + wait
    while not condition():
        if time.monotonic() > limit:
            return False
        await asyncio.sleep(0.005)
    return True


async def dial(port, config, wait=5.0):
    """A connection, whether its handshake succeeds or not (see `end`)."""
    loop = asyncio.get_running_loop()
    _, conn = await loop.create_datagram_endpoint(lambda: Conn(QuicConnection(configuration=config)), sock=udp())
    conn.connect((HERE, port))
    try:
        await asyncio.wait_for(conn.wait_connected(), wait)
    except (ConnectionError, asyncio.TimeoutError):
        pass
    return conn


async def client(port, key=None):
    """A client that has said hello and heard it."""
    conn = await dial(port, configure(key=key))
    conn.hello()
    await conn.answered()
    return conn


def initials(count, port, alpn=CLIENT):
    """First packets of so many clients, to be sent from anywhere."""
    made = []
    for _ in range(count):
        quic = QuicConnection(configuration=configure(alpn))
        quic.connect((HERE, port), now=time.monotonic())
        made.append(quic.datagrams_to_send(now=time.monotonic())[0][0])
    return made


def random_packet():
    size = int.from_bytes(os.urandom(2), "big") % 1400 + 1
    return os.urandom(size)
