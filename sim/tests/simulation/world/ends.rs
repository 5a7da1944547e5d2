//! What stands around the endpoints: dials that take time, applications, and the ends' parts before they are paired.

use std::time::Duration;

use bytes::BytesMut;
use mykube_protocol::{
    FromAgent, FromRelay,
    close::{self, Stage as Of, Verdict, verdict},
    relay_text::Peer,
};
use mykube_relay_core::frames::codec::{BINARY, CLOSE, PING, PONG, TEXT};
use mykube_tunnel::{
    Established, Session,
    endpoint::{ConnectionId, DialFailure, Endpoint, Lost, Next, PairingReconnect, PeerStatus, Settings},
    pairing::{AgentEvent, Transmit},
};
use rand::RngExt as _;

use super::{Answer, BACKLOG, DIAL_TIMEOUT, Ev, MS, ROLES, SECOND, Shown, Stage, World};
use crate::net::Item;

/// Whoever slept for so long notices it: two seconds between looks at the clock, and three more.
const JUMPED: Duration = Duration::from_secs(5);
/// A given-up dial explains a replacement for so long.
const ECHO: Duration = Duration::from_secs(30);

impl World {
    /// An end that is not paired yet dials.
    pub(super) fn reconnect(&mut self, who: usize) {
        let end = &self.ends[who];
        if !self.stands(who) && end.socket.is_none() && end.dials.is_empty() {
            self.dial(who, None);
        }
    }

    pub(super) fn dial(&mut self, who: usize, id: Option<ConnectionId>) {
        self.next_socket += 1;
        let socket = self.next_socket;
        self.ends[who].dials.insert(socket, id);
        let ticket = match &self.ends[who].stage {
            Stage::Session(endpoint) => endpoint.ticket().clone(),
            _ => self.ends[who].ticket.clone(),
        };
        assert!(ticket == self.ends[who].ticket, "it dials with its newest ticket");
        let renewed = self.ends[who].renewed;
        self.shown.insert(socket, Shown { ticket, renewed });
        // Some packets are late: the relay may hear of a dial that has failed here long ago.
        let late = self.rng.random_ratio(1, 40).then(|| self.random_delay(20 * SECOND));
        let took = late.unwrap_or_else(|| self.ends[who].delay * 3 + self.random_delay(20 * MS));
        self.schedule(took, Ev::Admit(who, socket));
        self.schedule(DIAL_TIMEOUT, Ev::DialFailed(who, socket, Answer::None));
    }

    pub(super) fn dial_failed(&mut self, who: usize, socket: u32, answer: Answer) {
        if who >= 2 {
            return self.stranger_dial_failed(who);
        }
        let now = self.now;
        let Some(id) = self.ends[who].dials.remove(&socket) else { return };
        self.say(&format_args!("{}: dial {socket} fails, {answer:?}", ROLES[who]));
        self.ends[who].given_up = Some(now);
        let failure = match answer {
            Answer::None => DialFailure::Unreachable,
            Answer::Portal => DialFailure::Answered("log in".into()),
            Answer::Refused => DialFailure::TicketRefused("refused".into()),
        };
        let (end, rng) = (&mut self.ends[who], &mut self.rng);
        match (&mut end.stage, id) {
            (Stage::Session(endpoint), Some(id)) => {
                endpoint.handle_dial_failed(now, id, failure, rng);
                let named = matches!(endpoint.status(), PeerStatus::Away { reason, .. } if reason == "log in");
                assert!(answer != Answer::Portal || endpoint.status().is_up() || named, "what answers is named");
            }
            (Stage::Client(pairing), _) => match end.reconnect.as_mut() {
                Some(reconnect) => match reconnect.handle_dial_failed(now, &failure, pairing, rng) {
                    Next::Dial(after) => self.schedule(after, Ev::Reconnect(who)),
                    Next::Failed | Next::Late(_) => self.unpaired = true,
                },
                None => self.schedule(SECOND, Ev::Reconnect(who)),
            },
            _ => self.schedule(SECOND, Ev::Reconnect(who)),
        }
        self.service(who);
    }

