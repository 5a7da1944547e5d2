//! The handshake by code: SPAKE2, X25519 and ML-KEM-768 into one secret, the client's tag first.
//!
//! ```text
//! A  hello_agent                      -> C     Agent::start
//! C  hello_client, record{tag_c}      -> A     Client::start with hello_agent
//! A  checks tag_c; record{r, tag_a}   -> C     AgentAwaitsHello -> AgentAwaitsTag -> Established
//! C  checks r and tag_a                        ClientAwaitsTag -> Established
//! ```
//!
//! Each step is a type of its own that the next one consumes; nothing that could carry data exists before
//! [`Established`]. docs/protocol.md, "Handshake".

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::BytesMut;
use ml_kem::{
    MlKem768, Seed,
    kem::{Decapsulate, Encapsulate, KeyExport},
};
use mykube_protocol::{PairingCode, Role, SessionId, VERSION, frame, limits::HELLO_MAX};
use rand_core::CryptoRng;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::{
    key::{CodeKey, Prk, TranscriptHash, commitment, transcript},
    message::{self, Message},
    record::{Opener, Sealer},
    resume::{Proof, Resume},
};

type Encapsulation = ml_kem::EncapsulationKey<MlKem768>;
type Decapsulation = ml_kem::DecapsulationKey<MlKem768>;

/// Why a handshake did not come to an end. Says whose fault it is and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// A tag or a record that does not fit: the one error an attacker and a mistyped digit share.
    #[error("wrong code, or someone is in the middle: retry only if you mistyped, else ask for a new code")]
    WrongCode,
    /// The peer's versions and ours have none in common.
    #[error("the other end speaks protocol {peer}, this one {VERSION}: use the same release of mykube on both ends")]
    Version {
        /// The versions that the peer offered.
        peer: String,
    },
    /// The peer broke the handshake's rules.
    #[error(
        "the other end broke the handshake's rules ({0}): use the same release of mykube on both ends, or it is not mykube"
    )]
    Misbehaved(&'static str),
}

use HandshakeError::Misbehaved;

/// What both ends share after a handshake.
pub struct Established {
    /// Which end this is.
    pub role: Role,
    /// Four words, the same on both ends unless an attacker stands between them.
    pub words: String,
    /// One of the ends wants its person to compare the words.
    pub verify: bool,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    pub(crate) resume: Resume,
}

impl std::fmt::Debug for Established {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Established({})", self.role)
    }
}

/// Bytes as unpadded base64url in JSON, of one length.
struct B64<const N: usize>([u8; N]);

impl<const N: usize> Serialize for B64<N> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for B64<N> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        let bytes = URL_SAFE_NO_PAD.decode(text.as_bytes()).map_err(D::Error::custom)?;
        bytes.try_into().map(Self).map_err(|_| D::Error::custom("wrong length"))
    }
}

