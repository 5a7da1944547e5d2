//! The keys that a provider signs with (RFC 7517), each with the algorithms that it may sign with.

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

/// Keys of a provider at most. The large ones have about twenty.
pub const KEYS_MAX: usize = 64;

/// A key set, without what this relay cannot verify with.
pub(crate) struct Keys(Vec<Key>);

struct Key {
    kid: Option<String>,
    algorithms: &'static [Algorithm],
    decoding: DecodingKey,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl Keys {
    /// Reads a key set.
    ///
    /// # Errors
    /// What is wrong with it. A key that means nothing here is passed over (RFC 7517, section 5).
    pub(crate) fn read(body: &[u8]) -> Result<Self, &'static str> {
        let set: Set = serde_json::from_slice(body).map_err(|_| "is no JSON Web Key Set")?;
        if set.keys.len() > KEYS_MAX {
            return Err("has far too many keys");
        }
        let keys: Vec<_> = set.keys.into_iter().filter_map(Key::read).collect();
        if keys.is_empty() { Err("has no key of a kind that this relay knows") } else { Ok(Self(keys)) }
    }

    /// The key of this id that may sign with this algorithm; without an id, the only key that may.
    pub(crate) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let mut fitting = self.0.iter().filter(|key| key.algorithms.contains(&algorithm));
        match kid {
            Some(kid) => fitting.find(|key| key.kid.as_deref() == Some(kid)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
        .map(|key| &key.decoding)
    }
}

impl Key {
    fn read(value: Value) -> Option<Self> {
        // An algorithm of a name that is unknown here is no reason to choose another.
        let named = match value.get("alg") {
            None => None,
            Some(name) => Some(algorithm(name.as_str()?)?),
        };
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let signs = jwk.common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature);
        let verifies = jwk.common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let algorithms = match (&jwk.algorithm, named) {
            // RSA says nothing of the hash: a key without `alg` signs with the algorithm that is every client's default.
            (AlgorithmParameters::RSA(_), None) => &[Algorithm::RS256],
            (AlgorithmParameters::RSA(_), Some(named)) => only(&RSA, named)?,
            (AlgorithmParameters::EllipticCurve(key), named) => {
                let own: &[_] = match key.curve {
                    EllipticCurve::P256 => &[Algorithm::ES256],
                    EllipticCurve::P384 => &[Algorithm::ES384],
                    _ => return None,
                };
                named.map_or(Some(own), |named| only(own, named))?
            }
            (AlgorithmParameters::OctetKeyPair(key), named) if key.curve == EllipticCurve::Ed25519 => {
                named.map_or(Some(&ED[..]), |named| only(&ED, named))?
            }
            // A symmetric key in a public document is everybody's.
            _ => return None,
        };
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        (signs && verifies).then_some(Self { kid: jwk.common.key_id, algorithms, decoding })
    }
}

static RSA: [Algorithm; 6] =
    [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512];
static ED: [Algorithm; 1] = [Algorithm::EdDSA];

