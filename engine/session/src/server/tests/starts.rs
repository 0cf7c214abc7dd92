//! The addresses at which a server listens, and why it does not start.

use std::net::TcpListener;

use super::reader::FakeReader;
use super::rig::{Ends, Rig, ends, keys, layout, pool};
use crate::key::PeerKeys;
use crate::lane::{LaneAcceptor, LaneEndError};
use crate::offer::{LaneBlob, RailList};
use crate::pool::{Pool, PoolError, PoolId};
use crate::server::{ProducerDescription, ServeError, Server, ServerConfig};

fn start(address: &str, keys: PeerKeys, pools: Vec<Pool>, serve_anyone: bool) -> Result<Server, ServeError> {
    let producer = ProducerDescription { node: "prefill-2".parse().unwrap(), pools };
    let config = ServerConfig { serve_anyone, ..ServerConfig::default() };
    let transport: Ends = ends().0;
    Server::start(&address.parse().unwrap(), keys, producer, transport, config)
}

#[test]
fn each_start_has_another_epoch() {
    let (one, two) = (Rig::new(), Rig::new());
    assert_eq!(one.dial().introduce(&[]).1.epoch, one.server.epoch());
    assert_ne!(one.server.epoch(), two.server.epoch());
    let text = format!("{:?}", one.server);
    assert!(text.contains("prefill-1") && text.contains(&one.server.epoch().to_string()), "{text}");
}

#[test]
fn the_error_of_a_port_in_use_says_what_to_do() {
    let rig = Rig::new();
    let address = rig.server.local_addr().to_string();
    let error = start(&address, keys(), vec![], false).unwrap_err();
    assert!(matches!(error, ServeError::Listen { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&address) && text.contains("another process has that port"), "{text}");
}

#[test]
fn the_error_of_an_address_without_an_interface_says_so() {
    // TEST-NET-1 of RFC 5737.
    let error = start("192.0.2.1:0", keys(), vec![], false).unwrap_err();
    assert!(error.to_string().contains("no interface of this host"), "{error}");
}

#[test]
fn pools_with_one_number_and_transports_without_rails_are_errors() {
    struct None;

    impl LaneAcceptor for None {
        type Lane = ();

        fn rails(&self) -> RailList {
            RailList::new()
        }

        fn accept(
            &self,
            _: kvrail_core::id::RailIndex,
            _: &LaneBlob,
        ) -> Result<((), LaneBlob), LaneEndError> {
            Ok(((), LaneBlob::EMPTY))
        }

        fn release(&self, (): ()) {}
    }

    let error = start("127.0.0.1:0", keys(), vec![pool(4, 1, 1), pool(4, 1, 1)], false).unwrap_err();
    assert!(matches!(error, ServeError::Pool(PoolError::DuplicateId { id: PoolId(4) })), "{error}");
    let producer = ProducerDescription { node: "prefill-2".parse().unwrap(), pools: vec![] };
    let listen = "127.0.0.1:0".parse().unwrap();
    let error = Server::start(&listen, keys(), producer, None, ServerConfig::default()).unwrap_err();
    assert!(matches!(error, ServeError::NoRails), "{error}");
}

#[test]
fn without_a_key_a_server_listens_on_loopback_alone() {
    for reachable in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[::ffff:192.0.2.1]:0"] {
        let error = start(reachable, PeerKeys::none(), vec![], false).unwrap_err();
        assert!(matches!(error, ServeError::NoKey { .. }), "{reachable}: {error}");
        assert!(
            error.to_string().contains("give a key, listen on 127.0.0.1, or set serve_anyone"),
            "{error}"
        );
    }
    for loopback in ["127.0.0.1:0", "127.1.2.3:0", "localhost:0"] {
        start(loopback, PeerKeys::none(), vec![], false).unwrap();
    }
    start("0.0.0.0:0", PeerKeys::none(), vec![], true).unwrap();
    start("0.0.0.0:0", keys(), vec![], false).unwrap();
}

#[test]
fn ipv6_loopback_works_where_there_is_one() {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        return eprintln!("SKIPPED: this host has no ::1 ({error})");
    }
    let server = start("[::1]:0", PeerKeys::none(), vec![pool(0, 1, 1)], false).unwrap();
    let mut reader = FakeReader::dial(server.local_addr(), &PeerKeys::none()).unwrap();
    assert_eq!(reader.introduce(&[layout(1)]).1.producer.as_str(), "prefill-2");
}
