use std::{
    sync::{
        atomic::{AtomicBool, AtomicI64, Ordering},
        mpsc,
    },
    time::Duration,
};

use futures::FutureExt;

use super::*;
use crate::Owner;

/// A clock that is read once by somebody who is overtaken: by the time what it said is used, another call has read a
/// later time, if it can be made meanwhile.
struct Overtaken {
    time: AtomicI64,
    is_next: AtomicBool,
    go: Mutex<mpsc::Sender<()>>,
    gone: Mutex<mpsc::Receiver<()>>,
}

impl Clock for Overtaken {
    fn now(&self) -> Timestamp {
        let now = Timestamp(self.time.load(Ordering::SeqCst));
        if self.is_next.swap(false, Ordering::SeqCst) {
            self.time.store(now.0 + 1_000, Ordering::SeqCst);
            self.go.lock().send(()).unwrap();
            let _ = self.gone.lock().recv_timeout(Duration::from_millis(100));
        }
        now
    }
}

fn call() -> Call {
    Call {
        epoch: None,
        deadline: Instant::now() + Duration::from_secs(5),
    }
}

fn get(registry: &MemoryRegistry<Arc<Overtaken>>) -> Option<Arc<Record>> {
    let read = registry.get(call(), Identity::new("a").unwrap());
    read.now_or_never().expect("nothing waits").unwrap().record
}

/// A second that two calls see in the wrong order is no second more.
#[test]
fn no_time_is_counted_twice() {
    let ((go, goes), (gone, is_gone)) = (mpsc::channel(), mpsc::channel());
    let clock = Arc::new(Overtaken {
        time: AtomicI64::new(0),
        is_next: AtomicBool::new(false),
        go: Mutex::new(go),
        gone: Mutex::new(is_gone),
    });
    let registry = Arc::new(MemoryRegistry::with_clock(
        RegistryConfig::default(),
        clock.clone(),
    ));
    let request = Register {
        identity: Identity::new("a").unwrap(),
        metadata: Bytes::new(),
        ttl: Ttl::from_millis(2_500),
        mode: Mode::Create,
        owner: Owner::default(),
        max_identities: 1,
        request: RequestId::next(),
    };
    registry
        .step(call().epoch, |state| state.register(request))
        .unwrap();
    let overtaking = std::thread::spawn({
        let registry = registry.clone();
        move || {
            goes.recv().unwrap();
            get(&registry);
            let _ = gone.send(());
        }
    });
    clock.time.store(1_000, Ordering::SeqCst);
    clock.is_next.store(true, Ordering::SeqCst);
    get(&registry);
    overtaking.join().unwrap();
    assert!(get(&registry).is_some(), "two seconds of two and a half are over");
    clock.time.store(2_500, Ordering::SeqCst);
    assert!(get(&registry).is_none());
}