const X25519_LEN: usize = 32;
const SPAKE2_LEN: usize = 33;
const EK_LEN: usize = 1184;
const CT_LEN: usize = 1088;
const MODE: &str = "code";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HelloAgent {
    versions: Vec<u32>,
    session_id: SessionId,
    role: String,
    mode: String,
    x25519: B64<X25519_LEN>,
    mlkem768: B64<EK_LEN>,
    spake2: B64<SPAKE2_LEN>,
    commit: B64<32>,
    verify: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HelloClient {
    version: u32,
    session_id: SessionId,
    role: String,
    mode: String,
    x25519: B64<X25519_LEN>,
    mlkem768: B64<CT_LEN>,
    spake2: B64<SPAKE2_LEN>,
    verify: bool,
}

fn encode<T: Serialize>(kind: u8, hello: &T) -> Vec<u8> {
    let mut out = vec![kind];
    serde_json::to_writer(&mut out, hello).expect("a hello is plain data, and a Vec takes all of it");
    out
}

/// What a hello of any version has.
#[derive(Deserialize)]
struct Versions {
    #[serde(default)]
    versions: Vec<u32>,
    version: Option<u32>,
}

fn decode<'f, T: Deserialize<'f>>(kind: u8, frame: &'f [u8]) -> Result<T, HandshakeError> {
    match frame.split_first() {
        Some((first, body)) if *first == kind && body.len() <= HELLO_MAX => {
            // The version first: the fields of another one may be others.
            if let Ok(Versions { versions, version }) = serde_json::from_slice(body) {
                let offered = || versions.iter().copied().chain(version);
                if offered().next().is_some() && !offered().any(|version| version == VERSION) {
                    let shown: Vec<_> = offered().take(8).map(|version| version.to_string()).collect();
                    return Err(HandshakeError::Version { peer: shown.join(", ") });
                }
            }
            // An object: serde would take the fields as an array too.
            Some(body)
                .filter(|body| body.starts_with(b"{"))
                .and_then(|body| serde_json::from_slice(body).ok())
                .ok_or(Misbehaved("a hello with unknown, missing or malformed fields"))
        }
        Some((first, _)) if *first == kind => Err(Misbehaved("a hello of more than 8 KiB")),
        _ => Err(Misbehaved("a frame that is not a hello")),
    }
}

fn check(
    session: &SessionId,
    expected: Role,
    session_id: &SessionId,
    role: &str,
    mode: &str,
) -> Result<(), HandshakeError> {
    if role != expected.as_str() {
        return Err(Misbehaved("wrong role"));
    }
    if session_id != session {
        return Err(Misbehaved("a hello of another session"));
    }
    if mode != MODE {
        return Err(Misbehaved("a mode other than pairing by code"));
    }
    Ok(())
}

fn identity(role: Role, session: &SessionId) -> Identity {
    Identity::new(&[b"mykube/2 ", role.as_str().as_bytes(), session.as_bytes()].concat())
}

fn spake2_finish(state: Spake2<Ed25519Group>, peer: &[u8]) -> Result<CodeKey, HandshakeError> {
    let key = Zeroizing::new(state.finish(peer).map_err(|_| Misbehaved("a SPAKE2 message that is no group element"))?);
    Ok(CodeKey(key.as_slice().try_into().map_err(|_| Misbehaved("a SPAKE2 key of the wrong length"))?))
}

fn dh(secret: &StaticSecret, peer: &B64<X25519_LEN>) -> Result<Zeroizing<[u8; 32]>, HandshakeError> {
    let shared = secret.diffie_hellman(&PublicKey::from(peer.0));
    if !shared.was_contributory() {
        return Err(Misbehaved("an X25519 key of small order"));
    }
    Ok(Zeroizing::new(shared.to_bytes()))
}

fn random<const N: usize>(rng: &mut impl CryptoRng) -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    rng.fill_bytes(bytes.as_mut_slice());
    bytes
}

/// A handshake record: one message of kind 1.
fn seal(sealer: &mut Sealer, parts: &[&[u8]]) -> BytesMut {
    let mut frame = BytesMut::with_capacity(128);
    message::start_record(&mut frame);
    message::put_handshake(&mut frame, &parts.concat());
    message::pad(&mut frame, false);
    sealer.seal(&mut frame);
    frame
}

fn open<const N: usize>(opener: &mut Opener, frame: &mut [u8]) -> Result<[u8; N], HandshakeError> {
    let plaintext = opener.open(frame).map_err(|_| HandshakeError::WrongCode)?;
    let mut messages = message::parse(plaintext);
    match (messages.next(), messages.next()) {
        (Some(Ok(Message::Handshake(body))), None) => body.try_into().map_err(|_| HandshakeError::WrongCode),
        _ => Err(HandshakeError::WrongCode),
    }
}

/// The agent's side.
pub struct Agent;

impl Agent {
    /// Draws fresh values and gives the hello to send.
    pub fn start(
        rng: &mut impl CryptoRng,
        session: SessionId,
        code: &PairingCode,
        verify: bool,
    ) -> (AgentAwaitsHello, Vec<u8>) {
        let x25519 = StaticSecret::from(*random::<32>(rng));
        let mlkem = Box::new(Decapsulation::from_seed(Seed::from(*random::<64>(rng))));
        let r = random::<32>(rng);
        let (spake2, pa) = Spake2::<Ed25519Group>::start_a_with_rng(
            &Password::new(code.digits().as_slice()),
            &identity(Role::Agent, &session),
            &identity(Role::Client, &session),
            rng,
        );
        let hello = encode(
            frame::HELLO_AGENT,
            &HelloAgent {
                versions: vec![VERSION],
                session_id: session,
                role: Role::Agent.as_str().to_owned(),
                mode: MODE.to_owned(),
                x25519: B64(*PublicKey::from(&x25519).as_bytes()),
                mlkem768: B64(mlkem.encapsulation_key().to_bytes().into()),
                spake2: B64(pa.try_into().expect("SPAKE2 over Ed25519 has 33-byte messages")),
                commit: B64(commitment(&r)),
                verify,
            },
        );
        (AgentAwaitsHello { session, x25519, mlkem, spake2, r, verify, hello: hello.clone() }, hello)
    }
}

