//! Values that a kubeconfig has as base64, or in a file beside it.

use std::path::PathBuf;

use base64::{
    Engine as _, alphabet,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use tokio::io::AsyncReadExt as _;
use zeroize::Zeroizing;

use crate::error::{KubeconfigError, Place, Shown};

/// Longest certificate, key or token file: a longer one would not fit a welcome.
pub const FILE_MAX: u64 = mykube_protocol::limits::WELCOME_MAX as u64;
/// Base64 as Go reads it: padded, the last unused bits ignored. The caller removes line breaks, which Go skips.
pub(crate) const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// A value that the kubeconfig has as base64, or in a file beside it.
pub(crate) struct Sourced {
    field: &'static str,
    place: Place,
    value: Value,
}

enum Value {
    Data(Zeroizing<Vec<u8>>),
    File(PathBuf),
}

impl Sourced {
    /// Data wins over a file; empty values count as absent. `names` are the two fields.
    pub(crate) fn new(
        data: Option<&str>,
        file: Option<&str>,
        names: (&'static str, &'static str),
        place: &Place,
    ) -> Result<Option<Self>, KubeconfigError> {
        let given = |value: Option<&str>| value.is_some_and(|value| !value.is_empty());
        if let Some(data) = data.filter(|data| given(Some(data))) {
            let plain = Zeroizing::new(data.replace(['\r', '\n'], ""));
            let bytes = BASE64.decode(plain.as_bytes()).map_err(|_| KubeconfigError::Field {
                field: names.0,
                place: place.clone(),
                problem: "is not valid base64: copy it again whole, or name a file instead",
            })?;
            return Ok(Some(Self { field: names.0, place: place.clone(), value: Value::Data(Zeroizing::new(bytes)) }));
        }
        let file = file.filter(|file| given(Some(file)));
        Ok(file.map(|file| Self::file(names.1, place.resolve(file), place.clone())))
    }

    pub(crate) fn file(field: &'static str, path: PathBuf, place: Place) -> Self {
        Self { field, place, value: Value::File(path) }
    }

    pub(crate) fn is_file(&self) -> bool {
        matches!(self.value, Value::File(_))
    }

    pub(crate) fn error(&self, problem: &'static str) -> KubeconfigError {
        KubeconfigError::Field { field: self.field, place: self.place.clone(), problem }
    }

    /// The value, read without async: for what is read once at the start.
    pub(crate) fn read_now(&self) -> Result<Zeroizing<Vec<u8>>, KubeconfigError> {
        match &self.value {
            Value::Data(bytes) => Ok(bytes.clone()),
            Value::File(path) => {
                let failed = |cause| self.unreadable(path, &cause);
                let file = std::fs::File::open(path).map_err(failed)?;
                let mut bytes = Zeroizing::new(Vec::new());
                std::io::Read::read_to_end(&mut std::io::Read::take(file, FILE_MAX), &mut bytes).map_err(failed)?;
                Ok(bytes)
            }
        }
    }

    fn unreadable(&self, path: &std::path::Path, cause: &std::io::Error) -> KubeconfigError {
        KubeconfigError::FileReference {
            field: self.field,
            place: self.place.clone(),
            file: Shown::path(path),
            cause: Shown::cause(cause),
        }
    }

    /// The bytes; a file is read anew each time.
    pub(crate) async fn read(&self) -> Result<Zeroizing<Vec<u8>>, KubeconfigError> {
        let path = match &self.value {
            Value::Data(bytes) => return Ok(bytes.clone()),
            Value::File(path) => path,
        };
        let failed = |cause: std::io::Error| self.unreadable(path, &cause);
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(FILE_MAX + 1).read_to_end(&mut bytes).await.map_err(failed)?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(KubeconfigError::TooLarge { path: Shown::path(path), max: FILE_MAX });
        }
        Ok(bytes)
    }
}