    /// The end's connection is gone, as it notices.
    pub(super) fn lost(&mut self, who: usize, lost: Lost) {
        self.say(&format_args!("{} lost: {lost}", ROLES[who]));
        if let Stage::Client(_) = self.ends[who].stage {
            self.judge_loss(lost.code());
        }
        let (now, end, rng) = (self.now, &mut self.ends[who], &mut self.rng);
        match &mut end.stage {
            Stage::Session(endpoint) => {
                if rng.random_ratio(1, 4) {
                    // A write notices first, and the reader says why, or nothing.
                    endpoint.handle_write_failed(now, end.id, Lost::broken("a write failed"));
                    if lost.code().is_none() && rng.random_ratio(1, 2) {
                        end.failing = true;
                        return;
                    }
                }
                endpoint.handle_lost(now, end.id, lost, rng);
                return;
            }
            Stage::Client(pairing) => match PairingReconnect::new(now, &lost, pairing, rng) {
                Some((reconnect, delay)) => {
                    end.reconnect = Some(reconnect);
                    self.schedule(delay, Ev::Reconnect(who));
                }
                None => self.unpaired = true,
            },
            Stage::Agent(_) => {
                if verdict(lost.code(), Of::CodeWaiting).is_final() {
                    self.unpaired = true;
                }
                self.schedule(500 * MS, Ev::Reconnect(who));
            }
        }
        self.let_go(who);
    }

    /// The end uses its connection no more.
    pub(super) fn let_go(&mut self, who: usize) {
        let end = &mut self.ends[who];
        end.failing = false;
        if let Some(id) = end.socket.take() {
            end.former = Some((id, end.id));
            self.hang_up(id);
        }
    }

    /// What is in the socket's buffer may still arrive, or not.
    fn hang_up(&mut self, id: u32) {
        let close = self.rng.random_ratio(1, 2);
        if let Some(socket) = self.sockets.get_mut(&id)
            && !socket.up.is_dead()
        {
            if close {
                self.write(id, CLOSE, &1000_u16.to_be_bytes());
            } else {
                socket.up.kill();
                let after = self.random_delay(2 * SECOND);
                self.schedule(after, Ev::RelayLost(id));
            }
        }
    }

    /// A dial has led to a connection.
    fn adopt(&mut self, who: usize, socket: u32) {
        let now = self.now;
        let Some(id) = self.ends[who].dials.remove(&socket) else { return self.hang_up(socket) };
        let (end, wanted) = (&mut self.ends[who], id.is_some());
        let routed = !socket.is_multiple_of(4);
        if let (Stage::Session(endpoint), Some(id)) = (&mut end.stage, id) {
            if end.socket.is_some() && end.on_trial {
                let lives = endpoint.session().is_attached() && !endpoint.session().is_probing();
                assert!(!lives, "a connection that has shown life is replaced");
                self.counted.counts.replaced += 1;
            }
            if !endpoint.handle_connected(now, id, routed) {
                return self.hang_up(socket);
            }
            let again = std::mem::take(&mut end.kept_change) && !routed && !self.window.is_zero();
            self.heed(who);
            let end = &mut self.ends[who];
            assert!(end.socket.is_none(), "the former connection is let go of");
            assert_eq!(!end.dials.is_empty(), again, "another dial, where the network has changed since this one");
            (end.socket, end.id, end.on_trial) = (Some(socket), id, false);
            (end.outage, end.dialled, end.hurried, end.not_before) = (None, 0, false, None);
        } else if wanted {
            self.hang_up(socket);
        } else if let Some(old) = self.ends[who].socket.replace(socket) {
            self.hang_up(old);
        }
    }

    /// What has come, and for a session sometimes what came with it, before anything is said.
    pub(super) fn end_hears(&mut self, socket: u32, who: usize, item: Item) {
        let mut next = Some(item);
        while let Some(item) = next {
            let last = matches!(item, Item::Close(..)) || !self.stands(who) || self.rng.random_ratio(1, 2);
            self.hears(socket, who, item);
            self.heed(who);
            let with = self.sockets.get_mut(&socket).filter(|_| !last);
            next = with.and_then(|socket| socket.down.pop(self.now + 20 * MS));
        }
        self.service(who);
    }

