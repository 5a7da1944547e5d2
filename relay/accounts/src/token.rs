//! Tokens of apps and agents: `rlk_{app}_{random}`, `rla_{agent}_{random}`, shown once.
//!
//! A token is found by a keyed hash of the whole. Beside it stands the bcrypt hash (cost 12) that the contract documents,
//! of base64(SHA-256(token)): bcrypt reads 72 bytes, and a name may be as long. Hashing takes a quarter of a second: the
//! caller has threads for it, few, and does it where the relay has not [vouched](TokenRow::is_vouched) for the row yet.

use std::{fmt, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use data_encoding::{BASE32_NOPAD, Encoding, Specification};
use mykube_relay_core::owner::OrganisationId;
use rand::CryptoRng;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{
    keyed_hash::{Digest, KeyedHash},
    keys::Kid,
    name::Name,
    time::UnixTime,
};

/// bcrypt's cost, as documented.
pub const COST: u32 = 12;
/// Characters of the random part: 256 bits in base32.
const RANDOM_LEN: usize = 52;
/// What is hashed besides: no token begins so.
const VOUCHED: &[u8] = b"vouched";
/// How long a token works after another took its place.
pub const ROTATION: Duration = Duration::from_hours(1);

/// Whose token it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A program's.
    App,
    /// An agent's.
    Agent,
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::App => "rlk_",
            Self::Agent => "rla_",
        }
    }
}

/// A token. Wiped on drop, prints kind and name.
#[derive(Clone)]
pub struct Token {
    kind: Kind,
    name: Name,
    text: Zeroizing<String>,
}

impl Token {
    /// A new one.
    #[must_use]
    pub fn random(kind: Kind, name: Name, rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        rng.fill_bytes(bytes.as_mut());
        let random = Zeroizing::new(base32().encode(bytes.as_ref()));
        let text = Zeroizing::new([kind.prefix(), name.as_str(), "_", &random].concat());
        Self { kind, name, text }
    }

    /// What somebody shows, if it has the form of one. The name may have `_`, the random part has none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let kind = [Kind::App, Kind::Agent].into_iter().find(|kind| text.starts_with(kind.prefix()))?;
        let (name, random) = text[kind.prefix().len()..].rsplit_once('_')?;
        let mut bytes = Zeroizing::new([0; 32]);
        let has_form = random.len() == RANDOM_LEN && base32().decode_mut(random.as_bytes(), bytes.as_mut()).is_ok();
        let name = name.parse().ok()?;
        has_form.then(|| Self { kind, name, text: Zeroizing::new(text.to_owned()) })
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The app's or agent's name in its organisation, as the token has it: a claim until the token is found.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The text, for its holder.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What is kept to find it by.
    #[must_use]
    pub fn digest(&self, hash: &KeyedHash, now: UnixTime) -> (Kid, Digest) {
        hash.hash(now, &[self.text.as_bytes()])
    }

    /// By what it is looked for, the newest secret's first: a row that is found by another is kept anew under
    /// [`Self::digest`], or the token is lost when that secret is retired.
    #[must_use]
    pub fn candidates(&self, hash: &KeyedHash) -> Vec<(Kid, Digest)> {
        hash.candidates(&[self.text.as_bytes()])
    }

    /// The bcrypt hash. `salt` is random. Takes a quarter of a second.
    #[must_use]
    pub fn slow_hash(&self, salt: [u8; 16]) -> String {
        let parts = bcrypt::hash_with_salt(self.slow_input().as_bytes(), COST, salt);
        parts.expect("the cost is allowed").format_for_version(bcrypt::Version::TwoB)
    }

    /// Whether this bcrypt hash is its own. Takes as long as the hash says, and refuses one of a cost that is not
    /// [`COST`].
    #[must_use]
    pub fn verify_slow(&self, kept: &str) -> bool {
        let Ok(parts) = kept.parse::<bcrypt::HashParts>() else { return false };
        if parts.get_cost() != COST {
            return false;
        }
        let own = self.slow_hash(parts.get_salt_raw());
        own.as_bytes().ct_eq(kept.as_bytes()).into()
    }

