//! A second implementation of the handshake, written from docs/protocol.md alone, that can also misbehave.

use aes_gcm::{Aes256Gcm, KeyInit as _, aead::AeadInOut as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use ml_kem::{
    MlKem768, Seed,
    kem::{Decapsulate as _, Encapsulate as _, KeyExport as _},
};
use mykube_tunnel::protocol::SessionId;
use rand::{Rng as _, RngExt as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use spake2::{Ed25519Group, Identity, Password, Spake2};
use x25519_dalek::{PublicKey, StaticSecret};

pub(crate) fn json_of(frame: &[u8]) -> Value {
    serde_json::from_slice(&frame[1..]).unwrap()
}

pub(crate) fn frame_of(kind: u8, hello: &Value) -> Vec<u8> {
    [&[kind][..], &serde_json::to_vec(hello).unwrap()].concat()
}

pub(crate) fn bytes_of(hello: &Value, field: &str) -> Vec<u8> {
    B64.decode(hello[field].as_str().unwrap()).unwrap()
}

pub(crate) fn text_of(bytes: &[u8]) -> Value {
    Value::String(B64.encode(bytes))
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

fn lv(x: &[u8]) -> Vec<u8> {
    [&u32::try_from(x.len()).unwrap().to_be_bytes()[..], x].concat()
}

pub(crate) fn expand(prk: &[u8], info: &[u8], len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    Hkdf::<Sha256>::from_prk(prk).unwrap().expand(info, &mut out).unwrap();
    out
}

fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

fn identities(session: &SessionId) -> (Identity, Identity) {
    let name = |role: &str| Identity::new(&[b"mykube/2 ", role.as_bytes(), session.as_bytes()].concat());
    (name("agent"), name("client"))
}

/// `K_code`, X25519 and ML-KEM secrets in, every key out.
pub(crate) struct Keys {
    pub(crate) th: [u8; 32],
    pub(crate) prk: Vec<u8>,
}

impl Keys {
    pub(crate) fn new(code: &[u8], x25519: &[u8], mlkem: &[u8], hello_agent: &[u8], hello_client: &[u8]) -> Self {
        let th = sha256(&[b"mykube/2 transcript", &lv(hello_agent), &lv(hello_client)]);
        let (prk, _) = Hkdf::<Sha256>::extract(Some(code), &[x25519, mlkem].concat());
        Self { th, prk: prk.to_vec() }
    }

    pub(crate) fn e(&self, label: &str) -> Vec<u8> {
        expand(&self.prk, &[b"mykube/2 ", label.as_bytes(), &[0], &self.th].concat(), 32)
    }

    pub(crate) fn tag_client(&self) -> Vec<u8> {
        hmac(&self.e("confirm c"), &self.th)
    }

    pub(crate) fn tag_agent(&self, r: &[u8]) -> Vec<u8> {
        hmac(&self.e("confirm a"), &[&self.th[..], r].concat())
    }

    pub(crate) fn words(&self, r: &[u8]) -> String {
        let bits = expand(&self.prk, &[b"mykube/2 words\0", &self.th[..], r].concat(), 6);
        let bit = |n: usize| usize::from(bits[n / 8] >> (7 - n % 8) & 1);
        let word = |n: usize| (0..11).fold(0, |index, i| index * 2 + bit(n * 11 + i));
        (0..4).map(|n| bip39::Language::English.word_list()[word(n)]).collect::<Vec<_>>().join(" ")
    }
}

/// AES-256-GCM by the bytes: any sequence number.
pub(crate) fn cipher(secret: &[u8], seq: u64) -> (Aes256Gcm, [u8; 12]) {
    let key: [u8; 32] = expand(secret, b"mykube/2 key", 32).try_into().unwrap();
    let mut nonce: [u8; 12] = expand(secret, b"mykube/2 iv", 12).try_into().unwrap();
    for (byte, seq) in nonce[4..].iter_mut().zip(seq.to_be_bytes()) {
        *byte ^= seq;
    }
    (Aes256Gcm::new(&key.into()), nonce)
}

pub(crate) fn next_secret(secret: &[u8]) -> Vec<u8> {
    expand(secret, b"mykube/2 next", 32)
}

/// `0x05 || AES-256-GCM(messages || padding)`; `messages` are (kind, body).
pub(crate) fn seal(secret: &[u8], seq: u64, messages: &[(u8, &[u8])]) -> Vec<u8> {
    let mut plaintext = Vec::new();
    for (kind, body) in messages {
        plaintext.push(*kind);
        plaintext.extend_from_slice(&lv(body));
    }
    plaintext.resize(plaintext.len().next_multiple_of(64), 0);
    seal_plaintext(secret, seq, &plaintext)
}

pub(crate) fn seal_plaintext(secret: &[u8], seq: u64, plaintext: &[u8]) -> Vec<u8> {
    let (cipher, nonce) = cipher(secret, seq);
    let mut out = plaintext.to_vec();
    let tag = cipher.encrypt_inout_detached(&nonce.into(), &[5], out.as_mut_slice().into()).unwrap();
    [&[5][..], &out, &tag].concat()
}

pub(crate) fn open(secret: &[u8], seq: u64, frame: &[u8]) -> Option<Vec<u8>> {
    let (cipher, nonce) = cipher(secret, seq);
    let (sealed, tag) = frame.strip_prefix(&[5])?.split_last_chunk::<16>()?;
    let mut out = sealed.to_vec();
    cipher.decrypt_inout_detached(&nonce.into(), &[5], out.as_mut_slice().into(), tag.into()).ok()?;
    Some(out)
}

/// The body of the only message in a handshake record.
pub(crate) fn handshake_body(plaintext: &[u8]) -> Vec<u8> {
    assert_eq!(plaintext[0], 1);
    let len = u32::from_be_bytes(plaintext[1..5].try_into().unwrap()) as usize;
    plaintext[5..5 + len].to_vec()
}

pub(crate) fn decapsulate(seed: [u8; 64], ct: &[u8]) -> [u8; 32] {
    let key = ml_kem::DecapsulationKey::<MlKem768>::from_seed(Seed::from(seed));
    let ct: [u8; 1088] = ct.try_into().unwrap();
    key.decapsulate(&ct.into()).into()
}

/// An agent of this implementation.
pub(crate) struct SecondAgent {
    x25519: StaticSecret,
    mlkem: ml_kem::DecapsulationKey<MlKem768>,
    spake2: Spake2<Ed25519Group>,
    pub(crate) r: [u8; 32],
    pub(crate) hello: Vec<u8>,
}

impl SecondAgent {
    pub(crate) fn new(rng: &mut rand::rngs::StdRng, session: SessionId, digits: &str) -> Self {
        let (a, c) = identities(&session);
        let x25519 = StaticSecret::from(rng.random::<[u8; 32]>());
        let mut seed = [0; 64];
        rng.fill_bytes(&mut seed);
        let mlkem = ml_kem::DecapsulationKey::<MlKem768>::from_seed(Seed::from(seed));
        let (spake2, pa) = Spake2::<Ed25519Group>::start_a_with_rng(&Password::new(digits), &a, &c, &mut *rng);
        let r: [u8; 32] = rng.random();
        let hello = frame_of(
            1,
            &json!({
                "versions": [2], "session_id": session.to_string(), "role": "agent", "mode": "code",
                "x25519": text_of(PublicKey::from(&x25519).as_bytes()),
                "mlkem768": text_of(&mlkem.encapsulation_key().to_bytes()),
                "spake2": text_of(&pa),
                "commit": text_of(&sha256(&[b"mykube/2 commit", &r])),
                "verify": false,
            }),
        );
        Self { x25519, mlkem, spake2, r, hello }
    }

    /// The keys that follow from the client's hello.
    pub(crate) fn keys(self, hello_client: &[u8]) -> Keys {
        let hello = json_of(hello_client);
        let peer: [u8; 32] = bytes_of(&hello, "x25519").try_into().unwrap();
        let x25519 = self.x25519.diffie_hellman(&PublicKey::from(peer));
        let ct: [u8; 1088] = bytes_of(&hello, "mlkem768").try_into().unwrap();
        let mlkem: [u8; 32] = self.mlkem.decapsulate(&ct.into()).into();
        let code = self.spake2.finish(&bytes_of(&hello, "spake2")).unwrap();
        Keys::new(&code, x25519.as_bytes(), &mlkem, &self.hello, hello_client)
    }
}

/// A client of this implementation: its hello and the keys.
pub(crate) fn second_client(
    rng: &mut rand::rngs::StdRng,
    session: SessionId,
    digits: &str,
    hello_agent: &[u8],
) -> (Vec<u8>, Keys) {
    let (a, c) = identities(&session);
    let hello = json_of(hello_agent);
    let secret = StaticSecret::from(rng.random::<[u8; 32]>());
    let peer: [u8; 32] = bytes_of(&hello, "x25519").try_into().unwrap();
    let x25519 = secret.diffie_hellman(&PublicKey::from(peer));
    let ek: [u8; 1184] = bytes_of(&hello, "mlkem768").try_into().unwrap();
    let ek = ml_kem::EncapsulationKey::<MlKem768>::new(&ek.into()).unwrap();
    let (ct, mlkem) = ek.encapsulate_with_rng(&mut *rng);
    let (spake2, pc) = Spake2::<Ed25519Group>::start_b_with_rng(&Password::new(digits), &a, &c, &mut *rng);
    let code = spake2.finish(&bytes_of(&hello, "spake2")).unwrap();
    let hello_client = frame_of(
        2,
        &json!({
            "version": 2, "session_id": session.to_string(), "role": "client", "mode": "code",
            "x25519": text_of(PublicKey::from(&secret).as_bytes()),
            "mlkem768": text_of(&ct), "spake2": text_of(&pc), "verify": false,
        }),
    );
    let keys = Keys::new(&code, x25519.as_bytes(), &mlkem, hello_agent, &hello_client);
    (hello_client, keys)
}

/// Attaches, by the section "Resume".
impl Keys {
    pub(crate) fn attach_client(&self, session: &SessionId, n: u64, public: &[u8; 32]) -> Vec<u8> {
        let mut frame = [&[3][..], session.as_bytes(), &n.to_be_bytes(), public].concat();
        frame.extend(hmac(&self.e("attach c"), &frame));
        frame
    }

    pub(crate) fn attach_agent(&self, attach_client: &[u8], n: u64, public: &[u8; 32]) -> Vec<u8> {
        let mut frame = [&[4][..], &n.to_be_bytes(), public].concat();
        frame.extend(hmac(&self.e("attach a"), &[lv(attach_client), frame.clone()].concat()));
        frame
    }

    pub(crate) fn attached(&self, attach_client: &[u8], attach_agent: &[u8], x25519: &[u8]) -> Attached {
        let th = sha256(&[b"mykube/2 attach", &lv(attach_client), &lv(attach_agent)]);
        let (prk, _) = Hkdf::<Sha256>::extract(Some(&self.e("resume")), x25519);
        Attached(Self { th, prk: prk.to_vec() })
    }
}

/// The keys of one attach.
pub(crate) struct Attached(pub(crate) Keys);

impl Attached {
    pub(crate) fn client(&self) -> Vec<u8> {
        self.0.e("traffic c")
    }

    pub(crate) fn agent(&self) -> Vec<u8> {
        self.0.e("traffic a")
    }
}
