//! A server without a listener: its connections are called by the test, which has the clock.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Instant;

use kvrail_host::listener::Listener;
use kvrail_host::reactor::{Acceptor, Connection, ConnectionId, Flow, Reactor};

use super::reader::{frame, greeting, introduction, messages};
use super::rig::{Ends, ends, keys, observed};
use crate::channel::Channel;
use crate::message::Message;
use crate::offer::{Epoch, LaneBlob, Layout};
use crate::pool::Pool;
use crate::server::acceptor::ReaderAcceptor;
use crate::server::connection::ReaderConnection;
use crate::server::pools::OfferedPools;
use crate::server::shared::{Registration, Shared};
use crate::server::shop::LaneShop;
use crate::server::{ServerConfig, ServerEvent};

/// A server without a listener.
pub(super) struct Bench {
    pub(super) shop: Arc<LaneShop<Ends>>,
    pub(super) ends: Ends,
    pub(super) events: Receiver<ServerEvent>,
    pub(super) accepting: Receiver<LaneBlob>,
    /// An id of the reactor that no connection has.
    pub(super) id: ConnectionId,
    _reactor: Reactor,
}

struct Never;

impl Acceptor for Never {
    fn accepted(
        &mut self,
        _: ConnectionId,
        _: std::net::SocketAddr,
        _: &std::net::TcpStream,
    ) -> Option<Box<dyn Connection>> {
        None
    }
}

impl Bench {
    pub(super) fn new(config: ServerConfig, pools: Vec<Pool>) -> Self {
        let reactor = Reactor::start("reactor").unwrap();
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), "listener").unwrap();
        let id = reactor.handle().listen(listener, Box::new(Never)).unwrap();
        let (config, events) = observed(config);
        let (ends, accepting) = ends();
        let rails = crate::LaneAcceptor::rails(&ends);
        let pools = OfferedPools::new(pools).unwrap();
        let node = "prefill-1".parse().unwrap();
        let shared = Shared::new(keys(), node, pools, rails, config, reactor.handle()).unwrap();
        let shop = LaneShop::new(Arc::new(shared), ends.clone());
        Self { shop, ends, events, accepting, id, _reactor: reactor }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shop.shared
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.shared().epoch
    }

    pub(super) fn acceptor(&self) -> ReaderAcceptor<Ends> {
        ReaderAcceptor::new(Arc::clone(&self.shop))
    }

    /// A connection of which no byte has come.
    pub(super) fn connection(&self, now: Instant) -> ReaderConnection<Ends> {
        let registration = Registration::new(self.shared(), self.id);
        let peer = "10.0.0.9:1234".parse().unwrap();
        ReaderConnection::new(Arc::clone(&self.shop), peer, registration, None, now)
    }

    /// A reader whose greeting was answered.
    pub(super) fn greeted(&self, now: Instant) -> Talk {
        let mut connection = self.connection(now);
        let (mut dialling, hello) = greeting(&keys());
        assert_eq!(connection.received(now, &hello), Flow::GoOn);
        let welcome = drain(&mut connection, now);
        assert_eq!(welcome.len(), 104, "a welcome, and nothing else");
        let channel = dialling.received(&mut &welcome[..]).unwrap().unwrap();
        Talk { connection, channel }
    }

    /// A reader of `layouts` that has introduced itself, and was sent nothing.
    pub(super) fn introduced(&self, now: Instant, layouts: &[Layout]) -> Talk {
        let mut talk = self.greeted(now);
        assert_eq!(talk.say(now, &introduction(layouts)), Flow::GoOn);
        talk
    }

    /// A reader in a session of which everything was sent.
    pub(super) fn session(&self, now: Instant, layouts: &[Layout]) -> Talk {
        let mut talk = self.introduced(now, layouts);
        assert_eq!(talk.hear(now).last(), Some(&Message::Offered));
        talk
    }
}

/// Everything that the connection has to send.
pub(super) fn drain(connection: &mut impl Connection, now: Instant) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let mut part = Vec::new();
        connection.fill(now, &mut part, 65_536);
        if part.is_empty() {
            return all;
        }
        all.extend(part);
    }
}

/// A connection, and the reader's end of its channel.
pub(super) struct Talk {
    pub(super) connection: ReaderConnection<Ends>,
    pub(super) channel: Channel,
}

impl Talk {
    /// The reader says something.
    pub(super) fn say(&mut self, now: Instant, message: &Message) -> Flow {
        let frame = frame(&mut self.channel, message);
        self.connection.received(now, &frame)
    }

    /// Everything that the producer has to say.
    pub(super) fn hear(&mut self, now: Instant) -> Vec<Message> {
        let bytes = drain(&mut self.connection, now);
        messages(&mut self.channel, &bytes)
    }

    /// What one call of `fill` gives.
    pub(super) fn fill(&mut self, now: Instant) -> Vec<Message> {
        let mut bytes = Vec::new();
        self.connection.fill(now, &mut bytes, 1);
        messages(&mut self.channel, &bytes)
    }
}
