//! The key pair that an agent has for one relay, and how it shows it: the hello of the control channel, protocol 3 of the
//! published relay. Its checks, their order and their texts are the published ones.

use std::fmt;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use data_encoding::HEXLOWER;
use mykube_protocol::control::{Hello, NONCE_LEN, signed};
use sha2::{Digest as _, Sha256};

use crate::time::UnixTime;

/// How far an agent's clock may be from the relay's, in seconds.
pub const CLOCK_MAX: u64 = 30;
/// Bytes of an uncompressed point of P-256.
const POINT_LEN: usize = 65;

/// Which key an agent has: SHA-256 of the point that it signs with. The `uuid` of the published contract.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelayKeyId([u8; 32]);

impl RelayKeyId {
    /// From the database.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// For the database.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Display for RelayKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for RelayKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is wrong with a hello. The texts are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The signing key is no point.
    #[error("pubkey must be 65 bytes starting with 0x04")]
    Key,
    /// The other key is missing.
    #[error("decrypt_pubkey is required")]
    NoDecryptKey,
    /// The other key is no point.
    #[error("decrypt_pubkey must be 65 bytes starting with 0x04")]
    DecryptKey,
    /// The other key is a point, and not of the curve.
    #[error("decrypt_pubkey is not a valid P-256 point")]
    DecryptPoint,
    /// The hash is not the key's.
    #[error("uuid does not match sha256(pubkey)")]
    Id,
    /// The agent's clock is wrong, or the hello is old.
    #[error("timestamp out of range")]
    Time,
    /// The signature is another's, or of another challenge.
    #[error("invalid signature")]
    Signature,
    /// The signing key is a point, and not of the curve.
    #[error("signature verification failed")]
    Point,
}

/// Judges the hello that answers this challenge.
///
/// # Errors
/// The first thing that is wrong.
pub fn judge(hello: &Hello, nonce: &[u8; NONCE_LEN], now: UnixTime) -> Result<RelayKeyId, HelloError> {
    let key = point(&hello.pubkey).ok_or(HelloError::Key)?;
    if hello.decrypt_pubkey.is_empty() {
        return Err(HelloError::NoDecryptKey);
    }
    let decrypt = point(&hello.decrypt_pubkey).ok_or(HelloError::DecryptKey)?;
    parsed(&decrypt).ok_or(HelloError::DecryptPoint)?;
    let id = RelayKeyId(Sha256::digest(key).into());
    if id.to_string() != hello.uuid {
        return Err(HelloError::Id);
    }
    let timestamp = u64::try_from(hello.timestamp).map_err(|_| HelloError::Time)?;
    if now.secs().abs_diff(timestamp) > CLOCK_MAX {
        return Err(HelloError::Time);
    }
    let key = parsed(&key).ok_or(HelloError::Point)?;
    let signature = bytes(&hello.sig).ok_or(HelloError::Signature)?;
    key.verify_sig(&signed(nonce, timestamp), &signature).map_err(|_| HelloError::Signature)?;
    Ok(id)
}

fn point(text: &str) -> Option<[u8; POINT_LEN]> {
    bytes(text)?.try_into().ok().filter(|point: &[u8; POINT_LEN]| point[0] == 4)
}

fn parsed(point: &[u8; POINT_LEN]) -> Option<ParsedPublicKey> {
    ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).ok()
}

