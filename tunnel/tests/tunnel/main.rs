//! The channel between two real endpoints on a virtual clock, with a hostile relay between them.

#![forbid(unsafe_code)]

mod adversary;
mod echo;
mod pair;
mod second;
