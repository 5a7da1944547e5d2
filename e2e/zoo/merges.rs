//! `--merge` into kubeconfigs of every kind: meanwhile kubectl sees one more cluster, context and user, and the rest as
//! before; afterwards every byte is as it was.

use std::{fs, path::Path, process::Stdio, time::Duration};

use mykube_client::{
    Workspace,
    merge::{Merge, Places},
};
use serde_json::{Value, json};

use crate::support::{Sandbox, certs::Authority};

const BASE: &str = "apiVersion: v1\nkind: Config\ncurrent-context: dev   # where I work\nclusters:\n- name: dev\n  cluster: {server: \"https://127.0.0.1:1\", insecure-skip-tls-verify: true}\ncontexts:\n- name: dev\n  context:\n    cluster: dev\n    user: dev\nusers:\n- name: dev\n  user:\n    token: secret\npreferences: {}\n";
const FLOW: &str = "{apiVersion: v1, kind: Config, current-context: dev, clusters: [{name: dev, cluster: {server: \"https://127.0.0.1:1\"}}], contexts: [{name: dev, context: {cluster: dev, user: dev}}], users: [{name: dev, user: {token: t}}]}\n";

/// Name, content, and why mykube refuses it although kubectl reads it.
type Case = (&'static str, Vec<u8>, Option<&'static str>);

fn cases() -> Vec<Case> {
    let case = |name, text: &str| (name, text.as_bytes().to_vec(), None);
    let utf16 = |unit: fn(u16) -> [u8; 2]| std::iter::once(0xfeff).chain(BASE.encode_utf16()).flat_map(unit).collect();
    let json = json!({"kind": "Config", "apiVersion": "v1", "clusters": [{"name": "dev", "cluster": {"server": "https://127.0.0.1:1"}}], "contexts": [], "users": null, "current-context": ""});
    let spread = serde_json::to_string_pretty(&json).unwrap();
    vec![
        case("plain", BASE),
        case(
            "anchors and aliases",
            &BASE.replace(
                "true}",
                "true}\n- name: two\n  cluster: &two {server: \"https://127.0.0.1:2\"}\n- name: three\n  cluster: *two",
            ),
        ),
        case(
            "the first item is an anchor",
            &BASE.replace("clusters:\n- name: dev", "clusters:\n- &first\n  name: dev"),
        ),
        case("an item with a tag", &BASE.replace("clusters:\n- name: dev", "clusters:\n- !!map\n  name: dev")),
        case(
            "a merge key in an item",
            &BASE.replace(
                "true}",
                "true}\n- name: two\n  cluster: &b {server: x}\n- name: three\n  cluster: {<<: *b, tls-server-name: two.example}",
            ),
        ),
        (
            "a merge key at the top",
            format!("x: &x {{preferences: {{}}}}\n<<: *x\n{BASE}").into(),
            Some("lists may come with it, which ours would hide"),
        ),
        (
            "a list that is an alias",
            BASE.replace("kind:", "x: &x []\nkind:")
                .replace("preferences: {}", "extensions: *x")
                .replace("users:\n- name: dev\n  user:\n    token: secret\n", "users: *x\n")
                .into(),
            Some("what it names may be used elsewhere too"),
        ),
        case(
            "comments everywhere",
            &(BASE
                .replace("clusters:\n", "clusters:\n# mine\n\n")
                .replace("users:\n", "users: # people\n    # indented\n")
                + "# the end\n"),
        ),
        case(
            "indented lists",
            "clusters:\n    - name: dev\n      cluster: {}\ncontexts:\n  -\n    name: dev\nusers:\n - name: dev\n",
        ),
        case("CRLF", &BASE.replace('\n', "\r\n")),
        case("CR LF mixed", &BASE.replace("users:\n", "users:\r\n")),
        case("UTF-8 with a byte order mark", &format!("\u{feff}{BASE}")),
        ("UTF-16, little end first", utf16(u16::to_le_bytes), None),
        ("UTF-16, big end first", utf16(u16::to_be_bytes), None),
        ("Latin-1", [BASE.as_bytes(), b"# \xe4\n"].concat(), None),
        case("no last newline", BASE.trim_end()),
        case("a document's start and end", &format!("---\n{BASE}...\n")),
        case("two documents", &format!("{BASE}---\napiVersion: v1\nkind: Config\n")),
        case("a second document that is no YAML", &format!("{BASE}---\n{{ not: [yaml\n")),
        case("the first document empty", &format!("---\n---\n{BASE}")),
        case("%YAML 1.1", &format!("%YAML 1.1\n---\n{BASE}")),
        case(
            "lists null",
            "apiVersion: v1\nclusters: null\ncontexts: null\ncurrent-context: \"\"\nkind: Config\npreferences: {}\nusers: null\n",
        ),
        case("lists ~ and nothing", "apiVersion: v1\nclusters: ~\ncontexts:\nkind: Config\nusers: []\n"),
        case("one list missing", &BASE.replace("users:\n- name: dev\n  user:\n    token: secret\n", "")),
        case("only current-context", "apiVersion: v1\nkind: Config\ncurrent-context: dev\npreferences: {}\n"),
        case("empty", ""),
        case("blank lines", "\n\n"),
        case("only a comment", "# nothing yet\n"),
        case("only a comment, no newline", "# nothing yet"),
        case("only a document's start", "---\n"),
        case("{}", "{}\n"),
        case("{} without newline", "{}"),
        case("flow form", FLOW),
        case("flow form, lists null", "{kind: Config, clusters: null, contexts: ~, users: []}\n"),
        case(
            "flow lists over lines",
            "clusters: [\n  {name: dev, cluster: {}},   # one\n  ]\ncontexts: [ ]\nusers: [\n]\n",
        ),
        case("JSON", &spread),
        case("JSON with tabs", &spread.replace("  ", "\t")),
        case("JSON on one line", &json.to_string()),
        case(
            "quoted keys",
            &BASE
                .replace("clusters:", "\"clusters\":")
                .replace("users:", "'users':")
                .replace("contexts:", "\"contexts\" :"),
        ),
        case(
            "a block scalar before a list",
            &BASE.replace(
                "clusters:\n",
                "extensions:\n- name: note\n  extension: |\n    clusters:\n    - name: not really\nclusters:\n",
            ),
        ),
        case(
            "a folded token at the end",
            &BASE.replace("    token: secret\npreferences: {}\n", "    token: >-\n      secret-\n      token\n"),
        ),
        case("names with colon, slash, umlaut", &BASE.replace("dev", "\"api-ü:6443/kube:admin\"")),
        case("a key twice", &format!("{BASE}current-context: dev\n")),
        case("a list twice", &format!("users:\n- name: old\n{BASE}")),
        case("two contexts of one name", &BASE.replace("contexts:\n", "contexts:\n- name: dev\n")),
        case("YAML 1.1 words", &BASE.replace("true", "yes").replace("secret", "\"0123\"")),
        case(
            "a long line",
            &BASE.replace("token: secret", &format!("token: secret\n    client-key-data: {}", "A".repeat(1 << 20))),
        ),
        case(
            "2,000 contexts",
            &BASE.replace(
                "contexts:\n",
                &format!(
                    "contexts:\n{}",
                    (0..2000)
                        .map(|n| format!("- name: c{n}\n  context: {{cluster: dev, user: dev}}\n"))
                        .collect::<String>()
                ),
            ),
        ),
        case(
            "a name that would be ours",
            &BASE.replace("contexts:\n", "contexts:\n- name: mykube-c\n  context: {cluster: dev, user: dev}\n"),
        ),
        case("trailing spaces", &BASE.replace("clusters:", "clusters:   ").replace("users:", "users:\t")),
        case("no YAML", "clusters: [\n"),
        case("a list at the top", "- a\n"),
        case("a list that is a map", "clusters: {}\n"),
        (
            "explicit keys",
            b"? kind\n: Config\n? clusters\n:\n  - name: dev\n".to_vec(),
            Some("there is no line of the first key's own, and nobody writes so"),
        ),
    ]
}

