//! Secrets of one stream, with a provider that takes the word of each proxy.

use std::task::Waker;

use parking_lot::Mutex;

use super::*;

fn has_changed(secrets: &mut Secrets) -> bool {
    secrets.poll_changed(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// Believes everybody, and remembers what they said.
struct Believer {
    newest: watch::Sender<Option<Arc<Encoded>>>,
    asked: Mutex<Vec<Option<Version>>>,
}

/// Has no bytes until they change.
struct Kept(watch::Receiver<Option<Arc<Encoded>>>, bool);

impl Secret for Kept {
    fn current(&mut self) -> Option<Arc<Encoded>> {
        self.1.then(|| self.0.current()).flatten()
    }

    fn changed(&mut self) -> BoxFuture<'_, bool> {
        Box::pin(async {
            let lives = Secret::changed(&mut self.0).await;
            self.1 = true;
            lives
        })
    }
}

impl SecretProvider for Believer {
    fn subscribe(&self, _: &Spiffe, name: &str, known: Option<Version>) -> Option<Box<dyn Secret>> {
        self.asked.lock().push(known);
        (name == "default")
            .then(|| Box::new(Kept(self.newest.subscribe(), known.is_none())) as Box<dyn Secret>)
    }
}

fn encoded(content: &str) -> Option<Arc<Encoded>> {
    Some(Arc::new(Encoded::new("default".into(), "t", content.as_bytes(), None, Arc::default())))
}

fn names(names: &[&str]) -> BTreeSet<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

#[test]
fn what_the_proxy_keeps_is_not_there_until_it_changes_or_is_asked_for_again() {
    let newest = watch::Sender::new(encoded("1"));
    let provider = Arc::new(Believer { newest, asked: Mutex::default() });
    let identity = Spiffe::new("cluster.local", "shop", "web").unwrap();
    let known = Some(Version(7));
    let connect = || Secrets::new(provider.clone(), Some(identity.clone()));
    let (default, both) = (names(&["default"]), names(&["default", "other"]));

    let mut secrets = connect();
    assert!(secrets.follow(&default, &Asked::from([("default", known)])).is_empty());
    assert!(secrets.resources().is_empty());
    assert!(!has_changed(&mut secrets));
    // Requests about something else, and answers, change nothing.
    assert_eq!(secrets.follow(&both, &Asked::from([("other", None)])).len(), 1);
    assert!(secrets.follow(&both, &Asked::new()).is_empty());
    assert!(secrets.resources().is_empty());
    provider.newest.send_replace(encoded("2"));
    assert!(has_changed(&mut secrets));
    assert_eq!(secrets.resources().get("default").cloned(), encoded("2"));

    let mut again = connect();
    again.follow(&default, &Asked::from([("default", known)]));
    again.follow(&default, &Asked::from([("default", None)]));
    assert_eq!(again.resources().get("default").cloned(), encoded("2"));

    let mut dropped = connect();
    dropped.follow(&default, &Asked::from([("default", known)]));
    dropped.follow(&names(&[]), &Asked::new());
    dropped.follow(&default, &Asked::from([("default", None)]));
    assert_eq!(dropped.resources().get("default").cloned(), encoded("2"));

    // State of the world: names, and nothing about them.
    let mut sotw = connect();
    sotw.follow(&default, &Asked::new());
    assert_eq!(sotw.resources().get("default").cloned(), encoded("2"));
    assert_eq!(*provider.asked.lock(), [known, None, known, None, known, None, None]);
}
