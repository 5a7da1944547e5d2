//! The user that a kubeconfig's user acts as: `as`, `as-groups`, `as-uid`, `as-user-extra`.

use std::collections::BTreeMap;

use http::HeaderValue;

use crate::{
    error::{KubeconfigError, Place},
    kubeconfig::types::AuthInfo,
};

/// The user that requests are made as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Impersonation {
    /// `as`.
    pub user: String,
    /// `as-groups`.
    pub groups: Vec<String>,
    /// `as-uid`.
    pub uid: Option<String>,
    /// `as-user-extra`.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Impersonation {
    /// Reads it from a kubeconfig's user. Empty values count as absent.
    pub(crate) fn of(user: &AuthInfo, place: &Place) -> Result<Option<Self>, KubeconfigError> {
        let field = |field, problem| Err(KubeconfigError::Field { field, place: place.clone(), problem });
        let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        let groups = user.impersonate_groups.to_vec();
        let uid = given(&user.impersonate_uid);
        let extra = user.impersonate_user_extra.iter().flatten();
        let extra: BTreeMap<_, _> = extra
            .map(|(key, values)| (key.clone(), values.iter().flat_map(|values| values.to_vec()).collect()))
            .collect();
        let Some(user) = given(&user.impersonate) else {
            const ALONE: &str = "stands there without `as`, which kubectl refuses: name the user in `as` too";
            return match (groups.is_empty(), uid.is_none(), extra.is_empty()) {
                (false, _, _) => field("as-groups", ALONE),
                (_, false, _) => field("as-uid", ALONE),
                (_, _, false) => field("as-user-extra", ALONE),
                _ => Ok(None),
            };
        };
        const UNFIT: &str = "is empty or no text without control characters: correct it";
        if !fits(&user) {
            return field("as", UNFIT);
        }
        if !groups.iter().all(|group| fits(group)) {
            return field("as-groups", UNFIT);
        }
        if !uid.iter().all(|uid| fits(uid)) {
            return field("as-uid", UNFIT);
        }
        if !extra
            .iter()
            .all(|(key, values): (&String, &Vec<String>)| !key.is_empty() && values.iter().all(|value| fits(value)))
        {
            return field("as-user-extra", UNFIT);
        }
        Ok(Some(Self { user, groups, uid, extra }))
    }
}

/// Whether a name can stand in a header.
#[must_use]
pub fn fits(name: &str) -> bool {
    !name.is_empty() && HeaderValue::from_str(name).is_ok()
}
