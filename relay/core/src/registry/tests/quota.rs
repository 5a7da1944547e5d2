//! How many sessions an owner may have, and to whom each is charged.

use super::*;

/// After a restart clients of one address may come first: once the agents come, each session is charged to its agent.
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
    world.pass(2);
    join(&mut world, &pairs[0].1, 3).unwrap();
    assert_eq!(world.registry.sessions[&pairs[0].1.session].owner, address(2), "wherever its client is");
    check(&world.registry);
}

/// The holder of a /56 or a /48 has many addresses, but not as many sessions.
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
fn an_organisation_has_a_quota_of_its_own() {
    let mut world = World::new(|limits| {
        limits.waiting_per_address = 2;
        limits.sessions_per_address = 3;
    });
    let create = |world: &mut World, owner| {
        let created = world.registry.handle_create(world.now, owner, &mut world.rng);
        check(&world.registry);
        created.map(|created| created.claims)
    };
    for n in [1, 2] {
        let claims = [create(&mut world, organisation(n)).unwrap(), create(&mut world, organisation(n)).unwrap()];
        assert_eq!(create(&mut world, organisation(n)), Err(CreateError::Organisation), "two that wait");
        let agents = claims.map(|claims| world.join(&claims).unwrap());
        world.registry.handle_text(world.now, agents[0], FromAgent::Burned);
        create(&mut world, organisation(n)).unwrap();
        world.registry.handle_text(world.now, agents[1], FromAgent::Burned);
        assert_eq!(create(&mut world, organisation(n)), Err(CreateError::Organisation), "three of any state");
    }
    create(&mut world, address(1)).unwrap();
    world.pass(3600);
    assert!(world.registry.owners.is_empty());
    create(&mut world, organisation(1)).unwrap();
}

#[test]
fn an_organisations_session_stays_its_own_wherever_its_agent_is() {
    let mut world = World::new(|_| {});
    let (meeting, client, agent) = world.paired();
    let id = meeting.created.claims.session;
    let come_back = |world: &mut World, from| {
        let socket = world.registry.handle_arrival();
        world.pass(2);
        world.registry.handle_join(world.now, socket, &agent, from, true).unwrap();
        check(&world.registry);
        world.registry.sessions[&id].owner
    };
    assert_eq!(come_back(&mut world, organisation(1)), organisation(1), "whose it is was not known before");
    assert_eq!(come_back(&mut world, address(2)), organisation(1));
    assert_eq!(come_back(&mut world, organisation(2)), organisation(2));
    world.restart();
    world.join(&client).unwrap();
    assert_eq!(world.registry.sessions[&id].owner, address(1), "the owner of the first end that comes");
    assert_eq!(come_back(&mut world, organisation(1)), organisation(1));
}