    fn hears(&mut self, socket: u32, who: usize, item: Item) {
        if matches!(item, Item::Open) {
            self.adopt(who, socket);
        }
        if self.ends[who].socket != Some(socket) {
            // A reader that is not told yet may still hand over what it has.
            let (now, end, rng) = (self.now, &mut self.ends[who], &mut self.rng);
            if let (Stage::Session(endpoint), Item::Frame(frame)) = (&mut end.stage, item)
                && let Some((_, id)) = end.former.filter(|(former, _)| *former == socket)
            {
                let before = (endpoint.session().audit(), endpoint.status().clone());
                endpoint.handle_frame(now, id, frame, rng);
                assert_eq!((endpoint.session().audit(), endpoint.status().clone()), before, "it is late");
                self.counted.counts.late += 1;
            }
            return;
        }
        if self.stands(who) {
            let renewed = self.sockets.get(&socket).and_then(|socket| socket.down.renewed());
            self.ends[who].renewed = self.ends[who].renewed.max(renewed);
        }
        match item {
            Item::Frame(frame) => self.frame(who, frame),
            Item::Text(text) => self.text(who, text.parse().expect("it is a text of the relay")),
            Item::Close(code, reason) => self.closed(who, code, &reason),
            Item::Ping | Item::Pong => {
                let (now, end) = (self.now, &mut self.ends[who]);
                if let Stage::Session(endpoint) = &mut end.stage {
                    endpoint.handle_heard(now, end.id);
                }
                if let Item::Pong = item {
                    self.counted.counts.pongs += 1;
                } else {
                    // Its WebSocket answers by itself.
                    self.write(socket, PONG, &[]);
                    self.counted.counts.asked += 1;
                }
            }
            Item::Open | Item::Up(_) => {}
        }
    }

    /// The relay closes the connection: whether that ends the session is known here too.
    fn closed(&mut self, who: usize, code: u16, reason: &str) {
        let now = self.now;
        let spent = code == close::NO_SESSION && reason.starts_with("this code is spent");
        assert!(!spent || self.paired != Some(self.attempt), "who has paired is told that the code is spent");
        let end = &mut self.ends[who];
        let mut over = self.window.is_zero();
        if let Stage::Session(endpoint) = &end.stage
            && !over
            && endpoint.ended().is_none()
            && !endpoint.session().is_over()
        {
            over = match verdict(Some(code), Of::Session) {
                Verdict::Reconnect => false,
                Verdict::Replaced => {
                    let explained = !end.dials.is_empty() || end.given_up.is_some_and(|at| now.since(at) < ECHO);
                    self.counted.counts.explained += u64::from(explained);
                    end.given_up = None;
                    end.explained = explained;
                    !explained
                }
                _ => true,
            };
            end.not_before = close::retry_after(reason).map(|delay| now + delay);
            end.final_code = over.then_some(code);
        }
        self.lost(who, Lost::closed(code, reason, format!("closed with {code}")));
        self.heed(who);
        let end = &mut self.ends[who];
        if std::mem::take(&mut end.explained) {
            end.given_up = None;
        }
        if let (Stage::Session(endpoint), Some(_)) = (&end.stage, end.final_code) {
            assert!(endpoint.ended().is_some(), "{code} is final");
        }
    }

    fn text(&mut self, who: usize, text: FromRelay) {
        self.say(&format_args!("{} hears {text}", ROLES[who]));
        let (now, end, rng) = (self.now, &mut self.ends[who], &mut self.rng);
        match (&mut end.stage, text) {
            (Stage::Session(endpoint), text) => {
                if let FromRelay::Ticket(ticket) = &text {
                    end.ticket = ticket.clone();
                    self.counted.counts.tickets += 1;
                }
                let gone = matches!(text, FromRelay::PeerGone(Peer::Session));
                // Away, it may be about to let go of its connection.
                let here = who == 0 && matches!(text, FromRelay::PeerHere(_)) && endpoint.status().is_up();
                endpoint.handle_text(now, end.id, text, rng);
                let idle = endpoint.session().is_over() || end.failing || end.slept;
                assert!(!here || idle || endpoint.wants_transmit(now), "the client asks at once");
                let heard = !endpoint.status().is_up() || endpoint.is_closing(end.id);
                assert!(!gone || heard, "the other end is gone");
            }
            (Stage::Agent(pairing), text) => pairing.handle_relay(now, &text, rng),
            (Stage::Client(pairing), FromRelay::PeerHere(_)) => pairing.handle_peer_here(rng),
            (Stage::Client(_), FromRelay::Ticket(ticket)) => end.ticket = ticket,
            (Stage::Client(_), FromRelay::PeerGone(_)) => {}
        }
    }

