//! The channel between two real endpoints on a virtual clock, with a hostile relay between them.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod adversary;
mod congestion;
mod corpus;
mod echo;
mod fair;
mod flow;
mod hellos;
mod hostile;
mod let_go;
mod pair;
mod records;
mod resume;
mod second;
mod streams;
mod vectors;
