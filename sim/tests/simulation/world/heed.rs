//! What endpoints tell and order: heeded, and judged.

use mykube_protocol::limits;
use mykube_tunnel::{
    endpoint::{End, Event, Order, PeerStatus},
    session::SessionError,
};

use super::{BACKLOG, ROLES, SECOND, SLACK, Stage, World};

impl World {
    /// What an endpoint tells and orders.
    pub(super) fn heed(&mut self, who: usize) {
        loop {
            let Stage::Session(endpoint) = &mut self.ends[who].stage else { return };
            if let Some(event) = endpoint.poll_event() {
                self.event(who, event);
            } else if let Some(order) = endpoint.poll_order() {
                self.order(who, order);
            } else {
                break;
            }
        }
        let end = &mut self.ends[who];
        if let Stage::Session(endpoint) = &end.stage {
            assert_eq!(end.status, *endpoint.status(), "the application knows");
        }
        if end.socket.is_none() && std::mem::take(&mut end.owes_dial) {
            let open = matches!(&end.stage, Stage::Session(endpoint) if endpoint.ended().is_none());
            assert!(!open || !end.dials.is_empty(), "the network changed while its connection died: it dials at once");
            self.counted.counts.owed += u64::from(open);
        }
    }

    fn event(&mut self, who: usize, event: Event) {
        let end = &mut self.ends[who];
        match event {
            Event::Session(event) => self.model.event(who, event),
            Event::Status(status) => {
                if let (PeerStatus::Away { since, .. }, PeerStatus::Away { since: before, .. }) = (&status, &end.status)
                {
                    assert_eq!(since, before, "it is away since the same moment, whatever keeps it away");
                }
                end.status = status;
            }
            Event::Waits(lost) => {
                let words = lost.to_string();
                if words.ends_with("the other end does not answer") {
                    let socket = end.socket.expect("it is let go of after this");
                    let until = self.sockets.get(&socket).map(|socket| socket.up.free_at());
                    let full = until.is_some_and(|until| until.since(self.now) > BACKLOG);
                    assert!(!full, "what was asked for has not left yet");
                }
                self.counted.counts.silences += u64::from(words.ends_with("the other end does not answer"));
                assert!(!self.window.is_zero(), "a session without a window waits for nothing");
                let over = matches!(&end.stage, Stage::Session(endpoint) if endpoint.session().is_over());
                assert!(!over, "whose farewell was heard waits for nothing");
                if words.ends_with("the relay does not answer") {
                    self.counted.counts.relay_silences += 1;
                    let socket = end.socket.and_then(|id| self.sockets.get(&id)).expect("it is let go of after this");
                    let dead = socket.up.is_dead() || socket.down.is_dead();
                    // Who was held back asks, and does not wait for the answer.
                    let free = socket.down.free_at().max(socket.up.free_at());
                    let behind = self.now.since(free) < 5 * SECOND;
                    assert!(dead || behind || end.slept, "the relay has answered");
                    assert!(self.now.since(end.asked) >= 5 * SECOND, "its answer is waited for");
                }
                assert!(
                    self.hostile || !words.contains("did not open"),
                    "an honest relay and a record that does not open"
                );
                end.outage.get_or_insert(self.now);
            }
            Event::Ended(why) => self.ended(who, &why),
        }
    }

    fn order(&mut self, who: usize, order: Order) {
        let now = self.now;
        self.say(&format_args!("{}: {order:?}", ROLES[who]));
        let end = &mut self.ends[who];
        match order {
            Order::Dial(id) => {
                if let Stage::Session(endpoint) = &end.stage {
                    if end.dials.is_empty() {
                        end.on_trial = end.socket.is_some() && endpoint.session().is_attached();
                    }
                    self.counted.counts.beside += u64::from(end.socket.is_some());
                }
                if let Some(since) = end.outage {
                    // A second at most for half a minute, then ten, with jitter of a half; some come at once.
                    end.dialled += 1;
                    let away = now.since(since).as_secs();
                    let most = 8 + away.min(30) * 2 + away / 5;
                    assert!(end.hurried || end.dialled <= most, "{} dials within {away} s", end.dialled);
                    let early = end.not_before.is_some_and(|at| now < at);
                    assert!(end.hurried || !early, "it comes before the relay wants it to");
                }
                end.kept_change = false;
                self.dial(who, Some(id));
                assert!(self.ends[who].dials.len() <= 2, "the oldest and the newest");
            }
            Order::GiveUp(id) => {
                end.dials.retain(|_, other| *other != Some(id));
                end.given_up = Some(now);
            }
            Order::LetGo(id) if id == end.id => self.let_go(who),
            Order::LetGo(_) => {}
            Order::Over => {
                assert!(end.dials.is_empty() && end.socket.is_none(), "nothing is left behind");
                end.over = true;
            }
        }
    }

    /// An end is over, and rightly so?
    fn ended(&mut self, who: usize, why: &End) {
        self.say(&format_args!("{} ends: {why}", ROLES[who]));
        let (now, end) = (self.now, &mut self.ends[who]);
        let Stage::Session(endpoint) = &end.stage else { return };
        let heard = endpoint.session().is_over() && !matches!(why, End::Here | End::Bye(_));
        assert!(!heard, "whose farewell was heard has said it: {why:?}");
        let right = match why {
            End::Here => self.model.said_bye(who),
            End::Bye(_) => self.model.said_bye(1 - who),
            End::Window { window, .. } => {
                let PeerStatus::Away { since, .. } = &end.status else { panic!("it was not away") };
                let away = now.since(*since);
                self.counted.counts.windows += 1;
                *window == self.window && away >= self.window && (end.slept || away <= self.window + SLACK)
            }
            End::Lost(lost) => {
                self.counted.counts.finals += 1;
                self.window.is_zero() || end.final_code.is_some() && lost.code() == end.final_code
            }
            End::Refused(_) => {
                self.counted.counts.refusals += 1;
                end.refused
            }
            End::Session(SessionError::Forged) => {
                end.forged = true;
                self.tampered >= limits::BAD_RECORDS_MAX
            }
            End::Session(_) => false,
        };
        assert!(right, "{} must not end like this: {why:?}", ROLES[who]);
        self.ended |= !matches!(why, End::Here | End::Bye(_));
    }
}
