use std::{fs, time::Duration};

use mykube_dial::{DialOptions, Trust};
use tokio::{sync::watch, time::timeout};

use super::*;
use crate::serve::Answer;
use mykube_agent_upstream::{Environment, KubeconfigSource};

/// A test that takes longer has failed.
const BOUND: Duration = Duration::from_secs(60);

/// An operator who never answers; counts the questions.
struct Silent(watch::Sender<u32>);

impl Ui for Silent {
    fn event(&mut self, _: &str, _: Event) {}

    fn confirm_words(&mut self, _: &str, _: &str) -> Answer {
        unreachable!("nobody pairs")
    }

    fn another_code(&mut self) -> Answer {
        self.0.send_modify(|asked| *asked += 1);
        Box::pin(std::future::pending())
    }
}

async fn clients(config: Config) -> Clients {
    let dir = tempfile::tempdir().unwrap();
    let (kubeconfig, ca) = (dir.path().join("config"), dir.path().join("ca.pem"));
    fs::write(
        &kubeconfig,
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\n\
         users: [{name: u, user: {token: t}}]\n\
         contexts: [{name: c, context: {cluster: c, user: u}}]\n",
    )
    .unwrap();
    fs::write(&ca, rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.pem()).unwrap();
    let source = KubeconfigSource { kubeconfig: Some(kubeconfig), ..Default::default() };
    let environment = Environment {
        vars: Default::default(),
        home: None,
        service_account: dir.path().join("none"),
        attended: true,
        terminal: false,
    };
    let upstream = Upstream::load(&source, &environment, Trust::new(Some(&ca)).unwrap()).await.unwrap();
    let options = DialOptions { ca_file: Some(ca), ..DialOptions::default() };
    let dialer = Dialer::new("http://127.0.0.1:1".parse().unwrap(), options).unwrap();
    let offer = Offer { upstream: Arc::new(upstream), access: Access::Shared, standing: Invitation::default() };
    Clients::new(dialer, offer, config)
}

const CONFIG: Config = Config {
    code_ttl: BOUND,
    verify: false,
    attended: true,
    burned_backoff: BOUND,
    max_clients: 1,
    stay: true,
    resume_window: BOUND,
    replace_after: None,
};

#[tokio::test]
async fn a_list_says_since_when_a_client_is_in_its_state_and_a_code_for_how_long() {
    let mut clients = clients(CONFIG).await;
    clients.guesses.burn(BOUND);
    let mut ui = Silent(watch::channel(0).0);
    let began = SystemTime::now();
    clients.admit(Invitation::default(), None, Wanted::Free);
    let changes = [
        (None, State::Waiting),
        (Some(Event::Paired), State::Connected),
        (Some(Event::Lost("gone".into())), State::Lost),
        (Some(Event::Back(Duration::ZERO)), State::Connected),
    ];
    for (change, state) in changes {
        if let Some(event) = change {
            clients.entries.get_mut(&1).unwrap().listed.since = SystemTime::UNIX_EPOCH;
            let notice = Notice::Event(event);
            clients.handle(ClientNotice { client: 1, name: "client-1".into(), notice }, &mut ui);
        }
        let (reply, mut listed) = oneshot::channel();
        clients.obey(Command::List(reply), &mut ui);
        let listed = listed.try_recv().unwrap();
        let [Listed { id: 1, state: told, since, .. }] = &listed[..] else { panic!("{listed:?}") };
        assert_eq!(*told, state);
        assert!((began..=SystemTime::now()).contains(since), "{state:?} since {since:?}");
    }
    assert_eq!(clients.absent(1), None);
    let lost = Time::from_micros(1_000_000);
    clients.slots.handle_lost(1, lost);
    let least = clock::now().since(lost);
    let Absent { client, lasting } = clients.absent(1).unwrap();
    assert_eq!(client, "client-1");
    assert!((least..=clock::now().since(lost)).contains(&lasting), "{lasting:?}");
}

#[tokio::test]
async fn an_unanswered_question_holds_nobody_up() {
    let clients = clients(CONFIG).await;
    clients.guesses.burn(BOUND);
    let (say, commands) = mpsc::channel(1);
    let (asked, mut questions) = watch::channel(0);
    let (stop, stopped) = oneshot::channel::<()>();
    let operator = async {
        for number in 1..=2 {
            // Killing the client whose question is open frees its slot for the next, which asks a question of its own.
            questions.wait_for(|asked| *asked == number).await.unwrap();
            let (reply, listed) = oneshot::channel();
            say.send(Command::List(reply)).await.ok().unwrap();
            let listed: Vec<_> = listed.await.unwrap().iter().map(|one| one.id).collect();
            assert_eq!(listed, [u64::from(number)]);
            let (reply, killed) = oneshot::channel();
            if number == 1 {
                say.send(Command::Kill(1, reply)).await.ok().unwrap();
                assert!(killed.await.unwrap());
            }
        }
        stop.send(()).unwrap();
    };
    let mut ui = Silent(asked);
    let serve = clients.run(commands, &mut ui, async { drop(stopped.await) });
    let (ended, ()) = timeout(BOUND, async { tokio::join!(serve, operator) }).await.expect("it hangs");
    assert_eq!(ended.unwrap(), Ended::Stopped);
}
