//! The control channel of an agent that has a name: WebSocket `/ws/control`, JSON text frames, protocol 3 of the published
//! relay whose contract it keeps (`docs/accounts.md`).
//!
//! ```text
//! relay  {"type":"challenge","nonce":N,"challenge":{"nonce":N},...}        at once; N: 64 lower-case hex digits
//! agent  {"hello":{"uuid","pubkey","decrypt_pubkey","sig","timestamp"}}    within 10 seconds
//! relay  {"welcome":{"protocol":3}}     or {"error":{"message"}} and the end
//! ```
//!
//! `sig` is ECDSA-P256-SHA256 in ASN.1 DER over [`signed`]; `uuid` is the lower-case hex SHA-256 of the 65 bytes of `pubkey`.
//! A field that has its default may be left out, `null` is absent, and what is not known is skipped.

use serde::{Deserialize, Serialize};

/// Where an agent registers.
pub const PATH: &str = "/ws/control";
/// The version of the channel that is spoken.
pub const PROTOCOL: i32 = 3;
/// Bytes of a challenge.
pub const NONCE_LEN: usize = 32;
/// Longest message either way, in bytes: a greeting and a hello have less than 1 KiB, and nothing else is said yet.
pub const MESSAGE_MAX: usize = 8 * 1024;

/// Close code: the token that opened the channel was revoked, or has ended. It opens no other.
pub const TOKEN_ENDED: u16 = 4001;
/// Close code: a newer channel of the same agent took over.
pub const REPLACED: u16 = 4002;

/// Value of the refusal header ([`crate::http::REFUSAL`]) of a 401: the token is not known, or has ended.
pub const TOKEN_REFUSED: &str = "agent-token";

/// What an agent signs: the challenge, and its time in seconds since 1970, big-endian.
#[must_use]
pub fn signed(nonce: &[u8; NONCE_LEN], timestamp: u64) -> [u8; NONCE_LEN + 8] {
    let mut message = [0; NONCE_LEN + 8];
    message[..NONCE_LEN].copy_from_slice(nonce);
    message[NONCE_LEN..].copy_from_slice(&timestamp.to_be_bytes());
    message
}

/// A challenge's nonce, if it is written as one.
#[must_use]
pub fn nonce(text: &str) -> Option<[u8; NONCE_LEN]> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// A message of the relay. One of them is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FromRelay {
    /// The first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Challenge>,
    /// The agent is registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub welcome: Option<Welcome>,
    /// It is not, and the channel ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

/// What has to be signed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Challenge {
    /// 64 lower-case hex digits.
    pub nonce: String,
}

/// The agent is registered. Where webhooks come in (`url`) and whose key signs deliveries (`brokerPubkey`) is left out: this
/// relay has neither.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Welcome {
    /// [`PROTOCOL`]; 0 where it is absent.
    pub protocol: i32,
}

/// Why not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Error {
    /// For people.
    pub message: String,
}

/// A message of an agent. One of them is there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FromAgent {
    /// The first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hello: Option<Hello>,
    /// An answer to what this relay does not ask yet.
    #[serde(skip_serializing)]
    pub response: Option<serde::de::IgnoredAny>,
}

/// Which key an agent has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    /// Lower-case hex of SHA-256 over the bytes of `pubkey`.
    #[serde(deserialize_with = "lenient::text")]
    pub uuid: String,
    /// The key that signs, an uncompressed point, base64.
    #[serde(deserialize_with = "lenient::text")]
    pub pubkey: String,
    /// The key to which is encrypted, in the same form.
    #[serde(alias = "decryptPubkey", deserialize_with = "lenient::text")]
    pub decrypt_pubkey: String,
    /// Over [`signed`], base64.
    #[serde(deserialize_with = "lenient::text")]
    pub sig: String,
    /// Seconds since 1970.
    #[serde(deserialize_with = "lenient::int32")]
    pub timestamp: i32,
}

/// Protobuf's JSON form: `null` is absent, and a number may be a text or have a fraction of zero.
mod lenient {
    use serde::{Deserialize, Deserializer, de::Error as _};

    pub(super) fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
        Option::deserialize(from).map(Option::unwrap_or_default)
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Whole(i64),
        Fraction(f64),
        Text(String),
    }

    pub(super) fn int32<'de, D: Deserializer<'de>>(from: D) -> Result<i32, D::Error> {
        let none = || D::Error::custom("not a number of 32 bits");
        match Option::deserialize(from)? {
            None => Ok(0),
            Some(Number::Whole(whole)) => i32::try_from(whole).map_err(|_| none()),
            // Every number of 32 bits is written in this form as it is in the other.
            Some(Number::Fraction(fraction)) if fraction.fract() == 0.0 => {
                format!("{fraction:.0}").parse().map_err(|_| none())
            }
            Some(Number::Fraction(_)) => Err(none()),
            Some(Number::Text(text)) => text.parse().map_err(|_| none()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_read_in_every_form_that_protobuf_writes() {
        let timestamp = |text: &str| {
            let json = format!(r#"{{"hello":{{"uuid":"u","timestamp":{text},"decryptPubkey":"d","more":[1]}},"x":1}}"#);
            serde_json::from_str::<FromAgent>(&json).ok().map(|it| it.hello.unwrap())
        };
        for (text, is) in [("7", 7), ("7.0", 7), ("\"7\"", 7), ("null", 0), ("-1", -1), ("2147483647", i32::MAX)] {
            let hello = timestamp(text).unwrap();
            assert_eq!(
                (hello.timestamp, hello.decrypt_pubkey.as_str(), hello.pubkey.as_str()),
                (is, "d", ""),
                "{text}"
            );
        }
        for not in ["1.5", "2147483648", "\"x\"", "[]", "true", "1e30"] {
            assert_eq!(timestamp(not), None, "{not}");
        }
        let other: FromAgent = serde_json::from_str(r#"{"response":{"id":"x"}}"#).unwrap();
        assert!(other.hello.is_none() && other.response.is_some());
    }

    #[test]
    fn a_nonce_is_64_lower_case_hex_digits() {
        let digits = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
        assert_eq!(nonce(digits).unwrap(), std::array::from_fn(|n| u8::try_from(n).unwrap()));
        for other in ["", &digits[2..], &digits.to_uppercase(), &format!("{digits}00"), &digits.replace('0', "g")] {
            assert_eq!(nonce(other), None, "{other}");
        }
    }

    #[test]
    fn messages_are_these() {
        let json = |message: &FromRelay| serde_json::to_string(message).unwrap();
        let welcome = FromRelay { welcome: Some(Welcome { protocol: PROTOCOL }), ..FromRelay::default() };
        assert_eq!(json(&welcome), r#"{"welcome":{"protocol":3}}"#);
        let error = FromRelay { error: Some(Error { message: "m".to_owned() }), ..FromRelay::default() };
        assert_eq!(json(&error), r#"{"error":{"message":"m"}}"#);
        let hello =
            Hello { uuid: "u".into(), pubkey: "p".into(), decrypt_pubkey: "d".into(), sig: "s".into(), timestamp: 7 };
        let hello = FromAgent { hello: Some(hello), response: None };
        assert_eq!(
            serde_json::to_string(&hello).unwrap(),
            r#"{"hello":{"uuid":"u","pubkey":"p","decrypt_pubkey":"d","sig":"s","timestamp":7}}"#
        );
        let greeting = r#"{"type":"challenge","clientId":"c","nonce":"n","challenge":{"nonce":"n"}}"#;
        let greeting: FromRelay = serde_json::from_str(greeting).unwrap();
        assert_eq!(greeting.challenge.unwrap().nonce, "n");
    }
}
