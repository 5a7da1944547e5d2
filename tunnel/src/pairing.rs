//! Pairing: the relay's text frames and the handshake's binary ones, from the code on the screen to [`Established`].
//!
//! The ends count, never the relay: a code serves one pairing, is burned after three wrong secrets or twenty silent
//! hellos, and expires; a client shows one tag per typed code. Of the relay's words only `peer:here` and `peer:gone`
//! matter here, and all they can do is to start a handshake or to drop an unfinished one.

use std::{collections::VecDeque, time::Duration};

use bytes::{Bytes, BytesMut};
use mykube_protocol::{
    Attempt, FromAgent, FromRelay, PairingCode, SessionId, frame,
    limits::{HANDSHAKE_TIMEOUT, PAIR_TICKET_TTL, SILENT_HELLOS_PER_CODE, WRONG_SECRETS_PER_CODE},
    relay_text::Peer,
};
use rand_core::CryptoRng;

use crate::{
    handshake::{
        Agent, AgentAwaitsHello, AgentAwaitsTag, Client, ClientAwaitsAttach, ClientAwaitsTag, Established,
        HandshakeError,
    },
    time::Time,
};

/// What an end sends while pairing, in its order.
#[derive(Debug)]
pub enum Transmit {
    /// A text frame for the relay.
    Relay(FromAgent),
    /// A binary frame for the peer.
    Peer(Bytes),
}

/// Why a code is spent without a pairing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Spent {
    /// Three wrong secrets.
    #[error(
        "{WRONG_SECRETS_PER_CODE} wrong codes were tried: the code is burned; show a new one only if you know who typed it"
    )]
    WrongSecrets,
    /// Twenty hellos without a tag.
    #[error("{SILENT_HELLOS_PER_CODE} connections said hello and nothing more: the code is burned")]
    SilentHellos,
    /// No client typed the code in time.
    #[error("the code expired: nobody typed it in time")]
    Expired,
}

/// What the agent's operator hears.
#[derive(Debug)]
pub enum AgentEvent {
    /// A client is trying.
    Attempt,
    /// The client did not know the secret, or broke the handshake.
    Refused {
        /// What was wrong.
        why: HandshakeError,
        /// Wrong secrets that the code still stands.
        left: u32,
    },
    /// The code is spent; a new session is needed for a new code.
    Spent(Spent),
    /// The channel stands.
    Paired(Box<Established>),
}

enum AgentState {
    Waiting,
    Greeted(Attempt, Time, Box<AgentAwaitsHello>),
    Answered(Attempt, Time, Box<AgentAwaitsTag>),
    Over,
}

/// The agent's side of one code.
pub struct AgentPairing {
    session: SessionId,
    code: PairingCode,
    verify: bool,
    expires: Time,
    wrong: u32,
    hellos: u32,
    state: AgentState,
    paired: Option<Attempt>,
    out: VecDeque<Transmit>,
    events: VecDeque<AgentEvent>,
}

