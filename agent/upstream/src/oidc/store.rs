//! Writes tokens back into the kubeconfig, for kubectl and the next start: many providers accept a refresh token only
//! once.
//!
//! kubectl rewrites the whole file. Here only the user's two values are replaced, and nothing is written unless the
//! result reads as the old file with just these changed. The lock is kubectl's: `config.lock` beside the file.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Deserialize as _;
use serde_json::Value;
use zeroize::Zeroizing;

use super::tokens::Tokens;
use crate::{error::Place, kubeconfig::types::AuthProvider, yaml};

/// How long to wait for another program's lock.
const LOCK_WAIT: Duration = Duration::from_secs(3);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// The tokens that the kubeconfig has now; `None` if it, or the user in it, cannot be read.
pub(super) async fn read(place: &Place) -> Option<Tokens> {
    let place = place.clone();
    let read = move || {
        let document = yaml::read(&Zeroizing::new(fs::read(place.file()).ok()?)).ok()?;
        tokens(&document, place.name())
    };
    tokio::task::spawn_blocking(read).await.ok()?
}

fn tokens(document: &Value, user: &str) -> Option<Tokens> {
    let provider = document.pointer(&pointer(document, user)?)?;
    Some(Tokens::of(&AuthProvider::deserialize(provider).ok()?))
}

/// Replaces the old tokens by the new ones, and returns those that the file has afterwards.
///
/// # Errors
/// Why the file stays as it was.
pub(super) async fn replace(place: &Place, old: &Tokens, new: &Tokens) -> Result<Tokens, String> {
    let (place, old, new) = (place.clone(), old.clone(), new.clone());
    let write = move || {
        let real = fs::canonicalize(place.file()).map_err(|error| error.to_string())?;
        let _lock = Lock::take(place.file()).map_err(|error| format!("its lock: {error}"))?;
        let before = Zeroizing::new(fs::read_to_string(&real).map_err(|error| error.to_string())?);
        let (after, written) =
            changed(&before, place.name(), &old, &new).ok_or("it is written in a way that cannot be changed safely")?;
        put(&real, &after).map_err(|error| error.to_string())?;
        Ok(written)
    };
    tokio::task::spawn_blocking(write).await.map_err(|error| error.to_string())?
}

/// The text with the new tokens, if that changes nothing else, and the tokens that it has.
fn changed(text: &str, user: &str, old: &Tokens, new: &Tokens) -> Option<(Zeroizing<String>, Tokens)> {
    let before = yaml::read(text.as_bytes()).ok()?;
    let mut expected = Wiped((*before).clone());
    let config = pointer(&before, user)? + "/config";
    let mut edits = Vec::new();
    for (name, old, new) in [("id-token", &old.id, &new.id), ("refresh-token", &old.refresh, &new.refresh)] {
        let (Some(old), Some(new)) = (old, new) else { continue };
        if old == new {
            continue;
        }
        // kubectl may have replaced them already.
        let value = expected.0.pointer_mut(&config)?.get_mut(name)?;
        if value.as_str() != Some(old.as_str()) {
            return None;
        }
        yaml::wipe(value);
        *value = Value::String(new.to_string());
        edits.push((yaml::span(text, &format!("{config}/{name}"))?, old, new));
    }
    // From the end, so that earlier positions stay valid.
    edits.sort_by_key(|(at, ..)| std::cmp::Reverse(at.start));
    // In the old one's notation, if the new one fits it; else in quotes.
    [false, true].into_iter().find_map(|quoted| {
        let mut after = Zeroizing::new(text.to_owned());
        for (at, old, new) in &edits {
            let was = text.get(at.clone())?;
            let fits = !quoted && was.matches(old.as_str()).count() == 1;
            let is = if fits { was.replace(old.as_str(), new) } else { Value::from(new.as_str()).to_string() };
            after = Zeroizing::new([&after[..at.start], &Zeroizing::new(is), &after[at.end..]].concat());
        }
        let read = yaml::read(after.as_bytes()).ok()?;
        (*read == expected.0).then_some((after, tokens(&read, user)?))
    })
}

