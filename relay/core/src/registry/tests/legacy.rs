//! The legacy form, and secrets that its clients may have told.

use super::*;

#[test]
fn legacy_codes_and_nameplates_are_never_prefixes_of_one_another() {
    let mut world = World::new(|limits| {
        limits.waiting_per_address = usize::MAX;
        limits.sessions_per_address = usize::MAX;
    });
    let (mut codes, mut nameplates) = (Vec::new(), Vec::new());
    for _ in 0..400 {
        codes.push(world.registry.handle_legacy_create(world.now, &mut world.rng).unwrap().1);
        nameplates.push(world.create().nameplate);
    }
    for code in &codes {
        assert!(nameplates.iter().all(|nameplate| !code.starts_with(nameplate.as_str())));
    }
    let created = nameplates.pop().unwrap();
    world.restart();
    let code = loop {
        let code = world.registry.handle_legacy_create(world.now, &mut world.rng).unwrap().1;
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
fn a_legacy_client_that_may_have_told_a_secret_ends_the_session() {
    let mut world = World::new(|_| {});
    let created = world.create();
    let agent = world.join(&created.claims).unwrap();
    world.registry.handle_unknown_legacy_code(world.now, &format!("{}1", created.nameplate));
    assert_eq!(world.actions(), [], "not a legacy code");
    world.registry.handle_unknown_legacy_code(world.now, &format!("{} 20417", created.nameplate));
    assert_eq!(closed(&world.actions(), agent), Some(close::UPGRADE));
    assert!(!world.is_waiting(&created.nameplate));
    assert_eq!(world.join(&created.claims), Err(close::UPGRADE), "nor does its ticket");
    assert!(!world.is_waiting(&created.nameplate));

    let (meeting, ..) = world.paired();
    world.registry.handle_unknown_legacy_code(world.now, &format!("{}20417", meeting.created.nameplate));
    assert_eq!(world.actions(), [], "paired sessions are not touched");
}

#[test]
fn the_legacy_form_has_its_own_rules() {
    let mut world = World::new(|limits| limits.legacy_attempts = 2);
    let (id, code) = world.registry.handle_legacy_create(world.now, &mut world.rng).unwrap();
    let pair = |world: &mut World, code: &str| world.registry.handle_legacy_pair(world.now, code);
    let join = |world: &mut World, role| world.join_legacy(id, role);
    assert_eq!(pair(&mut world, "12x"), Err(LegacyError::Invalid));
    let other = if code == "00000000" { "11111111" } else { "00000000" };
    assert_eq!(pair(&mut world, other), Err(LegacyError::NotFound));
    assert_eq!(join(&mut world, Role::Client), Err(close::NOT_PAIRED));
    let agent = join(&mut world, Role::Agent).unwrap();
    assert_eq!(join(&mut world, Role::Agent), Err(close::ALREADY_CONNECTED));
    assert_eq!(pair(&mut world, &code), Ok(id));
    assert_eq!(pair(&mut world, &code), Err(LegacyError::AlreadyPaired));
    assert_eq!(pair(&mut world, &code), Err(LegacyError::TooManyAttempts));
    let client = join(&mut world, Role::Client).unwrap();
    assert_eq!(world.actions(), [Action::Link(agent, client), Action::SendPaired(agent)]);
    world.pass(10_000);
    assert_eq!(world.registry.counts().legacy, 1, "a connected session does not expire");
    world.registry.handle_leave(world.now, client, true);
    assert_eq!(closed(&world.actions(), agent), Some(1000));
    assert_eq!(world.registry.counts().legacy, 0);
}

#[test]
fn legacy_codes_expire_and_say_so_for_a_while() {
    let mut world = World::new(|_| {});
    let (id, code) = world.registry.handle_legacy_create(world.now, &mut world.rng).unwrap();
    let agent = world.join_legacy(id, Role::Agent).unwrap();
    let actions = world.pass(600);
    assert_eq!(closed(&actions, agent), Some(close::NOT_PAIRED));
    assert_eq!(world.registry.handle_legacy_pair(world.now, &code), Err(LegacyError::Expired));
    world.pass(600);
    assert_eq!(world.registry.handle_legacy_pair(world.now, &code), Err(LegacyError::NotFound));
}
