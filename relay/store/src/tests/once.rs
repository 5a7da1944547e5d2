//! What many do at once is as if they had come one after the other.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures_util::future::join_all;

use super::*;

const MANY: usize = 16;

/// Does all of it again for as long as it has to be.
async fn again<T>(tries: &AtomicUsize, mut act: impl AsyncFnMut() -> Result<T, StoreError>) -> T {
    loop {
        tries.fetch_add(1, Relaxed);
        match act().await {
            Err(StoreError::Changed) => {}
            done => return done.unwrap(),
        }
    }
}

#[tokio::test]
async fn who_signs_in_for_the_first_time_in_many_places_is_one_person() {
    let place = Place::new();
    let store = place.open().await;
    let tries = AtomicUsize::new(0);
    let sign_ins = (0..MANY).map(|n| {
        let (store, tries) = (&store, &tries);
        again(tries, async move || {
            let id = SignInId::from_bytes([u8::try_from(n).unwrap(); 16]);
            let mut transaction = store.begin().await?;
            let account = transaction.account_of(&identity("alice"), NOW).await?;
            let begun = SignIn { id, account: account.id, method: Method::Dev, signed_in_at: NOW };
            transaction.begin_sign_in(begun, [192, 0, 2, 1].into()).await?;
            let actor = Actor { account: account.id, sign_in: id, address: [192, 0, 2, 1].into() };
            transaction.record(account.organisation, actor, ("sign_in.begin", ""), NOW).await?;
            transaction.commit().await?;
            Ok(account)
        })
    });
    let accounts = join_all(sign_ins).await;
    assert!(accounts.iter().all(|account| *account == accounts[0]));
    let log = store.organisation(accounts[0].organisation).audit(100).await.unwrap();
    let numbers: Vec<_> = log.iter().rev().map(|line| line.number).collect();
    assert_eq!(numbers, (1..=i64::try_from(MANY).unwrap()).collect::<Vec<_>>(), "each in its log once");
    println!("{MANY} at once: {} tries", tries.load(Relaxed));
}

#[tokio::test]
async fn a_token_that_many_show_at_once_is_replaced_once() {
    let place = Place::new();
    let store = place.open().await;
    let id = SignInId::from_bytes([1; 16]);
    let account = sign_in(&store, "alice", id).await;
    let hash = KeyedHash::new(&Keys::from_configured(&[7; 32]).unwrap(), Purpose::Refresh);
    let key = MachineKey::from_bytes(&generator()).unwrap();
    let (family, _) = Family::new(id, account.id, key, &hash, NOW, &mut rand::rng());
    let (code, ..) = DeviceSignIn::begin(Client::Daemon, "", [192, 0, 2, 1].into(), &hash, NOW, &mut rand::rng());
    let mut transaction = store.begin().await.unwrap();
    transaction.begin_family(&family).await.unwrap();
    transaction.begin_device_code(&code).await.unwrap();
    transaction.commit().await.unwrap();
    let tries = AtomicUsize::new(0);
    let replaced = join_all((0..MANY).map(|_| {
        again(&tries, async || {
            let mut transaction = store.begin().await?;
            let before = transaction.family(id).await?.unwrap();
            if before.signed_at != 0 {
                return Ok(false);
            }
            let after = Family { signed_at: 1, ..before.clone() };
            transaction.change_family(&before, &after).await?;
            transaction.commit().await.map(|()| true)
        })
    }));
    assert_eq!(replaced.await.into_iter().filter(|replaced| *replaced).count(), 1);
    let confirmed = join_all((0..MANY).map(|n| {
        let sid = SignInId::from_bytes([u8::try_from(n).unwrap(); 16]);
        let by = Confirmation { account: account.id, sid, auth_time: NOW, from: [192, 0, 2, 1].into() };
        let (store, code) = (&store, &code);
        again(&tries, async move || {
            let mut transaction = store.begin().await?;
            let before = transaction.device_code(code.device_code).await?.unwrap();
            let mut row = before.clone();
            if row.handle_confirm(by, Credential::Portal, NOW).is_err() {
                return Ok(false);
            }
            transaction.change_device_code(&before, &row).await?;
            transaction.commit().await.map(|()| true)
        })
    }));
    assert_eq!(confirmed.await.into_iter().filter(|confirmed| *confirmed).count(), 1);
}

/// Two read what the other changes: neither statement meets the other's row, so nothing but the database can see it.
#[tokio::test]
async fn what_was_read_is_still_so_when_something_else_is_kept() {
    // SQLite has one transaction at a time.
    let Some(place) = Place::postgres() else { return };
    let store = place.open().await;
    let ids = [[1; 16], [2; 16]].map(SignInId::from_bytes);
    for id in ids {
        sign_in(&store, "alice", id).await;
    }
    // Each ends its own sign-in only while the other's lasts: one of them is to stay.
    let mut both = [store.begin().await.unwrap(), store.begin().await.unwrap()];
    for (transaction, others) in both.iter_mut().zip([ids[1], ids[0]]) {
        assert!(transaction.sign_in(others).await.unwrap().is_some());
    }
    let mut ended = Vec::new();
    for (mut transaction, mine) in both.into_iter().zip(ids) {
        ended.push(match transaction.end_sign_in(mine, NOW, NOW).await {
            Ok(()) => transaction.commit().await,
            Err(error) => Err(error),
        });
    }
    assert!(matches!(ended[..], [Ok(()), Err(StoreError::Changed)]), "{ended:?}");
}

#[tokio::test]
async fn relays_that_start_at_once_on_one_server_bring_its_tables_up_to_date_once() {
    let Some(place) = Place::postgres() else { return };
    let opened = join_all((0..4).map(|_| Store::open(&place.database))).await;
    for store in &opened {
        sign_in(store.as_ref().unwrap(), "alice", SignInId::random(&mut rand::rng())).await;
    }
    assert_eq!(place.sql("SELECT COUNT(*) FROM _sqlx_migrations WHERE success"), super::migrations().to_string());
}
