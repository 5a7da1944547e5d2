//! `--merge`: entries come and go, and nothing else of a user's kubeconfig changes.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Barrier,
    time::Duration,
};

use mykube_client::{
    Workspace,
    merge::{Merge, MergeError, Places, Undone},
};
use mykube_protocol::channel::Welcome;
use serde_json::{Value, json};

/// A kubeconfig as people have them: comments, unknown fields, odd names, no line break at the end.
const OWN: &str = "# mine: do not touch\napiVersion: v1\nkind: Config\ncurrent-context: 'a: #1'   # odd, but mine\nclusters:\n  # the old one\n  - name: mykube-prod\n    cluster: {server: https://a.example, x-team: \"ops\"}\ncontexts:\n- name: 'a: #1'\n  context: {cluster: mykube-prod, user: \"ü\\u2028\"}\nusers: [{name: \"ü\\u2028\", user: {token: very-own-secret}}]\nextensions: [{name: x, extension: {y: ~}}]";
const PEM: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMAE=\n-----END PRIVATE KEY-----\n";

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(text: &str) -> Self {
        let home = Self::new();
        fs::create_dir(home.kube()).unwrap();
        fs::write(home.config(), text).unwrap();
        home
    }

    fn kube(&self) -> PathBuf {
        self.0.path().join(".kube")
    }

    fn config(&self) -> PathBuf {
        self.kube().join("config")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.config()).unwrap()
    }

    fn places(&self) -> Places {
        Places { kubeconfig: None, home: Some(self.0.path().to_owned()), lock_wait: Duration::from_secs(20) }
    }

    fn workspace(&self) -> Workspace {
        Workspace::create(Some(self.0.path())).unwrap()
    }

    /// The files in the home directory, without the configuration itself and sessions' directories.
    fn others(&self) -> Vec<String> {
        let names = fs::read_dir(self.kube()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "config").collect()
    }
}

fn welcome(credentials: Value) -> Welcome {
    serde_json::from_value(json!({"mode": "shared", "cluster": "prod", "ca": PEM, "credentials": credentials})).unwrap()
}

fn token(token: &str) -> Welcome {
    welcome(json!({"token": token}))
}

/// The file's value as YAML.
fn parse(text: &str) -> Value {
    serde_saphyr::from_str(text.trim_start_matches('\u{feff}')).unwrap()
}

fn find<'v>(config: &'v Value, list: &str, name: &str) -> Option<&'v Value> {
    config[list].as_array()?.iter().find(|item| item["name"] == name)
}

#[test]
fn entries_come_and_go_and_every_other_byte_stays() {
    let home = Home::with(OWN);
    fs::set_permissions(home.config(), fs::Permissions::from_mode(0o640)).unwrap();
    let workspace = home.workspace();
    let mut merge = Merge::prepare(&home.places(), &workspace).unwrap();
    assert_eq!(home.text(), OWN, "preparing changes nothing");
    let name = merge.add(&workspace, &token("not-in-that-file"), 40123).unwrap().to_owned();
    assert_eq!(name, "mykube-prod-2", "a name that is taken anywhere gets a number");

    let text = home.text();
    let (own, merged) = (parse(OWN), parse(&text));
    assert!(!text.contains("not-in-that-file") && text.contains("# the old one"), "{text}");
    assert_eq!(merged["current-context"], own["current-context"]);
    let context = &find(&merged, "contexts", &name).unwrap()["context"];
    assert_eq!((&context["cluster"], &context["user"]), (&json!(name), &json!(name)));
    let cluster = &find(&merged, "clusters", &name).unwrap()["cluster"];
    assert_eq!(cluster["server"], "https://127.0.0.1:40123");
    let user = &find(&merged, "users", &name).unwrap()["user"];
    let file = Path::new(user["tokenFile"].as_str().unwrap());
    assert_eq!(fs::read_to_string(file).unwrap(), "not-in-that-file");
    assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, 0o600);
    assert_eq!(user.as_object().unwrap().keys().collect::<Vec<_>>(), ["extensions", "tokenFile"]);
    assert_eq!(fs::metadata(home.config()).unwrap().mode() & 0o777, 0o640);

    assert_eq!(merge.undo().unwrap(), Undone { was_current: false });
    assert_eq!(home.text(), OWN);
    assert_eq!(fs::metadata(home.config()).unwrap().mode() & 0o777, 0o640);
    assert_eq!(home.others(), [""; 0], "no lock and no temporary file stays");
}

