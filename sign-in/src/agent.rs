//! What an agent that has a name at a relay keeps on this machine: its token, where it made that itself, and its key pair for
//! the relay. One program at a time has it.

use std::{
    fs::File,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use data_encoding::{BASE64, HEXLOWER};
use mykube_dial::RelayUrl;
use mykube_protocol::control::{Hello, NONCE_LEN, signed};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    error::SignInError,
    files::{self, Readers},
    home::State,
};

/// Longest file that is taken for a token's.
const TOKEN_FILE_MAX: u64 = 1024;

/// An agent's directory, while this program has it.
pub struct AgentState {
    directory: PathBuf,
    _lock: File,
}

impl AgentState {
    /// That of the agent of this name, which is a name by the relay's rules.
    ///
    /// # Errors
    /// Another program has it ([`SignInError::Running`]), or it cannot be made.
    pub async fn open(state: &State, relay: &RelayUrl, name: &str) -> Result<Self, SignInError> {
        let directory = state.agent(relay, name);
        let lock = files::lock(&directory.join("lock"), Duration::ZERO).await.map_err(|error| match error {
            SignInError::Busy { path } => SignInError::Running { path },
            error => error,
        })?;
        Ok(Self { directory, _lock: lock })
    }

    /// The token that this agent made itself, if it has.
    ///
    /// # Errors
    /// Its file cannot be read, or others may read it.
    pub fn token(&self) -> Result<Option<Zeroizing<String>>, SignInError> {
        let path = self.directory.join("token");
        let Some(content) = files::read(&path, Readers::User)? else { return Ok(None) };
        let text = std::str::from_utf8(&content).map_err(|_| SignInError::Damaged { path })?;
        Ok(Some(Zeroizing::new(text.trim().to_owned())))
    }

    /// Keeps a token.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn keep_token(&self, token: &str) -> Result<(), SignInError> {
        files::write(&self.directory.join("token"), token.as_bytes())
    }

    /// Forgets the token: the relay does not take it any more.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn forget_token(&self) -> Result<(), SignInError> {
        files::remove(&self.directory.join("token"))
    }

    /// The agent's key pair for the relay, made on first use.
    ///
    /// # Errors
    /// It can be neither read nor written, or others may read it.
    pub fn keys(&self) -> Result<RelayKeys, SignInError> {
        RelayKeys::load_or_create(&self.directory.join("relay-keys"))
    }
}

/// An agent's token from a file that somebody else made, a mounted Secret say.
///
/// # Errors
/// It cannot be read, others may read it, or it holds no token.
pub fn token_from(path: &Path) -> Result<Zeroizing<String>, SignInError> {
    let wrong = |reason: String| SignInError::TokenFile { path: path.to_owned(), reason };
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| wrong(error.to_string()))?;
    if !metadata.is_file() {
        return Err(wrong("it is no regular file".to_owned()));
    }
    let mode = metadata.mode() & 0o7777;
    let user = rustix::process::geteuid().as_raw();
    // A Secret that is mounted for a user other than root belongs to root, and to a group of the pod's own.
    let readers = if metadata.uid() == user { 0o077 } else { 0o037 };
    if mode & readers != 0 || ![user, 0].contains(&metadata.uid()) {
        let what = "run `chmod 600` on it; a Secret is mounted with `defaultMode: 0400`, or 0440 beside an fsGroup";
        return Err(wrong(format!(
            "other users may read or change it (mode {mode:o}, owner {}): {what}",
            metadata.uid()
        )));
    }
    let mut text = Zeroizing::new(String::with_capacity(1024));
    file.take(TOKEN_FILE_MAX).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
    let token = text.trim();
    if !token.starts_with("rla_") || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("it holds no token of an agent, which looks like rla_NAME_...".to_owned()));
    }
    Ok(Zeroizing::new(token.to_owned()))
}

/// The key that an agent signs with at one relay, and the one to which the relay encrypts. It says nothing of itself.
pub struct RelayKeys {
    sign: EcdsaKeyPair,
    open: EcdsaKeyPair,
}

/// PKCS #8, base64.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Kept {
    sign: String,
    open: String,
}

