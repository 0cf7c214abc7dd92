#!/usr/bin/env bash
# snow (Noise for Rust): reading into too small a buffer is reported as a forged message.
#
# The guess: where the output buffer is too short for the plain text, `read_message` says so, as
# `write_message` does, whose answer is `Error::Input`.
# What happens: `read_message` returns `Error::Decrypt`, which is also its answer to a message that
# was changed on its way. A program that ends a connection at Decrypt, and counts it as an attack,
# does so for a bug of its own. The two cases can be told apart afterwards: the nonce does not move
# in either, and the message that was only too long can be read again with more room.
#
# Needs cargo; about 20 s. Seen with snow 0.10.0. Exits 1 when the behaviour is another one.
#
# Output:
#
#    write 3 bytes into room for 2: Err(Input)
#    read 24 bytes into room for 23: Err(Decrypt), nonce 0
#    read a changed message: Err(Decrypt), nonce 0
#    read the first one with room: Ok(24), nonce 1
#    as described: too little room to read looks like a forgery
set -Eeuo pipefail
# What fails on the way is not a change of the behaviour.
trap 'exit 2' ERR
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "short-room"
version = "0.0.0"
edition = "2021"

[dependencies.snow]
version = "=0.10.0"
default-features = false
features = ["use-chacha20poly1305", "use-curve25519", "use-getrandom", "use-sha2"]

[workspace]
TOML
cat >"$work/src/main.rs" <<'RUST'
use snow::{Builder, Error, TransportState};

fn pair() -> Result<(TransportState, TransportState), Error> {
    let builder = || Builder::new("Noise_NNpsk0_25519_ChaChaPoly_SHA256".parse().unwrap());
    let mut near = builder().psk(0, &[7; 32])?.build_initiator()?;
    let mut far = builder().psk(0, &[7; 32])?.build_responder()?;
    let (mut wire, mut plain) = ([0; 128], [0; 128]);
    let sent = near.write_message(&[], &mut wire)?;
    far.read_message(&wire[..sent], &mut plain)?;
    let sent = far.write_message(&[], &mut wire)?;
    near.read_message(&wire[..sent], &mut plain)?;
    Ok((near.into_transport_mode()?, far.into_transport_mode()?))
}

fn main() -> Result<(), Error> {
    let (mut near, mut far) = pair()?;
    let (mut wire, mut plain) = ([0; 128], [0; 128]);
    let write = near.write_message(b"abc", &mut wire[..2 + 16]);
    println!("write 3 bytes into room for 2: {write:?}");
    let sent = near.write_message(b"a message of 24 bytes...", &mut wire)?;
    let short = far.read_message(&wire[..sent], &mut plain[..23]);
    println!("read 24 bytes into room for 23: {short:?}, nonce {}", far.receiving_nonce());
    let mut changed = wire;
    changed[5] ^= 1;
    let forged = far.read_message(&changed[..sent], &mut plain);
    println!("read a changed message: {forged:?}, nonce {}", far.receiving_nonce());
    let again = far.read_message(&wire[..sent], &mut plain);
    println!("read the first one with room: {again:?}, nonce {}", far.receiving_nonce());
    let as_described = matches!(write, Err(Error::Input))
        && matches!(short, Err(Error::Decrypt))
        && matches!(forged, Err(Error::Decrypt))
        && matches!(again, Ok(24));
    std::process::exit(if as_described { 0 } else { 10 });
}
RUST
(cd "$work" && cargo build --quiet --release --target-dir "$work/target")
status=0
"$work/target/release/short-room" || status=$?
if [ "$status" -eq 10 ]; then
  echo "CHANGED: snow no longer answers as described"
  exit 1
elif [ "$status" -ne 0 ]; then
  exit 2
fi
echo "as described: too little room to read looks like a forgery"
