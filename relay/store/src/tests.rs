//! Rows, in a real database: see `place` for which.

use mykube_relay_accounts::{
    device_code::{Client, Confirmation, Credential, DeviceSignIn, Stage},
    id::SignInId,
    keyed_hash::KeyedHash,
    keys::{Keys, Purpose},
    portal_session::PortalSession,
    refresh::{End, Family},
    sign_in::Method,
    statement::MachineKey,
    time::UnixTime,
};

use crate::{Account, Actor, Database, Identity, SignIn, Store, StoreError};

mod agents;
mod hostile;
mod isolation;
mod once;
pub(crate) mod place;
mod statements;

use place::Place;

const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_000);

fn identity(subject: &str) -> Identity {
    let (user_id, email) = (format!("dev:{subject}"), format!("{subject}@example.com"));
    Identity { issuer: "dev".to_owned(), subject: subject.to_owned(), user_id, email }
}

/// Signs in, and says so in the audit log.
pub(crate) async fn sign_in(store: &Store, subject: &str, id: SignInId) -> Account {
    let mut transaction = store.begin().await.unwrap();
    let account = transaction.account_of(&identity(subject), NOW).await.unwrap();
    let begun = SignIn { id, account: account.id, method: Method::Dev, signed_in_at: NOW };
    transaction.begin_sign_in(begun, [192, 0, 2, 1].into()).await.unwrap();
    let actor = Actor { account: account.id, sign_in: id, address: [192, 0, 2, 1].into() };
    transaction.record(account.organisation, actor, ("sign_in.begin", subject), NOW).await.unwrap();
    transaction.commit().await.unwrap();
    account
}

#[tokio::test]
async fn a_person_is_one_account_with_an_organisation() {
    let place = Place::new();
    let store = place.open().await;
    let alice = sign_in(&store, "alice", SignInId::from_bytes([1; 16])).await;
    let bob = sign_in(&store, "bob", SignInId::from_bytes([2; 16])).await;
    assert!(alice.id != bob.id && alice.organisation != bob.organisation);
    store.close().await;
    drop(store);
    let store = place.open().await;
    assert_eq!(store.account(alice.id).await.unwrap(), Some(alice.clone()));
    let mut renamed = identity("alice");
    renamed.email = "a@example.org".to_owned();
    let mut transaction = store.begin().await.unwrap();
    let again = transaction.account_of(&renamed, NOW).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!((again.id, again.organisation), (alice.id, alice.organisation));
    assert_eq!(store.account(alice.id).await.unwrap().unwrap().identity, renamed, "an address decides nothing");
    let mut transaction = store.begin().await.unwrap();
    let silent = Identity { email: String::new(), ..renamed.clone() };
    assert_eq!(transaction.account_of(&silent, NOW).await.unwrap().identity, renamed);
    transaction.commit().await.unwrap();
    assert_eq!(store.account(alice.id).await.unwrap().unwrap().identity, renamed);
}

#[tokio::test]
async fn an_organisation_sees_its_own_lines_alone() {
    let place = Place::new();
    let store = place.open().await;
    let alice = sign_in(&store, "alice", SignInId::from_bytes([1; 16])).await;
    let bob = sign_in(&store, "bob", SignInId::from_bytes([2; 16])).await;
    sign_in(&store, "alice", SignInId::from_bytes([3; 16])).await;
    for (account, numbers) in [(alice, &[2, 1][..]), (bob, &[1])] {
        let log = store.organisation(account.organisation).audit(10).await.unwrap();
        assert_eq!(log.iter().map(|line| line.number).collect::<Vec<_>>(), numbers);
        assert!(log.iter().all(|line| line.account == account.id.to_string() && line.at == NOW));
        assert_eq!(store.organisation(account.organisation).audit(1).await.unwrap(), log[..1]);
    }
}