/// Base64 in either alphabet, padded or not: what the published relay takes.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let text = text.replace('-', "+").replace('_', "/");
    GeneralPurpose::new(&alphabet::STANDARD, config).decode(text).ok()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair},
    };
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

    use super::*;

    // The published vectors.
    const NONCE: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const TIME: i32 = 1_767_225_600;
    const MESSAGE: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f000000006955b900";
    const UUID: &str = "2bad0fd610d99eae443e932a26142bca1e5fa995b4518452827e78ef1f317ff0";
    const SIGN: &str = "BAIX5hfwtkQ5KCePlpmeaaI6TywVK99tbN9m5bgCgtTtGUp968uXcS0t2jyoWqh2Wlb0X8dYWZZS8ol8ZTBuV5Q=";
    const DECRYPT: &str = "BNZak5d8qj0bCBhS/1ennkZfFmBXcwS66tUF3TpIWJzzUBheiVNy32Ih6joTdVfkc/3bZ1XwW9UHw8Uz/OnJEoU=";
    const SIGNATURE: &str =
        "MEUCICKPPOaJw6XW6CjhJH7XaYby99f2Af+8pojrtQ3BuDdAAiEAqwWDPPcOQvXogrg5wutGR0LtK71xrgmceQ8LHlfjra0=";
    const PKCS8: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgERERERERERERERERERERERERERERERERERERERERERGhRANCAAQCF+YX8LZEOSgnj5aZnmmiOk8sFSvfbWzfZuW4AoLU7RlKfevLl3EtLdo8qFqodlpW9F/HWFmWUvKJfGUwbleU";

    fn nonce() -> [u8; NONCE_LEN] {
        mykube_protocol::control::nonce(NONCE).unwrap()
    }

    fn hello() -> Hello {
        let text = |text: &str| text.to_owned();
        Hello {
            uuid: text(UUID),
            pubkey: text(SIGN),
            decrypt_pubkey: text(DECRYPT),
            sig: text(SIGNATURE),
            timestamp: TIME,
        }
    }

    fn judged(change: impl FnOnce(&mut Hello), after: i32) -> Result<RelayKeyId, HelloError> {
        let mut hello = hello();
        change(&mut hello);
        judge(&hello, &nonce(), UnixTime::from_secs(u64::try_from(TIME + after).unwrap()))
    }

    /// Signed anew by the published key.
    fn signature(nonce: &[u8; NONCE_LEN], time: i32) -> String {
        let key = BASE64_STANDARD.decode(PKCS8).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key).unwrap();
        let message = signed(nonce, u64::try_from(time).unwrap());
        BASE64_STANDARD.encode(key.sign(&SystemRandom::new(), &message).unwrap())
    }

    #[test]
    fn the_published_hello_is_good() {
        assert_eq!(HEXLOWER.encode(&signed(&nonce(), u64::try_from(TIME).unwrap())), MESSAGE);
        assert_eq!(judged(|_| (), 0).unwrap().to_string(), UUID);
        for (after, good) in [(30, true), (31, false), (-30, true), (-31, false)] {
            assert_eq!(judged(|_| (), after).is_ok(), good, "{after}");
        }
        let other = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(BASE64_STANDARD.decode(text).unwrap());
        let forms = |hello: &mut Hello| {
            for text in [&mut hello.pubkey, &mut hello.decrypt_pubkey, &mut hello.sig] {
                *text = other(text);
            }
        };
        assert!(judged(forms, 0).is_ok(), "the other base64");
        assert!(judged(|hello| hello.decrypt_pubkey = SIGN.to_owned(), 0).is_ok(), "one key for both");
        assert!(judged(|hello| hello.sig = signature(&nonce(), TIME), 0).is_ok());
    }

    type Change<'a> = Box<dyn Fn(&mut Hello) + 'a>;

    #[test]
    fn the_first_thing_that_is_wrong_is_said() {
        let short = |text: &str| BASE64_STANDARD.encode(&BASE64_STANDARD.decode(text).unwrap()[..64]);
        let off_curve = |text: &str| {
            let mut point = BASE64_STANDARD.decode(text).unwrap();
            point[64] ^= 1;
            BASE64_STANDARD.encode(point)
        };
        let wrong: [(&str, Change<'_>, HelloError); 14] = [
            ("no key", Box::new(|it| it.pubkey.clear()), HelloError::Key),
            ("no base64", Box::new(|it| it.pubkey = "?".to_owned()), HelloError::Key),
            ("short", Box::new(|it| it.pubkey = short(SIGN)), HelloError::Key),
            ("the first of two", Box::new(|it| (it.pubkey.clear(), it.uuid.clear()).0), HelloError::Key),
            ("no other key", Box::new(|it| it.decrypt_pubkey.clear()), HelloError::NoDecryptKey),
            ("short", Box::new(|it| it.decrypt_pubkey = short(DECRYPT)), HelloError::DecryptKey),
            ("off the curve", Box::new(|it| it.decrypt_pubkey = off_curve(DECRYPT)), HelloError::DecryptPoint),
            ("of another key", Box::new(|it| it.uuid = UUID.replace('2', "3")), HelloError::Id),
            ("in capitals", Box::new(|it| it.uuid = UUID.to_uppercase()), HelloError::Id),
            ("before 1970", Box::new(|it| it.timestamp = -1), HelloError::Time),
            ("no signature", Box::new(|it| it.sig.clear()), HelloError::Signature),
            ("another time's", Box::new(|it| it.timestamp += 1), HelloError::Signature),
            ("another nonce's", Box::new(|it| it.sig = signature(&[0; 32], TIME)), HelloError::Signature),
            (
                "off the curve",
                Box::new(|it| {
                    it.pubkey = off_curve(SIGN);
                    it.uuid = HEXLOWER.encode(&Sha256::digest(BASE64_STANDARD.decode(&it.pubkey).unwrap()));
                }),
                HelloError::Point,
            ),
        ];
        for (name, change, error) in wrong {
            assert_eq!(judged(change, 0), Err(error), "{name}");
        }
        // r || s, as other statements have it.
        assert_eq!(judged(|it| it.sig = BASE64_STANDARD.encode([7; 64]), 0), Err(HelloError::Signature));
    }
}