    fn slow_input(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64_STANDARD.encode(Sha256::digest(self.text.as_bytes())))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({:?} {})", self.kind, self.name)
    }
}

/// Lower case, no padding.
fn base32() -> Encoding {
    let mut specification: Specification = BASE32_NOPAD.specification();
    specification.symbols = specification.symbols.to_ascii_lowercase();
    specification.encoding().expect("its symbols are those of base32")
}

/// A token as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// Whose it is.
    pub organisation: OrganisationId,
    /// App or agent.
    pub kind: Kind,
    /// Of which name.
    pub name: Name,
    /// Rises with each new token of this name. Connections are marked with it.
    pub generation: u32,
    /// The secret of the digest.
    pub kid: Kid,
    /// The keyed hash.
    pub digest: Digest,
    /// The bcrypt hash.
    pub slow: String,
    /// The keyed hash of both hashes: the relay itself has seen that they are of one token.
    pub vouched: Option<Digest>,
    /// When it was made.
    pub created_at: UnixTime,
    /// When it ends by itself, if it does.
    pub expires_at: Option<UnixTime>,
    /// Until when it works since another took its place.
    pub replaced_until: Option<UnixTime>,
    /// Since another took its place it opens nothing, and what it has opened lives on until then.
    pub strict: bool,
    /// When it was revoked, if it was.
    pub revoked_at: Option<UnixTime>,
}

/// Why a token that was found opens nothing. Whoever shows it is told only that it is no good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Of the other kind: an app's where an agent's belongs.
    #[error("the token is of another kind than this call takes")]
    Kind,
    /// Ended by a person.
    #[error("the token was revoked")]
    Revoked,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Another took its place: an hour ago, or so that it opens nothing since.
    #[error("the token was replaced by another")]
    Replaced,
}

impl TokenRow {
    /// Whether it opens what wants one of this kind.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, kind: Kind, now: UnixTime) -> Result<(), TokenError> {
        if self.kind != kind {
            return Err(TokenError::Kind);
        }
        if self.revoked_at.is_some() {
            return Err(TokenError::Revoked);
        }
        let over = |end: Option<UnixTime>| end.is_some_and(|end| end <= now);
        match (over(self.expires_at), over(self.replaced_until)) {
            (true, _) => Err(TokenError::Expired),
            (_, true) => Err(TokenError::Replaced),
            _ if self.strict => Err(TokenError::Replaced),
            _ => Ok(()),
        }
    }

    /// What vouches for its two hashes, where the relay has seen that they are of one token.
    #[must_use]
    pub fn vouch(&self, hash: &KeyedHash, now: UnixTime) -> Digest {
        hash.hash(now, &[VOUCHED, &self.digest.to_bytes(), self.slow.as_bytes()]).1
    }

    /// Whether the relay has seen that its two hashes are of one token. Then the slow one need not be computed: whoever could
    /// have changed it in the database could not have written this.
    #[must_use]
    pub fn is_vouched(&self, hash: &KeyedHash) -> bool {
        let Self { digest, slow, vouched, .. } = self;
        vouched.is_some_and(|vouched| hash.verify(vouched, &[VOUCHED, &digest.to_bytes(), slow.as_bytes()]))
    }

    /// When it ends as it stands, if it does: a connection that it opened ends then.
    #[must_use]
    pub fn ends_at(&self) -> Option<UnixTime> {
        [self.expires_at, self.replaced_until, self.revoked_at].into_iter().flatten().min()
    }

    /// Another has taken its place: it works for an hour more, one that was replaced already not at all, so that two are
    /// alive at most. `strict`: only for what it has opened.
    pub fn handle_replaced(&mut self, strict: bool, now: UnixTime) {
        let until = if self.replaced_until.is_some() { now } else { now + ROTATION };
        self.replaced_until = Some(self.replaced_until.map_or(until, |before| before.min(until)));
        self.strict |= strict;
    }

    /// A person revokes it.
    pub fn handle_revoke(&mut self, now: UnixTime) {
        self.revoked_at.get_or_insert(now);
    }
}

#[cfg(test)]
mod tests;
