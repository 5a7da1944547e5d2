//! Who somebody is: the key of an account, and what is shown of it.
//!
//! An account is known by issuer and subject. Its address is for people to see: a provider may give it to somebody else
//! tomorrow. Only where the configuration lists an address's domain for a provider (`email_domains`) does that provider
//! prove it, as an invitation wants.

use crate::{email::Email, name::Name};

/// What kind of provider it is, where that changes a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Google: its `userId` is the address.
    Google,
    /// Microsoft: `email` is whatever the tenant's administrator wrote.
    Microsoft,
    /// GitHub's OAuth: `issuer` is its base URL, the subject its number.
    GitHub,
    /// Any other OpenID Connect issuer.
    Oidc,
}

/// Issuer of accounts that an address alone signs in to.
const EMAIL_ISSUER: &str = "mykube:email";
/// Issuer of dev mode's accounts.
pub const DEV_ISSUER: &str = "mykube:dev";
const GOOGLE: &str = "https://accounts.google.com";

/// The key of an account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// A provider's issuer, or one that begins with `mykube:`, which no URL does.
    pub issuer: String,
    /// What that issuer calls the person, and never calls another.
    pub subject: String,
}

/// A provider as the configuration has it.
#[derive(Clone, Debug)]
pub struct Provider {
    /// Its name.
    pub name: Name,
    /// Its kind.
    pub kind: Kind,
    /// Its issuer.
    pub issuer: String,
    /// Domains whose addresses it proves, in lower case.
    pub email_domains: Vec<String>,
}

/// What a provider says of a person, its signature and audience checked.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// `sub`, or GitHub's number.
    pub subject: String,
    /// `email`.
    pub email: Option<String>,
    /// `email_verified`, as a boolean.
    pub email_verified: bool,
    /// `preferred_username`, or GitHub's login.
    pub login: Option<String>,
    /// Google's `hd`: the domain whose administrators have the account in their hands.
    pub hosted_domain: Option<String>,
}

/// Who somebody is, and how they are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The key of the account.
    pub identity: Identity,
    /// The address to show, if there is one.
    pub email: Option<Email>,
    /// Whether that address is proved: an invitation to it may be taken.
    pub proved: bool,
    /// `userId` of the published contracts.
    pub user_id: String,
}

/// Why a provider's word is not enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Google has not verified the address: the published text.
    #[error("Email not verified")]
    NotVerified,
    /// No subject, or one that nobody has.
    #[error("the provider names no account")]
    NoSubject,
}

/// Bytes of a subject at most (OpenID Connect Core, section 2).
const SUBJECT_MAX: usize = 255;

impl Provider {
    /// The person that this provider names.
    ///
    /// # Errors
    /// It names none, or Google has not verified the address.
    pub fn person(&self, profile: &Profile) -> Result<Person, ProfileError> {
        let subject = &profile.subject;
        if subject.is_empty() || subject.len() > SUBJECT_MAX || subject.chars().any(char::is_control) {
            return Err(ProfileError::NoSubject);
        }
        let claimed = profile.email.as_deref().and_then(|email| email.parse::<Email>().ok());
        let verified = claimed.clone().filter(|_| profile.email_verified && self.kind != Kind::Microsoft);
        let proved = verified.as_ref().is_some_and(|email| self.proves(email) && self.vouches(email, profile));
        let user_id = match (self.kind, &verified) {
            (Kind::Google, Some(email)) => email.to_string(),
            (Kind::Google, None) => return Err(ProfileError::NotVerified),
            (_, Some(email)) => format!("{}:{email}", self.name),
            (_, None) => {
                let login = profile.login.as_deref().filter(|login| is_plain(login));
                format!("{}:{}", self.name, login.unwrap_or(subject))
            }
        };
        let identity = Identity { issuer: issuer(self.kind, &self.issuer), subject: subject.clone() };
        Ok(Person { identity, email: verified, proved, user_id })
    }

