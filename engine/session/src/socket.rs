//! Sockets of sessions: how a reader's connection is made.
