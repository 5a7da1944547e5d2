use mykube_relay_accounts::{
    keyed_hash::KeyedHash,
    keys::{Keys, Purpose},
    secret::Secret,
};

use super::*;
use crate::tests::{place::Place, sign_in};

const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);

fn hash() -> KeyedHash {
    KeyedHash::new(&Keys::from_configured(&[7; 32]).unwrap(), Purpose::Codes)
}

fn begin(goal: Goal, now: UnixTime) -> Pending {
    let cookie = Secret::random(&mut rand::rng());
    Pending::begin("here", goal, &cookie, &hash(), now, &mut rand::rng()).0
}

#[tokio::test]
async fn what_was_kept_is_taken_once_and_as_it_was() {
    let place = Place::new();
    let store = place.open().await;
    let (account, sid) = (sign_in(&store, "alice", SignInId::from_bytes([1; 16])).await.id, [1; 16]);
    let challenge = Some(Challenge::of("verifier"));
    let program =
        |state: Option<&str>, challenge| Goal::Program { port: 65_535, state: state.map(str::to_owned), challenge };
    let page = Goal::Page(ReturnPath::parse("/device?x=1"));
    for goal in [page, program(None, None), program(Some("s"), challenge)] {
        let row = begin(goal, NOW);
        let mut transaction = store.begin().await.unwrap();
        transaction.begin_provider_state(&row, "192.0.2.1").await.unwrap();
        assert_eq!(transaction.take_provider_state(row.state).await.unwrap(), Some(row.clone()));
        assert_eq!(transaction.take_provider_state(row.state).await.unwrap(), None);
        transaction.commit().await.unwrap();
    }
    for challenge in [challenge, None] {
        let from = [192, 0, 2, 1].into();
        let by = Confirmation { account, sid: SignInId::from_bytes(sid), auth_time: NOW, from };
        let (row, _) = LoginCode::new(by, challenge, &hash(), NOW, &mut rand::rng());
        let mut transaction = store.begin().await.unwrap();
        transaction.begin_login_code(&row).await.unwrap();
        assert_eq!(transaction.take_login_code(row.code).await.unwrap(), Some(row.clone()));
        assert_eq!(transaction.take_login_code(row.code).await.unwrap(), None);
        transaction.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_flood_of_sign_ins_shuts_out_its_own_network() {
    let place = Place::new();
    let store = place.open().await;
    let mut transaction = store.begin().await.unwrap();
    let mut ask = async |network: &str, second: u64| {
        let now = NOW + std::time::Duration::from_secs(second);
        let row = begin(Goal::Page(ReturnPath::default()), now);
        let room = transaction.has_room_for_provider_state(network, (8, 4), now).await.unwrap();
        if room {
            transaction.begin_provider_state(&row, network).await.unwrap();
        }
        (room, row)
    };
    let (_, honest) = ask("192.0.2.1", 0).await;
    for second in 1..10 {
        assert_eq!(ask("198.51.100.1", second).await.0, second <= 4, "a network has so many");
    }
    for second in 10..100 {
        ask("198.51.100.2", second).await;
    }
    for third in 1..5 {
        assert!(ask(&format!("203.0.113.{third}"), 101).await.0, "others find room");
    }
    assert_eq!(transaction.take_provider_state(honest.state).await.unwrap(), Some(honest.clone()));
}

#[tokio::test]
async fn what_nobody_came_back_for_is_forgotten() {
    let place = Place::new();
    let store = place.open().await;
    let alice = sign_in(&store, "alice", SignInId::from_bytes([1; 16])).await;
    let row = begin(Goal::Page(ReturnPath::default()), NOW);
    let sid = SignInId::from_bytes([1; 16]);
    let by = Confirmation { account: alice.id, sid, auth_time: NOW, from: [192, 0, 2, 1].into() };
    let (code, _) = LoginCode::new(by, None, &hash(), NOW, &mut rand::rng());
    let mut transaction = store.begin().await.unwrap();
    transaction.begin_provider_state(&row, "192.0.2.1").await.unwrap();
    transaction.begin_login_code(&code).await.unwrap();
    transaction.commit().await.unwrap();
    let left = async |after: std::time::Duration| {
        store.forget(NOW + after).await.unwrap();
        let count = "SELECT (SELECT COUNT(*) FROM provider_states) + (SELECT COUNT(*) FROM login_codes) AS count";
        sqlx::query(count).fetch_one(&store.pool).await.unwrap().get::<i64, _>("count")
    };
    let ms = std::time::Duration::from_millis(1);
    assert_eq!((left(login_code::LIFE - ms).await, left(login_code::LIFE).await), (2, 1));
    assert_eq!((left(LIFE - ms).await, left(LIFE).await), (1, 0));
}
