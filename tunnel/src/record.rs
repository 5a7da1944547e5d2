//! The record layer: `0x05 || AES-256-GCM(key, iv XOR seq, aad = 0x05, plaintext)`.
//!
//! `seq` is implicit, from 0 under each key, and private to [`Sealer`] and [`Opener`]: no caller can use a nonce twice.
//! docs/protocol.md, "Records". This file is the seam behind which another AES-GCM may sit.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::BytesMut;
use mykube_protocol::{
    frame,
    limits::{REKEY_BYTES, REKEY_RECORDS},
};

use crate::key::TrafficSecret;

/// Length of the authentication tag.
pub(crate) const TAG: usize = 16;

/// A record that did not open: forged, flipped, replayed, reordered or over the key's limit. One error for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record did not open: it was altered, repeated or lost on the way")]
pub struct RecordError;

struct Key {
    secret: TrafficSecret,
    cipher: LessSafeKey,
    iv: [u8; 12],
    seq: u64,
    bytes: u64,
}

impl Key {
    fn new(secret: TrafficSecret) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, secret.key().as_slice()).expect("a key of the cipher's length");
        let cipher = LessSafeKey::new(key);
        let iv = secret.iv();
        Self { secret, cipher, iv, seq: 0, bytes: 0 }
    }

    fn nonce(&self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, seq) in nonce[4..].iter_mut().zip(self.seq.to_be_bytes()) {
            *byte ^= seq;
        }
        Nonce::assume_unique_for_key(nonce)
    }

    fn spend(&mut self, bytes: usize) {
        self.seq += 1;
        self.bytes += bytes as u64;
    }

    fn next(&mut self) {
        *self = Self::new(self.secret.next());
    }
}

/// Seals this end's records.
///
/// A nonce cannot be used twice: a sealer cannot be copied,
///
/// ```compile_fail,E0599
/// let sealer = mykube_tunnel::test_api::Sealer::from_secret([1; 32]);
/// let twice = sealer.clone();
/// ```
///
/// and no caller can set its sequence number.
///
/// ```compile_fail,E0616
/// let mut sealer = mykube_tunnel::test_api::Sealer::from_secret([1; 32]);
/// sealer.key.seq = 0;
/// ```
pub struct Sealer {
    key: Key,
    max_records: u64,
    max_bytes: u64,
}

/// Opens the peer's records, each once and in their order.
pub struct Opener {
    key: Key,
    max_records: u64,
    max_bytes: u64,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer(seq {})", self.key.seq)
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opener(seq {})", self.key.seq)
    }
}

impl Sealer {
    pub(crate) fn new(secret: TrafficSecret) -> Self {
        Self { key: Key::new(secret), max_records: REKEY_RECORDS, max_bytes: REKEY_BYTES }
    }

    /// A sealer with a given secret, for benches and fuzzing only: the other end must be an [`Opener`] of the same.
    #[must_use]
    pub fn from_secret(secret: [u8; 32]) -> Self {
        Self::new(TrafficSecret(secret))
    }

    /// Rekeys sooner than it must.
    pub(crate) fn set_limits(&mut self, records: u64, bytes: u64) {
        self.max_records = records.clamp(1, REKEY_RECORDS);
        self.max_bytes = bytes.min(REKEY_BYTES);
    }

    /// Whether the next record must be the last under this key, with `rekey` in it.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.key.seq + 1 >= self.max_records || self.key.bytes + 64 * 1024 >= self.max_bytes
    }

    /// Seals a frame in place: `frame` is the type byte and the plaintext, the tag is appended.
    pub fn seal(&mut self, frame: &mut BytesMut) {
        debug_assert_eq!(frame.first(), Some(&frame::RECORD));
        let nonce = self.key.nonce();
        let (kind, plaintext) = frame.split_at_mut(1);
        let tag = self
            .key
            .cipher
            .seal_in_place_separate_tag(nonce, Aad::from(&*kind), plaintext)
            .expect("a record is far below the cipher's limit of 64 GiB");
        frame.extend_from_slice(tag.as_ref());
        self.key.spend(frame.len());
    }

    /// Moves on to the next key, after a record that ended with `rekey`.
    pub fn rekey(&mut self) {
        self.key.next();
    }
}

impl Opener {
    pub(crate) fn new(secret: TrafficSecret) -> Self {
        Self { key: Key::new(secret), max_records: REKEY_RECORDS, max_bytes: REKEY_BYTES }
    }

    /// An opener with a given secret, for benches and fuzzing only.
    #[must_use]
    pub fn from_secret(secret: [u8; 32]) -> Self {
        Self::new(TrafficSecret(secret))
    }

    /// What this end accepts from a sender that does not rekey.
    #[cfg(test)]
    pub(crate) fn set_limits(&mut self, records: u64, bytes: u64) {
        self.max_records = records;
        self.max_bytes = bytes;
    }

