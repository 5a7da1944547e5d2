//! The keys file: text, one secret a line, the newest last, as `KID SIGNS_FROM SECRET`: its id, whole seconds since 1970,
//! and its bytes in unpadded base64url. Empty lines and those that begin with `#` say nothing.

use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::{CONFIGURED_MIN, KEYS_MAX, Key, Keys, Kid};
use crate::time::UnixTime;

const HEADER: &str = "mykube-keys 1";
const COMMENT: &str =
    "# The relay's secrets: whoever reads them can sign in as anybody. `mykube relay rotate-keys` adds one.";
/// Bytes of a secret at most, so that one line is not the whole memory.
const SECRET_MAX: usize = 1024;

/// Why this is no keys file. The message never has a part of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysFileError {
    /// Another file, or one of a newer program.
    #[error("this is no keys file of this version: its first line must be `{HEADER}`")]
    Header,
    /// A line that is not three words, or one of them is wrong.
    #[error("line {0} is not `KID SECONDS SECRET`: put back a copy of the file")]
    Line(usize),
    /// The secret is not the one that the id was made from.
    #[error("line {0} is damaged, its secret is not the one of its id: put back a copy of the file")]
    Damaged(usize),
    /// A secret stands before one that signs earlier, or twice.
    #[error("line {0} does not sign later than the one before it: put back a copy of the file")]
    Order(usize),
    /// No secret, or too many.
    #[error("a keys file has one to {KEYS_MAX} secrets, this one has {0}")]
    Count(usize),
}

impl Keys {
    /// Reads a keys file.
    ///
    /// # Errors
    /// Which line is wrong, and how.
    pub fn parse(text: &str) -> Result<Self, KeysFileError> {
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim_ascii()));
        let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        if lines.next().is_none_or(|(_, line)| line != HEADER) {
            return Err(KeysFileError::Header);
        }
        let mut keys: Vec<Key> = Vec::new();
        for (at, line) in lines {
            let key = parse_line(at, line)?;
            if keys.last().is_some_and(|before| before.signs_from() >= key.signs_from())
                || keys.iter().any(|other| other.kid() == key.kid())
            {
                return Err(KeysFileError::Order(at));
            }
            keys.push(key);
        }
        if (1..=KEYS_MAX).contains(&keys.len()) { Ok(Self(keys)) } else { Err(KeysFileError::Count(keys.len())) }
    }

    /// The text of the file. Wiped on drop.
    #[must_use]
    pub fn serialise(&self) -> Zeroizing<String> {
        // The whole at once: a string that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(
            COMMENT.len() + HEADER.len() + self.0.iter().map(|key| 64 + key.secret.len() * 2).sum::<usize>(),
        ));
        let room = text.capacity();
        let lines = &mut *text;
        writeln!(lines, "{COMMENT}\n{HEADER}").expect("a String takes all");
        for key in &self.0 {
            write!(lines, "{} {} ", key.kid, key.signs_from.secs()).expect("a String takes all");
            BASE64_URL_SAFE_NO_PAD.encode_string(&*key.secret, lines);
            lines.push('\n');
        }
        debug_assert_eq!(text.capacity(), room, "a copy was left behind");
        text
    }
}

