//! Finding, merging and choosing as kubectl does; and the ways in which a kubeconfig can be wrong.

mod common;

use common::{Fixture, base64, config, identity};
use mykube_agent_upstream::{KubeconfigError, kubeconfig::KUBECONFIG_MAX};
use mykube_protocol::channel::Mode;

#[tokio::test]
async fn a_welcome_has_what_a_client_needs() {
    let (ca, _) = identity();
    let cluster = format!(
        "server: https://rancher.example:8443/k8s/clusters/c-1/\ntls-server-name: inner.example\n\
         certificate-authority-data: {}",
        base64(&format!("a comment that stays here\n{}", ca.replace('\n', "\r\n")))
    );
    let mut f = Fixture::with_cluster(&cluster);
    let text = config(&cluster, "token: t0k3n").replace("user: dev}", "user: dev, namespace: web}");
    f.source.kubeconfig = Some(f.write("config", text));
    let upstream = f.load().await.unwrap();
    assert_eq!(upstream.address(), "rancher.example:8443");
    let welcome = f.welcome().await.unwrap();
    assert_eq!(welcome.mode, Mode::Shared);
    assert_eq!(welcome.cluster, "prod");
    assert_eq!(welcome.server_name.as_deref(), Some("inner.example"));
    assert_eq!(welcome.path.as_deref(), Some("/k8s/clusters/c-1"));
    assert_eq!(welcome.ca.as_deref().map(str::trim), Some(ca.replace("\r\n", "\n").trim()));
    assert!(!welcome.insecure_skip_tls_verify);
    assert_eq!(welcome.namespace.as_deref(), Some("web"));
    let credentials = welcome.credentials.unwrap();
    assert_eq!(credentials.token.as_deref(), Some("t0k3n"));
    assert!(!credentials.expiring && credentials.certificate.is_none() && credentials.username.is_none());
    assert!(!format!("{upstream:?}").contains("t0k3n"));
}

#[tokio::test]
async fn without_a_ca_the_clients_system_roots_are_meant_and_the_host_is_verified() {
    let welcome = Fixture::with_cluster("server: 'https://[fd00::1]'").welcome().await.unwrap();
    assert_eq!(welcome.ca, None);
    assert_eq!(welcome.server_name.as_deref(), Some("fd00::1"));
    assert_eq!(welcome.path, None);
    assert_eq!(welcome.namespace, None);
}

#[tokio::test]
async fn insecure_only_where_the_source_says_so() {
    let f = Fixture::with_cluster("server: 10.0.0.1:6443\ninsecure-skip-tls-verify: true");
    assert!(f.welcome().await.unwrap().insecure_skip_tls_verify);
    let f = Fixture::with_cluster("server: https://h\ninsecure-skip-tls-verify: true\ncertificate-authority: ca.crt");
    assert!(f.failure().await.contains("insecure-skip-tls-verify"));
}

#[tokio::test]
async fn a_ca_file_stands_beside_its_kubeconfig() {
    let f = Fixture::with_cluster("server: https://h\ncertificate-authority: pki/ca.crt");
    assert!(f.failure().await.contains("`certificate-authority` of cluster \"prod\""));
    f.write("pki/ca.crt", "not a certificate, hunter2");
    assert!(f.failure().await.contains("no certificate in PEM form"));
    let ca = identity().0;
    f.write("pki/ca.crt", &ca);
    assert_eq!(
        f.welcome().await.unwrap().ca.map(|pem| pem.trim().to_owned()),
        Some(ca.replace("\r\n", "\n").trim().to_owned())
    );
    let empty =
        Fixture::with_cluster("server: https://h\ncertificate-authority: ''\ntls-server-name: ''\nproxy-url: ''");
    assert_eq!(empty.welcome().await.unwrap().ca, None);
}

