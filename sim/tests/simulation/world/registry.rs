//! What a relay decides, as far as the simulation needs it. The real registry can stand here.

use std::collections::{BTreeSet, VecDeque};

use mykube_tunnel::protocol::{Attempt, FromAgent, FromRelay, Ticket, close, control::Peer};

/// The claim that is paired.
pub(super) const ATTEMPT: Attempt = Attempt::from_bytes([1; 16]);

/// What the relay does of itself.
pub(super) enum Action {
    Say(u32, FromRelay),
    Close(u32, u16),
}

/// What the simulation needs of a relay, and no more: who is admitted, who replaces whom, and what is said to whom.
#[derive(Default)]
pub(super) struct Relay {
    /// It knows that the attempt was paired.
    pub(super) paired: bool,
    pub(super) slots: [Option<u32>; 2],
    /// By role: the newest ticket, and the oldest that is taken.
    newest: [u32; 2],
    pub(super) oldest: [u32; 2],
    /// It was set up anew: no ticket is taken.
    pub(super) forgets: bool,
    /// Other clients that try the code, and were not refused yet.
    pub(super) strangers: BTreeSet<Attempt>,
    pub(super) actions: VecDeque<Action>,
}

pub(super) fn ticket(number: u32) -> Ticket {
    Ticket::from_bytes(&number.to_be_bytes())
}

pub(super) fn number(ticket: &Ticket) -> u32 {
    u32::from_be_bytes(ticket.to_bytes().try_into().unwrap())
}

impl Relay {
    /// A socket with that ticket: whether it is taken.
    pub(super) fn join(&mut self, who: usize, socket: u32, ticket: u32) -> bool {
        if self.forgets || ticket < self.oldest[who] {
            return false;
        }
        if let Some(old) = self.slots[who].replace(socket) {
            self.actions.push_back(Action::Close(old, close::REPLACED));
        }
        if who == 1 {
            let tries = self.strangers.iter().map(|stranger| FromRelay::PeerHere(Peer::Attempt(*stranger)));
            self.actions.extend(tries.map(|text| Action::Say(socket, text)));
        }
        if let [Some(client), Some(agent)] = self.slots {
            let here = FromRelay::PeerHere(self.peer());
            self.actions.extend([client, agent].map(|socket| Action::Say(socket, here.clone())));
        }
        true
    }

    pub(super) fn peer(&self) -> Peer {
        if self.paired { Peer::Session } else { Peer::Attempt(ATTEMPT) }
    }

    /// A socket is gone.
    pub(super) fn leave(&mut self, who: usize, socket: u32) {
        if self.slots[who] == Some(socket) {
            self.slots[who] = None;
            if let Some(peer) = self.slots[1 - who] {
                self.actions.push_back(Action::Say(peer, FromRelay::PeerGone(self.peer())));
            }
        }
    }

    pub(super) fn hear(&mut self, text: &FromAgent) {
        match text {
            FromAgent::Paired(_) if self.slots[0].is_some() && !self.paired => {
                self.paired = true;
                self.renew();
            }
            FromAgent::Refused(attempt) => drop(self.strangers.remove(attempt)),
            _ => {}
        }
    }

    /// Newer tickets for whoever is there.
    pub(super) fn renew(&mut self) {
        for (newest, socket) in self.newest.iter_mut().zip(self.slots) {
            if let Some(socket) = socket {
                *newest += 1;
                self.actions.push_back(Action::Say(socket, FromRelay::Ticket(ticket(*newest))));
            }
        }
    }

    pub(super) fn stranger(&mut self, attempt: Attempt) {
        if let Some(agent) = self.slots[1].filter(|_| self.paired) {
            self.strangers.insert(attempt);
            self.actions.push_back(Action::Say(agent, FromRelay::PeerHere(Peer::Attempt(attempt))));
        }
    }

    /// It stops, and what it knew it reads from the tickets, if those were out.
    pub(super) fn restart(&mut self, paired: bool) {
        (self.slots, self.paired) = ([None; 2], paired);
    }
}
