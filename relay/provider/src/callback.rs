//! What comes back from a provider with the browser: the query of the redirect URI (RFC 6749, section 4.1.2; RFC 9207).

use std::{collections::BTreeMap, fmt};

use mykube_protocol::text::printable;
use mykube_relay_accounts::{provider_state::InvalidState, secret::Secret};
use url::form_urlencoded;
use zeroize::Zeroizing;

/// Bytes of a query at most: Microsoft's codes have about one and a half thousand.
const QUERY_MAX: usize = 8 * 1024;
/// Characters of a provider's own words that are shown.
const WORDS_MAX: usize = 200;

/// The query of a redirect URI, not yet judged: whoever sent the browser here wrote it.
#[derive(Debug)]
pub struct Callback {
    /// `state`. It must be looked up, and the sign-in taken, before anything is done with the outcome.
    pub state: Secret,
    /// What the provider says.
    pub outcome: Outcome,
}

/// What the provider says of a sign-in.
#[derive(Debug)]
pub enum Outcome {
    /// Somebody has signed in.
    Code(Code),
    /// Nobody has: `error` and `error_description`, cleaned.
    Denied(String),
}

/// A code, and who says that it gave it out.
pub struct Code {
    pub(crate) code: Zeroizing<String>,
    pub(crate) issuer: Option<String>,
}

/// A query that no provider sends. The message is a text of the answer, with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCallback {
    /// No `state` of this relay's.
    #[error(transparent)]
    State(#[from] InvalidState),
    /// Neither a code nor an error.
    #[error("the identity provider sent neither a code nor an error: begin the sign-in again")]
    NoCode,
    /// A parameter stands there twice (RFC 6749, section 3.1), or all is far too long.
    #[error("the identity provider's answer cannot be read: begin the sign-in again")]
    Unreadable,
}

impl Callback {
    /// Reads the query, without its `?`. Parameters that mean nothing here are passed over.
    ///
    /// # Errors
    /// It is none that a provider sends to this relay.
    pub fn parse(query: &str) -> Result<Self, InvalidCallback> {
        if query.len() > QUERY_MAX {
            return Err(InvalidCallback::Unreadable);
        }
        let mut all = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let known = ["state", "code", "iss", "error", "error_description"].contains(&&*name);
            if known && all.insert(name.into_owned(), Zeroizing::new(value.into_owned())).is_some() {
                return Err(InvalidCallback::Unreadable);
            }
        }
        let state = all.get("state").and_then(|state| Secret::parse(state)).ok_or(InvalidState)?;
        let outcome = match (all.remove("error"), all.remove("code")) {
            (Some(error), _) => Outcome::Denied(words(&error, all.get("error_description").map(|text| text.as_str()))),
            (None, Some(code)) if !code.is_empty() => {
                Outcome::Code(Code { code, issuer: all.get("iss").map(|issuer| issuer.to_string()) })
            }
            _ => return Err(InvalidCallback::NoCode),
        };
        Ok(Self { state, outcome })
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code")
    }
}

/// An `error` and its `error_description`, made fit for a message.
pub(crate) fn words(error: &str, description: Option<&str>) -> String {
    match description.filter(|text| !text.is_empty()) {
        Some(description) => printable(&format!("{error}: {description}"), WORDS_MAX),
        None => printable(error, WORDS_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    #[test]
    fn an_answer_has_a_code_or_says_why_not() {
        let read = Callback::parse(&format!("code=a%2Fb+c&state={STATE}&iss=https%3A%2F%2Fx.example&scope=x&scope=y"));
        let Outcome::Code(code) = read.unwrap().outcome else { panic!("there is a code") };
        assert_eq!((code.code.as_str(), code.issuer.as_deref()), ("a/b c", Some("https://x.example")));
        assert_eq!(format!("{code:?}"), "Code");
        let denied = |query: &str| match Callback::parse(query).unwrap().outcome {
            Outcome::Denied(words) => words,
            Outcome::Code(_) => panic!("an error is no code"),
        };
        assert_eq!(denied(&format!("error=access_denied&state={STATE}")), "access_denied");
        let both = format!("error=a%1b%5b31m&error_description=b%0ac&code=x&state={STATE}");
        assert!(!denied(&both).contains(char::is_control), "{}", denied(&both));
    }

    #[test]
    fn what_no_provider_sends_is_refused() {
        for (query, why) in [
            (String::new(), InvalidCallback::State(InvalidState)),
            ("code=a".into(), InvalidCallback::State(InvalidState)),
            ("code=a&state=short".into(), InvalidCallback::State(InvalidState)),
            (format!("state={STATE}"), InvalidCallback::NoCode),
            (format!("state={STATE}&code="), InvalidCallback::NoCode),
            (format!("state={STATE}&code=a&code=b"), InvalidCallback::Unreadable),
            (format!("state={STATE}&state={STATE}&code=a"), InvalidCallback::Unreadable),
            (format!("state={STATE}&code=a&iss=x&iss=y"), InvalidCallback::Unreadable),
            (format!("state={STATE}&code={}", "a".repeat(QUERY_MAX)), InvalidCallback::Unreadable),
        ] {
            assert_eq!(Callback::parse(&query).unwrap_err(), why, "{query:.80}");
        }
    }
}
