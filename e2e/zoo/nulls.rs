//! Fields that are null, empty or missing, used or not.

use super::entry::{CLUSTER, CONTEXT, Entry, USER, config, plain, with_cluster, with_user};

pub(super) fn entries() -> Vec<Entry> {
    let cluster = |field: &str| with_cluster(&format!("{CLUSTER}, {field}"));
    let user = |field: &str| with_user(&format!("{USER}, {field}"));
    let context = |field: &str| config(CLUSTER, USER, &format!("{CONTEXT}, {field}"));
    let top = |field: &str| format!("{}{field}\n", plain());
    // In an entry that is not used, beside the one that is.
    let other_cluster = |item: &str| plain().replace("clusters:\n", &format!("clusters:\n- {item}\n"));
    let other_user = |item: &str| plain().replace("users:\n", &format!("users:\n- {item}\n"));
    let other_context = |item: &str| plain().replace("contexts:\n", &format!("contexts:\n- {item}\n"));
    const ASKS: &str = "kubectl asks a person for a user name where there are no credentials; mykube asks nobody and is \
                        anonymous, which a proxy in front may be all there needs to be";
    const PLUGIN: &str = "#!/bin/sh\necho '{\"apiVersion\": \"client.authentication.k8s.io/v1beta1\", \"kind\": \"ExecCredential\", \"status\": {\"token\": \"from-plugin\"}}'\n";
    let plugin = |name, fields: &str| {
        let exec = format!("exec: {{apiVersion: client.authentication.k8s.io/v1beta1, command: ./plugin, {fields}}}");
        Entry::new(name, with_user(&exec)).program("plugin", PLUGIN)
    };
    let provider = |name, fields: &str| Entry::new(name, with_user(&format!("auth-provider: {{{fields}}}")));
    vec![
        plugin("exec: lists null", "args: null, env: null"),
        plugin("exec: texts null", "installHint: null, interactiveMode: null"),
        plugin("exec: provideClusterInfo null", "provideClusterInfo: null"),
        plugin("exec: interactiveMode empty", "interactiveMode: ''"),
        plugin("exec: a variable with value null", "env: [{name: A, value: null}]"),
        plugin("exec: a variable without value", "env: [{name: A}]"),
        plugin("exec: a variable without name", "env: [{value: a}]"),
        plugin("exec: a null among the variables", "env: [null]"),
        plugin("exec: a null among the arguments", "args: [null, a]"),
        plugin("exec: interactiveMode unknown", "interactiveMode: Sometimes"),
        plugin("exec: provideClusterInfo is a text", "provideClusterInfo: 'true'"),
        plugin("exec: an argument is a number", "args: [1]"),
        provider("auth-provider: config null", "config: null"),
        provider("auth-provider: gcp, everything null", "name: gcp, config: null"),
        provider("auth-provider: a number in its config", "name: gcp, config: {a: 1}"),
        Entry::new("the plainest one", plain()),
        Entry::new("kind missing", plain().replace("kind: Config\n", "")),
        Entry::new("apiVersion missing", plain().replace("apiVersion: v1\n", "")),
        Entry::new(
            "kind and apiVersion null",
            plain().replace("kind: Config", "kind:").replace("apiVersion: v1", "apiVersion: ~"),
        ),
        Entry::new(
            "kind and apiVersion empty",
            plain().replace("kind: Config", "kind: ''").replace("apiVersion: v1", "apiVersion: ''"),
        ),
        Entry::new("top: preferences null", top("preferences: null")),
        Entry::new("top: preferences empty", top("preferences: {}")),
        Entry::new("top: extensions null", top("extensions: null")),
        Entry::new("top: an extension without extension", top("extensions: [{name: x}]")),
        Entry::new("current-context null", plain().replace("current-context: ctx", "current-context:")),
        Entry::new("current-context missing, --context", plain().replace("current-context: ctx\n", "")).context("ctx"),
        Entry::new("all lists null", "apiVersion: v1\nkind: Config\nclusters: null\ncontexts: null\nusers: null\n"),
        Entry::new(
            "cluster: every field null",
            cluster(
                "tls-server-name: null, insecure-skip-tls-verify: null, certificate-authority: null, proxy-url: null, disable-compression: null, extensions: null",
            ),
        ),
        Entry::new(
            "cluster: every text empty",
            cluster("tls-server-name: '', certificate-authority: '', proxy-url: ''"),
        ),
        Entry::new("cluster: insecure-skip-tls-verify false", cluster("insecure-skip-tls-verify: false")),
        Entry::new(
            "cluster: certificate-authority-data null, insecure",
            with_cluster("server: 'https://$SERVER', certificate-authority-data: null, insecure-skip-tls-verify: true"),
        ),
        Entry::new("cluster: extension without extension", cluster("extensions: [{name: x}]")),
        Entry::new(
            "cluster: extension null",
            cluster("extensions: [{name: client.authentication.k8s.io/exec, extension: null}]"),
        ),
        Entry::new("cluster: extension without name", cluster("extensions: [{extension: {a: 1}}]")),
        Entry::new("cluster: a null among the extensions", cluster("extensions: [null]")),
        Entry::new("cluster: server null", with_cluster("server: null, certificate-authority-data: $CA")),
        Entry::new("cluster: server missing", with_cluster("certificate-authority-data: $CA")),
        Entry::new("cluster: null", plain().replace(&format!("cluster: {{{CLUSTER}}}"), "cluster: null")),
        Entry::new(
            "user: every field null",
            user(
                "tokenFile: null, username: null, password: null, client-certificate: null, client-certificate-data: null, client-key: null, client-key-data: null, auth-provider: null, exec: null, extensions: null",
            ),
        ),
        Entry::new(
            "user: every text empty",
            user(
                "tokenFile: '', username: '', password: '', client-certificate: '', client-certificate-data: '', client-key: '', client-key-data: ''",
            ),
        ),
        Entry::new("user: impersonation null", user("as: null, as-uid: null, as-groups: null, as-user-extra: null")),
        Entry::new("user: impersonation empty", user("as: '', as-uid: '', as-groups: [], as-user-extra: {}")),
        Entry::new("user: a null in as-user-extra", user("as: ann, as-user-extra: {scopes: null}")),
        Entry::new(
            "user: exec with everything null beside a token",
            user(
                "exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: none, args: null, env: null, installHint: null, provideClusterInfo: null, interactiveMode: null}",
            ),
        ),
        Entry::new(
            "user: exec v1beta1 with empty interactiveMode beside a token",
            user("exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: none, interactiveMode: ''}"),
        ),
        Entry::new(
            "user: exec env with a null value beside a token",
            user(
                "exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: none, env: [{name: A, value: null}]}",
            ),
        ),
        Entry::new("user: null", plain().replace("user: {token: tok}", "user: null")).differs(ASKS),
        Entry::new("user: {}", with_user("")).differs(ASKS),
        Entry::new("user: token null", with_user("token: null")).differs(ASKS),
        Entry::new("context: extensions null", context("extensions: null")),
        Entry::new("context: namespace null", context("namespace: null")),
        Entry::new("context: namespace empty", context("namespace: ''")),
        Entry::new("context: extension without extension", context("extensions: [{name: x}]")),
        Entry::new("context: user null", config(CLUSTER, USER, "cluster: c, user: null")).differs(ASKS),
        Entry::new("context: user missing", config(CLUSTER, USER, "cluster: c")).differs(ASKS),
        Entry::new(
            "context: user empty, and a user without name",
            config(CLUSTER, USER, "cluster: c, user: ''").replace("- name: u\n  user", "- user"),
        ),
        Entry::new("context: cluster missing", config(CLUSTER, USER, "user: u")),
        Entry::new(
            "context: cluster missing, and a cluster without name",
            config(CLUSTER, USER, "user: u").replace("- name: c\n  cluster", "- cluster"),
        ),
        Entry::new("context: null", plain().replace(&format!("context: {{{CONTEXT}}}"), "context: null")),
        Entry::new("unused cluster: null", other_cluster("{name: o, cluster: null}")),
        Entry::new("unused cluster: without cluster", other_cluster("name: o")),
        Entry::new("unused cluster: null item", other_cluster("null")),
        Entry::new("unused cluster: two null items", other_cluster("null\n- null")),
        Entry::new(
            "unused cluster: extension without extension",
            other_cluster("{name: o, cluster: {extensions: [{name: x}]}}"),
        ),
        Entry::new(
            "unused user: auth-provider with null config",
            other_user("{name: o, user: {auth-provider: {config: null}}}"),
        ),
        Entry::new(
            "unused user: auth-provider with a null in its config",
            other_user("{name: o, user: {auth-provider: {name: gcp, config: {expiry: null, access-token: x}}}}"),
        ),
        Entry::new(
            "unused user: provideClusterInfo null",
            other_user("{name: o, user: {exec: {command: x, provideClusterInfo: null}}}"),
        ),
        Entry::new(
            "unused user: interactiveMode empty",
            other_user("{name: o, user: {exec: {command: x, interactiveMode: ''}}}"),
        ),
        Entry::new(
            "unused user: interactiveMode unknown",
            other_user("{name: o, user: {exec: {command: x, interactiveMode: Sometimes}}}"),
        ),
        Entry::new(
            "unused user: env with nulls",
            other_user("{name: o, user: {exec: {command: x, env: [{value: null}, {name: null}, null]}}}"),
        ),
        Entry::new(
            "unused user: args with a null",
            other_user("{name: o, user: {exec: {command: x, args: [a, null]}}}"),
        ),
        Entry::new(
            "unused user: exec v1alpha1",
            other_user("{name: o, user: {exec: {apiVersion: client.authentication.k8s.io/v1alpha1, command: x}}}"),
        ),
        Entry::new("unused context: without cluster", other_context("{name: o, context: {user: u}}")),
        Entry::new("unused context: null", other_context("{name: o, context: null}")),
        Entry::new("unused context: without context", other_context("name: o")),
    ]
}
