//! What a sign-in may do, by how it came about and by its person's role.
//!
//! A device code is confirmed by somebody who looks at another machine's screen, or was told to. So a sign-in that came of
//! one changes nobody's rights unless its person has signed in in a browser a moment ago.

use std::time::Duration;

use crate::time::UnixTime;

/// How long ago a sign-in in a browser counts as fresh.
pub const FRESH: Duration = Duration::from_mins(10);

/// Bytes that are kept of what a program says about itself.
pub(crate) const PROGRAM_MAX: usize = 128;

/// What a program calls itself (`User-Agent`), as it is kept and shown: plain characters of it, and so many at most.
#[must_use]
pub fn plain_program(claimed: &[u8]) -> String {
    let plain = claimed.iter().filter(|byte| (b' '..=b'~').contains(byte));
    plain.take(PROGRAM_MAX).map(|byte| char::from(*byte)).collect()
}

/// How a person has shown who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// In a browser at the relay: a provider, an email code, an invitation's link.
    Browser,
    /// In a browser on the program's own machine, with a click.
    Program,
    /// With a device code.
    DeviceCode,
    /// With an ID token of a provider (`POST /auth`): the devices channel's.
    IdToken,
    /// With dev mode's secret.
    Dev,
}

/// A person's role in an organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// All.
    Owner,
    /// Uses what is there, and sees it.
    Member,
}

/// What somebody wants to do in an organisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// See agents, connect, see one's own sign-ins and end them.
    Use,
    /// Change what is there, without changing anybody's rights: end a session, read the audit log.
    Manage,
    /// Make, replace or revoke tokens of apps and agents.
    Tokens,
    /// Invite, remove, change roles.
    Members,
}

/// Why an act is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// Only owners may.
    #[error("only an owner of the organisation may do this")]
    Role,
    /// This sign-in may not, or not now.
    #[error("sign in in a browser on the relay's page, then try again within {} minutes", FRESH.as_secs() / 60)]
    NotFresh,
    /// This kind of sign-in never may.
    #[error("this sign-in is for the devices channel only: run `mykube login`")]
    Method,
}

/// Whether a sign-in of this kind, and of that time, may do this. `browser_at` is when its person last signed in in a browser: who
/// was talked into confirming a code did that a moment before, so only what came after it counts.
///
/// # Errors
/// Why not.
pub fn may(
    role: Role,
    (method, signed_in_at): (Method, UnixTime),
    act: Act,
    browser_at: Option<UnixTime>,
    now: UnixTime,
) -> Result<(), Forbidden> {
    if method == Method::IdToken {
        return Err(Forbidden::Method);
    }
    if act != Act::Use && role != Role::Owner {
        return Err(Forbidden::Role);
    }
    let changes_rights = matches!(act, Act::Tokens | Act::Members);
    let fresh = browser_at.is_some_and(|at| at > signed_in_at && now.since(at) < FRESH);
    if changes_rights && method == Method::DeviceCode && !fresh { Err(Forbidden::NotFresh) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);
    const BEGAN: UnixTime = UnixTime::from_millis(1_799_990_000_000);
    const METHODS: [Method; 5] = [Method::Browser, Method::Program, Method::DeviceCode, Method::IdToken, Method::Dev];
    const ACTS: [Act; 4] = [Act::Use, Act::Manage, Act::Tokens, Act::Members];

    #[test]
    fn a_programs_name_is_plain_and_short() {
        assert_eq!(plain_program("mykube/1 (\u{202e}x\n\0)".as_bytes()), "mykube/1 (x)");
        assert_eq!(plain_program(&[b'x'; 1000]).len(), PROGRAM_MAX);
    }

    #[test]
    fn every_cell_of_the_table() {
        for method in METHODS {
            for act in ACTS {
                let changes_rights = matches!(act, Act::Tokens | Act::Members);
                let owner = match method {
                    Method::IdToken => Err(Forbidden::Method),
                    Method::DeviceCode if changes_rights => Err(Forbidden::NotFresh),
                    _ => Ok(()),
                };
                assert_eq!(may(Role::Owner, (method, BEGAN), act, None, NOW), owner, "{method:?} {act:?}");
                let member = match (method, act) {
                    (Method::IdToken, _) => Err(Forbidden::Method),
                    (_, Act::Use) => Ok(()),
                    _ => Err(Forbidden::Role),
                };
                assert_eq!(may(Role::Member, (method, BEGAN), act, Some(NOW), NOW), member, "{method:?} {act:?}");
            }
        }
    }

    #[test]
    fn a_device_codes_sign_in_changes_rights_only_just_after_one_in_a_browser() {
        let at =
            |browser_at: UnixTime| may(Role::Owner, (Method::DeviceCode, BEGAN), Act::Tokens, Some(browser_at), NOW);
        assert_eq!(at(NOW - FRESH + Duration::from_millis(1)), Ok(()));
        assert_eq!(at(NOW - FRESH), Err(Forbidden::NotFresh));
        assert!(Forbidden::NotFresh.to_string().contains("within 10 minutes"));
    }

    #[test]
    fn a_code_that_somebody_was_talked_into_confirming_is_not_fresh_by_the_sign_in_for_it() {
        let just_before = NOW - std::time::Duration::from_secs(20);
        let confirmed = (Method::DeviceCode, NOW - std::time::Duration::from_secs(10));
        let judged = |browser_at| may(Role::Owner, confirmed, Act::Tokens, Some(browser_at), NOW);
        assert_eq!(judged(just_before), Err(Forbidden::NotFresh));
        assert_eq!(judged(confirmed.1), Err(Forbidden::NotFresh));
        assert_eq!(judged(NOW), Ok(()));
    }
}
