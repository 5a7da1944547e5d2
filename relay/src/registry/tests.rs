//! The registry on a virtual clock.

use std::net::{IpAddr, Ipv4Addr};

use rand::{SeedableRng as _, rngs::StdRng};

use super::*;

struct World {
    registry: Registry,
    rng: StdRng,
    now: Now,
}

impl World {
    fn new(adjust: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits { code_ttl: mykube_protocol::limits::CODE_TTL, ..Limits::default() };
        adjust(&mut limits);
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

    /// A socket that is heard at once joins.
    fn join(&mut self, claims: &Claims) -> Result<SocketId, u16> {
        let socket = self.registry.handle_arrival();
        match self.ask(socket, claims, true) {
            Ok(()) => Ok(socket),
            Err(Denied::Refused((code, _))) => Err(code),
            Err(Denied::Taken(wait)) => panic!("its place is taken for {wait:?}"),
        }
    }

    fn join_plain(&mut self, id: SessionId, role: Role) -> Result<SocketId, u16> {
        let socket = self.registry.handle_arrival();
        let joined = self.registry.handle_plain_join(self.now, socket, id, role);
        joined.map(|()| socket).map_err(|(code, _)| code)
    }

    fn ask(&mut self, socket: SocketId, claims: &Claims, heard: bool) -> Result<(), Denied> {
        self.registry.handle_join(self.now, socket, claims, address(1), heard)
    }

    /// A session with both sockets, before anything was confirmed.
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

fn address(n: u32) -> AddressKey {
    IpAddr::V4(Ipv4Addr::from_bits(n)).into()
}

fn network(v6: &str) -> AddressKey {
    v6.parse::<IpAddr>().unwrap().into()
}

fn closed(actions: &[Action], socket: SocketId) -> Option<u16> {
    actions.iter().find_map(|action| match action {
        Action::Close(of, code, _) if *of == socket => Some(*code),
        _ => None,
    })
}

#[test]
fn a_claim_does_not_consume_a_nameplate_and_a_pairing_does() {
    let mut world = World::new(|_| {});
    let meeting = world.meet();
    assert_eq!(meeting.claims.expires_at, world.now.unix + 30, "a claim's ticket is short-lived");
    assert!(world.is_waiting(&meeting.created.nameplate));
    world.registry.handle_text(world.now, meeting.agent, FromAgent::Paired(meeting.attempt));
    assert!(!world.is_waiting(&meeting.created.nameplate));
    assert_eq!(world.registry.counts(), Counts { paired: 1, ..Counts::default() });
}

#[test]
fn session_tickets_carry_no_nameplate_and_admit_again() {
    let mut world = World::new(|_| {});
    let (meeting, client, agent) = world.paired();
    for claims in [&client, &agent] {
        assert_eq!((claims.class, &claims.nameplate), (Class::Session, &None));
        assert_eq!(claims.expires_at, world.now.unix + 48 * 3600);
    }
    world.pass(5);
    let second = world.join(&client).unwrap();
    let actions = world.actions();
    assert_eq!(closed(&actions, meeting.client), Some(close::REPLACED));
    assert!(actions.contains(&Action::Link(meeting.agent, second)));
    assert!(actions.contains(&Action::Send(meeting.agent, FromRelay::PeerHere(Peer::Session))));
}

#[test]
fn the_confirmed_attempts_ticket_counts_as_session_class_and_no_others_do() {
    let mut world = World::new(|_| {});
    let meeting = world.meet();
    let (_, other) = world.claim(&meeting.created.nameplate);
    world.registry.handle_text(world.now, meeting.agent, FromAgent::Paired(meeting.attempt));
    world.actions();
    assert_eq!(world.join(&other), Err(close::NO_SESSION));
    let again = world.join(&meeting.claims).unwrap();
    let actions = world.actions();
    assert_eq!(closed(&actions, meeting.client), Some(close::REPLACED));
    assert!(actions.iter().any(|action| matches!(action, Action::SendTicket(to, _) if *to == again)));
}

#[test]
fn paired_for_an_attempt_that_is_not_live_is_ignored() {
    let mut world = World::new(|_| {});
    let meeting = world.meet();
    let (_, newer) = world.claim(&meeting.created.nameplate);
    let newer = world.join(&newer).unwrap();
    assert_eq!(closed(&world.actions(), meeting.client), Some(close::REPLACED));
    for text in [FromAgent::Paired(meeting.attempt), FromAgent::Refused(meeting.attempt)] {
        world.registry.handle_text(world.now, meeting.agent, text);
        assert_eq!(world.actions(), []);
    }
    world.registry.handle_text(world.now, newer, FromAgent::Burned);
    assert_eq!(world.actions(), [], "a client's word is not the agent's");
    assert!(world.is_waiting(&meeting.created.nameplate));
}

#[test]
fn a_refused_client_is_closed_and_may_claim_again() {
    let mut world = World::new(|_| {});
    let meeting = world.meet();
    world.registry.handle_text(world.now, meeting.agent, FromAgent::Refused(meeting.attempt));
    let actions = world.actions();
    assert_eq!(closed(&actions, meeting.client), Some(close::REFUSED));
    assert_eq!(closed(&actions, meeting.agent), None);
    let (_, claims) = world.claim(&meeting.created.nameplate);
    let client = world.join(&claims).unwrap();
    assert!(world.actions().contains(&Action::Link(meeting.agent, client)));
}

#[test]
fn a_burned_code_is_gone() {
    let mut world = World::new(|_| {});
    let meeting = world.meet();
    let (_, other) = world.claim(&meeting.created.nameplate);
    world.registry.handle_text(world.now, meeting.agent, FromAgent::Burned);
    assert_eq!(closed(&world.actions(), meeting.client), Some(close::REFUSED));
    assert!(!world.is_waiting(&meeting.created.nameplate));
    assert_eq!(world.join(&other), Err(close::NO_SESSION));
    world.registry.handle_leave(world.now, meeting.agent, false);
    assert!(world.registry.sessions.is_empty() && world.registry.owners.is_empty());
}

#[test]
fn a_socket_is_replaced_at_most_once_a_second_and_the_next_one_waits() {
    let mut world = World::new(|_| {});
    let (meeting, client, _) = world.paired();
    let second = world.join(&client).unwrap();
    assert_eq!(closed(&world.actions(), meeting.client), Some(close::REPLACED));
    let third = world.registry.handle_arrival();
    assert_eq!(world.ask(third, &client, true), Err(Denied::Taken(Duration::from_secs(1))));
    assert_eq!(world.actions(), []);
    world.pass(1);
    assert_eq!(world.ask(third, &client, true), Ok(()));
    assert_eq!(closed(&world.actions(), second), Some(close::REPLACED));
}

#[test]
fn nobody_is_replaced_by_a_socket_that_nobody_is_behind() {
    let mut world = World::new(|_| {});
    let (meeting, client, _) = world.paired();
    let late = world.registry.handle_arrival();
    assert_eq!(world.ask(late, &client, false), Err(Denied::Taken(Duration::ZERO)));
    assert_eq!(world.actions(), []);
    world.registry.handle_leave(world.now, meeting.client, false);
    assert_eq!(world.ask(late, &client, false), Ok(()), "a free place needs no proof");
}

#[test]
fn of_those_who_wait_the_last_one_wins() {
    let mut world = World::new(|_| {});
    let (_, client, _) = world.paired();
    let (first, second) = (world.registry.handle_arrival(), world.registry.handle_arrival());
    assert_eq!(world.ask(second, &client, true), Ok(()));
    world.actions();
    world.pass(5);
    assert!(matches!(world.ask(first, &client, true), Err(Denied::Refused((close::REPLACED, _)))));
    assert_eq!(world.actions(), [], "the newer one is not touched");
}

#[test]
fn a_code_expires_after_its_time_and_the_agent_is_told() {
    let mut world = World::new(|_| {});
    let created = world.create();
    assert_eq!(created.expires_at, world.now.unix + 120);
    let agent = world.join(&created.claims).unwrap();
    world.pass(119);
    assert!(world.is_waiting(&created.nameplate));
    assert_eq!(world.pass(1), []);
    assert!(!world.is_waiting(&created.nameplate));
    assert_eq!(closed(&world.pass(15), agent), Some(close::EXPIRED));
    assert!(world.registry.sessions.is_empty() && world.registry.deadlines.is_empty());
    assert_eq!(world.registry.counts(), Counts::default());
}

#[test]
fn a_pairing_that_began_in_time_may_be_confirmed_after_it() {
    let mut world = World::new(|_| {});
    let created = world.create();
    let agent = world.join(&created.claims).unwrap();
    world.pass(119);
    let (attempt, claims) = world.claim(&created.nameplate);
    world.join(&claims).unwrap();
    world.pass(5);
    world.registry.handle_text(world.now, agent, FromAgent::Paired(attempt));
    world.pass(60);
    assert_eq!(world.registry.counts().paired, 1);
}

#[test]
fn a_session_without_its_agent_does_not_wait_long() {
    let mut world = World::new(|_| {});
    let (never, gone, goodbye) = (world.create(), world.create(), world.create());
    let lost = world.join(&gone.claims).unwrap();
    world.registry.handle_leave(world.now, lost, false);
    let left = world.join(&goodbye.claims).unwrap();
    world.registry.handle_leave(world.now, left, true);
    assert!(!world.is_waiting(&goodbye.nameplate), "the agent said goodbye");
    world.pass(29);
    assert!(world.is_waiting(&never.nameplate) && world.is_waiting(&gone.nameplate));
    world.pass(1);
    assert!(world.registry.sessions.is_empty());
}

#[test]
fn the_peer_is_told_who_is_gone() {
    let mut world = World::new(|_| {});
    let meeting = world.meet();
    world.registry.handle_leave(world.now, meeting.client, true);
    let gone = FromRelay::PeerGone(Peer::Attempt(meeting.attempt));
    assert!(world.actions().contains(&Action::Send(meeting.agent, gone)));

    let (meeting, ..) = world.paired();
    world.registry.handle_leave(world.now, meeting.agent, false);
    assert!(world.actions().contains(&Action::Send(meeting.client, FromRelay::PeerGone(Peer::Session))));
}

#[test]
fn one_end_waits_for_the_other_for_a_while() {
    let mut world = World::new(|limits| limits.session_grace = Duration::from_secs(100));
    let (meeting, _, agent) = world.paired();
    world.registry.handle_leave(world.now, meeting.agent, false);
    world.actions();
    world.pass(99);
    let back = world.join(&agent).unwrap();
    world.actions();
    assert_eq!(closed(&world.pass(50), meeting.client), None);
    world.registry.handle_leave(world.now, back, false);
    assert_eq!(closed(&world.pass(100), meeting.client), Some(close::EXPIRED));
    assert!(world.registry.sessions.is_empty());
}

#[test]
fn nothing_is_kept_of_a_session_whose_ends_are_both_gone() {
    let mut world = World::new(|_| {});
    let (meeting, client, agent) = world.paired();
    world.registry.handle_leave(world.now, meeting.agent, false);
    world.registry.handle_leave(world.now, meeting.client, false);
    assert!(world.registry.sessions.is_empty() && world.registry.sockets.is_empty());
    assert!(world.registry.owners.is_empty() && world.registry.deadlines.is_empty());
    world.actions();
    world.join(&client).unwrap();
    world.join(&agent).unwrap();
    assert!(world.actions().iter().any(|action| matches!(action, Action::Link(..))));
}

#[test]
fn tickets_are_renewed_in_band() {
    let mut world = World::new(|limits| limits.ticket_ttl = Duration::from_secs(800));
    let (meeting, ..) = world.paired();
    for _ in 0..20 {
        assert_eq!(world.pass(99), []);
        let actions = world.pass(1);
        let fresh = |socket, claims: &Claims| (socket, claims.expires_at) == (socket, world.now.unix + 800);
        match actions.as_slice() {
            [Action::SendTicket(first, client), Action::SendTicket(second, agent)] => {
                assert_eq!((*first, *second), (meeting.client, meeting.agent));
                assert!(fresh(*first, client) && fresh(*second, agent));
                assert_eq!(client.confirmed, Some(meeting.attempt));
            }
            other => panic!("{other:?}"),
        }
    }
    world.registry.handle_leave(world.now, meeting.client, false);
    world.actions();
    assert!(matches!(world.pass(100).as_slice(), [Action::SendTicket(to, _)] if *to == meeting.agent), "and alone");
}

/// With the defaults: whoever loses its socket just before a renewal still has a good ticket after a window of 40 hours,
/// and the other end is still there.
#[test]
fn a_ticket_outlives_the_longest_time_an_end_may_be_away() {
    let defaults = Limits::default();
    let (ttl, window) = (defaults.ticket_ttl, Duration::from_secs(24 * 3600));
    assert!(ttl - ttl / SESSION_TICKET_RENEWALS >= window && defaults.session_grace >= window);

    let mut world = World::new(|_| {});
    let (meeting, client, _) = world.paired();
    world.pass(6 * 3600 - 1);
    world.registry.handle_leave(world.now, meeting.client, false);
    world.actions();
    assert_eq!(closed(&world.pass(24 * 3600 - 1), meeting.agent), None);
    assert!(client.expires_at > world.now.unix + 12 * 3600);
    let back = world.join(&client).unwrap();
    assert!(world.actions().contains(&Action::Link(meeting.agent, back)));
}

#[test]
fn a_restarted_relay_takes_a_waiting_nameplate_up_again() {
    let mut world = World::new(|_| {});
    let created = world.create();
    world.join(&created.claims).unwrap();
    world.pass(20);
    world.restart();
    let agent = world.join(&created.claims).unwrap();
    assert!(world.is_waiting(&created.nameplate));
    let (attempt, claims) = world.claim(&created.nameplate);
    assert_eq!(claims.session, created.claims.session);
    world.join(&claims).unwrap();
    assert!(world.actions().contains(&Action::Send(agent, FromRelay::PeerHere(Peer::Attempt(attempt)))));
    assert_eq!(world.pass(99), [], "the code's time goes on where it was");
    world.pass(1);
    assert!(!world.is_waiting(&created.nameplate));
}

#[test]
fn a_nameplate_taken_meanwhile_needs_a_new_code() {
    let mut world = World::new(|_| {});
    let created = world.create();
    world.restart();
    let thief = SessionId::from_bytes([1; 16]);
    world.registry.nameplates.take(created.nameplate.clone(), thief);
    assert_eq!(world.join(&created.claims), Err(close::NO_SESSION));
    assert!(world.registry.sessions.is_empty());
}

#[test]
fn an_expired_code_is_not_taken_up_again() {
    let mut world = World::new(|_| {});
    let created = world.create();
    world.pass(125);
    assert_eq!(world.join(&created.claims), Err(close::EXPIRED));
}

#[test]
fn after_a_restart_the_client_may_come_first() {
    let mut world = World::new(|_| {});
    let meeting = world.meet();
    world.restart();
    let client = world.join(&meeting.claims).unwrap();
    let agent = world.join(&meeting.created.claims).unwrap();
    let here = FromRelay::PeerHere(Peer::Attempt(meeting.attempt));
    assert!(world.actions().contains(&Action::Send(client, here)));
    world.registry.handle_text(world.now, agent, FromAgent::Paired(meeting.attempt));
    assert_eq!(world.actions().len(), 2);
    assert!(!world.is_waiting(&meeting.created.nameplate));
}

#[test]
fn after_a_restart_session_tickets_alone_make_a_paired_session() {
    let mut world = World::new(|_| {});
    let (_, client, agent) = world.paired();
    world.restart();
    let client = world.join(&client).unwrap();
    let agent = world.join(&agent).unwrap();
    let actions = world.actions();
    assert!(actions.contains(&Action::Link(agent, client)));
    assert!(actions.contains(&Action::Send(client, FromRelay::PeerHere(Peer::Session))));
    assert_eq!(world.registry.counts(), Counts { paired: 1, ..Counts::default() });
}

/// Both ends lost their sockets right after `paired`, and maybe the relay its memory; the client has its pair ticket only.
#[test]
fn the_confirmed_clients_pair_ticket_admits_in_any_order_while_it_lives() {
    for (restart, agent_first) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut world = World::new(|_| {});
        let (meeting, _, agent_ticket) = world.paired();
        // Claimed the nameplate in time, but was not confirmed.
        let stranger = Claims { class: Class::Pair(Attempt::from_bytes([3; 16])), ..meeting.claims.clone() };
        world.registry.handle_leave(world.now, meeting.agent, false);
        world.registry.handle_leave(world.now, meeting.client, false);
        world.pass(10);
        if restart {
            world.restart();
        }
        let order = if agent_first { [&agent_ticket, &meeting.claims] } else { [&meeting.claims, &agent_ticket] };
        let sockets = order.map(|claims| world.join(claims).unwrap());
        let (agent, client) = if agent_first { (sockets[0], sockets[1]) } else { (sockets[1], sockets[0]) };
        let actions = world.actions();
        let case = format!("restart {restart}, agent first {agent_first}: {actions:?}");
        assert!(actions.contains(&Action::Link(agent, client)), "{case}");
        for socket in [agent, client] {
            assert!(actions.contains(&Action::Send(socket, FromRelay::PeerHere(Peer::Session))), "{case}");
            let ticket = |action: &Action| matches!(action, Action::SendTicket(to, claims) if *to == socket && claims.class == Class::Session);
            assert!(actions.iter().any(ticket), "{case}");
        }
        assert_eq!(world.join(&stranger), Err(close::NO_SESSION), "{case}");
    }
}

#[test]
fn after_a_restart_a_stranger_that_came_first_is_sent_away() {
    let mut world = World::new(|_| {});
    let (meeting, client_ticket, agent_ticket) = world.paired();
    let stranger = Claims { class: Class::Pair(Attempt::from_bytes([3; 16])), ..meeting.claims };
    for first in [&client_ticket, &agent_ticket] {
        world.restart();
        let stranger = world.join(&stranger).unwrap();
        world.join(first).unwrap();
        assert_eq!(closed(&world.actions(), stranger), Some(close::NO_SESSION));
    }
}

/// `ticket:` never reached the agent: it has the ticket that made the session, with a nameplate.
#[test]
fn after_a_restart_an_agent_that_knows_less_gets_a_session_ticket() {
    for agent_first in [true, false] {
        let mut world = World::new(|_| {});
        let (meeting, client, _) = world.paired();
        world.restart();
        let first = if agent_first { &meeting.created.claims } else { &client };
        let agent = world.join(first).unwrap();
        let second = world.join(if agent_first { &client } else { &meeting.created.claims }).unwrap();
        let agent = if agent_first { agent } else { second };
        let actions = world.actions();
        assert!(actions.contains(&Action::Send(agent, FromRelay::PeerHere(Peer::Session))), "{actions:?}");
        let ticket = |action: &Action| matches!(action, Action::SendTicket(to, claims) if *to == agent && claims.nameplate.is_none());
        assert!(actions.iter().any(ticket), "{actions:?}");
        assert!(!world.is_waiting(&meeting.created.nameplate));
    }
}

/// No end got its `ticket:`. The agent says `paired` again at the `peer:here` of that attempt.
#[test]
fn after_a_restart_an_agent_may_confirm_again() {
    for client_first in [true, false] {
        let mut world = World::new(|_| {});
        let (meeting, ..) = world.paired();
        world.restart();
        let order = if client_first {
            [&meeting.claims, &meeting.created.claims]
        } else {
            [&meeting.created.claims, &meeting.claims]
        };
        let sockets = order.map(|claims| world.join(claims).unwrap());
        let agent = sockets[usize::from(client_first)];
        assert!(world.actions().contains(&Action::Send(agent, FromRelay::PeerHere(Peer::Attempt(meeting.attempt)))));
        world.registry.handle_text(world.now, agent, FromAgent::Paired(meeting.attempt));
        assert_eq!(world.actions().len(), 2, "tickets to both");
        assert!(!world.is_waiting(&meeting.created.nameplate));
    }
}

#[test]
fn each_return_and_each_replacement_is_told_to_the_one_that_stays() {
    let mut world = World::new(|_| {});
    let (mut meeting, client, agent) = world.paired();
    for round in 0..6 {
        world.pass(2);
        let agents_turn = round % 2 == 0;
        let (mine, stays) = if agents_turn { (meeting.agent, meeting.client) } else { (meeting.client, meeting.agent) };
        if round >= 3 {
            world.registry.handle_leave(world.now, mine, false);
            let gone = Action::Send(stays, FromRelay::PeerGone(Peer::Session));
            assert_eq!(world.actions(), [Action::Unlink(mine), Action::Unlink(stays), gone]);
        }
        let new = world.join(if agents_turn { &agent } else { &client }).unwrap();
        *(if agents_turn { &mut meeting.agent } else { &mut meeting.client }) = new;
        let actions = world.actions();
        let here = |socket| Action::Send(socket, FromRelay::PeerHere(Peer::Session));
        let link = Action::Link(meeting.agent, meeting.client);
        let [.., first, ticket, third, last] = actions.as_slice() else { panic!("round {round}: {actions:?}") };
        // A linked peer may send at once: the newcomer has been told everything before.
        assert!(matches!(ticket, Action::SendTicket(to, _) if *to == new), "round {round}");
        assert_eq!([first, third, last], [&here(new), &link, &here(stays)], "round {round}");
    }
}

/// Clients behind one address may come first: in the end each agent pays for its sessions.
#[test]
fn after_a_restart_a_session_is_charged_to_its_agent() {
    let mut world = World::new(|limits| limits.sessions_per_address = 2);
    let pairs = [world.paired(), world.paired()];
    world.restart();
    let join = |world: &mut World, claims: &Claims, from| {
        let socket = world.registry.handle_arrival();
        world.registry.handle_join(world.now, socket, claims, address(from), true)
    };
    for (_, client, _) in &pairs {
        join(&mut world, client, 1).unwrap();
    }
    let third = Claims { session: SessionId::from_bytes([9; 16]), ..pairs[0].1.clone() };
    let full = join(&mut world, &third, 1);
    let Err(Denied::Refused((close::TOO_MANY, reason))) = full else { panic!("{full:?}") };
    assert_eq!(close::retry_after(reason), Some(Duration::from_secs(10)), "a paired session tries again");
    join(&mut world, &pairs[0].2, 2).unwrap();
    join(&mut world, &third, 1).unwrap();
    check(&world.registry);
}

/// Whoever has a /56 or a /48 has many addresses, but not as many sessions.
#[test]
fn many_addresses_of_one_network_do_not_have_as_many_sessions() {
    for (of, last) in [(4, 0), (16, 256)] {
        let mut world = World::new(|limits| limits.waiting_per_address = 2);
        let mut create = |n: u32| {
            // Networks of the same /56 for the first, of the same /48 for the second.
            let from = network(&format!("2001:db8:1:{:x}::1", if last == 0 { n } else { n * last }));
            world.registry.handle_create(world.now, from, &mut world.rng).is_ok()
        };
        assert!((0..of).all(|n| create(n) && create(n)));
        assert!(!create(of), "the {of} times as many of an address are taken");
        assert!(world.registry.handle_create(world.now, network("2001:db8:2::1"), &mut world.rng).is_ok());
        check(&world.registry);
    }
}

#[test]
fn waiting_sessions_are_limited_by_address_and_in_all() {
    let mut world = World::new(|limits| {
        limits.waiting_per_address = 2;
        limits.sessions_per_address = 3;
        limits.sessions = 5;
    });
    let create = |world: &mut World, from| {
        world.registry.handle_create(world.now, address(from), &mut world.rng).map(|created| created.claims)
    };
    for _ in 0..2 {
        world.paired();
    }
    create(&mut world, 1).unwrap();
    assert_eq!(create(&mut world, 1), Err(CreateError::Address), "three sessions of any state");
    create(&mut world, 2).unwrap();
    create(&mut world, 2).unwrap();
    assert_eq!(create(&mut world, 2), Err(CreateError::Full));
    world.pass(30);
    create(&mut world, 2).unwrap();
    create(&mut world, 2).unwrap();
    assert_eq!(create(&mut world, 2), Err(CreateError::Address), "two that wait");
    create(&mut world, 3).unwrap();
    assert_eq!(create(&mut world, 4), Err(CreateError::Full));
}

#[test]
fn quotas_hold_for_sessions_made_from_tickets_too() {
    let mut world = World::new(|limits| limits.sessions_per_address = 1);
    let (meeting, _, agent) = world.paired();
    world.restart();
    world.join(&agent).unwrap();
    let mut other = meeting.created.claims;
    other.session = SessionId::from_bytes([9; 16]);
    assert_eq!(world.join(&other), Err(close::TOO_MANY));
}

#[test]
fn plain_codes_and_nameplates_are_never_prefixes_of_one_another() {
    let mut world = World::new(|limits| {
        limits.waiting_per_address = usize::MAX;
        limits.sessions_per_address = usize::MAX;
    });
    let (mut codes, mut nameplates) = (Vec::new(), Vec::new());
    for _ in 0..400 {
        codes.push(world.registry.handle_plain_create(world.now, &mut world.rng).unwrap().1);
        nameplates.push(world.create().nameplate);
    }
    for code in &codes {
        assert!(nameplates.iter().all(|nameplate| !code.starts_with(nameplate.as_str())));
    }
    let created = nameplates.pop().unwrap();
    world.restart();
    let code = loop {
        let code = world.registry.handle_plain_create(world.now, &mut world.rng).unwrap().1;
        if code.starts_with(created.as_str()) {
            break code;
        }
    };
    let claims = Claims {
        session: SessionId::from_bytes([9; 16]),
        role: Role::Agent,
        class: Class::Session,
        confirmed: None,
        nameplate: Some(created),
        expires_at: world.now.unix + 100,
    };
    assert_eq!(world.join(&claims), Err(close::NO_SESSION), "{code} has it as a prefix");
}

#[test]
fn an_old_client_that_may_have_told_a_secret_ends_the_session() {
    let mut world = World::new(|_| {});
    let created = world.create();
    let agent = world.join(&created.claims).unwrap();
    world.registry.handle_old_code(world.now, &format!("{}1", created.nameplate));
    assert_eq!(world.actions(), [], "not a code of the old form");
    world.registry.handle_old_code(world.now, &format!("{} 20417", created.nameplate));
    assert_eq!(closed(&world.actions(), agent), Some(close::UPGRADE));
    assert!(!world.is_waiting(&created.nameplate));
    assert_eq!(world.join(&created.claims), Err(close::UPGRADE), "nor does its ticket");
    assert!(!world.is_waiting(&created.nameplate));

    let (meeting, ..) = world.paired();
    world.registry.handle_old_code(world.now, &format!("{}20417", meeting.created.nameplate));
    assert_eq!(world.actions(), [], "paired sessions are not touched");
}

#[test]
fn the_plain_form_has_its_own_rules() {
    let mut world = World::new(|limits| limits.plain_attempts = 2);
    let (id, code) = world.registry.handle_plain_create(world.now, &mut world.rng).unwrap();
    let pair = |world: &mut World, code: &str| world.registry.handle_plain_pair(world.now, code);
    let join = |world: &mut World, role| world.join_plain(id, role);
    assert_eq!(pair(&mut world, "12x"), Err(PlainError::Invalid));
    let other = if code == "00000000" { "11111111" } else { "00000000" };
    assert_eq!(pair(&mut world, other), Err(PlainError::NotFound));
    assert_eq!(join(&mut world, Role::Client), Err(close::NOT_PAIRED));
    let agent = join(&mut world, Role::Agent).unwrap();
    assert_eq!(join(&mut world, Role::Agent), Err(close::ALREADY_CONNECTED));
    assert_eq!(pair(&mut world, &code), Ok(id));
    assert_eq!(pair(&mut world, &code), Err(PlainError::AlreadyPaired));
    assert_eq!(pair(&mut world, &code), Err(PlainError::TooManyAttempts));
    let client = join(&mut world, Role::Client).unwrap();
    assert_eq!(world.actions(), [Action::Link(agent, client), Action::SendPaired(agent)]);
    world.pass(10_000);
    assert_eq!(world.registry.counts().plain, 1, "a connected session does not expire");
    world.registry.handle_leave(world.now, client, true);
    assert_eq!(closed(&world.actions(), agent), Some(1000));
    assert_eq!(world.registry.counts().plain, 0);
}

#[test]
fn plain_codes_expire_and_say_so_for_a_while() {
    let mut world = World::new(|_| {});
    let (id, code) = world.registry.handle_plain_create(world.now, &mut world.rng).unwrap();
    let agent = world.join_plain(id, Role::Agent).unwrap();
    let actions = world.pass(600);
    assert_eq!(closed(&actions, agent), Some(close::NOT_PAIRED));
    assert_eq!(world.registry.handle_plain_pair(world.now, &code), Err(PlainError::Expired));
    world.pass(600);
    assert_eq!(world.registry.handle_plain_pair(world.now, &code), Err(PlainError::NotFound));
}

/// What must hold between any two calls.
fn check(registry: &Registry) {
    let waiting = |session: &&Session| matches!(session.state, State::Waiting { .. });
    assert_eq!(registry.waiting, registry.sessions.values().filter(waiting).count());
    assert_eq!(registry.deadlines.len(), registry.sessions.len(), "each session has one deadline");
    for (network, owned) in &registry.owners {
        let is_in = |session: &&Session| session.owner.networks().any(|(of, _)| of == *network);
        let of = || registry.sessions.values().filter(is_in);
        assert_eq!((owned.all, owned.waiting), (of().count(), of().filter(waiting).count()));
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

#[test]
fn no_sequence_of_events_breaks_the_books() {
    use rand::RngExt as _;
    for seed in 0..40 {
        let mut world = World::new(|limits| {
            limits.ticket_ttl = Duration::from_secs(600);
            limits.session_grace = Duration::from_secs(60);
        });
        let mut dice = StdRng::seed_from_u64(seed);
        let (mut nameplates, mut tickets, mut sockets) = (Vec::new(), Vec::new(), Vec::new());
        let mut attempts = vec![Attempt::from_bytes([0; 16])];
        let addresses = [address(1), address(2), network("2001:db8:1:1::1"), network("2001:db8:1:2::1")];
        for _ in 0..400 {
            let pick = dice.random_range(0..usize::MAX);
            let last = |len: usize| len.saturating_sub(1 + pick % 4);
            match dice.random_range(0..12) {
                0 | 1 => {
                    if let Ok(created) = world.registry.handle_create(world.now, address(1), &mut world.rng) {
                        nameplates.push(created.nameplate);
                        tickets.push(created.claims);
                    }
                }
                2 | 3 if !nameplates.is_empty() => {
                    let nameplate = nameplates[last(nameplates.len())].clone();
                    let claim = world.registry.handle_claim(world.now, nameplate.as_str(), &mut world.rng);
                    if let Ok((attempt, claims)) = claim {
                        attempts.push(attempt);
                        tickets.push(claims);
                    }
                }
                4..=6 if !tickets.is_empty() => {
                    let claims = tickets[last(tickets.len())].clone();
                    if claims.expires_at > world.now.unix {
                        let (socket, from) = (world.registry.handle_arrival(), addresses[pick % 4]);
                        let joined = world.registry.handle_join(world.now, socket, &claims, from, pick % 5 > 0);
                        sockets.extend(joined.is_ok().then_some(socket));
                    }
                }
                7 if !sockets.is_empty() => {
                    let socket = sockets.swap_remove(pick % sockets.len());
                    world.registry.handle_leave(world.now, socket, pick % 2 == 0);
                }
                8 | 9 if !sockets.is_empty() => {
                    let attempt = attempts[last(attempts.len())];
                    let texts = [FromAgent::Paired(attempt), FromAgent::Refused(attempt), FromAgent::Burned];
                    world.registry.handle_text(world.now, sockets[last(sockets.len())], texts[pick % 3]);
                }
                10 if pick % 20 == 0 => {
                    world.restart();
                    sockets.clear();
                }
                _ => {
                    let actions = world.pass(pick as u64 % 20);
                    tickets.extend(actions.into_iter().filter_map(|action| match action {
                        Action::SendTicket(_, claims) => Some(claims),
                        _ => None,
                    }));
                }
            }
            tickets.extend(world.actions().into_iter().filter_map(|action| match action {
                Action::SendTicket(_, claims) => Some(claims),
                _ => None,
            }));
            check(&world.registry);
        }
        for socket in sockets {
            world.registry.handle_leave(world.now, socket, false);
        }
        world.pass(1000);
        let r = &world.registry;
        assert!(r.sessions.is_empty() && r.sockets.is_empty() && r.owners.is_empty() && r.deadlines.is_empty());
        assert_eq!(r.nameplates.draw(&mut dice, |_| false).map(|n| n.as_str().len()), Some(3));
    }
}
