//! Several files, and none.

use super::entry::{CLUSTER, Entry, plain};

pub(super) fn entries() -> Vec<Entry> {
    const LIST: &str = "$HOME/config:$HOME/second";
    let rest = plain().replace("current-context: ctx\n", "");
    let pair =
        |name: &'static str, first: &str| Entry::new(name, first).file("second", rest.clone()).env("KUBECONFIG", LIST);
    vec![
        Entry::new("one file", plain()).env("KUBECONFIG", "$HOME/config"),
        Entry::new("a relative one", plain()).env("KUBECONFIG", "config"),
        Entry::new("in the home", "").file(".kube/config", plain()).env("KUBECONFIG", ""),
        Entry::new("the list of nothing does not mean the home", "")
            .file(".kube/config", plain())
            .env("KUBECONFIG", ":"),
        Entry::new("in the home, while another is named", "")
            .file(".kube/config", plain())
            .env("KUBECONFIG", "$HOME/config"),
        Entry::new("one that is not there", "").env("KUBECONFIG", "$HOME/gone"),
        pair(
            "first: lists null",
            "apiVersion: v1\nclusters: null\ncontexts: null\ncurrent-context: ctx\nkind: Config\npreferences: {}\nusers: null\n",
        ),
        pair("first: lists without a value", "clusters:\ncontexts:\nusers:\ncurrent-context: ctx\n"),
        pair("first: only current-context", "apiVersion: v1\nkind: Config\ncurrent-context: ctx\n"),
        pair("first: empty", "").context("ctx"),
        pair("first: a comment", "# made by a tool\n").context("ctx"),
        pair("first: {}", "{}\n").context("ctx"),
        pair("first: null", "null\n").context("ctx"),
        pair("first: no YAML", "a: [\n").context("ctx"),
        pair("first: another kind", "kind: Secret\n").context("ctx"),
        pair("first: another user of the name", "current-context: ctx\nusers: [{name: u, user: {token: first}}]\n"),
        pair("first: a user of the name without anything", "current-context: ctx\nusers: [{name: u}]\n")
            .differs("kubectl asks a person for a user name where there are no credentials; mykube is anonymous"),
        pair("first: current-context of a third", "current-context: other\n"),
        Entry::new("the second's current-context", "current-context: ''\n")
            .file("second", plain())
            .env("KUBECONFIG", LIST),
        Entry::new("the same file twice", plain()).env("KUBECONFIG", "$HOME/config:$HOME/config"),
        Entry::new("missing ones and gaps between", plain()).env("KUBECONFIG", "$HOME/gone::$HOME/config:"),
        Entry::new("relative to the second file", "current-context: ctx\n")
            .file("sub/second", plain().replace("token: tok", "tokenFile: tok"))
            .file("sub/tok", "from-sub")
            .file("tok", "from-home")
            .env("KUBECONFIG", "$HOME/config:$HOME/sub/second"),
        Entry::new("parts of a context in three files", "contexts: [{name: ctx, context: {cluster: c, user: u}}]\n")
            .file("second", format!("clusters: [{{name: c, cluster: {{{CLUSTER}}}}}]\n"))
            .file("third", "users: [{name: u, user: {token: tok}}]\ncurrent-context: ctx\n")
            .env("KUBECONFIG", "$HOME/config:$HOME/second:$HOME/third"),
        Entry::new(
            "another context by --context",
            format!("{}- name: o\n  user: {{token: other}}\n", plain())
                .replace("users:", "- name: octx\n  context: {cluster: c, user: o}\nusers:"),
        )
        .context("octx"),
        Entry::new("a context that is not there", plain()).context("gone"),
    ]
}
