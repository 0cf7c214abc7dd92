//! Services over real sockets: several threads, refusals, ends, and a reader without layouts.

use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use kvrail_host::reactor::Reactor;

use super::*;
use crate::error::Cause;
use crate::key::{PeerKey, PeerKeys};
use crate::lane::NoLanes;
use crate::name::NodeName;
use crate::reader::ServiceClient;
use crate::server::{ProducerDescription, Server, ServerConfig};

const ECHO: ServiceNumber = ServiceNumber(7);
const FAULTY: ServiceNumber = ServiceNumber(8);
const GATED: ServiceNumber = ServiceNumber(9);
const LIMIT: Duration = Duration::from_secs(20);

/// Answers with the question and the number of the session.
#[derive(Default)]
struct Echo(AtomicUsize);

impl Service for Echo {
    fn answer(&self, asker: &Asker, ask: &[u8], answer: &mut Vec<u8>) -> Result<(), ServiceError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        answer.extend_from_slice(&asker.session.to_le_bytes());
        answer.extend_from_slice(ask);
        Ok(())
    }
}

/// Does what the first byte of the question says.
struct Faulty;

impl Service for Faulty {
    fn answer(&self, asker: &Asker, ask: &[u8], answer: &mut Vec<u8>) -> Result<(), ServiceError> {
        match ask.first() {
            Some(1) => panic!("a service panics"),
            Some(2) => answer.resize(MAX_SERVICE_BYTES + 1, 0),
            Some(3) => answer.resize(MAX_SERVICE_BYTES, 0x33),
            _ => return Err(ServiceError::new(&format!("no, {}", asker.node))),
        }
        Ok(())
    }
}

/// Answers nothing before the gate is opened. A service must not do that: here it stands for a
/// server that is stopped.
#[derive(Default)]
struct Gated(Mutex<bool>, Condvar);

impl Gated {
    fn open(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

impl Service for Gated {
    fn answer(&self, _: &Asker, _: &[u8], _: &mut Vec<u8>) -> Result<(), ServiceError> {
        drop(self.1.wait_while(self.0.lock().unwrap(), |open| !*open).unwrap());
        Ok(())
    }
}

struct Rig {
    server: Server,
    reactor: Reactor,
    echo: Arc<Echo>,
    gate: Arc<Gated>,
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn keys() -> PeerKeys {
    PeerKeys::one(PeerKey::from_bytes([0x5a; 32]))
}

impl Rig {
    fn new() -> Self {
        let (echo, gate) = (Arc::new(Echo::default()), Arc::new(Gated::default()));
        let config = ServerConfig::default()
            .service(ECHO, Arc::clone(&echo) as Arc<dyn Service>)
            .service(FAULTY, Arc::new(Faulty))
            .service(GATED, Arc::clone(&gate) as Arc<dyn Service>);
        let producer = ProducerDescription { node: name("shard-1"), pools: Vec::new() };
        let server =
            Server::start(&"127.0.0.1:0".parse().unwrap(), keys(), producer, NoLanes, config).unwrap();
        Self { server, reactor: Reactor::start("test-clients").unwrap(), echo, gate }
    }

    fn client(&self) -> ServiceClient {
        let (handle, address) = (self.reactor.handle(), self.server.local_addr().into());
        ServiceClient::connect(&handle, &address, &keys(), name("asker"), soon()).unwrap()
    }
}

fn soon() -> Instant {
    Instant::now() + LIMIT
}

#[test]
fn a_service_answers_each_question_of_any_length() {
    let rig = Rig::new();
    let client = rig.client();
    assert_eq!((client.producer(), client.epoch()), (name("shard-1"), rig.server.epoch()));
    for length in [0, 1, 16, 5000, MAX_SERVICE_BYTES - 8] {
        let question = vec![0xab; length];
        let answer = client.call(ECHO, &question, soon()).unwrap();
        assert_eq!((&answer[..8], &answer[8..]), (&1_u64.to_le_bytes()[..], &question[..]));
    }
    let whole = client.call(FAULTY, &[3], soon()).unwrap();
    assert_eq!(whole, vec![0x33; MAX_SERVICE_BYTES]);
    let error = client.call(ECHO, &vec![0; MAX_SERVICE_BYTES + 1], soon()).unwrap_err();
    assert!(matches!(error, AskError::TooLong { bytes } if bytes == MAX_SERVICE_BYTES + 1), "{error}");
    assert_eq!(rig.echo.0.load(Ordering::Relaxed), 5);
}

#[test]
fn questions_of_many_threads_and_pipelined_ones_get_their_own_answers() {
    let rig = Rig::new();
    let client = rig.client();
    std::thread::scope(|scope| {
        for thread in 0..8_u32 {
            let client = &client;
            scope.spawn(move || {
                for round in 0..50_u32 {
                    let questions: Vec<_> = (0..8_u32)
                        .map(|at| {
                            [thread, round, at].iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<_>>()
                        })
                        .collect();
                    let pending: Vec<_> =
                        questions.iter().map(|question| client.begin(ECHO, question).unwrap()).collect();
                    // The last first: answers wait for those who want them.
                    for (pending, question) in pending.into_iter().zip(&questions).rev() {
                        assert_eq!(pending.wait(soon()).unwrap()[8..], question[..]);
                    }
                }
            });
        }
    });
    assert_eq!(rig.echo.0.load(Ordering::Relaxed), 8 * 50 * 8);
    assert_eq!(rig.server.sessions(), 1);
}

#[test]
fn what_is_not_answered_is_refused_with_its_reason_and_the_session_stays() {
    let rig = Rig::new();
    let client = rig.client();
    for (service, question, code, text) in [
        (ServiceNumber(1), 0, 4225, "the producer has no such service: service 1"),
        (FAULTY, 0, 4226, "the service refused: no, asker"),
        (FAULTY, 1, 4227, "the service failed: it panicked"),
        (FAULTY, 2, 4227, "the service failed: its answer had 49089 bytes"),
    ] {
        let error = client.call(service, &[question], soon()).unwrap_err();
        assert_eq!((error.code(), error.to_string()), (code, text.into()));
    }
    assert_eq!(client.call(ECHO, b"?", soon()).unwrap()[8..], b"?"[..]);
}

#[test]
fn a_late_answer_is_dropped_and_the_number_of_open_questions_is_bounded() {
    let rig = Rig::new();
    let client = rig.client();
    let passed = Instant::now();
    for _ in 0..MAX_UNANSWERED {
        let error = client.call(GATED, &[], passed).unwrap_err();
        assert!(matches!(error, AskError::Deadline), "{error}");
    }
    assert!(matches!(client.call(ECHO, b"x", soon()), Err(AskError::TooMany)));
    rig.gate.open();
    // Once all late answers have come, there is room again.
    let limit = soon();
    let answer = loop {
        match client.call(ECHO, b"x", limit) {
            Err(AskError::TooMany) if Instant::now() < limit => std::thread::yield_now(),
            other => break other.unwrap(),
        }
    };
    assert_eq!(answer[8..], b"x"[..]);
}

#[test]
fn the_end_of_a_session_is_an_error_for_all_who_wait_at_once() {
    let mut rig = Rig::new();
    let client = rig.client();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..4).map(|_| scope.spawn(|| client.call(GATED, &[], soon()))).collect();
        // The first question blocks the server's thread, so the session is ended from this side.
        rig.reactor.handle().close(client.connection());
        for thread in waiting {
            let error = thread.join().unwrap().unwrap_err();
            assert!(matches!(error, AskError::Session(_)), "{error}");
        }
    });
    assert!(client.ended().is_some());
    assert!(matches!(client.call(ECHO, &[], soon()), Err(AskError::Session(_))));
    rig.gate.open();
    rig.server.stop(soon());
    // A server that has stopped is not reached.
    let (handle, address) = (rig.reactor.handle(), rig.server.local_addr().into());
    ServiceClient::connect(&handle, &address, &keys(), name("asker"), soon()).unwrap_err();
}