    /// Opens a frame in place and gives its plaintext.
    ///
    /// # Errors
    /// Anything but the next record of the peer under the current key. The key does not move then.
    pub fn open<'f>(&mut self, frame: &'f mut [u8]) -> Result<&'f mut [u8], RecordError> {
        self.check(frame)?;
        let len = frame.len();
        let nonce = self.key.nonce();
        let (kind, rest) = frame.split_at_mut(1);
        let opened = self.key.cipher.open_in_place(nonce, Aad::from(&*kind), rest).map_err(|_| RecordError)?;
        self.key.spend(len);
        Ok(opened)
    }

    /// Opens a frame into a buffer that is as long as its plaintext: frames lie in the large buffers they were read into,
    /// and a part of the plaintext that is kept shall keep none of those.
    ///
    /// # Errors
    /// See [`Opener::open`].
    pub fn open_apart(&mut self, frame: &[u8]) -> Result<BytesMut, RecordError> {
        self.check(frame)?;
        let nonce = self.key.nonce();
        let (kind, rest) = frame.split_at(1);
        let (ciphertext, tag) = rest.split_at(rest.len() - TAG);
        let mut plaintext = BytesMut::zeroed(ciphertext.len());
        let opened = self.key.cipher.open_separate_gather(nonce, Aad::from(kind), ciphertext, tag, &mut plaintext);
        opened.map_err(|_| RecordError)?;
        self.key.spend(frame.len());
        Ok(plaintext)
    }

    /// Whether a frame may be the next record at all: type, length, and what is left under the key.
    fn check(&self, frame: &[u8]) -> Result<(), RecordError> {
        let over =
            self.key.seq >= self.max_records || self.key.bytes.saturating_add(frame.len() as u64) > self.max_bytes;
        let right = !over && frame.len() > TAG && frame[0] == frame::RECORD;
        if right { Ok(()) } else { Err(RecordError) }
    }

    /// Moves on to the next key, after a record that ended with `rekey`.
    pub fn rekey(&mut self) {
        self.key.next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Sealer, Opener) {
        (Sealer::from_secret([1; 32]), Opener::from_secret([1; 32]))
    }

    fn sealed(sealer: &mut Sealer, text: &[u8]) -> BytesMut {
        let mut frame = BytesMut::from(&[frame::RECORD][..]);
        frame.extend_from_slice(text);
        sealer.seal(&mut frame);
        frame
    }

    #[test]
    fn records_open_once_and_in_order() {
        let (mut sealer, mut opener) = pair();
        let mut first = sealed(&mut sealer, b"one");
        let mut second = sealed(&mut sealer, b"two");
        assert_eq!(opener.open(&mut second.clone()), Err(RecordError));
        assert_eq!(opener.open(&mut first.clone()).unwrap(), b"one");
        assert_eq!(opener.open(&mut first), Err(RecordError));
        assert_eq!(opener.open(&mut second).unwrap(), b"two");
    }

    #[test]
    fn every_flipped_or_missing_byte_is_noticed() {
        let (mut sealer, mut opener) = pair();
        let good = sealed(&mut sealer, b"some plaintext");
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1;
            assert_eq!(opener.open(&mut bad), Err(RecordError));
            assert_eq!(opener.open(&mut good.clone()[..i]), Err(RecordError));
            assert_eq!(opener.open_apart(&bad), Err(RecordError));
            assert_eq!(opener.open_apart(&good[..i]), Err(RecordError));
        }
        assert_eq!(opener.open_apart(&good).unwrap(), "some plaintext");
        assert_eq!((opener.open_apart(&good), opener.open(&mut good.clone())), (Err(RecordError), Err(RecordError)));
    }

    #[test]
    fn a_sender_that_does_not_rekey_is_cut_off() {
        let (mut sealer, mut opener) = pair();
        opener.set_limits(2, u64::MAX);
        for _ in 0..2 {
            assert!(opener.open(&mut sealed(&mut sealer, b"x")).is_ok());
        }
        let over = sealed(&mut sealer, b"x");
        assert_eq!(opener.open_apart(&over), Err(RecordError));
        assert_eq!(opener.open(&mut over.clone()), Err(RecordError));
        opener.rekey();
        sealer.rekey();
        assert!(opener.open(&mut sealed(&mut sealer, b"x")).is_ok());
        // The limit in bytes holds too; a frame of one byte of plaintext has 18.
        let (mut sealer, mut opener) = pair();
        opener.set_limits(u64::MAX, 36);
        assert!(opener.open(&mut sealed(&mut sealer, b"x")).is_ok());
        assert!(opener.open(&mut sealed(&mut sealer, b"x")).is_ok());
        assert_eq!(opener.open(&mut sealed(&mut sealer, b"x")), Err(RecordError));
    }

    #[test]
    fn a_sender_rekeys_before_either_limit() {
        let (mut sealer, _) = pair();
        sealer.set_limits(u64::MAX, u64::MAX);
        assert_eq!((sealer.max_records, sealer.max_bytes), (REKEY_RECORDS, REKEY_BYTES), "no setting goes beyond");
        sealer.key.seq = REKEY_RECORDS - 2;
        assert!(!sealer.is_last());
        sealer.key.seq += 1;
        assert!(sealer.is_last());
        sealer.rekey();
        sealer.key.bytes = REKEY_BYTES - 64 * 1024 - 1;
        assert!(!sealer.is_last());
        sealer.key.bytes += 1;
        assert!(sealer.is_last(), "a whole frame still fits");
    }

    #[test]
    fn the_old_key_opens_nothing_after_a_rekey() {
        let (mut sealer, mut opener) = pair();
        let mut old = sealed(&mut sealer, b"x");
        opener.rekey();
        assert_eq!(opener.open(&mut old), Err(RecordError));
    }
}
