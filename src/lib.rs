//! Gaggle: a highly available microblog, a mesh of QUIC processes with no broker and no coordinator.
//!
//! The rooms, and who may import whom: plain words <- [`service`] <- [`wire`] <- [`core`]; [`store`] and [`net`] know
//! neither core nor each other; only [`runtime`] joins them; [`client`] and [`cli`] stand on top.

pub mod cli;
pub mod client;
pub mod core;
pub mod error;
pub mod id;
pub mod limits;
pub mod net;
pub mod runtime;
pub mod service;
pub mod store;
pub mod time;
pub mod topology;
pub mod wire;