/// The agent has said hello.
pub struct AgentAwaitsHello {
    session: SessionId,
    x25519: StaticSecret,
    mlkem: Box<Decapsulation>,
    spake2: Spake2<Ed25519Group>,
    r: Zeroizing<[u8; 32]>,
    verify: bool,
    hello: Vec<u8>,
}

impl AgentAwaitsHello {
    /// Takes `hello_client`.
    ///
    /// # Errors
    /// The hello breaks a rule of section "Handshake". The client has learnt nothing about the code then.
    pub fn handle_hello(self, hello_client: &[u8]) -> Result<AgentAwaitsTag, HandshakeError> {
        let hello: HelloClient = decode(frame::HELLO_CLIENT, hello_client)?;
        check(&self.session, Role::Client, &hello.session_id, &hello.role, &hello.mode)?;
        if hello.version != VERSION {
            return Err(HandshakeError::Version { peer: hello.version.to_string() });
        }
        let code = spake2_finish(self.spake2, &hello.spake2.0)?;
        let x25519 = dh(&self.x25519, &hello.x25519)?;
        let mlkem = Zeroizing::new(<[u8; 32]>::from(self.mlkem.decapsulate(&hello.mlkem768.0.into())));
        let th = transcript(&self.hello, hello_client);
        let prk = Prk::extract(&code, &x25519, &mlkem);
        let opener = Opener::new(prk.traffic_client(&th));
        Ok(AgentAwaitsTag { session: self.session, prk, th, r: self.r, verify: self.verify || hello.verify, opener })
    }
}

/// The agent has the client's hello and sends nothing before it has seen its tag.
pub struct AgentAwaitsTag {
    session: SessionId,
    prk: Prk,
    th: TranscriptHash,
    r: Zeroizing<[u8; 32]>,
    verify: bool,
    opener: Opener,
}

impl AgentAwaitsTag {
    /// Takes the client's record. The answer to send is the first byte that depends on the keys.
    ///
    /// # Errors
    /// [`HandshakeError::WrongCode`], to be counted.
    pub fn handle_tag(mut self, record: &mut [u8]) -> Result<(Established, BytesMut), HandshakeError> {
        let tag: [u8; 32] = open(&mut self.opener, record)?;
        if !self.prk.confirm_client(&self.th).verify(&self.th, &[], &tag) {
            return Err(HandshakeError::WrongCode);
        }
        let mut sealer = Sealer::new(self.prk.traffic_agent(&self.th));
        let tag = self.prk.confirm_agent(&self.th).tag(&self.th, self.r.as_slice());
        let answer = seal(&mut sealer, &[self.r.as_slice(), &tag]);
        let words = self.prk.words(&self.th, &self.r);
        let mut resume = Resume::new(Role::Agent, self.session, self.prk.resume_keys(&self.th));
        let mut proof = Proof::new([0; 64]);
        proof[..32].copy_from_slice(self.r.as_slice());
        proof[32..].copy_from_slice(&tag);
        resume.unproved = Some(proof);
        let established =
            Established { role: Role::Agent, words, verify: self.verify, sealer, opener: self.opener, resume };
        Ok((established, answer))
    }
}

/// The client's side.
pub struct Client;

