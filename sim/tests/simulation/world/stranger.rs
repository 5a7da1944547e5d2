//! Another client with the nameplate, and what all know of each other.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use mykube_protocol::{Attempt, Nameplate, PairingCode};
use mykube_relay_core::address::AddressKey;
use mykube_tunnel::{Time, pairing::ClientPairing};

/// The n-th address.
pub(super) fn address(n: u32) -> AddressKey {
    IpAddr::V4(Ipv4Addr::from_bits(n)).into()
}

/// The code, or one that somebody has guessed.
pub(super) fn code(nameplate: &Nameplate, knows: bool) -> PairingCode {
    format!("{nameplate} {}", if knows { "20417" } else { "20418" }).parse().expect("it is a code")
}

/// How it ended for another client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nobody waits under the nameplate any more.
    NotFound,
    /// The relay closed its connection, with this code.
    Closed(u16),
    /// It failed by itself: it was not answered, lost its connection, or the relay did not answer.
    Failed,
    /// It has paired.
    Paired,
}

/// Another client with the nameplate. It tries once.
pub(super) struct Stranger {
    pub(super) address: AddressKey,
    pub(super) delay: Duration,
    pub(super) fate: Option<Fate>,
    /// It knows the secret too.
    pub(super) knows: bool,
    pub(super) attempt: Option<Attempt>,
    pub(super) pairing: Option<Box<ClientPairing>>,
    pub(super) socket: Option<u32>,
    /// The relay knew that the code is spent when it came.
    pub(super) late: bool,
}

impl Stranger {
    pub(super) fn due(&self) -> Option<Time> {
        self.pairing.as_ref().filter(|_| self.fate.is_none()).and_then(|pairing| pairing.poll_timeout())
    }
}