impl AgentPairing {
    /// Waits for a client, for `ttl`.
    #[must_use]
    pub fn new(now: Time, session: SessionId, code: PairingCode, verify: bool, ttl: Duration) -> Self {
        Self {
            session,
            code,
            verify,
            expires: now + ttl,
            wrong: 0,
            hellos: 0,
            state: AgentState::Waiting,
            paired: None,
            out: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Counts wrong secrets of earlier codes of the same agent, so that a guesser gains nothing by letting a code
    /// expire.
    pub fn carry_wrong(&mut self, wrong: u32) {
        self.wrong = wrong.min(WRONG_SECRETS_PER_CODE - 1);
    }

    /// Wrong secrets so far.
    #[must_use]
    pub fn wrong(&self) -> u32 {
        self.wrong
    }

    /// The attempt that knew the secret.
    #[must_use]
    pub fn paired(&self) -> Option<Attempt> {
        self.paired
    }

    /// The relay says something.
    pub fn handle_relay(&mut self, now: Time, text: &FromRelay, rng: &mut impl CryptoRng) {
        match text {
            FromRelay::PeerHere(Peer::Attempt(attempt)) => self.greet(now, *attempt, rng),
            FromRelay::PeerGone(Peer::Attempt(attempt)) if self.attempt() == Some(*attempt) => {
                self.state = AgentState::Waiting;
            }
            _ => {}
        }
    }

    /// A binary frame arrived.
    pub fn handle_frame(&mut self, now: Time, mut frame: BytesMut) {
        self.handle_timeout(now);
        match std::mem::replace(&mut self.state, AgentState::Waiting) {
            AgentState::Greeted(attempt, deadline, awaits) => match awaits.handle_hello(&frame) {
                Ok(awaits) => self.state = AgentState::Answered(attempt, deadline, Box::new(awaits)),
                Err(why) => self.refuse(attempt, why),
            },
            AgentState::Answered(attempt, _, awaits) => match awaits.handle_tag(&mut frame) {
                Ok((established, answer)) => {
                    self.state = AgentState::Over;
                    self.paired = Some(attempt);
                    self.out.push_back(Transmit::Relay(FromAgent::Paired(attempt)));
                    self.out.push_back(Transmit::Peer(answer.freeze()));
                    self.events.push_back(AgentEvent::Paired(Box::new(established)));
                }
                Err(why) => {
                    self.wrong += 1;
                    self.refuse(attempt, why);
                    if self.wrong >= WRONG_SECRETS_PER_CODE {
                        self.burn(Spent::WrongSecrets);
                    }
                }
            },
            // Frames without an attempt are a dropped client's last words.
            state => self.state = state,
        }
        self.handle_timeout(now);
    }

    /// A timer ran out.
    pub fn handle_timeout(&mut self, now: Time) {
        match &self.state {
            AgentState::Over => return,
            AgentState::Greeted(attempt, deadline, _) | AgentState::Answered(attempt, deadline, _)
                if *deadline <= now =>
            {
                self.out.push_back(Transmit::Relay(FromAgent::Refused(*attempt)));
                self.state = AgentState::Waiting;
            }
            _ => {}
        }
        // A handshake that began in time may end.
        if self.expires <= now && matches!(self.state, AgentState::Waiting) {
            self.burn(Spent::Expired);
        }
    }

    /// When [`AgentPairing::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        match &self.state {
            AgentState::Over => None,
            AgentState::Waiting => Some(self.expires),
            AgentState::Greeted(_, deadline, _) | AgentState::Answered(_, deadline, _) => Some(*deadline),
        }
    }

    /// What to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop_front()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<AgentEvent> {
        self.events.pop_front()
    }

    fn attempt(&self) -> Option<Attempt> {
        match &self.state {
            AgentState::Greeted(attempt, ..) | AgentState::Answered(attempt, ..) => Some(*attempt),
            _ => None,
        }
    }

    fn greet(&mut self, now: Time, attempt: Attempt, rng: &mut impl CryptoRng) {
        if matches!(self.state, AgentState::Over) || self.expires <= now {
            return;
        }
        if self.hellos >= SILENT_HELLOS_PER_CODE {
            self.burn(Spent::SilentHellos);
            return;
        }
        self.hellos += 1;
        let (awaits, hello) = Agent::start(rng, self.session, &self.code, self.verify);
        self.state = AgentState::Greeted(attempt, now + HANDSHAKE_TIMEOUT, Box::new(awaits));
        self.out.push_back(Transmit::Peer(hello.into()));
        self.events.push_back(AgentEvent::Attempt);
    }

    fn refuse(&mut self, attempt: Attempt, why: HandshakeError) {
        self.out.push_back(Transmit::Relay(FromAgent::Refused(attempt)));
        self.events.push_back(AgentEvent::Refused { why, left: WRONG_SECRETS_PER_CODE.saturating_sub(self.wrong) });
    }

    fn burn(&mut self, spent: Spent) {
        self.state = AgentState::Over;
        self.out.push_back(Transmit::Relay(FromAgent::Burned));
        self.events.push_back(AgentEvent::Spent(spent));
    }
}

/// Why a client's attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientFailure {
    /// The handshake itself.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// A hello or an answer did not come in time.
    #[error("the other end did not answer in time: is `mykube server` still running there?")]
    Silent,
    /// A second hello after the tag was shown: an answer would give its sender a second guess.
    #[error("the relay offered a second handshake for one typed code, and it was not answered: ask for a new code")]
    SecondHello,
}