/// Names and contents of the three lists and the current context, as kubectl sees them; `None` if it cannot read them.
fn view(sandbox: &Sandbox, file: &Path) -> Option<Value> {
    let mut command = sandbox.command("kubectl");
    command.args(["config", "view", "--raw", "--output", "json", "--kubeconfig"]).arg(file).stdin(Stdio::null());
    let done = command.output().unwrap();
    done.status.success().then(|| serde_json::from_slice(&done.stdout).unwrap())
}

#[test]
fn merged_and_as_before() {
    let welcome = serde_json::from_value(json!({"mode": "shared", "cluster": "c", "ca": Authority::new("zoo").pem(),
        "credentials": {"token": "t"}}));
    let welcome = welcome.unwrap();
    let mut wrong = Vec::new();
    for (name, bytes, reason) in cases() {
        let sandbox = Sandbox::new();
        let file = sandbox.file("config", &bytes);
        let before = view(&sandbox, &file);
        let places = Places { kubeconfig: Some(file.clone().into()), home: None, lock_wait: Duration::from_secs(20) };
        let workspace = Workspace::create(Some(sandbox.ram())).unwrap();
        let merged = Merge::prepare(&places, &workspace)
            .and_then(|mut merge| merge.add(&workspace, &welcome, 1).map(str::to_owned).map(|added| (merge, added)));
        match (&before, merged) {
            (Some(before), Ok((mut merge, added))) => {
                let mut during = view(&sandbox, &file).unwrap_or_default();
                for list in ["clusters", "contexts", "users"] {
                    let items = during[list].as_array_mut().into_iter().flatten();
                    let rest: Vec<_> = items.filter(|item| item["name"] != added).map(|item| item.take()).collect();
                    let had = before[list].as_array().map_or(0, Vec::len);
                    if rest.len() != had {
                        wrong.push(format!("{name}: {list} has {} others than ours, not {had}", rest.len()));
                    }
                    during[list] = if rest.is_empty() { before[list].clone() } else { rest.into() };
                }
                if during != *before || reason.is_some() {
                    wrong.push(format!("{name}: {before} became {during}"));
                }
                merge.undo().unwrap();
            }
            (Some(_), Err(error)) if reason.is_none() => wrong.push(format!("{name}: {error}")),
            (_, merged) => drop(merged),
        }
        if fs::read(&file).unwrap() != bytes {
            wrong.push(format!("{name}: not as before: {:?}", fs::read_to_string(&file)));
        }
        println!("{name}: kubectl {}", if before.is_some() { "reads it" } else { "cannot read it" });
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
