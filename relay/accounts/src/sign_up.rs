//! Who may have an account here. Closed unless the configuration says otherwise: then an invitation lets one person in.

use std::time::Duration;

use rand::CryptoRng;

use crate::{
    email::Email,
    identity::Person,
    keyed_hash::{Digest, KeyedHash},
    secret::Secret,
    time::UnixTime,
};

/// How long an invitation is good.
pub const LIFE: Duration = Duration::from_hours(7 * 24);

/// `[accounts] sign_up`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SignUp {
    /// Invitations only.
    #[default]
    Closed,
    /// Anybody.
    Open,
    /// Whoever has a proved address at one of these domains, in lower case.
    Domains(Vec<String>),
}

/// An invitation as the database has it. Its link has the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Hash of the link's secret.
    pub link: Digest,
    /// Who is invited.
    pub email: Email,
    /// Whether they are to operate the relay.
    pub operator: bool,
    /// When it was made.
    pub created_at: UnixTime,
    /// When it was taken, if it was.
    pub taken_at: Option<UnixTime>,
}

/// How somebody came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// The configuration lets them in.
    ByPolicy,
    /// An invitation did, which is taken now.
    Invited {
        /// Whether they are to operate the relay.
        operator: bool,
    },
}

/// Why somebody without an account gets none. The same for every address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// No invitation, and the relay is not open to them.
    #[error("this relay takes no new accounts by itself: ask its operator for an invitation (`mykube relay invite`)")]
    Closed,
    /// Used, too old, or never made.
    #[error("this invitation is no longer good: ask for a new one")]
    Over,
    /// Signed in as somebody else.
    #[error("this invitation is for another address: sign in with the one it was sent to")]
    Address,
}

impl Invitation {
    /// A new one, and the secret of its link.
    #[must_use]
    pub fn new(
        email: Email,
        operator: bool,
        hash: &KeyedHash,
        now: UnixTime,
        rng: &mut impl CryptoRng,
    ) -> (Self, Secret) {
        let link = Secret::random(rng);
        let (_, digest) = hash.hash(now, &[b"invitation", link.expose().as_bytes()]);
        (Self { link: digest, email, operator, created_at: now, taken_at: None }, link)
    }

    /// By what a shown link is looked for.
    #[must_use]
    pub fn candidates(link: &Secret, hash: &KeyedHash) -> Vec<Digest> {
        let candidates = hash.candidates(&[b"invitation", link.expose().as_bytes()]);
        candidates.into_iter().map(|(_, digest)| digest).collect()
    }

    /// Whether it is good.
    #[must_use]
    pub fn is_live(&self, now: UnixTime) -> bool {
        self.taken_at.is_none() && now.since(self.created_at) < LIFE
    }

    /// Somebody without an account, or with one, has its link. They must have signed in with its address, which their
    /// provider has verified: the link alone may have been forwarded.
    ///
    /// # Errors
    /// It is over, or for somebody else.
    pub fn handle_take(&mut self, person: &Person, now: UnixTime) -> Result<Admitted, NotAdmitted> {
        if !self.is_live(now) {
            return Err(NotAdmitted::Over);
        }
        if person.email.as_ref() != Some(&self.email) {
            return Err(NotAdmitted::Address);
        }
        self.taken_at = Some(now);
        Ok(Admitted::Invited { operator: self.operator })
    }
}

impl SignUp {
    /// Whether somebody without an account and without an invitation gets one.
    ///
    /// # Errors
    /// Not here.
    pub fn admits(&self, person: &Person) -> Result<Admitted, NotAdmitted> {
        let proved = person.email.as_ref().filter(|_| person.proved);
        let admitted = match self {
            Self::Closed => false,
            Self::Open => true,
            Self::Domains(domains) => {
                proved.is_some_and(|email| domains.iter().any(|domain| domain.eq_ignore_ascii_case(email.domain())))
            }
        };
        if admitted { Ok(Admitted::ByPolicy) } else { Err(NotAdmitted::Closed) }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::keys::{Keys, Purpose};

    const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);

    fn person(email: &str) -> Person {
        Person::of_email(email.parse().unwrap())
    }

    #[test]
    fn a_closed_relay_lets_in_nobody_an_open_one_all_and_a_companys_its_own() {
        let company = SignUp::Domains(vec!["Example.com".into()]);
        let (ada, eve) = (person("ada@example.com"), person("eve@example.com.evil.test"));
        let unproved = Person::of_dev("ada@example.com".parse().unwrap());
        let nameless = Person { email: None, ..ada.clone() };
        for (sign_up, one, admitted) in [
            (&SignUp::default(), &ada, false),
            (&SignUp::Open, &eve, true),
            (&SignUp::Open, &nameless, true),
            (&company, &ada, true),
            (&company, &eve, false),
            (&company, &person("ada@sub.example.com"), false),
            (&company, &unproved, false),
            (&company, &nameless, false),
        ] {
            let expected = if admitted { Ok(Admitted::ByPolicy) } else { Err(NotAdmitted::Closed) };
            assert_eq!(sign_up.admits(one), expected, "{sign_up:?} {one:?}");
        }
    }

    #[test]
    fn an_invitation_lets_in_once_whom_it_names_for_a_week() {
        let hash = KeyedHash::new(&Keys::from_configured(&[7; 32]).unwrap(), Purpose::Codes);
        let email: Email = "ada@example.com".parse().unwrap();
        let (made, link) = Invitation::new(email, true, &hash, NOW, &mut StdRng::seed_from_u64(1));
        assert_eq!(Invitation::candidates(&link, &hash), [made.link]);
        let last = NOW + LIFE - Duration::from_millis(1);
        let ada = person("ada@example.com");
        let take = |person: &Person, now| made.clone().handle_take(person, now);
        assert_eq!(take(&ada, last), Ok(Admitted::Invited { operator: true }));
        assert_eq!(take(&ada, NOW + LIFE), Err(NotAdmitted::Over));
        assert_eq!(take(&person("eve@example.com"), NOW), Err(NotAdmitted::Address));
        assert_eq!(take(&Person { email: None, ..ada.clone() }, NOW), Err(NotAdmitted::Address));
        let mut once = made.clone();
        once.handle_take(&ada, NOW).unwrap();
        assert_eq!(once.handle_take(&ada, NOW), Err(NotAdmitted::Over));
        assert_eq!(once.taken_at, Some(NOW));
    }
}
