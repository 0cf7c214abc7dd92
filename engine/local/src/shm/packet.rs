//! Messages over Unix sockets that keep message boundaries, with file descriptors.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    self, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// The most descriptors that come with one message.
pub(super) const MAX_FDS: usize = 16;

/// Sends one message, with copies of `fds`.
pub(super) fn send(to: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::NOBUFS);
    }
    net::sendmsg(to, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// A message that was received.
#[derive(Debug)]
pub(super) struct Packet {
    /// Its length; 0 where the connection has ended.
    pub(super) len: usize,
    pub(super) fds: Vec<OwnedFd>,
    /// A part of the bytes or of the descriptors is lost: the message was longer than the room for
    /// it, or this process has no descriptor left.
    pub(super) truncated: bool,
}

/// Receives one message into `bytes`.
pub(super) fn receive(from: BorrowedFd<'_>, bytes: &mut [u8], flags: RecvFlags) -> Result<Packet, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(bytes)];
    let message = net::recvmsg(from, &mut slices, &mut control, flags | RecvFlags::CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for part in control.drain() {
        // The system delivers no more descriptors than `space` has room for.
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    let truncated = message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    Ok(Packet { len: message.bytes, fds, truncated })
}
