//! Ids: 16 random bytes each, written as lower-case hex, an account's after `user_`. None of them is a secret.

use mykube_protocol::id;

pub use mykube_relay_core::owner::OrganisationId;

id! {
    /// An account: claim `sub`, `user_` and 32 hex digits.
    AccountId, "user_"
}
id! {
    /// A sign-in, and all tokens that come of it: claim `sid`. Those of the tunnel's tickets have its 16 bytes.
    SignInId
}
id! {
    /// One JWT: claim `jti`.
    TokenId
}
id! {
    /// An agent: its name may be another's one day.
    AgentId, "agent_"
}
id! {
    /// One start of the relay: claim `boot`.
    BootId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_written_in_one_way() {
        let text = "user_000102030405060708090a0b0c0d0e0f";
        let id: AccountId = text.parse().unwrap();
        assert_eq!(id, AccountId::from_bytes(std::array::from_fn(|n| u8::try_from(n).unwrap())));
        assert_eq!((id.to_string(), format!("{id:?}")), (text.to_owned(), text.to_owned()));
        assert_eq!(serde_json::from_str::<AccountId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
        for other in [&text[5..], &text[..36], &text.to_uppercase(), &format!("{text}00"), "user_", ""] {
            assert!(other.parse::<AccountId>().is_err(), "{other}");
        }
        assert_eq!(text[5..].parse::<SignInId>().unwrap().as_bytes(), id.as_bytes());
    }
}