    /// Google's `email_verified` says that somebody once read mail at that address: anybody has an account of theirs by an
    /// address of another domain, and keeps it when the address is no longer theirs. It vouches for its own mail, and for
    /// domains whose administrators have the account (`hd`; Google, "OpenID Connect", ID token payload).
    fn vouches(&self, email: &Email, profile: &Profile) -> bool {
        let hosted = profile.hosted_domain.as_deref();
        self.kind != Kind::Google
            || email.domain().eq_ignore_ascii_case("gmail.com")
            || hosted.is_some_and(|domain| domain.eq_ignore_ascii_case(email.domain()))
    }

    /// Whether it can prove this address, of somebody who has it there.
    #[must_use]
    pub fn proves(&self, email: &Email) -> bool {
        self.kind != Kind::Microsoft
            && self.email_domains.iter().any(|domain| domain.eq_ignore_ascii_case(email.domain()))
    }
}

impl Person {
    /// Who has shown the code that was sent to this address.
    #[must_use]
    pub fn of_email(email: Email) -> Self {
        Self::of_address(EMAIL_ISSUER, "email", email, true)
    }

    /// Who has shown dev mode's secret. Proves nothing.
    #[must_use]
    pub fn of_dev(email: Email) -> Self {
        Self::of_address(DEV_ISSUER, "dev", email, false)
    }

    /// The address, if it is proved.
    #[must_use]
    pub fn proved_email(&self) -> Option<&Email> {
        self.email.as_ref().filter(|_| self.proved)
    }

    /// The whole address is the subject: no two addresses are one person.
    fn of_address(issuer: &str, name: &str, email: Email, proved: bool) -> Self {
        let identity = Identity { issuer: issuer.to_owned(), subject: email.to_string() };
        Self { identity, user_id: format!("{name}:{email}"), email: Some(email), proved }
    }
}

/// Google signs as either.
fn issuer(kind: Kind, issuer: &str) -> String {
    let google = kind == Kind::Google && (issuer == "accounts.google.com" || issuer == GOOGLE);
    if google { GOOGLE.to_owned() } else { issuer.to_owned() }
}