#[test]
fn a_client_that_is_given_up_wakes_all_who_wait_for_a_server_that_does_not_answer() {
    let rig = Rig::new();
    let client = rig.client();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..4).map(|_| scope.spawn(|| client.call(GATED, &[], soon()))).collect();
        let limit = soon();
        while client.asleep() < 4 {
            assert!(Instant::now() < limit, "all wait for their answers");
            std::thread::yield_now();
        }
        // The gate is shut, so that none of them gets an answer: only giving up ends their wait.
        client.give_up();
        for thread in waiting {
            let error = thread.join().unwrap().unwrap_err();
            let AskError::Session(why) = &error else { panic!("{error}") };
            assert!(matches!(why.cause, Cause::Stopped), "{error}");
        }
    });
    assert!(matches!(client.call(ECHO, &[], soon()), Err(AskError::Session(_))));
    // Twice is as good as once.
    client.give_up();
    rig.gate.open();
    let limit = soon();
    while rig.server.sessions() > 0 {
        assert!(Instant::now() < limit, "the server was told goodbye");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_server_that_stops_ends_its_clients_sessions() {
    let mut rig = Rig::new();
    let client = rig.client();
    assert_eq!(rig.server.stop(soon()), 0);
    let error = client.call(ECHO, &[], soon()).unwrap_err();
    assert!(matches!(error, AskError::Session(_)), "{error}");
}

#[test]
fn a_client_that_is_dropped_says_goodbye() {
    let rig = Rig::new();
    let client = rig.client();
    assert_eq!(rig.server.sessions(), 1);
    drop(client);
    let limit = soon();
    while rig.server.sessions() > 0 {
        assert!(Instant::now() < limit, "the session goes on");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_given_up_at_the_deadline() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let reactor = Reactor::start("test-clients").unwrap();
    let address = silent.local_addr().unwrap().into();
    let deadline = Instant::now() + Duration::from_millis(200);
    let connected = ServiceClient::connect(&reactor.handle(), &address, &keys(), name("asker"), deadline);
    let error = connected.unwrap_err();
    assert!([4070, 4073].contains(&error.code()), "{error}");
}

#[test]
fn a_client_with_another_key_is_refused_and_one_of_two_keys_is_enough() {
    let rig = Rig::new();
    let (handle, address) = (rig.reactor.handle(), rig.server.local_addr().into());
    let other = PeerKey::from_bytes([0x11; 32]);
    let connect = |keys: PeerKeys| ServiceClient::connect(&handle, &address, &keys, name("asker"), soon());
    assert_eq!(connect(PeerKeys::one(other.clone())).unwrap_err().code(), 4101);
    let both = connect(PeerKeys::rotating(other, PeerKey::from_bytes([0x5a; 32]))).unwrap();
    assert_eq!(both.call(ECHO, b"!", soon()).unwrap()[8..], b"!"[..]);
}
