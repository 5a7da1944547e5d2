//! Ends that are away for a while, and relays that start again.

use mykube_protocol::limits::SESSION_TICKET_RENEWALS;

use super::*;

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

/// With the defaults, an end that loses its socket just before a renewal still has a valid ticket after being away for 24 hours,
/// and the other end still waits.
#[test]
fn a_ticket_outlives_the_longest_time_an_end_may_be_away() {
    let defaults = Limits::default();
    let (ttl, window) = (defaults.ticket_ttl, Duration::from_hours(24));
    assert!(ttl >= window + ttl / SESSION_TICKET_RENEWALS && defaults.session_grace >= window);

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