impl Client {
    /// Answers `hello_agent`: `hello_client` and the record with the tag. One per typed code.
    ///
    /// # Errors
    /// The hello breaks a rule of section "Handshake". Nothing was sent then.
    pub fn start(
        rng: &mut impl CryptoRng,
        session: SessionId,
        code: &PairingCode,
        verify: bool,
        hello_agent: &[u8],
    ) -> Result<(ClientAwaitsTag, Vec<u8>, BytesMut), HandshakeError> {
        let hello: HelloAgent = decode(frame::HELLO_AGENT, hello_agent)?;
        if !hello.versions.contains(&VERSION) {
            return Err(HandshakeError::Version { peer: "none".to_owned() });
        }
        check(&session, Role::Agent, &hello.session_id, &hello.role, &hello.mode)?;
        let ek = Encapsulation::new(&hello.mlkem768.0.into())
            .map_err(|_| Misbehaved("an ML-KEM-768 key that fails FIPS 203's check"))?;
        let (ct, mlkem) = ek.encapsulate_with_rng(rng);
        let mlkem = Zeroizing::new(<[u8; 32]>::from(mlkem));
        let secret = StaticSecret::from(*random::<32>(rng));
        let x25519 = dh(&secret, &hello.x25519)?;
        let (spake2, pc) = Spake2::<Ed25519Group>::start_b_with_rng(
            &Password::new(code.digits().as_slice()),
            &identity(Role::Agent, &session),
            &identity(Role::Client, &session),
            rng,
        );
        let code = spake2_finish(spake2, &hello.spake2.0)?;
        let hello_client = encode(
            frame::HELLO_CLIENT,
            &HelloClient {
                version: VERSION,
                session_id: session,
                role: Role::Client.as_str().to_owned(),
                mode: MODE.to_owned(),
                x25519: B64(*PublicKey::from(&secret).as_bytes()),
                mlkem768: B64(ct.into()),
                spake2: B64(pc.try_into().expect("SPAKE2 over Ed25519 has 33-byte messages")),
                verify,
            },
        );
        let th = transcript(hello_agent, &hello_client);
        let prk = Prk::extract(&code, &x25519, &mlkem);
        let mut sealer = Sealer::new(prk.traffic_client(&th));
        let record = seal(&mut sealer, &[&prk.confirm_client(&th).tag(&th, &[])]);
        let waits = ClientAwaitsTag {
            opener: Opener::new(prk.traffic_agent(&th)),
            prk,
            th,
            session,
            commit: hello.commit.0,
            verify: verify || hello.verify,
            sealer,
        };
        Ok((waits, hello_client, record))
    }
}

/// The client has shown its tag.
pub struct ClientAwaitsTag {
    session: SessionId,
    prk: Prk,
    th: TranscriptHash,
    commit: [u8; 32],
    verify: bool,
    sealer: Sealer,
    opener: Opener,
}

impl ClientAwaitsTag {
    /// Takes the agent's record: `r || tag_a`.
    ///
    /// # Errors
    /// [`HandshakeError::WrongCode`] for a record, proof or tag that does not fit.
    pub fn handle_tag(mut self, record: &mut [u8]) -> Result<Established, HandshakeError> {
        let proof = open(&mut self.opener, record)?;
        let words = self.check(&proof)?;
        let resume = Resume::new(Role::Client, self.session, self.prk.resume_keys(&self.th));
        let Self { verify, sealer, opener, .. } = self;
        Ok(Established { role: Role::Client, words, verify, sealer, opener, resume })
    }

    /// The transport was lost before the agent's record came: it may have sent it.
    pub(crate) fn lost(self) -> ClientAwaitsAttach {
        let resume = Resume::new(Role::Client, self.session, self.prk.resume_keys(&self.th));
        ClientAwaitsAttach { awaits: self, resume }
    }

    fn check(&self, proof: &[u8; 64]) -> Result<String, HandshakeError> {
        let (r, tag) = proof.split_first_chunk::<32>().ok_or(HandshakeError::WrongCode)?;
        let tag = tag.try_into().map_err(|_| HandshakeError::WrongCode)?;
        let committed: bool = commitment(r).ct_eq(&self.commit).into();
        if !committed || !self.prk.confirm_agent(&self.th).verify(&self.th, r, tag) {
            return Err(HandshakeError::WrongCode);
        }
        Ok(self.prk.words(&self.th, r))
    }
}

/// The client has shown its tag and lost its transport: it asks for the agent's tag by an attach.
pub(crate) struct ClientAwaitsAttach {
    awaits: ClientAwaitsTag,
    resume: Resume,
}

impl ClientAwaitsAttach {
    pub(crate) fn ask(&mut self, rng: &mut impl CryptoRng) -> BytesMut {
        self.resume.ask(rng)
    }

    /// The agent's answer leads to this end's first record; anything else to nothing.
    pub(crate) fn handle_answer(&mut self, frame: &[u8]) -> Option<BytesMut> {
        self.resume.handle_answer(frame, 0)
    }

    /// Whether a record is the agent's first one under the attach's keys, with its proof.
    ///
    /// # Errors
    /// The proof does not fit, or the agent claims to have received data.
    pub(crate) fn handle_record(mut self, record: &[u8]) -> Result<Result<Established, Self>, HandshakeError> {
        let first = self.resume.open_first(record).map_err(|_| HandshakeError::WrongCode)?;
        let Some(first) = first else { return Ok(Err(self)) };
        let proof = first.proof.filter(|_| first.received == 0).ok_or(HandshakeError::WrongCode)?;
        let words = self.awaits.check(&proof)?;
        let (sealer, opener, verify) = (first.sealer, first.opener, self.awaits.verify);
        Ok(Ok(Established { role: Role::Client, words, verify, sealer, opener, resume: self.resume }))
    }
}
