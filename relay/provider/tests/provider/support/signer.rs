//! Keys of providers, and tokens that are signed, or not, in every way there is.

use std::sync::LazyLock;

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// The provider's own key, and one of somebody else.
pub(crate) static OWN: LazyLock<Key> = LazyLock::new(Key::generate);
pub(crate) static STRANGERS: LazyLock<Key> = LazyLock::new(Key::generate);

pub(crate) struct Key(RsaKeyPair);

impl Key {
    fn generate() -> Self {
        Self(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    /// Its public half.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let public = self.0.public_key();
        let number = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let n = number(public.modulus().big_endian_without_leading_zero());
        let e = number(public.exponent().big_endian_without_leading_zero());
        json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": n, "e": e })
    }

    /// RS256, whatever the header says.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
        with_signature(&message, &signature)
    }

    /// HMAC under what everybody knows of the key.
    pub(crate) fn sign_by_public_key(&self, header: &Value, claims: &Value) -> Vec<String> {
        let message = message(header, claims);
        let public = self.0.public_key();
        let modulus = public.modulus().big_endian_without_leading_zero().to_vec();
        let jwk = self.jwk("own");
        let secrets = [public.as_ref().to_vec(), modulus, jwk["n"].as_str().unwrap().into(), jwk.to_string().into()];
        let tag = |secret: Vec<u8>| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message.as_bytes());
        secrets.map(|secret| with_signature(&message, tag(secret).as_ref())).into()
    }
}

/// Without any signature.
pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    with_signature(&message(header, claims), &[])
}

fn message(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn with_signature(message: &str, signature: &[u8]) -> String {
    format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}
