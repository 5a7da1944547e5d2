//! Device codes: a row each, which a rule is given and gives back.

use std::net::AddrParseError;

use mykube_relay_accounts::{
    device_code::{Client, Confirmation, DeviceSignIn, LIFE, Stage},
    id::SignInId,
    keyed_hash::Digest,
    statement::MachineKey,
    time::UnixTime,
};
use sqlx::{Row as _, any::AnyRow};

use crate::{error::StoreError, room::Waiting, sign_ins::bytes, transaction::Transaction};

const BY_DEVICE: &str = "SELECT device_code, user_code, machine_key, program, asked_from, created_at, stage, account,
    confirmed_by, auth_time, confirmed_from, refused FROM device_codes WHERE device_code = $1";
const BY_USER: &str = "SELECT device_code, user_code, machine_key, program, asked_from, created_at, stage, account,
    confirmed_by, auth_time, confirmed_from, refused FROM device_codes WHERE user_code = $1";

/// What waits here.
const CODES: Waiting = Waiting {
    table: "device_codes",
    life: LIFE,
    forget: "DELETE FROM device_codes WHERE created_at <= $1",
    count: "SELECT COUNT(*) AS count FROM device_codes",
    count_of: "SELECT COUNT(*) AS count FROM device_codes WHERE network = $1",
    evict: "DELETE FROM device_codes WHERE device_code = (SELECT device_code FROM device_codes
        WHERE stage = 'pending' AND network = (SELECT network FROM device_codes WHERE stage = 'pending'
            GROUP BY network ORDER BY COUNT(*) DESC, MIN(created_at) LIMIT 1)
        ORDER BY created_at LIMIT 1)",
};

impl Transaction {
    /// Whether one more of this network may be kept, where there are so many at most, in all and of one network: those that are
    /// over are forgotten, and where there is no room, the oldest that waits in the network that has the most.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn has_room_for_device_code(
        &mut self,
        network: &str,
        most: (usize, usize),
        now: UnixTime,
    ) -> Result<bool, StoreError> {
        self.has_room(&CODES, network, most, now).await
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

    /// Keeps a new one.
    ///
    /// # Errors
    /// The database gives no answer.
    pub async fn begin_device_code(&mut self, row: &DeviceSignIn) -> Result<(), StoreError> {
        const KEEP: &str =
            "INSERT INTO device_codes (device_code, user_code, machine_key, program, asked_from, network,
                created_at, stage) VALUES ($1, $2, $3, $4, $5, $6, $7, 'pending')";
        let key = match row.client {
            Client::Daemon => None,
            Client::Mykube(key) => Some(key.to_bytes().to_vec()),
        };
        let keep = sqlx::query(KEEP).bind(row.device_code.to_bytes().to_vec()).bind(row.user_code.to_bytes().to_vec());
        let keep = keep.bind(key).bind(row.program.clone()).bind(row.asked_from.to_string()).bind(row.network());
        keep.bind(row.created_at.millis()).execute(self.connection()).await?;
        Ok(())
    }

    /// Keeps what a rule made of one that was read as `before`.
    ///
    /// # Errors
    /// The database gives no answer, or it has gone further since it was read ([`StoreError::Changed`]): it is confirmed by
    /// one account, and fetched once.
    pub async fn change_device_code(&mut self, before: &DeviceSignIn, row: &DeviceSignIn) -> Result<(), StoreError> {
        const CHANGE: &str = "UPDATE device_codes
            SET stage = $1, account = $2, confirmed_by = $3, auth_time = $4, confirmed_from = $5, refused = $6
            WHERE device_code = $7 AND stage = $8";
        let by = if let Stage::Confirmed(by) = row.stage { Some(by) } else { None };
        let change = sqlx::query(CHANGE).bind(name(row.stage)).bind(by.map(|by| by.account.to_string()));
        let change = change.bind(by.map(|by| by.sid.as_bytes().to_vec())).bind(by.map(|by| by.auth_time.millis()));
        let change = change.bind(by.map(|by| by.from.to_string()));
        let change = change.bind(i64::from(row.stage == Stage::Refused));
        let change = change.bind(row.device_code.to_bytes().to_vec()).bind(name(before.stage));
        let changed = change.execute(self.connection()).await?.rows_affected();
        if changed == 1 { Ok(()) } else { Err(StoreError::Changed) }
    }
}

const fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Pending => "pending",
        Stage::Confirmed(_) => "confirmed",
        Stage::Fetched | Stage::Refused => "fetched",
    }
}

fn device_sign_in(row: &AnyRow) -> Result<DeviceSignIn, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let damaged = |_: AddrParseError| StoreError::Damaged("device_codes");
    let client = match row.try_get::<Option<Vec<u8>>, _>("machine_key")? {
        None => Client::Daemon,
        Some(key) => Client::Mykube(MachineKey::from_bytes(&key).map_err(|_| StoreError::Damaged("device_codes"))?),
    };
    let stage = match text("stage")?.as_str() {
        "pending" => Stage::Pending,
        "confirmed" => Stage::Confirmed(Confirmation {
            account: text("account")?.parse().map_err(|_| StoreError::Damaged("device_codes.account"))?,
            sid: bytes(row, "confirmed_by").map(SignInId::from_bytes)?,
            auth_time: UnixTime::from_millis(row.try_get("auth_time")?),
            from: text("confirmed_from")?.parse().map_err(damaged)?,
        }),
        _ if row.try_get::<i64, _>("refused")? != 0 => Stage::Refused,
        _ => Stage::Fetched,
    };
    Ok(DeviceSignIn {
        device_code: bytes(row, "device_code").map(Digest::from_bytes)?,
        user_code: bytes(row, "user_code").map(Digest::from_bytes)?,
        client,
        program: text("program")?,
        asked_from: text("asked_from")?.parse().map_err(damaged)?,
        created_at: UnixTime::from_millis(row.try_get("created_at")?),
        polled_at: None,
        stage,
    })
}
