//! A client that pairs over more than one connection, within its pair ticket's time.
//!
//! A machine of its own and no stage of [`Endpoint`](super::Endpoint): there is no session yet, no window, no farewell and no
//! probing, and its caller shows other errors. Both share when to dial again, and what a close code means.

use std::time::Duration;

use mykube_protocol::close::{Stage, verdict};
use rand_core::CryptoRng;

use super::{
    backoff::Backoff,
    types::{DialFailure, Lost},
};
use crate::{
    pairing::{ClientFailure, ClientPairing},
    time::Time,
};

/// What follows a dial that failed in the middle of pairing.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Another dial, after this delay.
    Dial(Duration),
    /// Nothing: the dial's own failure is why.
    Failed,
    /// Nothing: it is too late.
    Late(ClientFailure),
}

/// When a client that pairs dials again. One for each lost connection.
#[derive(Debug)]
pub struct PairingReconnect(Backoff);

impl PairingReconnect {
    /// A connection is gone in the middle of pairing. Nothing where that ends it, else the delay before the next dial.
    pub fn new(
        now: Time,
        lost: &Lost,
        pairing: &mut ClientPairing,
        rng: &mut impl CryptoRng,
    ) -> Option<(Self, Duration)> {
        if verdict(lost.code(), Stage::ClientPairing).is_final() || !pairing.handle_lost(now) {
            return None;
        }
        let mut backoff = Backoff::new(now);
        let delay = backoff.next(now, rng);
        Some((Self(backoff), delay))
    }

    /// A dial failed.
    pub fn handle_dial_failed(
        &mut self,
        now: Time,
        failure: &DialFailure,
        pairing: &mut ClientPairing,
        rng: &mut impl CryptoRng,
    ) -> Next {
        if matches!(failure, DialFailure::TicketRefused(_)) {
            return Next::Failed;
        }
        match pairing.handle_timeout(now) {
            Ok(()) => Next::Dial(self.0.next(now, rng)),
            // An answer from another host in the relay's place says more to the person than that the time is over.
            Err(_) if matches!(failure, DialFailure::Answered(_)) => Next::Failed,
            Err(late) => Next::Late(late),
        }
    }
}
