//! QUIC endpoints, identity and pinned keys, framing: it moves bytes and names the key that sent them.
