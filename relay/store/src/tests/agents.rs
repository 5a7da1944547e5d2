//! Agents and their tokens.

use mykube_relay_accounts::{
    id::{AgentId, OrganisationId},
    relay_key::RelayKeyId,
    sign_in::Role,
    token::{Kind, Token, TokenRow},
};

use super::*;
use crate::{Agent, AgentActor, RelayKey};

fn agent(organisation: OrganisationId, name: &str, id: u8) -> Agent {
    let name = name.parse().unwrap();
    let id = AgentId::from_bytes([id; 16]);
    Agent { organisation, name, id, created_at: NOW, generation: 1, relay_key: None }
}

fn token(hash: &KeyedHash, of: &Agent, generation: u32) -> (Token, TokenRow) {
    let token = Token::random(Kind::Agent, of.name.clone(), &mut rand::rng());
    let (kid, digest) = token.digest(hash, NOW);
    let row = TokenRow {
        organisation: of.organisation,
        kind: Kind::Agent,
        name: of.name.clone(),
        generation,
        kid,
        digest,
        slow: "slow".to_owned(),
        vouched: None,
        created_at: NOW,
        expires_at: None,
        replaced_until: None,
        strict: false,
        revoked_at: None,
    };
    (token, row)
}

#[tokio::test]
async fn an_agent_is_its_organisations_and_its_token_finds_it() {
    let place = Place::new();
    let store = place.open().await;
    let hash = KeyedHash::new(&Keys::generate(&mut rand::rng()), Purpose::Tokens);
    let alice = sign_in(&store, "alice", SignInId::from_bytes([1; 16])).await;
    let bob = sign_in(&store, "bob", SignInId::from_bytes([2; 16])).await;
    let mut shown = Vec::new();
    for (id, organisation) in [(1, alice.organisation), (2, bob.organisation)] {
        let prod = agent(organisation, "prod", id);
        let (token, row) = token(&hash, &prod, 1);
        let mut transaction = store.begin().await.unwrap();
        assert!(transaction.add_agent(&prod).await.unwrap());
        assert!(!transaction.add_agent(&agent(organisation, "prod", 9)).await.unwrap(), "the name is taken");
        transaction.add_agent_token(&row).await.unwrap();
        assert_eq!(transaction.count_agents(organisation).await.unwrap(), 1);
        transaction.commit().await.unwrap();
        shown.push((token, prod, row));
    }
    for (token, prod, row) in &shown {
        let found = store.agent_token(&token.candidates(&hash)).await.unwrap();
        assert_eq!(found, Some((prod.clone(), row.clone())));
        assert_eq!(store.organisation(prod.organisation).agents("", 10).await.unwrap(), std::slice::from_ref(prod));
        assert_eq!(store.organisation(prod.organisation).agents("prod", 10).await.unwrap(), []);
    }
    let stranger = Token::random(Kind::Agent, "prod".parse().unwrap(), &mut rand::rng());
    assert_eq!(store.agent_token(&stranger.candidates(&hash)).await.unwrap(), None);

    let mut transaction = store.begin().await.unwrap();
    let role = transaction.role(alice.organisation, alice.id).await.unwrap();
    assert_eq!((role, transaction.role(bob.organisation, alice.id).await.unwrap()), (Some(Role::Owner), None));
    assert_eq!(transaction.signed_in_by_browser_at(alice.id).await.unwrap(), None);
    transaction.remove_agent(alice.organisation, &"prod".parse().unwrap()).await.unwrap();
    transaction.commit().await.unwrap();
    let found = async |n: usize| store.agent_token(&shown[n].0.candidates(&hash)).await.unwrap().is_some();
    assert_eq!((found(0).await, found(1).await), (false, true));
}

#[tokio::test]
async fn tokens_of_an_agent_are_counted_up_and_change_in_their_ends_alone() {
    let place = Place::new();
    let store = place.open().await;
    let mut keys = Keys::generate(&mut rand::rng());
    let hash = KeyedHash::new(&keys, Purpose::Tokens);
    let alice = sign_in(&store, "alice", SignInId::from_bytes([1; 16])).await;
    let prod = agent(alice.organisation, "prod", 1);
    let ((shown, mut first), (_, second)) = (token(&hash, &prod, 1), token(&hash, &prod, 2));
    let mut transaction = store.begin().await.unwrap();
    transaction.add_agent(&prod).await.unwrap();
    for row in [&first, &second] {
        transaction.add_agent_token(row).await.unwrap();
    }
    for row in [&first, &second] {
        assert!(matches!(transaction.add_agent_token(row).await, Err(StoreError::Changed)), "two at once");
    }
    keys.rotate(NOW, &mut rand::rng()).unwrap();
    let newer = KeyedHash::new(&keys, Purpose::Tokens);
    (first.kid, first.digest) = shown.digest(&newer, NOW);
    first.handle_replaced(true, NOW);
    first.handle_revoke(NOW);
    first.vouched = Some(first.vouch(&newer, NOW));
    transaction.rehash_agent_token(&first).await.unwrap();
    let hashed = transaction.agent_tokens(prod.organisation, &prod.name).await.unwrap();
    let open = TokenRow { replaced_until: None, strict: false, revoked_at: None, ..first.clone() };
    assert_eq!(hashed[1], open, "whoever hashes it anew changes no end of it");
    transaction.change_agent_token(&first).await.unwrap();
    let kept = transaction.agent_tokens(prod.organisation, &prod.name).await.unwrap();
    assert_eq!(kept, [second.clone(), first.clone()]);
    transaction.forget_agent_token(&second).await.unwrap();
    let agent = transaction.agent(prod.organisation, &prod.name).await.unwrap().unwrap();
    assert_eq!(agent.generation, 2, "no number is used again");
    transaction.commit().await.unwrap();
    assert_eq!(store.agent_token(&shown.candidates(&newer)).await.unwrap().unwrap().1, first);
}

#[tokio::test]
async fn a_key_that_is_not_the_one_before_is_noted() {
    let place = Place::new();
    let store = place.open().await;
    let alice = sign_in(&store, "alice", SignInId::from_bytes([1; 16])).await;
    let prod = agent(alice.organisation, "prod", 1);
    let mut transaction = store.begin().await.unwrap();
    transaction.add_agent(&prod).await.unwrap();
    for (key, is_another, count) in [(1, false, 1), (1, false, 1), (2, true, 2), (1, true, 3)] {
        let before = transaction.agent(prod.organisation, &prod.name).await.unwrap().unwrap();
        let id = RelayKeyId::from_bytes([key; 32]);
        assert_eq!(transaction.note_relay_key(&before, id, NOW).await.unwrap(), is_another, "{key}");
        let after = transaction.agent(prod.organisation, &prod.name).await.unwrap().unwrap();
        assert_eq!(after.relay_key, Some(RelayKey { id, since: NOW, count }));
    }
    let actor = AgentActor { id: prod.id, name: prod.name, address: [192, 0, 2, 7].into() };
    transaction.record_agent(prod.organisation, &actor, ("agent.new_key", ""), NOW).await.unwrap();
    transaction.commit().await.unwrap();
    let log = store.organisation(alice.organisation).audit(1).await.unwrap();
    assert_eq!((log[0].account.as_str(), log[0].action.as_str()), ("agent:prod", "agent.new_key"));
}