enum ClientState {
    Waiting(Time),
    Shown(Time, Box<ClientAwaitsTag>),
    /// The transport was lost after the tag was shown.
    Lost(Time, Box<ClientAwaitsAttach>),
    Over,
}

/// The client's side of one typed code: one tag, then it is spent.
pub struct ClientPairing {
    session: SessionId,
    code: PairingCode,
    verify: bool,
    state: ClientState,
    shown: bool,
    out: VecDeque<Bytes>,
}

impl ClientPairing {
    /// Waits for the agent's hello.
    #[must_use]
    pub fn new(now: Time, session: SessionId, code: PairingCode, verify: bool) -> Self {
        let state = ClientState::Waiting(now + HANDSHAKE_TIMEOUT);
        Self { session, code, verify, state, shown: false, out: VecDeque::new() }
    }

    /// A binary frame arrived. Gives the channel when it stands.
    ///
    /// # Errors
    /// The attempt is over, and with it this typed code.
    pub fn handle_frame(
        &mut self,
        now: Time,
        mut frame: BytesMut,
        rng: &mut impl CryptoRng,
    ) -> Result<Option<Box<Established>>, ClientFailure> {
        self.handle_timeout(now)?;
        match std::mem::replace(&mut self.state, ClientState::Over) {
            ClientState::Waiting(_) => {
                let (awaits, hello, record) = Client::start(rng, self.session, &self.code, self.verify, &frame)?;
                self.out.extend([hello.into(), record.freeze()]);
                self.shown = true;
                self.state = ClientState::Shown(now + HANDSHAKE_TIMEOUT, Box::new(awaits));
                Ok(None)
            }
            ClientState::Shown(..) | ClientState::Lost(..) if frame.first() == Some(&frame::HELLO_AGENT) => {
                Err(ClientFailure::SecondHello)
            }
            ClientState::Shown(_, awaits) => Ok(Some(Box::new(awaits.handle_tag(&mut frame)?))),
            ClientState::Lost(deadline, mut awaits) => {
                if let Some(first) = awaits.handle_answer(&frame) {
                    self.out.push_back(first.freeze());
                } else {
                    match awaits.handle_record(&frame)? {
                        Ok(established) => return Ok(Some(Box::new(established))),
                        Err(still) => awaits = Box::new(still),
                    }
                }
                self.state = ClientState::Lost(deadline, awaits);
                Ok(None)
            }
            ClientState::Over => Ok(None),
        }
    }

    /// The transport is gone. Gives whether to go on over another one: not after the end, nor when the time is over.
    pub fn handle_lost(&mut self, now: Time) -> bool {
        self.out.clear();
        self.state = match std::mem::replace(&mut self.state, ClientState::Over) {
            ClientState::Shown(_, awaits) => ClientState::Lost(now + PAIR_TICKET_TTL, Box::new(awaits.lost())),
            state => state,
        };
        self.poll_timeout().is_some_and(|deadline| deadline > now)
    }

    /// The relay says that the other end of the paired session is there: the agent has accepted the tag.
    pub fn handle_peer_here(&mut self, rng: &mut impl CryptoRng) {
        if let ClientState::Lost(_, awaits) = &mut self.state {
            self.out.push_back(awaits.ask(rng).freeze());
        }
    }

    /// A timer ran out.
    ///
    /// # Errors
    /// [`ClientFailure::Silent`].
    pub fn handle_timeout(&mut self, now: Time) -> Result<(), ClientFailure> {
        if self.poll_timeout().is_some_and(|deadline| deadline <= now) {
            self.state = ClientState::Over;
            return Err(ClientFailure::Silent);
        }
        Ok(())
    }

    /// When [`ClientPairing::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        match &self.state {
            ClientState::Waiting(deadline) | ClientState::Shown(deadline, _) | ClientState::Lost(deadline, _) => {
                Some(*deadline)
            }
            ClientState::Over => None,
        }
    }

    /// Whether the tag was shown: from then on the typed code is spent.
    #[must_use]
    pub fn has_shown_tag(&self) -> bool {
        self.shown
    }

    /// What to send to the peer.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.out.pop_front()
    }
}
