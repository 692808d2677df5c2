//! The QUIC shell.
