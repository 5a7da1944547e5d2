//! Who may have an account here. Closed unless the configuration says otherwise: then an invitation lets one person in.
//!
//! An invitation is for an address, and is taken by whoever signs in with proof of that address. Its link has no secret: what
//! is forwarded, logged or seen over a shoulder lets nobody in.

use std::time::Duration;

use crate::{email::Email, identity::Person, time::UnixTime};

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

/// An invitation as the database has it: one an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
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
    /// They have an account.
    Known,
    /// The configuration lets them in.
    ByPolicy,
    /// An invitation did, which is to be taken with this.
    Invited {
        /// Whether they are to operate the relay.
        operator: bool,
    },
}

/// Somebody without an account gets none: the relay is not open to them, and no invitation of a proved address of theirs is
/// good. The same for every address, so that it says nothing of who is known or invited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this relay takes no new accounts by itself: ask its operator for an invitation (`mykube relay invite`)")]
pub struct NotAdmitted;

impl Invitation {
    /// A new one.
    #[must_use]
    pub const fn new(email: Email, operator: bool, now: UnixTime) -> Self {
        Self { email, operator, created_at: now, taken_at: None }
    }

    /// Whether it is good.
    #[must_use]
    pub fn is_live(&self, now: UnixTime) -> bool {
        self.taken_at.is_none() && now.since(self.created_at) < LIFE
    }

    /// Whether this person takes it: by proof of its address, for nothing less says who they are.
    #[must_use]
    pub fn admits(&self, person: &Person, now: UnixTime) -> bool {
        self.is_live(now) && person.proved_email() == Some(&self.email)
    }
}

impl SignUp {
    /// Whether somebody gets in, who `is_known` if they have an account. `invitation` is that of their proved address, if
    /// there is one. Somebody with an account takes one too, as it may make them an operator.
    ///
    /// # Errors
    /// Not here.
    pub fn judge(
        &self,
        person: &Person,
        is_known: bool,
        invitation: Option<&Invitation>,
        now: UnixTime,
    ) -> Result<Admitted, NotAdmitted> {
        if let Some(invitation) = invitation.filter(|invitation| invitation.admits(person, now)) {
            return Ok(Admitted::Invited { operator: invitation.operator });
        }
        if is_known {
            return Ok(Admitted::Known);
        }
        if self.admits(person) { Ok(Admitted::ByPolicy) } else { Err(NotAdmitted) }
    }

    fn admits(&self, person: &Person) -> bool {
        match self {
            Self::Closed => false,
            Self::Open => true,
            Self::Domains(domains) => person
                .proved_email()
                .is_some_and(|email| domains.iter().any(|domain| domain.eq_ignore_ascii_case(email.domain()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let expected = if admitted { Ok(Admitted::ByPolicy) } else { Err(NotAdmitted) };
            assert_eq!(sign_up.judge(one, false, None, NOW), expected, "{sign_up:?} {one:?}");
            assert_eq!(sign_up.judge(one, true, None, NOW), Ok(Admitted::Known), "whoever is known comes in");
        }
    }

    #[test]
    fn an_invitation_lets_in_once_whom_it_names_for_a_week() {
        let ada = person("ada@example.com");
        let made = Invitation::new("ada@example.com".parse().unwrap(), true, NOW);
        let last = NOW + LIFE - Duration::from_millis(1);
        let unproved = Person { proved: false, ..ada.clone() };
        let taken = Invitation { taken_at: Some(NOW), ..made.clone() };
        for (invitation, one, now, admitted) in [
            (&made, &ada, last, true),
            (&made, &ada, NOW + LIFE, false),
            (&made, &person("eve@example.com"), NOW, false),
            (&made, &unproved, NOW, false),
            (&made, &Person { email: None, ..ada.clone() }, NOW, false),
            (&taken, &ada, NOW, false),
        ] {
            let invited = Ok(Admitted::Invited { operator: true });
            let judge = |is_known| SignUp::Closed.judge(one, is_known, Some(invitation), now);
            assert_eq!(judge(false), if admitted { invited } else { Err(NotAdmitted) }, "{invitation:?} {one:?}");
            assert_eq!(judge(true), if admitted { invited } else { Ok(Admitted::Known) });
        }
    }
}