#[tokio::test]
async fn the_flag_wins_over_the_variable_and_that_over_home() {
    let mut f = Fixture::new();
    let named = |name: &str| config("server: https://h", "token: t").replace("prod", name);
    f.write("home/.kube/config", named("home"));
    assert_eq!(f.load().await.unwrap().cluster_name, "home");
    f.var("KUBECONFIG", "");
    assert_eq!(f.load().await.unwrap().cluster_name, "home");
    f.var("KUBECONFIG", ":");
    assert!(f.failure().await.contains("KUBECONFIG, which names none"), "a list of nothing is one");
    let listed = f.write("listed", named("listed"));
    f.var("KUBECONFIG", listed);
    assert_eq!(f.load().await.unwrap().cluster_name, "listed");
    f.source.kubeconfig = Some(f.write("flag", named("flag")));
    assert_eq!(f.load().await.unwrap().cluster_name, "flag");
    f.source.kubeconfig = Some(f.path("absent"));
    assert!(matches!(f.load().await, Err(KubeconfigError::Missing(_))));
}

#[tokio::test]
async fn of_several_files_the_first_to_define_a_thing_wins() {
    let mut f = Fixture::new();
    f.write("one/tok", "from-one");
    f.write("two/tok", "from-two");
    let one = f.write(
        "one/config",
        "current-context: ''\nusers:\n- name: shared\n  user: {tokenFile: tok}\nclusters:\n- name: c\n  cluster: {server: 'https://one'}\n",
    );
    let two = f.write(
        "two/config",
        "current-context: x\ncontexts:\n- name: x\n  context: {cluster: c, user: shared, namespace: n2}\n\
         - name: 'y'\n  context: {cluster: d, user: own}\n\
         users:\n- name: shared\n  user: {token: hunter2}\n- name: own\n  user: {tokenFile: ./tok}\n\
         clusters:\n- name: c\n  cluster: {server: 'https://two', insecure-skip-tls-verify: true}\n\
         - name: d\n  cluster: {server: 'https://d'}\n",
    );
    let three = f.write(
        "three",
        "current-context: 'y'\ncontexts:\n- name: x\n  context: {cluster: d, user: own, namespace: n3}\n",
    );
    let list = std::env::join_paths([f.path("absent"), one, f.path("also-absent"), two, three]).unwrap();
    f.var("KUBECONFIG", list);

    let welcome = f.welcome().await.unwrap();
    assert_eq!(welcome.server_name.as_deref(), Some("one"));
    assert!(!welcome.insecure_skip_tls_verify, "an entry is taken whole, not field by field");
    assert_eq!(welcome.namespace.as_deref(), Some("n2"));
    assert_eq!(welcome.credentials.unwrap().token.as_deref(), Some("from-one"));

    f.source.context = Some("y".into());
    let welcome = f.welcome().await.unwrap();
    assert_eq!(welcome.server_name.as_deref(), Some("d"));
    assert_eq!(welcome.credentials.unwrap().token.as_deref(), Some("from-two"), "relative to the second file");
}

#[tokio::test]
async fn in_a_pod_the_service_account() {
    let mut f = Fixture::new();
    let ca = identity().0;
    f.write("serviceaccount/token", "pod-token\n");
    f.write("serviceaccount/ca.crt", &ca);
    f.write("serviceaccount/namespace", "ops");
    f.var("KUBERNETES_SERVICE_HOST", "10.96.0.1");
    assert!(matches!(f.load().await, Err(KubeconfigError::NoneFound(_))), "both variables are needed");
    f.var("KUBERNETES_SERVICE_PORT", "443");
    let upstream = f.load().await.unwrap();
    assert_eq!(upstream.address(), "10.96.0.1:443");
    let welcome = f.welcome().await.unwrap();
    assert_eq!((welcome.cluster.as_str(), welcome.namespace.as_deref()), ("in-cluster", Some("ops")));
    assert_eq!(welcome.server_name.as_deref(), Some("10.96.0.1"));
    assert!(welcome.ca.is_some());
    let credentials = welcome.credentials.unwrap();
    assert_eq!(credentials.token.as_deref(), Some("pod-token"));
    assert!(credentials.expiring);

    // A kubeconfig wins over the service account, an empty one does not, and one that is named must be good.
    f.write("home/.kube/config", "");
    assert_eq!(f.load().await.unwrap().cluster_name, "in-cluster");
    f.source.context = Some("x".into());
    assert!(matches!(f.load().await, Err(KubeconfigError::Empty(_))));
    f.source.context = None;
    f.source.kubeconfig = Some(f.path("home/.kube/config"));
    assert!(matches!(f.load().await, Err(KubeconfigError::Empty(_))));
    f.source.kubeconfig = None;
    f.write("home/.kube/config", config("server: https://h", "token: t"));
    assert_eq!(f.load().await.unwrap().cluster_name, "prod");

    std::fs::remove_file(f.path("home/.kube/config")).unwrap();
    f.var("KUBERNETES_SERVICE_PORT", "six");
    assert!(f.failure().await.contains("KUBERNETES_SERVICE_PORT"));
}