#[test]
fn a_kubeconfig_that_is_not_there_is_made_and_unmade() {
    let home = Home::new();
    let workspace = home.workspace();
    let mut merge = Merge::prepare(&home.places(), &workspace).unwrap();
    assert!(!home.kube().exists(), "preparing leaves nothing");
    assert_eq!(merge.add(&workspace, &token("t"), 40123).unwrap(), "mykube-prod");
    assert_eq!(fs::metadata(home.kube()).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(home.config()).unwrap().mode() & 0o777, 0o600);
    assert_eq!(parse(&home.text())["kind"], "Config");
    drop(merge);
    assert!(!home.config().exists(), "dropping undoes");
    assert_eq!(home.others(), [""; 0]);
}

/// With a byte order mark.
fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(unit).collect()
}

#[test]
fn odd_files_stay_as_they_were_to_the_byte() {
    let crlf = "apiVersion: v1\r\nclusters:\r\n- name: a\r\ncontexts: []\r\n";
    for bytes in [
        b"".to_vec(),
        b"\n\n".to_vec(),
        b"# only a comment".to_vec(),
        b"{}".to_vec(),
        b"kind: Config\nclusters: null\ncontexts:\nusers: ~".to_vec(),
        b"apiVersion: v1\nkind: Config\ncurrent-context: x\n---\nclusters: [a]\n".to_vec(),
        "\u{feff}{\"clusters\":[],\"contexts\":null}".into(),
        crlf.into(),
        utf16(crlf, u16::to_le_bytes),
        utf16("# \u{1f600}\n", u16::to_be_bytes),
        utf16(OWN, u16::to_be_bytes),
        OWN.into(),
    ] {
        let home = Home::new();
        fs::create_dir(home.kube()).unwrap();
        fs::write(home.config(), &bytes).unwrap();
        let stands_again = |what| assert_eq!(fs::read(home.config()).unwrap(), bytes, "{what}");
        let begin = || {
            let workspace = home.workspace();
            let mut merge = Merge::prepare(&home.places(), &workspace).unwrap();
            merge.add(&workspace, &token("t"), 1).unwrap();
            (merge, workspace)
        };
        let (mut merge, workspace) = begin();
        assert_ne!(fs::read(home.config()).unwrap(), bytes);
        merge.update(&workspace, &welcome(json!({"certificate": PEM, "key": KEY}))).unwrap();
        merge.undo().unwrap();
        stands_again("after one session");
        for newer_first in [true, false] {
            let (mut older, _dir) = begin();
            let (mut newer, _dir) = begin();
            let order = if newer_first { [&mut newer, &mut older] } else { [&mut older, &mut newer] };
            for merge in order {
                merge.undo().unwrap();
            }
            stands_again("after two sessions");
        }
        let (killed, workspace) = begin();
        std::mem::forget(killed);
        drop(workspace);
        assert_eq!(Merge::recover(&home.places()).unwrap().len(), 1);
        stands_again("after a killed session");
    }
}

#[test]
fn hostile_places_and_names_are_text() {
    let home = Home::with(OWN);
    let parent = home.0.path().join("a '\"b\" #: {[\u{7f}\u{85}é\n- x: &y *z");
    fs::create_dir(&parent).unwrap();
    let workspace = Workspace::create(Some(&parent)).unwrap();
    let mut merge = Merge::prepare(&home.places(), &workspace).unwrap();
    let name = merge.add(&workspace, &token("t"), 1).unwrap().to_owned();
    let merged = parse(&home.text());
    let file = find(&merged, "users", &name).unwrap()["user"]["tokenFile"].as_str().unwrap().to_owned();
    assert_eq!(fs::read_to_string(file).unwrap(), "t");
    merge.undo().unwrap();
    assert_eq!(home.text(), OWN);

    let mut hostile = token("t");
    hostile.cluster = "x\n- name: y".into();
    assert!(matches!(merge.add(&workspace, &hostile, 1), Err(MergeError::Welcome(_))));
    assert_eq!(home.text(), OWN);
}

#[test]
fn a_password_stays_out() {
    let home = Home::with(OWN);
    let workspace = home.workspace();
    let mut merge = Merge::prepare(&home.places(), &workspace).unwrap();
    let welcome = welcome(json!({"username": "ann", "password": "hunter2"}));
    assert!(matches!(merge.add(&workspace, &welcome, 1), Err(MergeError::Password)));
    assert_eq!(home.text(), OWN);
}