/// A document with tokens, wiped when dropped.
struct Wiped(Value);

impl Drop for Wiped {
    fn drop(&mut self) {
        yaml::wipe(&mut self.0);
    }
}

/// The JSON pointer (RFC 6901) of the user's provider.
fn pointer(document: &Value, user: &str) -> Option<String> {
    let users = document.get("users")?.as_array()?;
    let named = |item: &Value| item.get("name").and_then(Value::as_str).unwrap_or_default() == user;
    Some(format!("/users/{}/user/auth-provider", users.iter().position(named)?))
}

/// kubectl's lock; dropping it removes it.
struct Lock(PathBuf);

impl Lock {
    fn take(file: &Path) -> io::Result<Self> {
        let lock = beside(file, "", ".lock");
        let until = Instant::now() + LOCK_WAIT;
        loop {
            match fs::OpenOptions::new().write(true).create_new(true).open(&lock) {
                Ok(_) => return Ok(Self(lock)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && Instant::now() < until => {
                    std::thread::sleep(LOCK_RETRY);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(file = %self.0.display(), %error, "cannot remove the kubeconfig's lock");
        }
    }
}

/// Replaces a file as a whole; a reader sees the old or the new one. Mode and owner are kept. A file that cannot be
/// replaced (it is mounted by itself, or has another owner) is overwritten, as kubectl does.
fn put(file: &Path, text: &str) -> io::Result<()> {
    let new = beside(file, ".", &format!(".mykube-{}", std::process::id()));
    let meta = fs::metadata(file)?;
    if meta.permissions().readonly() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is read-only"));
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut opened = options.open(&new)?;
    let written = (|| {
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt as _, fchown};
            let own = opened.metadata()?;
            if (own.uid(), own.gid()) != (meta.uid(), meta.gid()) {
                fchown(&opened, Some(meta.uid()), Some(meta.gid()))?;
            }
        }
        opened.set_permissions(meta.permissions())?;
        opened.write_all(text.as_bytes())?;
        opened.sync_all()?;
        fs::rename(&new, file)
    })();
    let Err(error) = written else { return Ok(()) };
    let written = match error.kind() {
        io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices | io::ErrorKind::PermissionDenied => {
            write_over(file, text)
        }
        _ => Err(error),
    };
    let _ = fs::remove_file(&new);
    written
}

fn write_over(file: &Path, text: &str) -> io::Result<()> {
    let mut opened = fs::OpenOptions::new().write(true).open(file)?;
    opened.write_all(text.as_bytes())?;
    opened.set_len(text.len() as u64)?;
    opened.sync_all()
}

/// The path of a file in the same directory, with a text before and after the file's name.
fn beside(file: &Path, before: &str, after: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(before);
    name.push(file.file_name().unwrap_or_default());
    name.push(after);
    file.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubeconfig::types::Secret;

    fn given(id: &str, refresh: &str) -> Tokens {
        let some = |text: &str| Some(Secret::from(text.to_owned())).filter(|text| !text.is_empty());
        Tokens { id: some(id), refresh: some(refresh) }
    }

    fn file(user: &str, rest: &str) -> String {
        format!(
            "# mine\nusers:\n- name: other\n  user: {{token: x}}\n- user:\n    auth-provider:\n{user}\n  name: me # me\n{rest}"
        )
    }

    #[test]
    fn the_tokens_change_and_nothing_else() {
        let block = "      name: oidc\n      config:\n        client-id: k   # the client\n        id-token: aaa.bbb.ccc\n        refresh-token: 'r1'";
        let flow = "      {\"name\": oidc, config: {id-token: \"aaa.bbb.ccc\", refresh-token: r1}}";
        for user in [block, flow] {
            let before = file(user, "contexts: []\n");
            let after = changed(&before, "me", &given("aaa.bbb.ccc", "r1"), &given("ddd.eee.fff", "r/2==")).unwrap();
            assert_eq!(*after.0, before.replace("aaa.bbb.ccc", "ddd.eee.fff").replace("r1", "r/2=="));
            assert!(after.1 == given("ddd.eee.fff", "r/2=="));
            let after = changed(&before, "me", &given("aaa.bbb.ccc", "r1"), &given("ddd.eee.fff", "r1")).unwrap();
            assert_eq!(*after.0, before.replace("aaa.bbb.ccc", "ddd.eee.fff"));
        }
        // kubectl would add an id token; without one it gets one.
        let only_refresh = file("      name: oidc\n      config: {refresh-token: r1}", "");
        let after = changed(&only_refresh, "me", &given("", "r1"), &given("ddd.eee.fff", "r2")).unwrap();
        assert_eq!(*after.0, only_refresh.replace("r1", "r2"));
        assert!(after.1 == given("", "r2"));
    }

    #[test]
    fn what_would_change_more_is_left_alone() {
        let user = "      name: oidc\n      config:\n        id-token: aaa.bbb.ccc\n        refresh-token: r1";
        let (old, new) = (given("aaa.bbb.ccc", "r1"), given("ddd.eee.fff", "r2"));
        let change = |text: &str| changed(text, "me", &old, &new);
        assert!(change(&file(user, "")).is_some());
        let twin = format!("{}- name: twin\n  user:\n    auth-provider:\n{user}\n", file(user, "# r1\n"));
        assert_eq!(*change(&twin).unwrap().0, twin.replacen("aaa.bbb.ccc", "ddd.eee.fff", 1).replacen("r1", "r2", 1));
        let escaped = file(&user.replace("r1", "\"r\\u0031\""), "");
        let after = change(&escaped).unwrap().0;
        assert_eq!(*after, escaped.replace("\"r\\u0031\"", "\"r2\"").replace("aaa.bbb.ccc", "ddd.eee.fff"));
        assert!(change(&file(&user.replace("r1", "r3"), "")).is_none(), "kubectl was faster");
        assert!(change(&file(&user.replace("r1", "&r r1"), "contexts: [*r]\n")).is_none(), "it is used elsewhere");
        assert!(change(&file(user, "").replace("name: me", "name: you")).is_none(), "it is somebody else's");
        let odd = given("ddd.eee.fff", "r2: #");
        assert!(changed(&file(user, ""), "me", &old, &odd).unwrap().1 == odd, "in quotes");
        assert!(change("not: [yaml").is_none());
    }

    #[test]
    fn a_file_is_replaced_whole_with_its_mode() {
        let dir = std::env::temp_dir().join(format!("mykube-store-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let path = dir.join("config");
        fs::write(&path, "old").unwrap();
        #[cfg(unix)]
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        put(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o640);
        write_over(&path, "no").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "no");
        drop(Lock::take(&path).unwrap());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing is left beside it");
        fs::remove_dir_all(&dir).unwrap();
    }

    /// A kubeconfig that is mounted by itself, as in a container.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_that_is_a_mount_is_written_over() {
        const HERE: &str = "MYKUBE_TEST_MOUNTED";
        if let Some(path) = std::env::var_os(HERE) {
            return put(Path::new(&path), "new").unwrap();
        }
        let dir = std::env::temp_dir().join(format!("mykube-mounted-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let path = dir.join("config");
        fs::write(&path, "old, and longer").unwrap();
        let mut unshare = std::process::Command::new("unshare");
        unshare.arg("--mount");
        if !rustix::process::geteuid().is_root() {
            unshare.arg("--map-root-user");
        }
        unshare.args([
            "sh",
            "-c",
            "mount --bind \"$MYKUBE_TEST_MOUNTED\" \"$MYKUBE_TEST_MOUNTED\" && exec \"$@\"",
            "sh",
        ]);
        unshare.arg(std::env::current_exe().unwrap());
        unshare.args(["--exact", "oidc::store::tests::a_file_that_is_a_mount_is_written_over"]).env(HERE, &path);
        let done = unshare.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing is left beside it");
        fs::remove_dir_all(&dir).unwrap();
    }
}
