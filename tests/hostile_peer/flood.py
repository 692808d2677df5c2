"""One process that sends packets as fast as it can, and counts what comes back."""

import collections
import os
import sys
import time

from quic import HERE, initials, random_packet, udp


def packets(kind, port):
    if kind == "random":
        return [random_packet() for _ in range(5000)]
    if kind == "versions":
        header = lambda: b"\xc0" + os.urandom(4) + b"\x08" + os.urandom(8) + b"\x08" + os.urandom(8)
        return [header() + os.urandom(1200) for _ in range(2000)] + [b"\x80" + bytes(4) + os.urandom(40) for _ in range(500)]
    made = initials(2000 if kind == "initials" else 500, port)
    if kind == "initials":
        return made
    cut = [packet[:max(1, int.from_bytes(os.urandom(2), "big") % len(packet))] for packet in made]
    changed = []
    for packet in made:
        at = int.from_bytes(os.urandom(2), "big") % len(packet)
        changed.append(packet[:at] + bytes([packet[at] ^ 0x55]) + packet[at + 1:])
    return cut + changed


def what(answer):
    if not answer[0] & 0x80:
        return "short packets"
    if answer[1:5] == bytes(4):
        return "version negotiations"
    return ("Initials", "0-RTT", "Handshakes", "Retries")[answer[0] >> 4 & 3]


def main(kind, port, seconds):
    made, port = packets(kind, int(port)), int(port)
    sockets = [udp() for _ in range(500 if kind == "initials" else 16)]
    for sock in sockets:
        sock.connect((HERE, port))
    sent, answers, limit = 0, collections.Counter(), time.monotonic() + float(seconds)
    began = time.monotonic()
    while time.monotonic() < limit:
        for _ in range(len(sockets)):
            sock = sockets[sent % len(sockets)]
            try:
                sock.send(made[sent % len(made)])
            except OSError:
                pass
            sent += 1
            if kind == "initials" or sent % 8 == 0:
                try:
                    while True:
                        answers[what(sock.recv(2048))] += 1
                except OSError:
                    pass
    rate = sent / (time.monotonic() - began)
    back = ", ".join(f"{count:,} {name}" for name, count in answers.most_common()) or "nothing"
    print(f"{sent:,} packets ({rate:,.0f} a second); back came {back}")


if __name__ == "__main__":
    main(*sys.argv[1:])