/// The one of them that was named, if it is one of them.
fn only(all: &'static [Algorithm], named: Algorithm) -> Option<&'static [Algorithm]> {
    let at = all.iter().position(|one| *one == named)?;
    Some(&all[at..=at])
}

/// An algorithm with a public key, by its name (RFC 7518, section 3.1; RFC 8037 and RFC 9864 for Ed25519).
pub(crate) fn algorithm(name: &str) -> Option<Algorithm> {
    Some(match name {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rsa(kid: &str, more: &Value) -> Value {
        let mut key = json!({ "kty": "RSA", "kid": kid, "n": "wVsx", "e": "AQAB" });
        for (name, value) in more.as_object().unwrap() {
            key[name] = value.clone();
        }
        key
    }

    fn ec(curve: &str, more: &Value) -> Value {
        let mut key = json!({ "kty": "EC", "kid": "ec", "crv": curve, "x": "AAAA", "y": "AAAA" });
        for (name, value) in more.as_object().unwrap() {
            key[name] = value.clone();
        }
        key
    }

    fn read(keys: &[Value]) -> Result<Keys, &'static str> {
        Keys::read(json!({ "keys": keys }).to_string().as_bytes())
    }

    /// Which algorithms a key may sign with.
    fn allowed(key: Value) -> Vec<Algorithm> {
        let kid = key["kid"].as_str().unwrap().to_owned();
        let other = rsa("another", &json!({}));
        let keys = read(&[key, other]).unwrap();
        let hmac = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        let all = RSA.into_iter().chain(ED).chain([Algorithm::ES256, Algorithm::ES384]).chain(hmac);
        all.filter(|algorithm| keys.find(Some(&kid), *algorithm).is_some()).collect()
    }

    #[test]
    fn a_key_signs_with_what_it_names_and_can() {
        use Algorithm::{ES256, ES384, EdDSA, PS384, RS256};
        let okp = |more: Value| json!({ "kty": "OKP", "kid": "ed", "crv": more["crv"], "x": "AAAA" });
        for (key, algorithms) in [
            (rsa("k", &json!({})), vec![RS256]),
            (rsa("k", &json!({ "alg": "RS256", "use": "sig" })), vec![RS256]),
            (rsa("k", &json!({ "alg": "PS384", "key_ops": ["verify"] })), vec![PS384]),
            (rsa("k", &json!({ "alg": "ES256" })), vec![]),
            (rsa("k", &json!({ "alg": "HS256" })), vec![]),
            (rsa("k", &json!({ "alg": "none" })), vec![]),
            (rsa("k", &json!({ "alg": "RSA-OAEP" })), vec![]),
            (rsa("k", &json!({ "alg": 1 })), vec![]),
            (rsa("k", &json!({ "use": "enc" })), vec![]),
            (rsa("k", &json!({ "key_ops": ["encrypt"] })), vec![]),
            (ec("P-256", &json!({})), vec![ES256]),
            (ec("P-384", &json!({ "alg": "ES384" })), vec![ES384]),
            (ec("P-256", &json!({ "alg": "ES384" })), vec![]),
            (ec("P-521", &json!({})), vec![]),
            (okp(json!({ "crv": "Ed25519" })), vec![EdDSA]),
            (okp(json!({ "crv": "X25519" })), vec![]),
            (json!({ "kty": "oct", "kid": "k", "k": "c2VjcmV0", "alg": "HS256" }), vec![]),
            (json!({ "kty": "oct", "kid": "k", "k": "c2VjcmV0" }), vec![]),
            (json!({ "kty": "AKP", "kid": "k", "pub": "AAAA" }), vec![]),
            (json!({ "kid": "k" }), vec![]),
        ] {
            assert_eq!(allowed(key.clone()), algorithms, "{key}");
        }
    }

    #[test]
    fn a_token_without_a_key_id_is_the_only_keys() {
        let one = read(&[rsa("a", &json!({})), ec("P-256", &json!({}))]).unwrap();
        assert!(one.find(None, Algorithm::RS256).is_some() && one.find(None, Algorithm::ES256).is_some());
        let two = read(&[rsa("a", &json!({})), rsa("b", &json!({}))]).unwrap();
        assert!(two.find(None, Algorithm::RS256).is_none() && two.find(Some("c"), Algorithm::RS256).is_none());
        assert!(two.find(Some("b"), Algorithm::RS256).is_some());
    }

    #[test]
    fn a_set_has_keys_and_not_too_many() {
        let many: Vec<_> = (0..KEYS_MAX).map(|at| rsa(&at.to_string(), &json!({}))).collect();
        assert!(read(&many).is_ok());
        let too_many: Vec<_> = (0..=KEYS_MAX).map(|at| rsa(&at.to_string(), &json!({}))).collect();
        assert_eq!(read(&too_many).err(), Some("has far too many keys"));
        for body in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[]}"#, r#"{"keys":[1,"x",null]}"#] {
            assert!(Keys::read(body.as_bytes()).is_err(), "{body}");
        }
    }
}