#[tokio::test]
async fn what_is_wrong_is_said_with_the_file_and_what_to_do() {
    let good = config("server: https://h", "token: t");
    for (text, expected) in [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("kind: Config\nclusters: []\nusers: null\n", "is empty"),
        ("hunter2", "is not a valid kubeconfig"),
        ("users: [}\n  hunter2", "is not a valid kubeconfig (line 1, column 8)"),
        ("users:\n- user: {token: hunter2}\n", "has no current-context"),
        (
            "users:\n- name: hunter2\n  user: {username: a, password: 1234}\n",
            "is not a valid kubeconfig (at users[0].user.password: of another type; a text like 123 or yes needs quotes)",
        ),
        (
            &format!("{good}- name: other\n  context: {{cluster: prod, namespace: no}}\n"),
            "is not a valid kubeconfig (at contexts[1].context.namespace: of another type",
        ),
        (&format!("{good}- name: ctx\n  context: {{}}\n"), "`contexts` of"),
        (&format!("{good}- name: ctx\n  context: {{}}\n"), "has two entries with the name \"ctx\""),
        (&good.replace("cluster: prod,", ""), "context \"ctx\" in"),
        (&good.replace("cluster: prod,", ""), "names no cluster: add `cluster`"),
        (
            "kind: Secret\nusers:\n- name: a\n  user: {token: hunter2}\n",
            "is not a kubeconfig (those have `kind: Config`",
        ),
        (
            &good.replace("current-context: ctx\n", ""),
            "has no current-context: choose one with --context (there is \"ctx\")",
        ),
        (&good.replace("current-context: ctx", "current-context: gone"), "there is no context \"gone\" in"),
        (&good.replace("cluster: prod,", "cluster: gone,"), "context \"ctx\" in"),
        (&good.replace("cluster: prod,", "cluster: gone,"), "names the cluster \"gone\", which is not there"),
        (&good.replace("user: dev}", "user: gone}"), "names the user \"gone\", which is not there"),
        (&good.replace("server: https://h", "proxy-url: ''"), "cluster \"prod\" in"),
        (&good.replace("server: https://h", "proxy-url: ''"), "has no `server`"),
        (&good.replace("https://h", "http://127.0.0.1:8080"), "only for https:// servers"),
        (&good.replace("user: dev}", "user: dev, namespace: 'Hunter/../x'}"), "`namespace` of context \"ctx\""),
        (
            &good.replace("server: https://h", "server: https://h\n    proxy-url: ftp://x:hunter2@p"),
            "`proxy-url` of cluster \"prod\"",
        ),
        (&good.replace("server: https://h", "server: https://h\n    tls-server-name: 'a b'"), "`tls-server-name` of"),
        (
            &good.replace("server: https://h", "server: https://h\n    certificate-authority-data: '*hunter2'"),
            "`certificate-authority-data` of cluster \"prod\"",
        ),
    ] {
        let mut f = Fixture::new();
        let path = f.write("the-config", text);
        f.source.kubeconfig = Some(path.clone());
        let message = f.failure().await;
        assert!(message.contains(expected), "{text}\n-> {message}");
        assert!(message.contains(path.to_str().unwrap()), "{message}");
    }
}