fn parse_line(at: usize, line: &str) -> Result<Key, KeysFileError> {
    let malformed = KeysFileError::Line(at);
    let mut words = line.split_ascii_whitespace();
    let (Some(kid), Some(signs_from), Some(secret), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(malformed);
    };
    let kid: Kid = kid.parse().map_err(|_| malformed)?;
    let signs_from = signs_from.parse().map_err(|_| malformed)?;
    let mut bytes = Zeroizing::new(vec![0; secret.len()]);
    let len = BASE64_URL_SAFE_NO_PAD.decode_slice(secret, &mut bytes).map_err(|_| malformed)?;
    bytes.truncate(len);
    if !(CONFIGURED_MIN..=SECRET_MAX).contains(&bytes.len()) {
        return Err(malformed);
    }
    let key = Key::new(bytes, UnixTime::from_secs(signs_from));
    if key.kid == kid { Ok(key) } else { Err(KeysFileError::Damaged(at)) }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::keys::Purpose;

    fn two() -> Keys {
        let mut rng = StdRng::seed_from_u64(1);
        let mut keys = Keys::generate(&mut rng);
        keys.rotate(UnixTime::from_secs(1000), &mut rng).unwrap();
        keys
    }

    #[test]
    fn what_is_written_is_read() {
        let keys = two();
        let text = keys.serialise();
        let again = Keys::parse(&text).unwrap();
        assert_eq!(*again.serialise(), *text);
        let derived = |keys: &Keys| keys.accepted().map(|key| *key.derive(Purpose::Jwt)).collect::<Vec<_>>();
        assert_eq!(derived(&again), derived(&keys));
        assert_eq!(again.signing(UnixTime::from_secs(999)).kid(), keys.signing(UnixTime::from_secs(0)).kid());
        // As an editor of another system leaves it.
        let spaced = text.replace('\n', "\r\n\r\n");
        assert_eq!(*Keys::parse(&spaced).unwrap().serialise(), *text);
    }

    #[test]
    fn the_file_is_this() {
        let secret = BASE64_URL_SAFE_NO_PAD.encode([7; 32]);
        let text = format!("{COMMENT}\n{HEADER}\n170a71f89c9f0205 1000 {secret}\n");
        assert_eq!(*Keys::parse(&text).unwrap().serialise(), text);
    }

    #[test]
    fn a_secret_has_thirty_two_bytes_to_a_kibibyte() {
        let file = |len: usize| {
            let begins = UnixTime::from_secs(1_800_000_000);
            Keys(vec![Key::new(Zeroizing::new(vec![7; len]), begins)]).serialise()
        };
        for len in [CONFIGURED_MIN, SECRET_MAX] {
            assert_eq!(*Keys::parse(&file(len)).unwrap().serialise(), *file(len));
        }
        for len in [CONFIGURED_MIN - 1, SECRET_MAX + 1] {
            assert_eq!(Keys::parse(&file(len)).unwrap_err(), KeysFileError::Line(3), "{len}");
        }
    }

    #[test]
    fn no_change_of_a_file_is_overlooked() {
        let text = two().serialise();
        let start = text.find(HEADER).unwrap();
        for at in start..text.len() {
            if text.as_bytes()[at].is_ascii_whitespace() {
                continue;
            }
            let mut changed = text.as_bytes().to_vec();
            changed[at] ^= 1;
            let changed = String::from_utf8(changed).unwrap();
            // Only when a secret begins to sign is nobody's check.
            if let Ok(keys) = Keys::parse(&changed) {
                let kids = |keys: &Keys| keys.accepted().map(Key::kid).collect::<Vec<_>>();
                assert_eq!(kids(&keys), kids(&two()), "byte {at}");
            }
        }
    }

    #[test]
    fn a_wrong_file_is_refused_by_line_and_shows_nothing() {
        let text = two().serialise();
        let lines: Vec<&str> = text.lines().collect();
        let [comment, header, first, second] = lines[..] else { panic!("four lines") };
        let (_, secret) = first.rsplit_once(' ').unwrap();
        let cases = [
            (String::new(), KeysFileError::Header),
            (format!("mykube-keys 2\n{first}"), KeysFileError::Header),
            (format!("{first}\n{second}"), KeysFileError::Header),
            (format!("{comment}\n{header}\n"), KeysFileError::Count(0)),
            (format!("{header}\n{second}\n{first}"), KeysFileError::Order(3)),
            (format!("{header}\n{first}\n{first}"), KeysFileError::Order(3)),
            (format!("{header}\n{first} more"), KeysFileError::Line(2)),
            (format!("{header}\n{}", first.replace(' ', "")), KeysFileError::Line(2)),
            (format!("{header}\n{}", first.replace(secret, "AAAA")), KeysFileError::Line(2)),
            (format!("{header}\n{}", first.replace(secret, &secret.repeat(64))), KeysFileError::Line(2)),
            (format!("{header}\n{}", first.replace(secret, &"A".repeat(43))), KeysFileError::Damaged(2)),
        ];
        for (file, expected) in cases {
            let error = Keys::parse(&file).unwrap_err();
            assert_eq!(error, expected);
            assert!(!error.to_string().contains(secret));
        }
    }
}