#[test]
fn new_credentials_replace_files_and_where_needed_the_entry() {
    let home = Home::with(OWN);
    let workspace = home.workspace();
    let mut merge = Merge::prepare(&home.places(), &workspace).unwrap();
    merge.update(&workspace, &token("early")).unwrap();
    assert_eq!(home.text(), OWN, "nothing is written before the first");
    let name = merge.add(&workspace, &token("one"), 1).unwrap().to_owned();
    let user = |field: &str| {
        let config = parse(&home.text());
        let user = &find(&config, "users", &name).unwrap()["user"];
        user[field].as_str().map(|file| fs::read_to_string(file).unwrap())
    };
    let before = home.text();
    merge.update(&workspace, &token("two")).unwrap();
    assert_eq!(user("tokenFile").as_deref(), Some("two"));
    assert_eq!(home.text(), before);
    merge.update(&workspace, &welcome(json!({"certificate": PEM, "key": KEY}))).unwrap();
    assert_eq!((user("tokenFile"), user("client-certificate").as_deref()), (None, Some(PEM)));
    assert_eq!(user("client-key").as_deref(), Some(KEY));
    assert!(!home.text().contains("MAE="));
    merge.undo().unwrap();
    assert_eq!(home.text(), OWN);
}

#[test]
fn what_others_changed_meanwhile_stays() {
    let home = Home::with(OWN);
    let workspace = home.workspace();
    let mut merge = Merge::prepare(&home.places(), &workspace).unwrap();
    let name = merge.add(&workspace, &token("t"), 1).unwrap().to_owned();
    // Rewritten as kubectl does it: all comments are lost, and our context is the current one.
    let mut config = parse(&home.text());
    config["current-context"] = json!(name);
    config["contexts"].as_array_mut().unwrap().push(json!({"name": "new", "context": {}}));
    fs::write(home.config(), serde_saphyr::to_string(&config).unwrap()).unwrap();
    assert_eq!(merge.undo().unwrap(), Undone { was_current: true });

    let mut expected = parse(OWN);
    expected["current-context"] = json!(name);
    expected["contexts"].as_array_mut().unwrap().push(json!({"name": "new", "context": {}}));
    assert_eq!(parse(&home.text()), expected);

    let name = merge.add(&workspace, &token("t"), 1).unwrap().to_owned();
    assert_eq!(name, "mykube-prod-2");
    fs::remove_file(home.config()).unwrap();
    assert_eq!(merge.undo().unwrap(), Undone::default());
    assert!(!home.config().exists(), "what was deleted stays deleted");
}

