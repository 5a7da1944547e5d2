//! A token that was made elsewhere and is brought here, on standard input.

use data_encoding::BASE64URL_NOPAD;
use mykube_protocol::{account::CLIENT, text::printable};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::error::SignInError;

/// Longest token that is read.
pub const TOKEN_MAX: usize = 16 * 1024;

const NOTHING: &str = "standard input has no token: `mykube login --with-token < FILE`";
const NONE: &str = "standard input is no token that a sign-in can be made of: a relay's JWT of class `mykube` is";
const APP: &str = "an app's token (rlk_) is not built yet, and will be no sign-in of a person: nothing was sent";
const AGENT: &str =
    "an agent's token (rla_) is no sign-in: `mykube server --token-file FILE` takes it. Nothing was sent";
const REFRESH: &str = "a refresh token works only with the key of the machine that it was given to: sign in here by \
    `mykube login`. Nothing was sent";
const ID_TOKEN: &str = "this is an ID token of an identity provider, not a token of a relay. A relay that lists its audience \
    gives for one a token of its devices channel (`POST /auth`), which signs nobody in here: use `mykube login`, or \
    `mykube login --device` where there is no browser. Nothing was sent";

/// A relay's token of class `mykube`, as it says of itself; only its relay can say whether that is true.
pub(crate) struct Given {
    pub(crate) token: Zeroizing<String>,
    /// Who made it.
    pub(crate) issuer: String,
    /// Seconds since 1970, by the relay's clock.
    pub(crate) expires_at: u64,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    /// An ID token may have several.
    aud: serde_json::Value,
    exp: u64,
}

impl Given {
    /// Reads what it is. Of what it is not, nothing is told but its kind.
    pub(crate) fn read(text: &str) -> Result<Self, SignInError> {
        let text = text.trim();
        let refused = |why| Err(SignInError::NoToken(why));
        match text.split_once('_').map(|(kind, _)| kind) {
            _ if text.is_empty() => return refused(NOTHING),
            Some("rlk") => return refused(APP),
            Some("rla") => return refused(AGENT),
            Some("mkr") => return refused(REFRESH),
            _ => {}
        }
        let [header, claims, signature] = text.split('.').collect::<Vec<_>>()[..] else { return refused(NONE) };
        let (Some(header), Some(claims)) = (json::<Header>(header), json::<Claims>(claims)) else {
            return refused(NONE);
        };
        if text.len() > TOKEN_MAX || signature.is_empty() {
            return refused(NONE);
        }
        // A relay has nobody else verify its tokens; a provider does (its keys are public ones).
        if header.alg != "HS256" {
            return refused(ID_TOKEN);
        }
        match claims.aud.as_str() {
            Some(CLIENT) => {}
            Some(class @ ("devices" | "daemon" | "browser")) => return Err(SignInError::Class(class.to_owned())),
            _ => return refused(NONE),
        }
        let issuer = printable(&claims.iss, 200);
        Ok(Self { token: Zeroizing::new(text.to_owned()), issuer, expires_at: claims.exp })
    }
}

fn json<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    let bytes = Zeroizing::new(BASE64URL_NOPAD.decode(part.as_bytes()).ok()?);
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(header: &str, claims: &str) -> String {
        format!("{}.{}.c2ln", BASE64URL_NOPAD.encode(header.as_bytes()), BASE64URL_NOPAD.encode(claims.as_bytes()))
    }

    #[test]
    fn a_relays_token_of_the_right_class_is_taken_and_all_others_are_named() {
        let claims = |aud: &str| format!(r#"{{"iss":"https://relay.example","aud":{aud},"exp":7,"sub":"user_1"}}"#);
        let ours = |aud: &str| jwt(r#"{"alg":"HS256","typ":"JWT","kid":"k"}"#, &claims(aud));
        let given = Given::read(&format!(" {}\n", ours(r#""mykube""#))).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((given.issuer.as_str(), given.expires_at), ("https://relay.example", 7));
        let refused = |text: &str| match Given::read(text) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("taken: {text}"),
        };
        for class in ["devices", "daemon", "browser"] {
            let why = refused(&ours(&format!("\"{class}\"")));
            assert!(why.contains(&format!("class `{class}`")), "{why}");
        }
        for alg in ["RS256", "ES256", "none"] {
            let why = refused(&jwt(&format!(r#"{{"alg":"{alg}"}}"#), &claims(r#""mykube""#)));
            assert!(why.contains("ID token of an identity provider"), "{why}");
        }
        assert!(refused("rla_agent_secret").contains("mykube server --token-file FILE"));
        assert!(refused("rlk_app_secret").contains("not built yet"));
        assert!(refused("mkr_secret").contains("key of the machine"));
        assert!(refused(" \n").contains("has no token"));
        for nonsense in ["secret", "a.b.c", "a.b", "....", &ours("7"), &ours("\"other\""), &ours("\"mykube\"")[..40]] {
            let why = refused(nonsense);
            assert!(why.contains("is no token") && !why.contains(nonsense), "{why}");
        }
    }
}