    fn frame(&mut self, who: usize, frame: BytesMut) {
        let (now, end, rng) = (self.now, &mut self.ends[who], &mut self.rng);
        match &mut end.stage {
            Stage::Client(pairing) => match pairing.handle_frame(now, frame, rng) {
                Ok(Some(established)) => self.become_session(who, *established),
                Ok(None) => {}
                Err(error) => {
                    self.say(&format_args!("not paired: {error}"));
                    self.unpaired = true;
                }
            },
            Stage::Agent(pairing) => pairing.handle_frame(now, frame),
            Stage::Session(endpoint) => endpoint.handle_frame(now, end.id, frame, rng),
        }
    }

    fn become_session(&mut self, who: usize, established: Established) {
        self.say(&format_args!("{} is paired", ROLES[who]));
        match &self.ends[who].stage {
            Stage::Agent(pairing) => {
                assert!(self.paired.is_none(), "a code pairs once");
                self.paired = pairing.paired();
            }
            _ => assert_eq!(self.paired, Some(self.attempt), "the agent has paired somebody else"),
        }
        let end = &mut self.ends[who];
        let (ticket, window) = (end.ticket.clone(), self.window);
        let attempt = self.paired.expect("the agent pairs first");
        let settings = Settings { attempt, ticket, window, unsure: end.given_up };
        let endpoint = Endpoint::new(self.now, established, self.config, settings);
        self.counted.counts.late_proofs += u64::from(who == 0 && endpoint.session().attaches() > 0);
        end.start = Some(endpoint.session().audit());
        (end.stage, end.id) = (Stage::Session(Box::new(endpoint)), ConnectionId::FIRST);
        assert!(end.socket.is_some() && end.dials.is_empty(), "it has paired over a connection");
        // The handshake's last message is on its way: the moment at which a loss hurts most, and those after it.
        if self.early && who == 1 && self.rng.random_ratio(1, 2) {
            if let Some(id) = self.ends[0].socket {
                self.cut(id, true, true);
            }
            for _ in 0..self.rng.random_range(0..4) {
                let at = self.random_delay(3 * SECOND);
                self.schedule(at, Ev::Trouble);
            }
            if self.rng.random_ratio(1, 2) {
                // The agent has its ticket by then, and the client has only the one that it paired with.
                let after = self.ends[1].delay * 3 + 100 * MS;
                self.schedule(after, Ev::Restart);
            }
        } else if self.early && who == 1 && self.rng.random_ratio(1, 3) {
            // Neither end gets the ticket that says so: the relay will know nothing of it.
            self.restart_relay();
        }
    }

    /// Timers, events, and what is to be sent.
    pub(super) fn service(&mut self, who: usize) {
        let now = self.now;
        if self.ends[who].asleep || self.ends[who].over || self.unpaired {
            return;
        }
        match &mut self.ends[who].stage {
            Stage::Client(pairing) => {
                let late = pairing.handle_timeout(now).is_err();
                let frames: Vec<_> = std::iter::from_fn(|| pairing.poll_transmit()).collect();
                self.unpaired |= late;
                let socket = self.ends[who].socket;
                socket.into_iter().for_each(|id| frames.iter().for_each(|frame| self.write(id, BINARY, frame)));
            }
            Stage::Agent(pairing) => {
                pairing.handle_timeout(now);
                let said: Vec<_> = std::iter::from_fn(|| pairing.poll_transmit()).collect();
                let mut paired = None;
                while let Some(event) = pairing.poll_event() {
                    match event {
                        AgentEvent::Paired(established) => paired = Some(established),
                        AgentEvent::Spent(_) => self.unpaired = true,
                        _ => {}
                    }
                }
                // Without a connection it is lost, as what was given to a broken one is.
                for (id, said) in
                    self.ends[who].socket.into_iter().flat_map(|id| said.iter().map(move |said| (id, said)))
                {
                    match said {
                        Transmit::Relay(text) => self.write(id, TEXT, text.to_string().as_bytes()),
                        Transmit::Peer(frame) => self.write(id, BINARY, frame),
                    }
                }
                if let Some(established) = paired {
                    self.become_session(who, *established);
                }
            }
            Stage::Session(_) => self.service_session(who),
        }
    }