#[test]
fn the_file_is_the_one_kubectl_would_change() {
    let home = Home::new();
    let dir = home.0.path();
    let list = |names: &[&str]| Some(std::env::join_paths(names.iter().map(|name| dir.join(name))).unwrap());
    let workspace = home.workspace();
    let file = |kubeconfig| {
        let merge = Merge::prepare(&Places { kubeconfig, ..home.places() }, &workspace).unwrap();
        merge.file().strip_prefix(dir).unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(file(None), ".kube/config");
    assert_eq!(file(Some("".into())), ".kube/config");
    assert_eq!(file(list(&["one", "two"])), "two");
    fs::write(dir.join("one"), "").unwrap();
    assert_eq!(file(list(&["zero", "one", "two"])), "one");
    fs::write(dir.join("two"), "users: [{name: mykube-prod}]").unwrap();
    fs::write(dir.join("three"), "not: [a kubeconfig").unwrap();
    let places = Places { kubeconfig: list(&["one", "two", "three"]), ..home.places() };
    let mut merge = Merge::prepare(&places, &workspace).unwrap();
    assert_eq!(merge.add(&workspace, &token("t"), 1).unwrap(), "mykube-prod-2", "taken in another file");
    let nowhere = Places { kubeconfig: None, home: None, ..home.places() };
    assert!(matches!(Merge::prepare(&nowhere, &workspace), Err(MergeError::NoHome)));
    let nothing = Places { kubeconfig: Some(":".into()), ..home.places() };
    assert!(matches!(Merge::prepare(&nothing, &workspace), Err(MergeError::NoHome)));
}

#[test]
fn a_symbolic_link_is_followed_and_stays() {
    let home = Home::new();
    fs::create_dir(home.kube()).unwrap();
    let dotfiles = home.0.path().join("dotfiles");
    fs::create_dir(&dotfiles).unwrap();
    let real = dotfiles.join("kube");
    symlink("../dotfiles/kube", home.config()).unwrap();
    let workspace = home.workspace();
    let error = Merge::prepare(&home.places(), &workspace).err().unwrap();
    assert!(error.to_string().contains(".kube/config"), "{error}");

    fs::write(&real, OWN).unwrap();
    let mut merge = Merge::prepare(&home.places(), &workspace).unwrap();
    merge.add(&workspace, &token("t"), 1).unwrap();
    assert!(fs::read_to_string(&real).unwrap().contains("mykube-prod-2") && home.config().is_symlink());
    merge.undo().unwrap();
    assert_eq!(fs::read_to_string(&real).unwrap(), OWN);
    assert!(home.config().is_symlink());
    assert_eq!(fs::read_dir(&dotfiles).unwrap().count(), 1);
    assert_eq!(home.others(), [""; 0]);
}

#[test]
fn what_cannot_be_changed_is_found_before_a_code_is_spent() {
    let home = Home::with(OWN);
    let workspace = home.workspace();
    let refused = |words: &[&str]| {
        let error = Merge::prepare(&home.places(), &workspace).err().unwrap().to_string();
        for word in words {
            assert!(error.contains(word), "{error}");
        }
        assert!(error.contains(home.config().to_str().unwrap()) && !error.contains("secret"), "{error}");
        assert_eq!(home.others(), [""; 0]);
    };
    fs::set_permissions(home.config(), fs::Permissions::from_mode(0o444)).unwrap();
    refused(&["read-only", "KUBECONFIG"]);
    assert_eq!(home.text(), OWN);
    fs::set_permissions(home.config(), fs::Permissions::from_mode(0o600)).unwrap();
    for (text, word) in [
        ("users: [{token: secret\n", "line 1"),
        ("users: secret\n", "`users` is not a list"),
        ("a: &s secret\nclusters: *s\n", "`clusters` is not a list"),
        ("--- secret\n--- b\n", "no kubeconfig"),
        ("just a secret\n", "no kubeconfig"),
    ] {
        fs::write(home.config(), text).unwrap();
        refused(&[word]);
        assert_eq!(home.text(), text);
    }
    fs::write(home.config(), [0xff, 0x00]).unwrap();
    refused(&["UTF-8"]);
    fs::remove_file(home.config()).unwrap();
    fs::create_dir(home.config()).unwrap();
    refused(&["regular file"]);

    let null = Places { kubeconfig: Some("/dev/null".into()), ..home.places() };
    assert!(matches!(Merge::prepare(&null, &workspace), Err(MergeError::NotAFile(_))));
    let read_only = Places { kubeconfig: Some("/proc/version".into()), ..home.places() };
    assert!(Merge::prepare(&read_only, &workspace).is_err());
}

#[test]
fn a_lock_that_stays_is_named() {
    let home = Home::with(OWN);
    let workspace = home.workspace();
    let places = Places { lock_wait: Duration::ZERO, ..home.places() };
    let mut merge = Merge::prepare(&places, &workspace).unwrap();
    merge.add(&workspace, &token("t"), 1).unwrap();
    let lock = home.kube().join("config.lock");
    fs::write(&lock, "").unwrap();
    for error in [Merge::prepare(&places, &workspace).err().unwrap(), merge.undo().unwrap_err()] {
        assert!(matches!(&error, MergeError::Locked { lock: named, .. } if *named == lock), "{error}");
        assert!(error.to_string().contains("config.lock") && error.to_string().contains("remove"), "{error}");
    }
    assert!(lock.exists(), "it is another program's");
    fs::remove_file(&lock).unwrap();

    // The session ended without removing its entries: the next run does.
    drop(merge);
    workspace.close().unwrap();
    assert_eq!(Merge::recover(&places).unwrap(), ["mykube-prod-2"]);
    assert_eq!(home.text(), OWN);
    assert!(!lock.exists());
}

#[test]
fn many_clients_merge_at_once() {
    const CLIENTS: usize = 8;
    let home = Home::with(OWN);
    let all_added = Barrier::new(CLIENTS + 1);
    let all_seen = Barrier::new(CLIENTS + 1);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let workspace = home.workspace();
                let mut merge = Merge::prepare(&home.places(), &workspace).unwrap();
                merge.add(&workspace, &token("t"), 1).unwrap();
                all_added.wait();
                all_seen.wait();
                match merge.undo() {
                    // A loaded machine may not let all of them get the lock in that time; the next run removes their
                    // entries.
                    Ok(_) | Err(MergeError::Locked { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            });
        }
        all_added.wait();
        let merged = parse(&home.text());
        for number in 2..CLIENTS + 2 {
            assert!(find(&merged, "contexts", &format!("mykube-prod-{number}")).is_some(), "{number}");
        }
        all_seen.wait();
    });
    Merge::recover(&home.places()).unwrap();
    assert_eq!(home.text(), OWN);
    assert_eq!(home.others(), [""; 0]);
}

