//! The key schedule. Every key has its purpose in its type, is wiped on drop and prints nothing.
//!
//! docs/protocol.md, "Key schedule"; every value is in `tests/vectors.json`.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// `SHA-256("mykube/2 transcript" || lv(hello_agent) || lv(hello_client))`. Public.
pub(crate) type TranscriptHash = [u8; 32];

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Zeroize, ZeroizeOnDrop)]
        pub(crate) struct $name(pub(crate) [u8; 32]);

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

secret! {
    /// What SPAKE2 makes of the code.
    CodeKey
}
secret! {
    /// The root of everything below, from the code key, X25519 and ML-KEM-768.
    Prk
}
secret! {
    /// One end's key for its confirmation tag.
    ConfirmKey
}
secret! {
    /// One end's key for its attach frames.
    AttachKey
}
secret! {
    /// The salt of every attach's keys.
    ResumeKey
}
secret! {
    /// One direction's traffic secret, until the next rekey.
    TrafficSecret
}

/// What outlives the handshake, so that the session can go on over another transport.
pub(crate) struct ResumeKeys {
    attach_client: AttachKey,
    attach_agent: AttachKey,
    resume: ResumeKey,
}

/// `lv(x) = u32be len || x`, fed to a hash.
fn hash_lv(hash: &mut Sha256, x: &[u8]) {
    // Hellos are at most 8 KiB; the length always fits.
    hash.update(u32::try_from(x.len()).unwrap_or(u32::MAX).to_be_bytes());
    hash.update(x);
}

/// The transcript over the exact frames sent, type byte included.
pub(crate) fn transcript(hello_agent: &[u8], hello_client: &[u8]) -> TranscriptHash {
    let mut hash = Sha256::new();
    hash.update(b"mykube/2 transcript");
    hash_lv(&mut hash, hello_agent);
    hash_lv(&mut hash, hello_client);
    hash.finalize().into()
}

/// `SHA-256("mykube/2 attach" || lv(attach_client) || lv(attach_agent))`.
pub(crate) fn attach_transcript(attach_client: &[u8], attach_agent: &[u8]) -> TranscriptHash {
    let mut hash = Sha256::new();
    hash.update(b"mykube/2 attach");
    hash_lv(&mut hash, attach_client);
    hash_lv(&mut hash, attach_agent);
    hash.finalize().into()
}

/// The agent's commitment to `r`.
pub(crate) fn commitment(r: &[u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"mykube/2 commit");
    hash.update(r);
    hash.finalize().into()
}

impl Prk {
    /// `HKDF-SHA256-Extract(salt = K_code, ikm = X25519 || ML-KEM-768)`.
    pub(crate) fn extract(code: &CodeKey, x25519: &[u8; 32], mlkem: &[u8; 32]) -> Self {
        let mut ikm = Zeroizing::new([0; 64]);
        ikm[..32].copy_from_slice(x25519);
        ikm[32..].copy_from_slice(mlkem);
        let (mut prk, _) = Hkdf::<Sha256>::extract(Some(&code.0), ikm.as_slice());
        let out = Self(prk.into());
        prk.zeroize();
        out
    }

    /// `E(l) = HKDF-Expand(PRK, "mykube/2 " || l || 0x00 || th, 32)`.
    fn expand(&self, label: &str, th: &TranscriptHash) -> [u8; 32] {
        expand::<32>(&self.0, &[b"mykube/2 ", label.as_bytes(), &[0], th])
    }

    pub(crate) fn confirm_client(&self, th: &TranscriptHash) -> ConfirmKey {
        ConfirmKey(self.expand("confirm c", th))
    }

    pub(crate) fn confirm_agent(&self, th: &TranscriptHash) -> ConfirmKey {
        ConfirmKey(self.expand("confirm a", th))
    }

    pub(crate) fn traffic_client(&self, th: &TranscriptHash) -> TrafficSecret {
        TrafficSecret(self.expand("traffic c", th))
    }

    pub(crate) fn traffic_agent(&self, th: &TranscriptHash) -> TrafficSecret {
        TrafficSecret(self.expand("traffic a", th))
    }

    /// The keys of later attaches.
    pub(crate) fn resume_keys(&self, th: &TranscriptHash) -> ResumeKeys {
        ResumeKeys {
            attach_client: AttachKey(self.expand("attach c", th)),
            attach_agent: AttachKey(self.expand("attach a", th)),
            resume: ResumeKey(self.expand("resume", th)),
        }
    }

    /// The short authentication string: 44 bits as four BIP-39 English words.
    pub(crate) fn words(&self, th: &TranscriptHash, r: &[u8; 32]) -> String {
        let bytes = expand::<6>(&self.0, &[b"mykube/2 words", &[0], th, r]);
        let mut bits = 0_u64;
        for byte in bytes {
            bits = bits << 8 | u64::from(byte);
        }
        let list = bip39::Language::English.word_list();
        let word = |n: u32| list[usize::try_from(bits >> (48 - 11 * n) & 0x7ff).unwrap_or(0)];
        [word(1), word(2), word(3), word(4)].join(" ")
    }
}

