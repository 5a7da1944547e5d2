//! After any sequence of events all counts and indices agree.

use super::*;

#[test]
fn no_sequence_of_events_breaks_the_books() {
    use rand::RngExt as _;
    for seed in 0..40 {
        let mut world = World::new(|limits| {
            limits.ticket_ttl = Duration::from_mins(10);
            limits.session_grace = Duration::from_mins(1);
        });
        let mut dice = StdRng::seed_from_u64(seed);
        let (mut nameplates, mut tickets, mut sockets) = (Vec::new(), Vec::new(), Vec::new());
        let mut attempts = vec![Attempt::from_bytes([0; 16])];
        let (one, other) = (network("2001:db8:1:1::1"), network("2001:db8:1:2::1"));
        let owners = [address(1), address(2), one, other, organisation(1), organisation(2)];
        for _ in 0..400 {
            let pick = dice.random_range(0..usize::MAX);
            let last = |len: usize| len.saturating_sub(1 + pick % 4);
            match dice.random_range(0..12) {
                0 | 1 => {
                    let owner = owners[pick % 2 * 4];
                    if let Ok(created) = world.registry.handle_create(world.now, owner, &mut world.rng) {
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
                        let (socket, from) = (world.registry.handle_arrival(), owners[pick % owners.len()]);
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
