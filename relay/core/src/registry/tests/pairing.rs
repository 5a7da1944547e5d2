//! From a code to a pairing, and which socket replaces which.

use super::*;

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
fn a_spent_code_keeps_its_agents_slot_for_a_while_and_no_clients() {
    let mut world = World::new(|_| {});
    let meeting = world.meet();
    world.registry.handle_text(world.now, meeting.agent, FromAgent::Burned);
    world.actions();
    let client =
        Claims { role: Role::Client, class: Class::Session, nameplate: None, ..meeting.created.claims.clone() };
    assert_eq!(world.join(&client), Err(close::NO_SESSION));
    let agent = world.join(&meeting.created.claims).unwrap();
    assert_eq!(closed(&world.actions(), meeting.agent), Some(close::REPLACED));
    assert_eq!(closed(&world.pass(119), agent), None);
    assert_eq!(closed(&world.pass(1), agent), Some(close::EXPIRED));
    assert!(world.registry.sessions.is_empty());
}

#[test]
fn a_socket_is_not_replaced_by_one_whose_ticket_is_worth_less() {
    let mut world = World::new(|_| {});
    let created = world.create();
    let agent = world.join(&created.claims).unwrap();
    let less = Claims { class: Class::Pair(Attempt::from_bytes([3; 16])), nameplate: None, ..created.claims.clone() };
    assert_eq!(world.join(&less), Err(close::REPLACED));
    assert_eq!(world.actions(), []);
    world.join(&created.claims).unwrap();
    assert_eq!(closed(&world.actions(), agent), Some(close::REPLACED));
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
    assert_eq!(world.ask(late, &client, false), Ok(()), "a free slot needs no proof");
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
