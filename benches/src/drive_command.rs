//! The command that `serve` prints: what a shell runs, as it stands, to read the pages.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use anyhow::Context;
use kvrail::session::Address;

use crate::cli::{Key, ServeArgs};

/// The addresses at which a reader reaches this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reachable {
    /// The one to print.
    pub(crate) best: SocketAddr,
    /// Others that do as well.
    pub(crate) others: Vec<SocketAddr>,
    /// Whether readers on other hosts reach it there.
    pub(crate) from_afar: bool,
}

impl Reachable {
    /// Where readers reach a socket that listens at `local`. A socket at 0.0.0.0 or `[::]` is
    /// reached at each address of its host, but not at 0.0.0.0 or `[::]` from another host.
    pub(crate) fn of(local: SocketAddr) -> anyhow::Result<Self> {
        let interfaces = if local.ip().is_unspecified() { own_addresses()? } else { Vec::new() };
        Ok(Self::among(local, &interfaces))
    }

    fn among(local: SocketAddr, own: &[IpAddr]) -> Self {
        let at = |ip: IpAddr| SocketAddr::new(ip, local.port());
        if !local.ip().is_unspecified() {
            return Self { best: local, others: Vec::new(), from_afar: !local.ip().is_loopback() };
        }
        // A socket at `[::]` takes IPv4 as well, unless the system says otherwise.
        let fits = |ip: &&IpAddr| ip.is_ipv4() == local.is_ipv4();
        let mut fitting: Vec<_> = own.iter().filter(fits).map(|&ip| at(ip)).collect();
        if fitting.is_empty() {
            let loopback =
                if local.is_ipv4() { IpAddr::from([127, 0, 0, 1]) } else { IpAddr::from(LOOPBACK_6) };
            return Self { best: at(loopback), others: Vec::new(), from_afar: false };
        }
        let best = fitting.remove(0);
        Self { best, others: fitting, from_afar: true }
    }
}

const LOOPBACK_6: [u16; 8] = [0, 0, 0, 0, 0, 0, 0, 1];

/// The addresses of this host's interfaces that hosts elsewhere can reach, in the kernel's order:
/// none of loopback, and none that means something on one link only.
pub(crate) fn own_addresses() -> anyhow::Result<Vec<IpAddr>> {
    let interfaces =
        if_addrs::get_if_addrs().context("cannot list this host's addresses; give one to --listen")?;
    let elsewhere =
        interfaces.iter().filter(|interface| !interface.is_loopback() && !interface.is_link_local());
    Ok(elsewhere.map(if_addrs::Interface::ip).collect())
}

/// The line for a shell, with its end of line.
pub(crate) fn line(args: &ServeArgs, at: SocketAddr, key: &Key) -> anyhow::Result<Vec<u8>> {
    let program = program(std::env::args_os().next())?;
    let address = Address::from(at);
    let (option, key) = match &args.key.key_file {
        // The reader may be started elsewhere.
        Some(path) => {
            let path = std::path::absolute(path).context("cannot tell where the key file is")?;
            ("--key-file", path.into_os_string())
        }
        None => ("--key", key.hex().into()),
    };
    let mut line = quoted(&program);
    line.extend(format!(" drive --connect {address} {option} ").into_bytes());
    line.extend(quoted(&key));
    line.extend(
        format!(" --transport {} --layout {}\n", args.transport.name(), args.layout.name).into_bytes(),
    );
    Ok(line)
}

/// What starts this program from any folder. `started_as` is how it was started: by a name that the
/// shell found, or by a path, as `cargo run` does.
fn program(started_as: Option<OsString>) -> anyhow::Result<OsString> {
    let found = match started_as {
        Some(name) if !name.is_empty() => name,
        _ => std::env::current_exe().context("cannot tell which program this is")?.into_os_string(),
    };
    if !found.as_bytes().contains(&b'/') {
        return Ok(found);
    }
    let path = std::path::absolute(Path::new(&found)).context("cannot tell where this program is")?;
    Ok(path.into_os_string())
}

/// A word that a shell reads as `word`.
fn quoted(word: &OsStr) -> Vec<u8> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+:,@%=".contains(byte);
    if !word.is_empty() && word.as_bytes().iter().all(plain) {
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

    fn among(local: &str, own: &[&str]) -> Reachable {
        let own: Vec<_> = own.iter().map(|ip| ip.parse().unwrap()).collect();
        Reachable::among(local.parse().unwrap(), &own)
    }

    fn reachable(best: &str, others: &[&str], from_afar: bool) -> Reachable {
        let others = others.iter().map(|address| address.parse().unwrap()).collect();
        Reachable { best: best.parse().unwrap(), others, from_afar }
    }

    #[test]
    fn who_listens_everywhere_is_reached_at_an_address_of_its_host() {
        let own = ["fd00::2", "192.0.2.2", "198.51.100.7", "2001:db8::1"];
        assert_eq!(among("0.0.0.0:7470", &own), reachable("192.0.2.2:7470", &["198.51.100.7:7470"], true));
        assert_eq!(among("[::]:7470", &own), reachable("[fd00::2]:7470", &["[2001:db8::1]:7470"], true));
        assert_eq!(among("0.0.0.0:7470", &[]), reachable("127.0.0.1:7470", &[], false));
        assert_eq!(among("[::]:7470", &["192.0.2.2"]), reachable("[::1]:7470", &[], false));
        assert_eq!(among("192.0.2.9:1", &own), reachable("192.0.2.9:1", &[], true));
        assert_eq!(among("127.0.0.1:1", &own), reachable("127.0.0.1:1", &[], false));
    }

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
    fn a_shell_reads_what_was_meant() {
        for word in ["plain-1.2:3", "", "a b", "it's", "$HOME `id` \"x\" \\", "*", "tab\there", "\u{e9}"] {
            let mut script = b"printf %s ".to_vec();
            script.extend(quoted(word.as_ref()));
            let output = std::process::Command::new("sh").arg("-c").arg(OsStr::from_bytes(&script)).output();
            assert_eq!(output.unwrap().stdout, word.as_bytes(), "{script:?}");
        }
    }
}
