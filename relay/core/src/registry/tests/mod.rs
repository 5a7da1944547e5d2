//! The registry on a virtual clock.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use mykube_protocol::relay_text::Peer;
use rand::{SeedableRng as _, rngs::StdRng};

use super::*;
use crate::owner::OrganisationId;

mod absence;
mod books;
mod legacy;
mod pairing;
mod quota;

struct World {
    registry: Registry,
    rng: StdRng,
    now: Now,
}

impl World {
    fn new(adjust: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits { code_ttl: mykube_protocol::limits::CODE_TTL, ..Limits::default() };
        adjust(&mut limits);
        #[allow(clippy::disallowed_methods, reason = "there is no other way to an instant")]
        let now = Now { mono: Instant::now(), unix: 1_700_000_000 };
        Self { registry: Registry::new(limits), rng: StdRng::seed_from_u64(7), now }
    }

    /// The same clock, an empty registry: a relay that was started again.
    fn restart(&mut self) {
        self.registry = Registry::new(self.registry.limits.clone());
    }

    fn pass(&mut self, seconds: u64) -> Vec<Action> {
        self.now.mono += Duration::from_secs(seconds);
        self.now.unix += seconds;
        self.registry.handle_tick(self.now);
        self.actions()
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.registry.poll_action())
            .filter(|action| !matches!(action, Action::Count(_)))
            .collect()
    }

    fn create(&mut self) -> Created {
        self.registry.handle_create(self.now, address(1), &mut self.rng).unwrap()
    }

    fn claim(&mut self, nameplate: &Nameplate) -> (Attempt, Claims) {
        self.registry.handle_claim(self.now, nameplate.as_str(), &mut self.rng).unwrap()
    }

    fn is_waiting(&mut self, nameplate: &Nameplate) -> bool {
        self.registry.handle_claim(self.now, nameplate.as_str(), &mut self.rng).is_ok()
    }

    /// Joins with a socket that was heard already.
    fn join(&mut self, claims: &Claims) -> Result<SocketId, u16> {
        let socket = self.registry.handle_arrival();
        match self.ask(socket, claims, true) {
            Ok(()) => Ok(socket),
            Err(Denied::Refused((code, _))) => Err(code),
            Err(Denied::Taken(wait)) => panic!("its slot is taken for {wait:?}"),
        }
    }

    fn join_legacy(&mut self, id: SessionId, role: Role) -> Result<SocketId, u16> {
        let socket = self.registry.handle_arrival();
        let joined = self.registry.handle_legacy_join(self.now, socket, id, role);
        joined.map(|()| socket).map_err(|(code, _)| code)
    }

    fn ask(&mut self, socket: SocketId, claims: &Claims, heard: bool) -> Result<(), Denied> {
        self.registry.handle_join(self.now, socket, claims, address(1), heard)
    }

    /// A session with both sockets, before its pairing is confirmed.
    fn meet(&mut self) -> Meeting {
        let created = self.create();
        let agent = self.join(&created.claims).unwrap();
        let (attempt, claims) = self.claim(&created.nameplate);
        let client = self.join(&claims).unwrap();
        let here = FromRelay::PeerHere(Peer::Attempt(attempt));
        let expected = [Action::Send(client, here.clone()), Action::Link(agent, client), Action::Send(agent, here)];
        assert_eq!(self.actions(), expected);
        Meeting { created, agent, attempt, claims, client }
    }

    /// A confirmed session, and the tickets both ends got.
    fn paired(&mut self) -> (Meeting, Claims, Claims) {
        let meeting = self.meet();
        self.registry.handle_text(self.now, meeting.agent, FromAgent::Paired(meeting.attempt));
        let (client, agent) = match self.actions().as_slice() {
            [Action::SendTicket(first, client), Action::SendTicket(second, agent)] => {
                assert_eq!((*first, *second), (meeting.client, meeting.agent), "the client's comes first");
                (client.clone(), agent.clone())
            }
            other => panic!("{other:?}"),
        };
        (meeting, client, agent)
    }
}

struct Meeting {
    created: Created,
    agent: SocketId,
    attempt: Attempt,
    claims: Claims,
    client: SocketId,
}

fn address(n: u32) -> Owner {
    Owner::Address(IpAddr::V4(Ipv4Addr::from_bits(n)).into())
}

fn network(v6: &str) -> Owner {
    Owner::Address(v6.parse::<IpAddr>().unwrap().into())
}

fn organisation(n: u8) -> Owner {
    Owner::Organisation(OrganisationId::from_bytes([n; 16]))
}

fn closed(actions: &[Action], socket: SocketId) -> Option<u16> {
    actions.iter().find_map(|action| match action {
        Action::Close(of, code, _) if *of == socket => Some(*code),
        _ => None,
    })
}

/// What must hold between any two calls.
fn check(registry: &Registry) {
    let waiting = |session: &&SessionEntry| matches!(session.state, State::Waiting { .. });
    assert_eq!(registry.waiting, registry.sessions.values().filter(waiting).count());
    assert_eq!(registry.deadlines.len(), registry.sessions.len(), "each session has one deadline");
    for (counted, all, waits) in registry.owners.counts() {
        let is_its = |session: &&SessionEntry| session.owner.counted().any(|(of, _)| of == counted);
        let of = || registry.sessions.values().filter(is_its);
        assert_eq!((all, waits), (of().count(), of().filter(waiting).count()));
    }
    let slots = registry.sessions.values().flat_map(|session| [&session.agent, &session.client]);
    assert_eq!(slots.filter(|slot| slot.socket.is_some()).count(), registry.sockets.len());
    for (id, session) in &registry.sessions {
        assert!(session.deadline.is_some_and(|at| registry.deadlines.contains(&(at, *id))));
        if let State::Waiting { nameplate: Some(nameplate), .. } = &session.state {
            assert_eq!(registry.nameplates.get(nameplate), Some(*id));
        }
        for (role, slot) in [(Role::Agent, &session.agent), (Role::Client, &session.client)] {
            assert!(slot.socket.is_none_or(|socket| registry.sockets[&socket.id] == (*id, role)));
        }
    }
}
