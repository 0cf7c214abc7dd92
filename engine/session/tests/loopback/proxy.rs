//! A proxy between a reader and a producer that records what they send, and may change it.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

/// Bytes of the greeting that each side begins with: Hello, and Welcome.
pub(crate) const GREETING: [usize; 2] = [80, 104];

/// The direction of bytes through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToProducer = 0,
    ToReader = 1,
}

pub(crate) const WAYS: [Way; 2] = [Way::ToProducer, Way::ToReader];

/// What the proxy does to one direction. Frames are counted from 0, after the greeting.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Nothing,
    /// Changes bits of one byte.
    Flip {
        at: usize,
        mask: u8,
    },
    /// Passes a frame on after the next one.
    Swap(usize),
    /// Passes a frame on twice.
    Repeat(usize),
    /// Passes a frame not on.
    Drop(usize),
}

/// Where a stream of one direction has got to.
struct Passage {
    change: Change,
    /// What came, before the change.
    seen: Vec<u8>,
    /// Where the next frame begins, or the greeting.
    at: usize,
    frame: Option<usize>,
    /// A frame that goes after the next one.
    kept: Vec<u8>,
}

impl Passage {
    /// Takes what came, and returns what goes on.
    fn pass(&mut self, greeting: usize, bytes: &[u8]) -> Vec<u8> {
        let before = self.seen.len();
        self.seen.extend_from_slice(bytes);
        match self.change {
            Change::Nothing => bytes.to_vec(),
            Change::Flip { at, mask } => {
                let mut bytes = bytes.to_vec();
                if let Some(byte) = at.checked_sub(before).and_then(|at| bytes.get_mut(at)) {
                    *byte ^= mask;
                }
                bytes
            }
            Change::Swap(_) | Change::Repeat(_) | Change::Drop(_) => self.pass_frames(greeting),
        }
    }

    fn pass_frames(&mut self, greeting: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(len) = self.next_len(greeting).filter(|len| self.seen.len() >= self.at + len) {
            let piece = self.seen[self.at..self.at + len].to_vec();
            self.at += len;
            let number = self.frame;
            self.frame = Some(number.map_or(0, |number| number + 1));
            match self.change {
                Change::Swap(which) if number == Some(which) => {
                    self.kept = piece;
                    continue;
                }
                Change::Drop(which) if number == Some(which) => continue,
                Change::Repeat(which) if number == Some(which) => out.extend_from_slice(&piece),
                _ => {}
            }
            out.extend_from_slice(&piece);
            out.append(&mut self.kept);
        }
        out
    }

    fn next_len(&self, greeting: usize) -> Option<usize> {
        if self.frame.is_none() {
            return Some(greeting);
        }
        let length = self.seen.get(self.at..self.at + 2)?;
        Some(2 + usize::from(u16::from_le_bytes([length[0], length[1]])))
    }
}

/// Passes one connection on to `producer`, changes one direction, and records both as they were
/// sent.
pub(crate) fn proxy(
    producer: SocketAddr,
    changed: Way,
    change: Change,
) -> (SocketAddr, JoinHandle<[Vec<u8>; 2]>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let reader = listener.accept().unwrap().0;
        let producer = TcpStream::connect(producer).unwrap();
        let pass = |mut from: TcpStream, mut to: TcpStream, way: Way| {
            to.set_nodelay(true).unwrap();
            let change = if way == changed { change } else { Change::Nothing };
            std::thread::spawn(move || {
                // No frame was begun: the greeting comes first.
                let mut passage = Passage { change, seen: Vec::new(), at: 0, frame: None, kept: Vec::new() };
                let mut buffer = [0; 4096];
                while let Ok(got @ 1..) = from.read(&mut buffer) {
                    let out = passage.pass(GREETING[way as usize], &buffer[..got]);
                    if to.write_all(&out).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(Shutdown::Write);
                // The sender goes on sending, if the receiver has gone.
                let _ = from.shutdown(Shutdown::Read);
                passage.seen
            })
        };
        let there = pass(reader.try_clone().unwrap(), producer.try_clone().unwrap(), Way::ToProducer);
        let back = pass(producer, reader, Way::ToReader);
        [there.join().unwrap(), back.join().unwrap()]
    });
    (address, thread)
}

/// The lengths of the frames after the greeting.
pub(crate) fn frames(seen: &[u8], way: Way) -> VecDeque<usize> {
    let mut rest = &seen[GREETING[way as usize]..];
    let mut lengths = VecDeque::new();
    while let [low, high, ..] = *rest {
        let len = 2 + usize::from(u16::from_le_bytes([low, high]));
        lengths.push_back(len);
        rest = &rest[len..];
    }
    lengths
}
