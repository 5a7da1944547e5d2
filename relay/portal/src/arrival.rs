//! How a request came.

use std::net::IpAddr;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Whose it is.
    pub address: IpAddr,
    /// Nobody between the two could read it.
    pub is_private: bool,
}
