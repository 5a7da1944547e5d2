//! Going on over another transport: attach with fresh keys. docs/protocol.md, "Resume".
//!
//! ```text
//! C  attach_client{n, Ce}   -> A    ask -> answer
//! A  attach_agent{n, Ae}    -> C           handle_answer
//! C  record{received}       -> A               -> open_first: the agent switches, and confirms
//! A  record{received}       -> C    open_first: the client switches
//! ```
//!
//! Nothing of the session changes before the peer's first record has opened, so a relay that replays or forges attach
//! frames gains nothing: a MAC is checked before anything is computed, and a replayed frame leads to keys that its
//! sender does not have.

use bytes::BytesMut;
use hmac::Mac;
use mykube_protocol::{Role, SessionId, frame};
use rand_core::CryptoRng;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::{
    key::{ResumeKeys, attach_transcript},
    message::{self, Message},
    record::{Opener, Sealer},
};

/// Length of a MAC, of an X25519 key, of `r || tag_a`.
const MAC: usize = 32;
const KEY: usize = 32;
const PROOF: usize = 64;
/// `0x03 || sid || n || Ce`.
const CLIENT_HEAD: usize = 1 + 16 + 8 + KEY;
/// `0x04 || n || Ae`.
const AGENT_HEAD: usize = 1 + 8 + KEY;
/// `kind || len` and the body of a first record, with padding and tag: a longer record is none.
const FIRST_MAX: usize = 256;

/// The agent's last word of the handshake, `r || tag_a`.
pub(crate) type Proof = Zeroizing<[u8; PROOF]>;

/// One end's part of all attaches of a session.
pub(crate) struct Resume {
    role: Role,
    sid: SessionId,
    keys: ResumeKeys,
    /// The newest attach that stands; 0 is the handshake.
    confirmed: u64,
    /// The client's newest attempt.
    asked: u64,
    pending: Pending,
    /// The agent: what the client may not have received yet.
    pub(crate) unproved: Option<Proof>,
}

/// An attach under way.
enum Pending {
    None,
    /// The client has asked.
    Asked {
        secret: StaticSecret,
        request: Vec<u8>,
    },
    /// The keys exist at this end; the peer's first record is awaited.
    Keyed(Box<Keyed>),
}

struct Keyed {
    n: u64,
    /// The agent: the answer to the newest question, the same each time the client repeats it.
    request: Vec<u8>,
    answer: Vec<u8>,
    sealer: Sealer,
    opener: Opener,
}

/// A record of the peer under new keys that does not say what it has received.
#[derive(Debug)]
pub(crate) struct NotFirst;

/// The peer's first record has opened.
pub(crate) struct First {
    /// The next message the peer expects.
    pub(crate) received: u64,
    /// The agent's proof, where the agent does not know whether the client has it.
    pub(crate) proof: Option<Proof>,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
}

impl Resume {
    pub(crate) fn new(role: Role, sid: SessionId, keys: ResumeKeys) -> Self {
        Self { role, sid, keys, confirmed: 0, asked: 0, pending: Pending::None, unproved: None }
    }

    /// The client asks, or asks again: each time with another n and another key.
    pub(crate) fn ask(&mut self, rng: &mut impl CryptoRng) -> BytesMut {
        let secret = ephemeral(rng);
        self.asked += 1;
        let mut request = Vec::with_capacity(CLIENT_HEAD + MAC);
        request.push(frame::ATTACH_CLIENT);
        request.extend_from_slice(self.sid.as_bytes());
        request.extend_from_slice(&self.asked.to_be_bytes());
        request.extend_from_slice(PublicKey::from(&secret).as_bytes());
        let mac = self.keys.client_mac(&request).finalize().into_bytes();
        request.extend_from_slice(&mac);
        let frame = BytesMut::from(&request[..]);
        self.pending = Pending::Asked { secret, request };
        frame
    }

    /// The agent answers; nothing where the frame is not the client's, or an older one. A repeat of the newest is
    /// answered with the same bytes.
    pub(crate) fn answer(&mut self, request: &[u8], rng: &mut impl CryptoRng) -> Option<BytesMut> {
        let head = request.get(..CLIENT_HEAD)?;
        let right = self.role == Role::Agent
            && head[0] == frame::ATTACH_CLIENT
            && head[1..17] == *self.sid.as_bytes()
            && self.keys.client_mac(head).verify_slice(&request[CLIENT_HEAD..]).is_ok();
        let n = u64::from_be_bytes(head[17..25].try_into().ok()?);
        if !right || n <= self.confirmed {
            return None;
        }
        if let Pending::Keyed(keyed) = &self.pending {
            if keyed.n == n && keyed.request == request {
                return Some(BytesMut::from(&keyed.answer[..]));
            }
            if keyed.n >= n {
                return None;
            }
        }
        let secret = ephemeral(rng);
        let mut answer = Vec::with_capacity(AGENT_HEAD + MAC);
        answer.push(frame::ATTACH_AGENT);
        answer.extend_from_slice(&n.to_be_bytes());
        answer.extend_from_slice(PublicKey::from(&secret).as_bytes());
        let mac = self.keys.agent_mac(request, &answer).finalize().into_bytes();
        answer.extend_from_slice(&mac);
        let frame = BytesMut::from(&answer[..]);
        let peer = head[25..].try_into().ok()?;
        self.pending = Pending::Keyed(Box::new(self.key(n, &secret, peer, request, answer)?));
        Some(frame)
    }

