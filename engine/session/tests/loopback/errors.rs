//! An error whose text contains its cause does not have the cause as its source, too.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use kvrail_core::id::RailIndex;
use kvrail_session::{
    Cause, KeyError, LaneEndError, MessageField, MessageKind, NodeName, ParseError, ServeError, SessionError,
    SessionLaneError, Step,
};

/// An error with its sources, as a program prints it that prints causes.
fn printed_with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[test]
fn no_error_repeats_its_source() {
    let io = || std::io::Error::from_raw_os_error(99);
    let address: SocketAddr = "192.0.2.1:7".parse().unwrap();
    let fabric = || LaneEndError::new(RailIndex(3), io());
    let name = NodeName::new("a\nb").unwrap_err();
    let session = |cause| SessionError { peer: "p:1".into(), step: Step::Established, cause };
    let field = MessageField { item: None, name: "node" };
    let parse = ParseError::Name { kind: MessageKind::Introduction, field, source: name };
    let errors: Vec<Box<dyn Error>> = vec![
        Box::new(fabric()),
        Box::new(SessionLaneError::Transport(Arc::new(fabric()))),
        Box::new(SessionLaneError::Session(Arc::new(session(Cause::Io(io()))))),
        Box::new(ServeError::Listen { address, source: io() }),
        Box::new(ServeError::Resolve { address: address.into(), source: io() }),
        Box::new(ServeError::Thread(io())),
        Box::new(KeyError::File { path: "/key".into(), source: io() }),
        Box::new(session(Cause::Io(io()))),
        Box::new(session(Cause::Parse(parse))),
    ];
    for error in errors {
        let text = printed_with_sources(&*error);
        let once = |what: &str| text.matches(what).count() <= 1;
        assert!(once("(os error 99)") && once(&name.to_string()), "{text}");
        assert!(text.contains("os error 99") || text.contains(&name.to_string()), "{text}");
    }
}
