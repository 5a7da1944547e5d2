//! How a schedule begins: two ends with a code, and what is drawn for all of it.

use std::{
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    time::Duration,
};

use mykube_protocol::{Ticket, limits};
use mykube_relay_core::{
    owner::{OrganisationId, Owner},
    registry::Limits,
};
use mykube_tunnel::{
    Config, Time,
    endpoint::{ConnectionId, PeerStatus},
    pairing::{AgentPairing, ClientPairing},
};
use rand::{RngExt as _, SeedableRng, rngs::StdRng};

use super::{
    DAYS, End, HOUR, MINUTE, MS, SECOND, Stage, World,
    stranger::{address, code},
    totals::Totals,
};
use crate::{model::Model, relay::Relay};

impl World {
    pub(crate) fn new(seed: u64, trace: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let now = Time::from_micros(1_000_000);
        let limits = Limits {
            ticket_ttl: [40, 240, 240, 240, 2880, 2880, 2880, 2880][rng.random_range(0..8)] * MINUTE,
            session_grace: [2 * HOUR, 24 * HOUR, 24 * HOUR, 24 * HOUR][rng.random_range(0..4)],
            sessions_per_address: 8,
            waiting_per_address: [4, 16][rng.random_range(0..2)],
            ..Limits::default()
        };
        let organisation = Owner::Organisation(OrganisationId::from_bytes([3; 16]));
        let owners = match rng.random_range(0..3) {
            0 => [address(0).into(), address(1).into()],
            1 => [address(0).into(); 2],
            _ => [organisation; 2],
        };
        let mut relay = Relay::new(limits, owners[1]);
        let (created, agent_ticket) = relay.create(now, owners[1], &mut rng).expect("there is room");
        let (id, nameplate) = (created.claims.session, created.nameplate);
        let (_, attempt, client_ticket) = relay.claim(now, address(0), &nameplate, &mut rng).expect("it waits");
        let mut end = |stage, ticket, owner| End {
            stage,
            first_ticket: Ticket::clone(&ticket),
            ticket,
            renewed: None,
            owner,
            refused: false,
            socket: None,
            id: ConnectionId::FIRST,
            dials: BTreeMap::new(),
            reconnect: None,
            asleep: false,
            slept: false,
            sleeps_since: now,
            deferred: Vec::new(),
            failing: false,
            owes_dial: false,
            kept_change: false,
            asked: now,
            former: None,
            start: None,
            forged: false,
            over: false,
            status: PeerStatus::Up,
            given_up: None,
            explained: false,
            final_code: None,
            on_trial: false,
            outage: None,
            dialled: 0,
            hurried: false,
            not_before: None,
            offline: now,
            delay: MS * [0, 1, 5, 30, 100, 400][rng.random_range(0..6)],
            rate: [0, 0, 0, 100_000, 1_000_000][rng.random_range(0..5)],
        };
        let (client, agent) = (ClientPairing::new(now, id, code(&nameplate, true), false), code(&nameplate, true));
        let agent = AgentPairing::new(now, id, agent, false, limits::CODE_TTL);
        let client = end(Stage::Client(Box::new(client)), client_ticket, owners[0]);
        let agent = end(Stage::Agent(Box::new(agent)), agent_ticket, owners[1]);
        let config = Config {
            rekey_records: [1, 3, 17, u64::MAX][rng.random_range(0..4)],
            growth: [0, 1 << 20][rng.random_range(0..2)],
            ..Config::default()
        };
        let hostile = rng.random_ratio(1, 2);
        let short = [Duration::ZERO, 5 * SECOND, 60 * SECOND, 600 * SECOND][rng.random_range(0..4)];
        let window = if rng.random_ratio(1, 16) { short } else { DAYS };
        Self {
            rng,
            now,
            queue: BinaryHeap::new(),
            serial: 0,
            sockets: BTreeMap::new(),
            next_socket: 0,
            relay,
            forgotten: false,
            down: false,
            portal_until: now,
            shown: BTreeMap::new(),
            session: id,
            nameplate,
            attempt,
            paired: None,
            window,
            ends: [client, agent],
            strangers: Vec::new(),
            next_address: 1000,
            lies: BTreeSet::new(),
            crowd: 0,
            crowd_owner: None,
            model: Model::default(),
            config,
            tape: Default::default(),
            hostile,
            swallow: [0; 2],
            spoil: [0; 2],
            spoils_all: None,
            tampered: 0,
            trace,
            unpaired: false,
            last_word: None,
            ended: false,
            early: false,
            parting: false,
            counted: Totals::default(),
        }
    }
}