#[tokio::test]
async fn unreadable_and_huge_files_are_refused() {
    let mut f = Fixture::new();
    assert!(f.failure().await.contains("home/.kube/config"), "says where it looked");
    f.source.kubeconfig = Some(f.dir.path().to_owned());
    assert!(f.failure().await.contains("cannot be read"));
    f.source.kubeconfig = Some(f.write("binary", b"\xff\x00hunter2"));
    assert!(f.failure().await.contains("not text in UTF-8, or in UTF-16"));
    let path = f.write("huge", "");
    std::fs::File::options().write(true).open(&path).unwrap().set_len(KUBECONFIG_MAX + 1).unwrap();
    f.source.kubeconfig = Some(path);
    assert!(matches!(f.load().await, Err(KubeconfigError::TooLarge { .. })));
}

#[tokio::test]
async fn a_byte_order_mark_is_no_fault() {
    let mut f = Fixture::new();
    let text = format!("\u{feff}{}", config("server: https://h", "token: t"));
    let utf16 = |unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
    for bytes in [text.clone().into_bytes(), utf16(u16::to_le_bytes), utf16(u16::to_be_bytes)] {
        f.source.kubeconfig = Some(f.write("bom", bytes));
        assert_eq!(f.load().await.unwrap().cluster_name, "prod");
    }
}

#[tokio::test]
async fn what_is_null_is_missing() {
    let mut f = Fixture::new();
    let text = config("server: https://h", "token: t");
    let odd = "- name: other\n  context: {user: x, namespace: ~}\n- null\n";
    let users = "users:\n- name: odd\n  user: {token: null, auth-provider: {config: null}, as-groups: [null], \
                 exec: {args: [null], env: [null, {name: A, value: null}], provideClusterInfo: null, interactiveMode: ''}}\n";
    let text = text.replace("users:\n", users).replace("contexts:\n", &format!("contexts:\n{odd}"));
    let clusters =
        "clusters:\n- cluster: null\n  name: none\n- name: odd\n  cluster: {extensions: [{name: x}, null]}\n";
    f.source.kubeconfig = Some(f.write("nulls", text.replace("clusters:\n", clusters)));
    assert_eq!(f.load().await.unwrap().cluster_name, "prod");
}

#[tokio::test]
async fn aliases_that_fill_the_memory_are_refused() {
    let mut f = Fixture::new();
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        text += &format!("a{level}: &a{level} [{}]\n", [before.as_str(); 10].join(", "));
    }
    f.source.kubeconfig = Some(f.write("config", text + &config("server: https://h", "token: t")));
    assert!(f.failure().await.contains("its aliases mean far more than is written"));
}

#[tokio::test]
async fn hostile_names_are_made_plain_and_cleaned() {
    for (name, plain) in [
        ("../../etc/passwd", "etc-passwd"),
        ("$(reboot)", "reboot"),
        ("a'b\\\"c", "a-b-c"),
        ("x\\ny\\e[31m", "x-y--31m"),
        ("\\u202e", "cluster"),
        ("gke_p_europe-west1_c", "gke_p_europe-west1_c"),
    ] {
        let mut f = Fixture::new();
        let text = config("server: https://h", "token: t").replace("prod", &format!("\"{name}\""));
        f.source.kubeconfig = Some(f.write("config", &text));
        assert_eq!(f.welcome().await.unwrap().cluster, plain, "{name}");
        f.source.kubeconfig = Some(f.write("config", text.replace("server: https://h", "{}")));
        let message = f.failure().await;
        assert!(!message.contains(['\u{1b}', '\n', '\u{202e}']), "{message:?}");
    }
    let mut f = Fixture::with_user("token: t");
    f.source.context = Some("\u{1b}[2J\u{202e}gone".into());
    assert!(f.failure().await.contains("no context \"[2Jgone\""));
}