/// A client that is killed while its entries are in the file.
#[test]
#[ignore = "started, and killed, by another test"]
fn inner() {
    let home = PathBuf::from(std::env::var_os("TEST_HOME").unwrap());
    let places = Places { kubeconfig: None, home: Some(home.clone()), lock_wait: Duration::from_secs(20) };
    let workspace = Workspace::create(Some(&home)).unwrap();
    let mut merge = Merge::prepare(&places, &workspace).unwrap();
    println!("\nmerged as {}", merge.add(&workspace, &token("t"), 1).unwrap());
    // Waits to be killed.
    std::io::stdin().read_line(&mut String::new()).unwrap();
    std::mem::forget(merge);
    std::process::exit(1);
}

#[test]
fn the_next_run_removes_what_a_killed_one_left() {
    let home = Home::with(OWN);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "inner", "--nocapture"])
        .env("TEST_HOME", home.0.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let name = lines.find_map(|line| line.strip_prefix("merged as ").map(str::to_owned)).unwrap();
    assert_eq!(name, "mykube-prod-2");

    let alive = home.text();
    assert_eq!(Merge::recover(&home.places()).unwrap(), [""; 0]);
    drop(Merge::prepare(&home.places(), &home.workspace()).unwrap());
    assert_eq!(home.text(), alive, "a live session's entries stay");
    child.kill().unwrap();
    child.wait().unwrap();
    // A half-written file is removed, too.
    fs::write(home.kube().join(".config.mykube-AbC123"), "x").unwrap();

    let elsewhere = alive.replace("\"host\": \"", "\"host\": \"not-").replace("mykube-prod-2", "mykube-elsewhere");
    fs::write(home.config(), &elsewhere).unwrap();
    assert_eq!(Merge::recover(&home.places()).unwrap(), [""; 0], "of another machine nobody can tell");
    assert_eq!(home.text(), elsewhere);
    fs::write(home.config(), &alive).unwrap();

    let workspace = home.workspace();
    drop(Merge::prepare(&home.places(), &workspace).unwrap());
    assert_eq!(home.text(), OWN);
    assert_eq!(home.others(), [""; 0]);
    fs::write(home.config(), &alive).unwrap();
    assert_eq!(Merge::recover(&home.places()).unwrap(), ["mykube-prod-2"]);
    assert_eq!(home.text(), OWN);
}

#[test]
fn a_mark_that_lies_touches_nothing_else() {
    let host = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    let item = |name: &str, dir: &str| {
        let mark = json!({"dir": dir, "host": host, "pid": 1, "port": 1});
        json!({"name": name, "context": {"extensions": [{"name": "mykube", "extension": mark}]}})
    };
    let home = Home::new();
    fs::create_dir(home.kube()).unwrap();
    let fifo = home.0.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let contexts = [
        item("mine", "/nonexistent"),
        item("mykube-relative", "nonexistent"),
        item("mykube-fifo", fifo.to_str().unwrap()),
        json!({"name": "mykube-bare", "context": {}}),
        json!({"name": "mykube-odd", "context": {"extensions": [{"name": "mykube", "extension": 7}]}}),
    ];
    fs::write(home.config(), json!({"contexts": contexts}).to_string()).unwrap();
    // A fifo is no session's directory, and is not opened to read it.
    assert_eq!(Merge::recover(&home.places()).unwrap(), ["mykube-fifo"]);
    let left = parse(&home.text());
    let names: Vec<_> =
        left["contexts"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["mine", "mykube-relative", "mykube-bare", "mykube-odd"]);
}