    /// The client takes the agent's answer to its newest question, once, and gives its first record under the new
    /// keys. Nothing where it is no answer.
    pub(crate) fn handle_answer(&mut self, answer: &[u8], received: u64) -> Option<BytesMut> {
        let Pending::Asked { secret, request } = &self.pending else { return None };
        let head = answer.get(..AGENT_HEAD)?;
        let right = head[0] == frame::ATTACH_AGENT
            && head[1..9] == self.asked.to_be_bytes()
            && self.keys.agent_mac(request, head).verify_slice(&answer[AGENT_HEAD..]).is_ok();
        if !right {
            return None;
        }
        let peer = head[9..].try_into().ok()?;
        let mut keyed = self.key(self.asked, secret, peer, request, answer.to_vec())?;
        let first = seal_first(&mut keyed.sealer, received, None);
        self.pending = Pending::Keyed(Box::new(keyed));
        Some(first)
    }

    fn key(&self, n: u64, secret: &StaticSecret, peer: [u8; KEY], request: &[u8], answer: Vec<u8>) -> Option<Keyed> {
        let shared = secret.diffie_hellman(&PublicKey::from(peer));
        if !shared.was_contributory() {
            return None;
        }
        let th = attach_transcript(request, &answer);
        let prk = self.keys.prk(shared.as_bytes());
        let (client, agent) = (prk.traffic_client(&th), prk.traffic_agent(&th));
        let (ours, theirs) = match self.role {
            Role::Client => (client, agent),
            Role::Agent => (agent, client),
        };
        Some(Keyed { n, request: request.to_vec(), answer, sealer: Sealer::new(ours), opener: Opener::new(theirs) })
    }

    /// Whether a frame is the peer's first record under the new keys. If so they stand, and there are no others.
    ///
    /// # Errors
    /// The frame is the peer's, and is not what a first record has to be.
    pub(crate) fn open_first(&mut self, frame: &[u8]) -> Result<Option<First>, NotFirst> {
        let Pending::Keyed(keyed) = &mut self.pending else { return Ok(None) };
        if frame.len() > FIRST_MAX {
            return Ok(None);
        }
        // Opened in a copy: it may be one of the old keys' as well.
        let mut copy = Zeroizing::new(frame.to_vec());
        let Ok(plaintext) = keyed.opener.open(&mut copy) else { return Ok(None) };
        let (received, proof) = first_body(plaintext).ok_or(NotFirst)?;
        let Pending::Keyed(keyed) = std::mem::replace(&mut self.pending, Pending::None) else { return Ok(None) };
        let Keyed { n, sealer, opener, .. } = *keyed;
        self.confirmed = n;
        Ok(Some(First { received, proof, sealer, opener }))
    }

    /// The newest attach that stands.
    pub(crate) fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// The agent's first record, with its proof where the client may not have it.
    pub(crate) fn confirm(&self, sealer: &mut Sealer, received: u64) -> BytesMut {
        seal_first(sealer, received, self.unproved.as_ref())
    }
}

fn ephemeral(rng: &mut impl CryptoRng) -> StaticSecret {
    let mut bytes = Zeroizing::new([0; KEY]);
    rng.fill_bytes(bytes.as_mut_slice());
    StaticSecret::from(*bytes)
}

/// `{ received: u64 }`, or `received || r || tag_a`.
fn seal_first(sealer: &mut Sealer, received: u64, proof: Option<&Proof>) -> BytesMut {
    let mut body = Zeroizing::new(received.to_be_bytes().to_vec());
    body.extend_from_slice(proof.map_or(&[], |proof| proof.as_slice()));
    let mut frame = BytesMut::with_capacity(FIRST_MAX);
    message::start_record(&mut frame);
    message::put_handshake(&mut frame, &body);
    message::pad(&mut frame, false);
    sealer.seal(&mut frame);
    frame
}

fn first_body(plaintext: &[u8]) -> Option<(u64, Option<Proof>)> {
    let mut messages = message::parse(plaintext);
    let (Some(Ok(Message::Handshake(body))), None) = (messages.next(), messages.next()) else { return None };
    let (received, proof) = body.split_first_chunk::<8>()?;
    let proof = match proof.len() {
        0 => None,
        _ => Some(Zeroizing::new(proof.try_into().ok()?)),
    };
    Some((u64::from_be_bytes(*received), proof))
}
