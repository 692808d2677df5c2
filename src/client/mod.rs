//! The client library: a session that keeps requests until they are answered, and a QUIC shell around it.
