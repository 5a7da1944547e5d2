//! A session whose peer is the test: it knows the keys and says what it likes.

use bytes::BytesMut;
use mykube_tunnel::{
    Config, Event, Session, SessionError, Time,
    protocol::{Role, frame::kind},
    test_api::{self, Opener, Sealer},
};

pub(crate) const CLIENT_SECRET: [u8; 32] = [1; 32];
pub(crate) const AGENT_SECRET: [u8; 32] = [2; 32];

/// A message as (kind, body).
pub(crate) type Raw = (u8, Vec<u8>);

pub(crate) fn text(text: &str) -> Raw {
    (kind::CONTROL, text.into())
}

pub(crate) fn upkeep(text: &str) -> Raw {
    (kind::UPKEEP, text.into())
}

pub(crate) fn data(id: u32, payload: &[u8]) -> Raw {
    (kind::DATA, [&id.to_be_bytes()[..], payload].concat())
}

pub(crate) struct Hostile {
    pub(crate) now: Time,
    pub(crate) session: Session,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
}

impl Hostile {
    /// The session under attack is `role`'s.
    pub(crate) fn against(role: Role) -> Self {
        let now = Time::from_micros(1_000_000);
        let established = test_api::established(role, CLIENT_SECRET, AGENT_SECRET);
        let (ours, theirs) = match role {
            Role::Agent => (CLIENT_SECRET, AGENT_SECRET),
            Role::Client => (AGENT_SECRET, CLIENT_SECRET),
        };
        Self {
            now,
            session: Session::new(now, established, Config::default()),
            sealer: Sealer::from_secret(ours),
            opener: Opener::from_secret(theirs),
        }
    }

    pub(crate) fn seal(&mut self, plaintext: &[u8]) -> BytesMut {
        let mut frame = BytesMut::from(&[5][..]);
        frame.extend_from_slice(plaintext);
        self.sealer.seal(&mut frame);
        frame
    }

    /// One record with these messages.
    pub(crate) fn say(&mut self, messages: &[Raw]) -> Result<(), SessionError> {
        let mut plaintext = Vec::new();
        for (kind, body) in messages {
            plaintext.push(*kind);
            plaintext.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
            plaintext.extend_from_slice(body);
        }
        let frame = self.seal(&plaintext);
        self.session.handle_frame(self.now, frame)
    }

    pub(crate) fn say_text(&mut self, what: &str) -> Result<(), SessionError> {
        self.say(&[text(what)])
    }

    /// Whatever the session has to say now, its acknowledgements' timers included.
    pub(crate) fn hear(&mut self) -> Vec<Raw> {
        self.try_hear().unwrap()
    }

    pub(crate) fn try_hear(&mut self) -> Result<Vec<Raw>, SessionError> {
        let mut heard = Vec::new();
        self.session.handle_timeout(self.now);
        while let Some(mut frame) = self.session.poll_transmit(self.now)? {
            let plaintext = self.opener.open(&mut frame).unwrap().to_vec();
            let messages = parse(&plaintext);
            if messages.last() == Some(&upkeep("rekey")) {
                self.opener.rekey();
            }
            heard.extend(messages);
        }
        Ok(heard)
    }

    pub(crate) fn texts(&mut self) -> Vec<String> {
        let texts = |(kind, body): Raw| (kind == kind::CONTROL).then(|| String::from_utf8(body).unwrap());
        self.hear().into_iter().filter_map(texts).collect()
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.session.poll_event()).collect()
    }
}

/// Reads a plaintext; panics where it is no sequence of messages.
pub(crate) fn parse(mut plaintext: &[u8]) -> Vec<Raw> {
    let mut messages = Vec::new();
    while let Some((kind, rest)) = plaintext.split_first() {
        if *kind == kind::PADDING {
            assert!(rest.iter().all(|byte| *byte == 0));
            break;
        }
        let (len, rest) = rest.split_first_chunk::<4>().unwrap();
        let (body, rest) = rest.split_at(u32::from_be_bytes(*len) as usize);
        messages.push((*kind, body.to_vec()));
        plaintext = rest;
    }
    messages
}