#[tokio::test]
async fn what_is_not_kept_was_never_there() {
    let place = Place::new();
    let store = place.open().await;
    let mut transaction = store.begin().await.unwrap();
    let nobody = transaction.account_of(&identity("nobody"), NOW).await.unwrap();
    drop(transaction);
    assert_eq!(store.account(nobody.id).await.unwrap(), None);
    sign_in(&store, "nobody", SignInId::from_bytes([1; 16])).await;
}

#[tokio::test]
async fn a_sign_in_ends_with_its_browsers_and_is_refused_for_its_time() {
    let place = Place::new();
    let store = place.open().await;
    let id = SignInId::from_bytes([1; 16]);
    let hash = KeyedHash::new(&Keys::from_configured(&[7; 32]).unwrap(), Purpose::Cookies);
    let account = sign_in(&store, "alice", id).await;
    let mut transaction = store.begin().await.unwrap();
    let (session, _) = PortalSession::begin(id, account.id, Method::Dev, &hash, NOW, &mut rand::rng());
    let cookie = session.cookie;
    transaction.begin_browser_session(&session).await.unwrap();
    assert_eq!(transaction.browser_session(cookie).await.unwrap(), Some(session));
    let live = SignIn { id, account: account.id, method: Method::Dev, signed_in_at: NOW };
    assert_eq!(transaction.sign_in(id).await.unwrap(), Some(live));
    let until = NOW + std::time::Duration::from_secs(60);
    transaction.end_sign_in(id, until, NOW).await.unwrap();
    assert_eq!(transaction.sign_in(id).await.unwrap(), None);
    assert_eq!(transaction.browser_session(cookie).await.unwrap(), None);
    // A second end of the same does not bring it forward.
    transaction.end_sign_in(id, NOW, NOW).await.unwrap();
    transaction.commit().await.unwrap();
    store.close().await;
    drop(store);
    let store = place.open().await;
    let mut denied = store.denied().await.unwrap();
    denied.handle_tick(until - std::time::Duration::from_millis(1));
    assert!(denied.denies_sign_in(id));
    denied.handle_tick(until);
    assert!(!denied.denies_sign_in(id));
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_nothing_half_done() {
    let place = Place::sqlite();
    let store = place.open().await;
    let pages = async |most: i64| {
        // No more pages than there are, at the least: as if the disk had no room for another.
        let set = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {most}"));
        sqlx::query(set).execute(&store.pool).await.unwrap();
    };
    pages(1).await;
    let big = Identity { email: "x".repeat(64 * 1024), ..identity("alice") };
    let mut transaction = store.begin().await.unwrap();
    let full = transaction.account_of(&big, NOW).await.unwrap_err();
    assert!(matches!(&full, crate::StoreError::Unavailable(why) if why.contains("full")), "{full}");
    drop(transaction);
    pages(1_000_000).await;
    let alice = sign_in(&store, "alice", SignInId::from_bytes([1; 16])).await;
    assert_eq!(store.organisation(alice.organisation).audit(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn of_two_who_read_a_row_only_one_changes_it() {
    let place = Place::new();
    let store = place.open().await;
    let id = SignInId::from_bytes([1; 16]);
    let account = sign_in(&store, "alice", id).await;
    let keys = Keys::from_configured(&[7; 32]).unwrap();
    let hash = KeyedHash::new(&keys, Purpose::Refresh);
    let key = MachineKey::from_bytes(&generator()).unwrap();
    let (family, _) = Family::new(id, account.id, key, &hash, NOW, &mut rand::rng());
    let address = [192, 0, 2, 1].into();
    let (code, ..) = DeviceSignIn::begin(Client::Daemon, "", address, &hash, NOW, &mut rand::rng());
    let mut transaction = store.begin().await.unwrap();
    transaction.begin_family(&family).await.unwrap();
    transaction.begin_device_code(&code).await.unwrap();
    // What two have read at once, as they could with more connections than one.
    let (mut refreshed, mut ended) = (family.clone(), family.clone());
    refreshed.signed_at = 1;
    ended.end(NOW, End::Revoked);
    transaction.change_family(&family, &refreshed).await.unwrap();
    for late in [&refreshed, &ended] {
        let lost = transaction.change_family(&family, late).await.unwrap_err();
        assert!(matches!(lost, StoreError::Changed), "{lost}");
    }
    assert_eq!(transaction.family(id).await.unwrap(), Some(refreshed.clone()));
    ended.signed_at = 1;
    transaction.change_family(&refreshed, &ended).await.unwrap();
    assert!(transaction.change_family(&refreshed, &refreshed).await.is_err(), "an ended one stays so");
    let (mut confirmed, mut fetched) = (code.clone(), code.clone());
    let by = Confirmation { account: account.id, sid: id, auth_time: NOW, from: address };
    confirmed.handle_confirm(by, Credential::Portal, NOW).unwrap();
    transaction.change_device_code(&code, &confirmed).await.unwrap();
    assert!(transaction.change_device_code(&code, &confirmed).await.is_err());
    fetched.stage = Stage::Fetched;
    transaction.change_device_code(&confirmed, &fetched).await.unwrap();
    assert!(transaction.change_device_code(&confirmed, &fetched).await.is_err());
}

/// A point of P-256: the generator (SEC 2, section 2.4.2), as any key is one.
fn generator() -> Vec<u8> {
    let hex = "046B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296\
               4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5";
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[tokio::test]
async fn a_flood_of_codes_shuts_out_its_own_network() {
    let place = Place::new();
    let store = place.open().await;
    let hash = KeyedHash::new(&Keys::from_configured(&[7; 32]).unwrap(), Purpose::Codes);
    let mut transaction = store.begin().await.unwrap();
    let mut ask = async |address: [u8; 4], second: u64| {
        let now = NOW + std::time::Duration::from_secs(second);
        let (row, ..) = DeviceSignIn::begin(Client::Daemon, "", address.into(), &hash, now, &mut rand::rng());
        let room = transaction.has_room_for_device_code(&row.network(), (8, 4), now).await.unwrap();
        if room {
            transaction.begin_device_code(&row).await.unwrap();
        }
        (room, row)
    };
    let (_, honest) = ask([192, 0, 2, 1], 0).await;
    for second in 1..10 {
        assert_eq!(ask([198, 51, 100, 1], second).await.0, second <= 4, "a network has so many");
    }
    for second in 10..100 {
        ask([198, 51, 100, 2], second).await;
    }
    for third in 1..5 {
        assert!(ask([203, 0, 113, third], 101).await.0, "others find room");
    }
    let found = transaction.device_code(honest.device_code).await.unwrap();
    assert_eq!(found, Some(honest), "and keep what they have");
}

#[tokio::test]
async fn what_lives_for_minutes_waits_for_no_disk_and_all_else_does() {
    use sqlx::Row as _;
    let place = Place::new();
    let store = place.open().await;
    // The server of the tests waits for no disk at all: there it counts that a transaction says so itself.
    const SOURCE: &str = "SELECT source FROM pg_settings WHERE name = 'synchronous_commit'";
    let (ask, passing) = if place.is_postgres() { (SOURCE, "session") } else { ("PRAGMA synchronous", "1") };
    let waits = async |mut transaction: crate::Transaction| {
        let row = sqlx::query(ask).fetch_one(transaction.connection()).await.unwrap();
        transaction.commit().await.unwrap();
        row.try_get::<String, _>(0).or_else(|_| row.try_get::<i64, _>(0).map(|level| level.to_string())).unwrap()
    };
    for _ in 0..2 {
        assert_eq!(waits(store.begin_passing().await.unwrap()).await, passing);
        // One that is given up leaves nothing to the next.
        drop(store.begin_passing().await.unwrap());
        let lasting = waits(store.begin().await.unwrap()).await;
        assert!(if place.is_postgres() { lasting != passing } else { lasting == "2" }, "{lasting}");
    }
}

/// How many changes of the tables there are.
fn migrations() -> usize {
    std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap().count()
}
