//! Device codes: a row each, which a rule is given and gives back.

use mykube_relay_accounts::{
    device_code::{Client, DeviceSignIn, LIFE, Stage},
    keyed_hash::Digest,
    statement::MachineKey,
    time::UnixTime,
};
use sqlx::{Row as _, any::AnyRow};

use crate::{error::StoreError, sign_ins::bytes, transaction::Transaction};

const BY_DEVICE: &str = "SELECT device_code, user_code, machine_key, program, asked_from, created_at, polled_at, stage,
    account, confirmed_at FROM device_codes WHERE device_code = $1";
const BY_USER: &str = "SELECT device_code, user_code, machine_key, program, asked_from, created_at, polled_at, stage,
    account, confirmed_at FROM device_codes WHERE user_code = $1";

impl Transaction {
    /// How many there are, after those that are over were forgotten.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn device_codes(&mut self, now: UnixTime) -> Result<usize, StoreError> {
        const FORGET: &str = "DELETE FROM device_codes WHERE created_at <= $1";
        const COUNT: &str = "SELECT COUNT(*) AS count FROM device_codes";
        sqlx::query(FORGET).bind((now - LIFE).millis()).execute(self.connection()).await?;
        let count: i64 = sqlx::query(COUNT).fetch_one(self.connection()).await?.try_get("count")?;
        usize::try_from(count).map_err(|_| StoreError::Damaged("device_codes"))
    }

    /// The one whose device code is shown, by its hash.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn device_code(&mut self, device_code: Digest) -> Result<Option<DeviceSignIn>, StoreError> {
        self.find(BY_DEVICE, device_code).await
    }

    /// The one whose user code is typed, by its hash.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn device_code_of_user(&mut self, user_code: Digest) -> Result<Option<DeviceSignIn>, StoreError> {
        self.find(BY_USER, user_code).await
    }

    async fn find(&mut self, find: &'static str, hash: Digest) -> Result<Option<DeviceSignIn>, StoreError> {
        let row = sqlx::query(find).bind(hash.to_bytes().to_vec()).fetch_optional(self.connection()).await?;
        row.as_ref().map(device_sign_in).transpose()
    }

    /// Keeps one, new or changed.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn keep_device_code(&mut self, row: &DeviceSignIn) -> Result<(), StoreError> {
        const KEEP: &str =
            "INSERT INTO device_codes (device_code, user_code, machine_key, program, asked_from, created_at,
                polled_at, stage, account, confirmed_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
            ON CONFLICT (device_code) DO UPDATE SET polled_at = $7, stage = $8, account = $9, confirmed_at = $10";
        let DeviceSignIn { device_code, user_code, client, program, asked_from, created_at, polled_at, stage } = row;
        let (stage, confirmed) = match *stage {
            Stage::Pending => ("pending", None),
            Stage::Confirmed(account, at) => ("confirmed", Some((account.to_string(), at.millis()))),
            Stage::Fetched => ("fetched", None),
        };
        let key = match client {
            Client::Daemon => None,
            Client::Mykube(key) => Some(key.to_bytes().to_vec()),
        };
        let keep = sqlx::query(KEEP).bind(device_code.to_bytes().to_vec()).bind(user_code.to_bytes().to_vec());
        let keep = keep.bind(key).bind(program.clone()).bind(asked_from.to_string()).bind(created_at.millis());
        let keep = keep.bind(polled_at.map(UnixTime::millis)).bind(stage);
        let (account, at) = confirmed.unzip();
        keep.bind(account).bind(at).execute(self.connection()).await?;
        Ok(())
    }
}

fn device_sign_in(row: &AnyRow) -> Result<DeviceSignIn, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let damaged = |_| StoreError::Damaged("device_codes");
    let client = match row.try_get::<Option<Vec<u8>>, _>("machine_key")? {
        None => Client::Daemon,
        Some(key) => Client::Mykube(MachineKey::from_bytes(&key).map_err(|_| StoreError::Damaged("device_codes"))?),
    };
    let stage = match text("stage")?.as_str() {
        "pending" => Stage::Pending,
        "confirmed" => {
            let account = text("account")?.parse().map_err(|_| StoreError::Damaged("device_codes.account"))?;
            Stage::Confirmed(account, UnixTime::from_millis(row.try_get("confirmed_at")?))
        }
        _ => Stage::Fetched,
    };
    Ok(DeviceSignIn {
        device_code: bytes(row, "device_code").map(Digest::from_bytes)?,
        user_code: bytes(row, "user_code").map(Digest::from_bytes)?,
        client,
        program: text("program")?,
        asked_from: text("asked_from")?.parse().map_err(damaged)?,
        created_at: UnixTime::from_millis(row.try_get("created_at")?),
        polled_at: row.try_get::<Option<i64>, _>("polled_at")?.map(UnixTime::from_millis),
        stage,
    })
}
