//! What a program and a relay say to each other about an account: bodies of calls under `/auth` and `/v1`.
//!
//! `/auth/dev/token` and `/auth/refresh` are published calls of other relays (`docs/accounts.md`), so their field names are
//! what is published, and the fields of ours stand beside them.

use serde::{Deserialize, Serialize};

/// What a program of ours calls itself where a call serves others too.
pub const CLIENT: &str = "mykube";

/// What a relay says, with 401, of a refresh token that it does not know.
pub const UNKNOWN_TOKEN: &str = "this is no refresh token of this machine: sign in again";

/// `POST /auth/dev/token` of a program of ours. It holds a secret: it has no `Debug`.
#[derive(Serialize)]
pub struct DevToken<'a> {
    /// Who signs in.
    pub email: &'a str,
    /// The relay's dev secret.
    pub secret: &'a str,
    /// [`CLIENT`].
    pub client: &'a str,
    /// This machine's public key for the relay: an uncompressed P-256 point, 65 bytes, base64url without padding.
    pub key: &'a str,
}

/// `POST /auth/exchange` of a program of ours: the code that a browser brought back. It holds secrets: it has no `Debug`.
#[derive(Serialize)]
pub struct Exchange<'a> {
    /// The code, good once and for a minute.
    pub code: &'a str,
    /// Of the challenge with which the sign-in began (RFC 7636).
    pub verifier: &'a str,
    /// As in [`DevToken`].
    pub key: &'a str,
    /// When it was signed, in milliseconds since 1970.
    pub time: u64,
    /// Over the [`statement`] of [`Act::SignIn`] and the code.
    pub sig: &'a str,
}

/// `POST /auth/device` of a program of ours.
#[derive(Serialize)]
pub struct DeviceBegin<'a> {
    /// [`CLIENT`].
    pub client: &'a str,
    /// As in [`DevToken`].
    pub key: &'a str,
}

/// 200 to [`DeviceBegin`]. It holds a secret: it has no `Debug`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceBegun {
    /// What the program asks with.
    pub device_code: String,
    /// What the person types: `XXXX-XXXX`.
    pub user_code: String,
    /// Where.
    pub verification_url: String,
    /// How long the codes are good, in seconds.
    pub expires_in: u64,
    /// How long to wait between two questions, in seconds.
    pub interval: u64,
}

/// `POST /auth/device/poll` of a program of ours. It holds secrets: it has no `Debug`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DevicePoll<'a> {
    /// The program's code.
    pub device_code: &'a str,
    /// When it was signed, in milliseconds since 1970.
    pub time: u64,
    /// Over the [`statement`] of [`Act::SignIn`] and the device code.
    pub sig: &'a str,
}

/// 200 to [`DevicePoll`]. It holds secrets: it has no `Debug`.
#[derive(Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum DevicePolled {
    /// Nobody has confirmed it yet.
    Pending,
    /// It has ended, was fetched, or was never there.
    Expired,
    /// Whoever is signed in said no.
    Denied,
    /// Somebody has confirmed it.
    Authorized(SignedIn),
}

/// `POST /auth/refresh` and `POST /auth/refresh/received` of a program of ours.
#[derive(Serialize)]
pub struct Signed<'a> {
    /// The token to be replaced, or the one that has arrived.
    pub refresh_token: &'a str,
    /// When it was signed, in milliseconds since 1970; later than whatever was signed before.
    pub time: u64,
    /// Over the [`statement`]: ECDSA P-256 SHA-256, r || s, 64 bytes, base64url without padding.
    pub sig: &'a str,
}

/// `POST /auth/revoke` of one token alone.
#[derive(Serialize)]
pub struct RevokeToken<'a> {
    /// The token.
    pub jwt: &'a str,
}

/// `POST /auth/revoke` of a program of ours: ends the whole sign-in.
#[derive(Serialize)]
pub struct Revoke<'a> {
    /// One of the sign-in's that counts: its newest, or the one before it while the newest has not been used.
    pub refresh_token: &'a str,
}