impl ConfirmKey {
    /// `HMAC-SHA256(E("confirm ..."), th || r)`; the client's tag has no r.
    pub(crate) fn tag(&self, th: &TranscriptHash, r: &[u8]) -> [u8; 32] {
        hmac(&self.0, &[th, r]).finalize().into_bytes().into()
    }

    /// In constant time.
    pub(crate) fn verify(&self, th: &TranscriptHash, r: &[u8], tag: &[u8; 32]) -> bool {
        hmac(&self.0, &[th, r]).verify_slice(tag).is_ok()
    }
}

impl ResumeKeys {
    /// Keys made of two traffic secrets, for benches and fuzzing only.
    pub(crate) fn from_secrets(client: &[u8; 32], agent: &[u8; 32]) -> Self {
        let part = |label: &[u8]| expand(client, &[label, agent]);
        Self {
            attach_client: AttachKey(part(b"attach c")),
            attach_agent: AttachKey(part(b"attach a")),
            resume: ResumeKey(part(b"resume")),
        }
    }

    /// `HMAC-SHA256(E("attach c"), head)`.
    pub(crate) fn client_mac(&self, head: &[u8]) -> Hmac<Sha256> {
        hmac(&self.attach_client.0, &[head])
    }

    /// `HMAC-SHA256(E("attach a"), lv(attach_client) || head)`.
    pub(crate) fn agent_mac(&self, attach_client: &[u8], head: &[u8]) -> Hmac<Sha256> {
        let len = u32::try_from(attach_client.len()).unwrap_or(u32::MAX).to_be_bytes();
        hmac(&self.attach_agent.0, &[&len, attach_client, head])
    }

    /// `PRK_n = HKDF-SHA256-Extract(salt = E("resume"), ikm = X25519)`.
    pub(crate) fn prk(&self, x25519: &[u8; 32]) -> Prk {
        let (mut prk, _) = Hkdf::<Sha256>::extract(Some(&self.resume.0), x25519);
        let out = Prk(prk.into());
        prk.zeroize();
        out
    }
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac
}

impl TrafficSecret {
    pub(crate) fn key(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(expand(&self.0, &[b"mykube/2 key"]))
    }

    pub(crate) fn iv(&self) -> [u8; 12] {
        expand(&self.0, &[b"mykube/2 iv"])
    }

    pub(crate) fn next(&self) -> Self {
        Self(expand(&self.0, &[b"mykube/2 next"]))
    }
}

fn expand<const N: usize>(prk: &[u8; 32], info: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    Hkdf::<Sha256>::from_prk(prk)
        .expect("a PRK of the hash's length is valid (RFC 5869)")
        .expand_multi_info(info, &mut out)
        .expect("at most 32 bytes are far below 255 hashes (RFC 5869)");
    out
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use serde_json::Value;

    use super::*;

    fn bytes<const N: usize>(value: &Value) -> [u8; N] {
        HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap().try_into().unwrap()
    }

    /// `tests/vectors.json` from the inside: every step of the schedule by itself.
    #[test]
    fn every_step_is_the_committed_one() {
        let vectors: Value = serde_json::from_str(include_str!("../tests/vectors.json")).unwrap();
        let code = CodeKey(bytes(&vectors["spake2"]["k_code"]));
        let shared = &vectors["shared"];
        let prk = Prk::extract(&code, &bytes(&shared["x25519"]), &bytes(&shared["mlkem768"]));
        assert_eq!(prk.0, bytes(&vectors["prk"]));
        let frame = |end: &str| HEXLOWER.decode(vectors["hello"][end].as_str().unwrap().as_bytes()).unwrap();
        let th = transcript(&frame("agent_frame"), &frame("client_frame"));
        assert_eq!(th, bytes(&vectors["th"]));
        for (label, key) in vectors["e"].as_object().unwrap() {
            assert_eq!(prk.expand(label, &th), bytes(key), "{label}");
        }
        let r = bytes(&vectors["input"]["agent_r"]);
        assert_eq!(commitment(&r), bytes(&vectors["hello"]["commit"]));
        assert_eq!(prk.confirm_client(&th).tag(&th, &[]), bytes(&vectors["tag_c"]));
        assert_eq!(prk.confirm_agent(&th).tag(&th, &r), bytes(&vectors["tag_a"]));
        assert_eq!(prk.words(&th, &r), vectors["words"].as_str().unwrap());
        for (secret, vector) in [
            (prk.traffic_client(&th), "traffic_client"),
            (prk.traffic_agent(&th), "traffic_agent"),
            (prk.traffic_client(&th).next(), "next_traffic_client"),
        ] {
            let vector = &vectors[vector];
            assert_eq!(secret.0, bytes(&vector["secret"]));
            assert_eq!(*secret.key(), bytes(&vector["key"]));
            assert_eq!(secret.iv(), bytes(&vector["iv"]));
        }
    }

    #[test]
    fn keys_print_nothing() {
        let secret = TrafficSecret([7; 32]);
        assert_eq!(format!("{secret:?} {:?} {:?}", Prk([7; 32]), CodeKey([7; 32])), "TrafficSecret Prk CodeKey");
    }
}
