//! The line that `serve` prints: the command that a shell runs, unchanged, to read the pages; and
//! the words beside it.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use anyhow::Context;
use kvrail::session::Address;

use crate::cli::common::Transport;
use crate::cli::directory::DirectoryKind;
use crate::machine::addresses::Reachable;

/// The facts that a reader needs.
#[derive(Debug)]
pub(crate) struct DriveLine<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) key: GivenKey<'a>,
    pub(crate) transport: Transport,
    pub(crate) layout: &'static str,
    pub(crate) directory: &'a DirectoryKind,
}

/// How the reader gets the key.
#[derive(Debug)]
pub(crate) enum GivenKey<'a> {
    /// 64 hexadecimal digits.
    Hex(&'a str),
    /// The file that holds it.
    File(&'a Path),
}

impl DriveLine<'_> {
    /// The line for a shell, with its end of line.
    pub(crate) fn text(&self) -> anyhow::Result<Vec<u8>> {
        let program = program(std::env::args_os().next())?;
        let address = Address::from(self.address);
        let (option, key) = match self.key {
            // The reader may be started in another folder.
            GivenKey::File(path) => {
                let path = std::path::absolute(path)
                    .with_context(|| format!("cannot make the path of {} absolute", path.display()))?;
                ("--key-file", path.into_os_string())
            }
            GivenKey::Hex(hex) => ("--key", hex.into()),
        };
        let mut line = quoted(&program);
        line.extend(format!(" drive --connect {address} {option} ").into_bytes());
        line.extend(quoted(&key));
        line.extend(format!(" --transport {} --layout {}", self.transport.name(), self.layout).into_bytes());
        match self.directory {
            // What drive takes by itself.
            DirectoryKind::Embedded | DirectoryKind::PrivateRedis => {}
            DirectoryKind::OneSided => line.extend(b" --directory one-sided"),
            DirectoryKind::Redis(url) => {
                line.extend(b" --directory ");
                line.extend(quoted(url.as_ref()));
            }
        }
        line.push(b'\n');
        Ok(line)
    }
}

/// Says which pages there are, and which hosts can read them by the line.
pub(crate) fn explanation(pages: &str, transport: Transport, at: &Reachable) -> String {
    let mut text =
        format!("{pages} over {}; run the line above to read them, Ctrl-C to stop\n", transport.label());
    if transport == Transport::Shm {
        return text;
    }
    if at.from_other_hosts {
        text += "On another host, run it with that host's kvrail-bench.\n";
    } else {
        text += "The line works on this host only: give --listen an address that other hosts reach, or 0.0.0.0.\n";
    }
    if !at.others.is_empty() {
        let others: Vec<_> = at.others.iter().map(ToString::to_string).collect();
        text += &format!("This host listens at {} as well.\n", others.join(", "));
    }
    text
}

/// The word that starts this program from any folder. `started_as` is how it was started: by a name
/// that the shell looked up, or by a path, as `cargo run` does.
fn program(started_as: Option<OsString>) -> anyhow::Result<OsString> {
    let found = match started_as {
        Some(name) if !name.is_empty() => name,
        _ => std::env::current_exe().context("cannot find out which program this is")?.into_os_string(),
    };
    if !found.as_bytes().contains(&b'/') {
        return Ok(found);
    }
    let path = std::path::absolute(Path::new(&found)).context("cannot find out where this program is")?;
    Ok(path.into_os_string())
}

/// A word that a shell reads as `word`.
fn quoted(word: &OsStr) -> Vec<u8> {
    let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+:,@%=".contains(byte);
    if !word.is_empty() && word.as_bytes().iter().all(safe) {
        return word.to_owned().into_vec();
    }
    let mut quoted = vec![b'\''];
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend(b"'\\''"),
            _ => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_starts_the_program_from_any_folder_and_a_name_stays() {
        let program = |name: &str| super::program(Some(name.into())).unwrap().into_string().unwrap();
        let here = std::env::current_dir().unwrap().into_os_string().into_string().unwrap();
        assert_eq!(program("kvrail-bench"), "kvrail-bench");
        assert_eq!(program("target/release/kvrail-bench"), format!("{here}/target/release/kvrail-bench"));
        assert_eq!(program("/opt/kvrail-bench"), "/opt/kvrail-bench");
        assert!(super::program(None).unwrap().as_bytes().starts_with(b"/"));
    }

    #[test]
    fn a_shell_reads_a_quoted_word_back() {
        for word in ["plain-1.2:3", "", "a b", "it's", "$HOME `id` \"x\" \\", "*", "tab\there", "\u{e9}"] {
            let mut script = b"printf %s ".to_vec();
            script.extend(quoted(word.as_ref()));
            let output = std::process::Command::new("sh").arg("-c").arg(OsStr::from_bytes(&script)).output();
            assert_eq!(output.unwrap().stdout, word.as_bytes(), "{script:?}");
        }
    }
}