/// 409 to [`Signed`]: the machine's clock is wrong, and it may sign again for a time near `now` and later than `after`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct WrongTime {
    /// The relay's time, in milliseconds since 1970.
    pub now: u64,
    /// The last time that it took.
    pub after: u64,
}

/// 200 to [`DevToken`] and to a refresh. It holds secrets: it has no `Debug`.
#[derive(Serialize, Deserialize)]
pub struct SignedIn {
    /// For `Authorization: Bearer`.
    pub token: String,
    /// How long it lives, in seconds.
    #[serde(rename = "expiresIn")]
    pub expires_in: u64,
    /// For the next one, once.
    pub refresh_token: String,
    /// The addresses by which the relay knows itself: what a refresh is signed for.
    pub relay: Vec<String>,
}

/// 200 to `GET /v1/whoami`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoAmI {
    /// `user_...`: what never changes.
    pub account: String,
    /// As the provider names the person.
    pub user_id: String,
    /// As the provider says.
    pub email: String,
    /// `org_...`: the account's own.
    pub organisation: String,
    /// When it signed in, RFC 3339.
    pub signed_in_at: String,
}

/// What a machine signs for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The machine's key is registered, by a code that came of somebody's click.
    SignIn,
    /// A refresh token is to be replaced.
    Refresh,
    /// Its successor has arrived, and is kept.
    Received,
}

/// What a machine's key signs: what for, hash of the relay's base URL, hash of the token, time.
#[must_use]
pub fn statement(act: Act, relay_sha256: &[u8; 32], token_sha256: &[u8; 32], time: u64) -> Vec<u8> {
    let domain: &[u8] = match act {
        Act::SignIn => b"mykube/2 sign-in\0",
        Act::Refresh => b"mykube/2 refresh\0",
        Act::Received => b"mykube/2 received\0",
    };
    [domain, relay_sha256, token_sha256, &time.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresh_is_signed_for_one_relay_one_token_and_one_time() {
        let statement = |act| statement(act, &[1; 32], &[2; 32], 3);
        let signed = statement(Act::Refresh);
        assert_eq!(signed.len(), 17 + 32 + 32 + 8);
        assert!(signed.starts_with(b"mykube/2 refresh\0\x01") && signed.ends_with(&[2, 0, 0, 0, 0, 0, 0, 0, 3]));
        assert_ne!(statement(Act::Received), signed);
        assert!(statement(Act::SignIn).starts_with(b"mykube/2 sign-in\0\x01"));
    }

    #[test]
    fn bodies_have_their_published_names() {
        let body = DevToken { email: "e", secret: "s", client: CLIENT, key: "k" };
        let json = serde_json::to_string(&body).unwrap();
        assert_eq!(json, r#"{"email":"e","secret":"s","client":"mykube","key":"k"}"#);
        let json = serde_json::to_string(&Signed { refresh_token: "r", time: 7, sig: "s" }).unwrap();
        assert_eq!(json, r#"{"refresh_token":"r","time":7,"sig":"s"}"#);
        let json = serde_json::to_string(&DevicePoll { device_code: "d", time: 7, sig: "s" }).unwrap();
        assert_eq!(json, r#"{"deviceCode":"d","time":7,"sig":"s"}"#);
        let polled = r#"{"status":"authorized","token":"t","expiresIn":1,"refresh_token":"r","relay":[]}"#;
        assert!(matches!(serde_json::from_str(polled).unwrap(), DevicePolled::Authorized(given) if given.token == "t"));
        let answer: SignedIn =
            serde_json::from_str(r#"{"token":"t","userId":"u","expiresIn":3600,"refresh_token":"r","relay":[]}"#)
                .unwrap();
        assert_eq!((answer.token.as_str(), answer.expires_in), ("t", 3600));
    }
}
