//! Signing in and out at a relay, and what of this machine is there: real programs, with a real relay where it can be had, and
//! with one that misbehaves where a real one would not.

mod browser;
mod clicks;
mod credentials;
mod device;
mod here;
mod pages;
mod refresh;
pub(crate) mod support;