    /// Whether a connection takes no more at the moment.
    pub(super) fn is_full(&self, socket: u32) -> bool {
        self.sockets.get(&socket).is_none_or(|socket| socket.up.free_at().since(self.now) > BACKLOG)
    }

    fn service_session(&mut self, who: usize) {
        let now = self.now;
        loop {
            let full = self.ends[who].socket.is_some_and(|socket| self.is_full(socket));
            let (end, rng) = (&mut self.ends[who], &mut self.rng);
            let Stage::Session(endpoint) = &mut end.stage else { return };
            endpoint.handle_blocked(end.id, full);
            endpoint.handle_timeout(now, rng);
            self.heed(who);
            let end = &mut self.ends[who];
            let (Stage::Session(endpoint), Some(socket)) = (&mut end.stage, end.socket) else { return };
            if full {
                return;
            }
            let wanted = endpoint.wants_transmit(now);
            let texts: Vec<_> = std::iter::from_fn(|| endpoint.poll_text(end.id)).collect();
            let frame = endpoint.poll_transmit(now, end.id);
            let ping = endpoint.poll_ping(end.id);
            end.asked = if ping { now } else { end.asked };
            let said = !texts.is_empty() || frame.is_some() || ping;
            let closes = endpoint.is_closing(end.id);
            assert!(wanted || !said, "it says something and did not want to");
            self.counted.counts.frames += u64::from(frame.is_some());
            for text in texts {
                self.counted.counts.asked_anew += u64::from(matches!(text, FromAgent::Paired(_)));
                self.write(socket, TEXT, text.to_string().as_bytes());
            }
            frame.into_iter().for_each(|frame| self.write(socket, BINARY, &frame));
            if ping {
                self.write(socket, PING, &[]);
            }
            if closes {
                self.write(socket, CLOSE, &1000_u16.to_be_bytes());
                let end = &mut self.ends[who];
                // In order: what was sent before arrives.
                end.socket = None;
                if let Stage::Session(endpoint) = &mut end.stage {
                    endpoint.handle_closed(now, end.id);
                }
            }
            self.heed(who);
            if !said {
                return;
            }
        }
    }

    pub(super) fn network_changed(&mut self, who: usize, routed: bool) {
        let (now, end) = (self.now, &mut self.ends[who]);
        if let Stage::Session(endpoint) = &mut end.stage {
            end.hurried = true;
            let (up, attached) = (end.socket.is_some(), endpoint.status().is_up());
            let open = endpoint.ended().is_none() && !endpoint.session().is_over();
            let (dials, newest) = (!end.dials.is_empty(), self.next_socket);
            endpoint.handle_network_changed(now, routed);
            self.heed(who);
            let end = &mut self.ends[who];
            end.kept_change |= dials && self.next_socket == newest;
            let must = open && !end.failing && (!up || attached && !routed && !self.window.is_zero());
            assert!(!must || !end.dials.is_empty(), "it dials at once");
            end.owes_dial |= open && end.failing && !self.window.is_zero();
        }
        self.service(who);
    }

    pub(super) fn wake(&mut self, who: usize) {
        self.say(&format_args!("{} wakes", ROLES[who]));
        let end = &mut self.ends[who];
        let long = self.now.since(end.sleeps_since) >= JUMPED;
        (end.asleep, end.slept) = (false, true);
        for ev in std::mem::take(&mut self.ends[who].deferred) {
            self.schedule(Duration::ZERO, ev);
        }
        let end = &self.ends[who];
        if let Stage::Session(endpoint) = &end.stage
            && long
            && end.socket.is_some()
            && end.dials.is_empty()
            && !end.failing
            && endpoint.status().is_up()
            && endpoint.ended().is_none()
            && !endpoint.session().is_over()
            && !self.window.is_zero()
        {
            self.service(who);
            let replaces = !self.ends[who].dials.is_empty();
            assert!(replaces, "after a suspend another connection is dialled beside the one there was");
            self.counted.counts.jumps += 1;
        }
        self.service(who);
    }

    pub(super) fn session(&mut self, who: usize) -> Option<&mut Session> {
        match &mut self.ends[who].stage {
            Stage::Session(endpoint) => Some(endpoint.session_mut()),
            _ => None,
        }
    }
}