fn is_plain(login: &str) -> bool {
    (1..=SUBJECT_MAX).contains(&login.len()) && login.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(kind: Kind, issuer: &str) -> Provider {
        let name = match kind {
            Kind::Google => "google",
            Kind::Microsoft => "microsoft",
            Kind::GitHub => "github",
            Kind::Oidc => "okta",
        };
        let email_domains = vec!["Example.com".to_owned(), "example.org".to_owned()];
        Provider { name: name.parse().unwrap(), kind, issuer: issuer.to_owned(), email_domains }
    }

    fn profile(email: &str, email_verified: bool) -> Profile {
        let hosted_domain = email.split_once('@').map(|(_, domain)| domain.to_owned());
        let (subject, email) = ("42".into(), Some(email.into()));
        Profile { subject, email, email_verified, login: Some("ada".into()), hosted_domain }
    }

    fn person(kind: Kind, profile: &Profile) -> Result<Person, ProfileError> {
        provider(kind, "https://issuer.example").person(profile)
    }

    #[test]
    fn the_key_is_issuer_and_subject_whatever_the_address() {
        let ada = person(Kind::Oidc, &profile("ada@example.com", true)).unwrap();
        let renamed = person(Kind::Oidc, &profile("countess@example.com", true)).unwrap();
        assert_eq!(ada.identity, renamed.identity);
        let heir = Profile { subject: "43".into(), ..profile("ada@example.com", true) };
        assert_ne!(
            person(Kind::Oidc, &heir).unwrap().identity,
            ada.identity,
            "a re-assigned address is another person"
        );
        let elsewhere =
            provider(Kind::Oidc, "https://other.example").person(&profile("ada@example.com", true)).unwrap();
        assert_ne!(elsewhere.identity, ada.identity);
        let email = "ada@example.com".parse::<Email>().unwrap();
        assert_ne!(Person::of_email(email.clone()).identity, Person::of_dev(email).identity);
    }

    #[test]
    fn google_signs_as_two_issuers_and_is_one() {
        let google = |issuer| provider(Kind::Google, issuer).person(&profile("Ada@Example.com", true)).unwrap();
        assert_eq!(google("accounts.google.com"), google("https://accounts.google.com"));
        assert_eq!(google("accounts.google.com").user_id, "ada@example.com");
        let test = google("http://127.0.0.1:9/");
        assert_eq!(test.identity.issuer, "http://127.0.0.1:9/");
    }

    #[test]
    fn an_address_counts_only_as_far_as_its_provider_can_know() {
        for (kind, email, verified, shown, proved) in [
            (Kind::Google, "ada@example.com", true, Ok("ada@example.com"), true),
            (Kind::Google, "ada@gmail.com", true, Ok("ada@gmail.com"), false),
            (Kind::Google, "ada@example.com", false, Err(ProfileError::NotVerified), false),
            (Kind::Google, "no address", true, Err(ProfileError::NotVerified), false),
            (Kind::Oidc, "ada@example.com", true, Ok("okta:ada@example.com"), true),
            (Kind::Oidc, "ada@sub.example.com", true, Ok("okta:ada@sub.example.com"), false),
            (Kind::Oidc, "ada@example.com", false, Ok("okta:ada"), false),
            (Kind::GitHub, "ada@example.com", true, Ok("github:ada@example.com"), true),
            (Kind::GitHub, "", false, Ok("github:ada"), false),
            (Kind::Microsoft, "ada@example.com", true, Ok("microsoft:ada"), false),
        ] {
            let person = person(kind, &profile(email, verified));
            assert_eq!(person.as_ref().map(|p| p.user_id.as_str()).map_err(|e| *e), shown, "{kind:?} {email}");
            assert_eq!(person.is_ok_and(|p| p.proved && p.email.is_some()), proved, "{kind:?} {email}");
        }
        assert_eq!(ProfileError::NotVerified.to_string(), "Email not verified");
    }

    #[test]
    fn a_provider_that_names_nobody_names_nobody() {
        for subject in ["", "a\0b", "a\nb", &"x".repeat(256)] {
            let nobody = Profile { subject: subject.into(), ..profile("ada@example.com", true) };
            assert_eq!(person(Kind::Oidc, &nobody), Err(ProfileError::NoSubject), "{subject:?}");
        }
        let longest = Profile { subject: "x".repeat(255), ..profile("ada@example.com", true) };
        person(Kind::Oidc, &longest).unwrap();
        let odd = Profile { login: Some("a b".into()), ..profile("", false) };
        assert_eq!(person(Kind::GitHub, &odd).unwrap().user_id, "github:42");
    }

    #[test]
    fn dev_modes_people_are_as_many_as_their_addresses() {
        let dev = |email: &str| Person::of_dev(email.parse().unwrap());
        let all = ["a@b.c", "a.b@c", "a-b@c", "dev@localhost", "dev-a@b.c"].map(dev);
        for (at, one) in all.iter().enumerate() {
            assert!(one.user_id.starts_with("dev:") && !one.proved);
            let others = all.iter().enumerate().filter(|(other, _)| *other != at);
            for (_, other) in others {
                assert!(one.identity != other.identity && one.user_id != other.user_id);
            }
        }
        // No provider's person is shown as one of dev mode's: `dev` is reserved, and an address has no colon.
        assert!(Name::parse_unreserved("dev").is_err() && "dev:a@b.c".parse::<Email>().is_err());
    }

    #[test]
    fn google_vouches_for_accounts_that_a_domains_administrators_have() {
        let google = provider(Kind::Google, "https://accounts.google.com");
        let proved = |email: &str, hosted: Option<&str>| {
            let profile = Profile { hosted_domain: hosted.map(str::to_owned), ..profile(email, true) };
            google.person(&profile).unwrap().proved
        };
        assert!(proved("ada@example.com", Some("Example.com")));
        // Somebody's own account, made with an address that they have lost since.
        assert!(!proved("ada@example.com", None));
        assert!(!proved("ada@example.com", Some("example.org")));
    }
}