impl RelayKeys {
    fn load_or_create(path: &Path) -> Result<Self, SignInError> {
        let damaged = || SignInError::Damaged { path: path.to_owned() };
        let kept = match files::read(path, Readers::User)? {
            Some(content) => serde_json::from_slice(&content).map_err(|_| damaged())?,
            None => {
                let make = || {
                    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
                    BASE64.encode(made.expect("the system gives random numbers").as_ref())
                };
                let kept = Kept { sign: make(), open: make() };
                files::write(path, &Zeroizing::new(serde_json::to_vec(&kept).expect("texts are JSON")))?;
                kept
            }
        };
        let key = |text: &str| {
            let bytes = Zeroizing::new(BASE64.decode(text.as_bytes()).map_err(|_| damaged())?);
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &bytes).map_err(|_| damaged())
        };
        Ok(Self { sign: key(&kept.sign)?, open: key(&kept.open)? })
    }

    /// Which key it is: the lower-case hex SHA-256 of its point.
    #[must_use]
    pub fn id(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(self.sign.public_key().as_ref()))
    }

    /// The hello that answers a challenge, at this time in seconds since 1970.
    #[must_use]
    pub fn hello(&self, nonce: &[u8; NONCE_LEN], time: u64) -> Hello {
        let signature = self.sign.sign(&SystemRandom::new(), &signed(nonce, time));
        Hello {
            uuid: self.id(),
            pubkey: BASE64.encode(self.sign.public_key().as_ref()),
            decrypt_pubkey: BASE64.encode(self.open.public_key().as_ref()),
            sig: BASE64.encode(signature.expect("the system gives random numbers").as_ref()),
            timestamp: i32::try_from(time).unwrap_or(i32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

    use super::*;

    async fn state(dir: &tempfile::TempDir, name: &str) -> Result<AgentState, SignInError> {
        AgentState::open(&State::at(dir.path()), &"https://relay.example".parse().unwrap(), name).await
    }

    #[tokio::test]
    async fn an_agents_state_is_one_programs_and_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let prod = state(&dir, "prod").await.unwrap();
        assert!(matches!(state(&dir, "prod").await.err(), Some(SignInError::Running { .. })));
        let other = state(&dir, "other").await.unwrap();
        let id = prod.keys().unwrap().id();
        assert_ne!(other.keys().unwrap().id(), id, "each name has its own keys");
        assert_eq!(prod.token().unwrap(), None);
        prod.keep_token("rla_prod_x").unwrap();
        drop(prod);
        let prod = state(&dir, "prod").await.unwrap();
        assert_eq!((prod.keys().unwrap().id(), prod.token().unwrap().unwrap().as_str()), (id, "rla_prod_x"));
        for name in ["token", "relay-keys"] {
            let mode = fs::metadata(prod.directory.join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{name}");
        }
        prod.forget_token().unwrap();
        assert_eq!(prod.token().unwrap(), None);
        fs::write(prod.directory.join("relay-keys"), "{}").unwrap();
        assert!(matches!(prod.keys().err(), Some(SignInError::Damaged { .. })));
    }

    #[tokio::test]
    async fn a_hello_is_signed_by_its_key_and_has_a_second_one() {
        let dir = tempfile::tempdir().unwrap();
        let keys = state(&dir, "prod").await.unwrap().keys().unwrap();
        let hello = keys.hello(&[7; NONCE_LEN], 1_767_225_600);
        let point = BASE64.decode(hello.pubkey.as_bytes()).unwrap();
        let signature = BASE64.decode(hello.sig.as_bytes()).unwrap();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &point);
        key.verify(&signed(&[7; NONCE_LEN], 1_767_225_600), &signature).unwrap();
        assert!(key.verify(&signed(&[8; NONCE_LEN], 1_767_225_600), &signature).is_err());
        assert_eq!((hello.uuid, hello.timestamp), (keys.id(), 1_767_225_600));
        assert!(hello.pubkey != hello.decrypt_pubkey && point.len() == 65);
    }

    #[test]
    fn a_tokens_file_is_its_readers_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        assert!(matches!(token_from(&path), Err(SignInError::TokenFile { .. })));
        fs::write(&path, "rla_prod_x\n").unwrap();
        for (mode, is_taken) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o622, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(token_from(&path).is_ok(), is_taken, "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(token_from(&path).unwrap().as_str(), "rla_prod_x");
        for wrong in ["", "rlk_ci_x", "rla_prod_x y", "eyJ"] {
            fs::write(&path, wrong).unwrap();
            let told = token_from(&path).unwrap_err().to_string();
            assert!(told.contains("holds no token") && (wrong.is_empty() || !told.contains(wrong)), "{told}");
        }
        assert!(token_from(dir.path()).is_err());
    }
}
