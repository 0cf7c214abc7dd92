//! The bare limit of a rail: `ib_read_bw` of the perftest package, where this host has it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::output::json::BareLimit;

/// The program's name.
const NAME: &str = "ib_read_bw";
/// Where a server listens unless its user says otherwise.
const PORT: u16 = 18_515;
/// How much longer than it measures the program may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a server may take to listen.
const LISTEN: Duration = Duration::from_millis(500);
/// The most characters of its output that an error repeats.
const QUOTED: usize = 300;

/// The settings that both its ends must have.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// The device, and the number of its port.
    pub(crate) device: String,
    pub(crate) port: u32,
    pub(crate) gid_index: Option<u8>,
    /// The bytes of a READ.
    pub(crate) bytes: u64,
    /// Queue pairs.
    pub(crate) qps: u8,
    /// READs in flight of a queue pair.
    pub(crate) depth: Option<u8>,
    pub(crate) seconds: u64,
}

impl Setting {
    fn args(&self) -> Vec<String> {
        let mut args: Vec<String> = ["-F", "--report_gbits", "-d"].map(String::from).into();
        args.push(self.device.clone());
        let mut pair = |flag: &str, value: u64| args.extend([flag.to_owned(), value.to_string()]);
        pair("-i", self.port.into());
        pair("-s", self.bytes);
        pair("-q", self.qps.into());
        pair("-D", self.seconds);
        if let Some(depth) = self.depth {
            pair("-o", depth.into());
        }
        if let Some(index) = self.gid_index {
            pair("-x", index.into());
        }
        args
    }

    /// The command that its user runs on the producer's host, as a line.
    pub(crate) fn server_line(&self) -> String {
        format!("{NAME} {}", self.args().join(" "))
    }
}

/// Where the program is: in a folder of `PATH`.
pub(crate) fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(NAME)).find(|file| file.is_file())
}

/// Measures against the server at `host`, or against one that is started here.
///
/// # Errors
///
/// The program fails, does not end, or prints a table that is not known.
pub(crate) fn measure(program: &Path, setting: &Setting, host: Option<&str>) -> anyhow::Result<BareLimit> {
    let (host, port) = match host {
        Some(given) => match given.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().with_context(|| format!("--bare {given}: no port"))?),
            None => (given, PORT),
        },
        None => ("127.0.0.1", PORT),
    };
    let mut args = setting.args();
    args.extend(["-p".into(), port.to_string()]);
    let server = match host {
        "127.0.0.1" => Some(start(program, &args)?),
        _ => None,
    };
    if server.is_some() {
        thread::sleep(LISTEN);
    }
    args.push(host.into());
    let command = format!("{NAME} {}", args.join(" "));
    let patience = Duration::from_secs(setting.seconds) + PATIENCE;
    let output = finished(start(program, &args)?, patience);
    if let Some(mut server) = server {
        // It has ended by itself, unless its client failed.
        let _ = server.kill();
        let _ = server.wait();
    }
    let output = output.with_context(|| format!("`{command}`"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{command}` failed ({}): {}; run it by hand, or leave it out with --bare off",
            output.status,
            quoted(&format!("{why} {text}"))
        );
    }
    let gb_per_s = average(&text).with_context(|| {
        format!(
            "`{command}` printed no table of a version that is known: {}; leave it out with --bare off",
            quoted(&text)
        )
    })?;
    Ok(BareLimit { program: NAME.into(), command, bytes: setting.bytes, gb_per_s })
}

fn start(program: &Path, args: &[String]) -> anyhow::Result<Child> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().with_context(|| format!("cannot start {}", program.display()))
}

/// Waits until the program has ended.
fn finished(mut child: Child, patience: Duration) -> anyhow::Result<Output> {
    let until = Instant::now() + patience;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= until {
            let _ = child.kill();
            let _ = child.wait();
            bail!("did not end within {patience:.0?}: is its server running, with the same arguments?");
        }
        thread::sleep(Duration::from_millis(20));
    };
    // Its table is shorter than a pipe's buffer, so it never waits for this.
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_end(&mut stdout)?;
    }
    if let Some(mut pipe) = child.stderr.take() {
        pipe.read_to_end(&mut stderr)?;
    }
    Ok(Output { status, stdout, stderr })
}

/// The average of its table, in GB/s. `None`: there is no such table.
fn average(text: &str) -> Option<f64> {
    let mut lines = text.lines().skip_while(|line| !line.trim_start().starts_with("#bytes"));
    let columns = lines.next()?.replace("BW peak", "peak").replace("BW average", "average");
    let columns: Vec<_> = columns.split_whitespace().collect();
    let at = columns.iter().position(|column| column.starts_with("average["))?;
    let unit = columns[at].strip_prefix("average[")?.strip_suffix(']')?;
    // perftest's megabytes are 2^20 bytes.
    let gb = match unit {
        "Gb/sec" => 1.0 / 8.0,
        "MB/sec" | "MiB/sec" => 1_048_576.0 / 1e9,
        _ => return None,
    };
    let row: Vec<f64> = lines.next()?.split_whitespace().map_while(|cell| cell.parse().ok()).collect();
    if row.len() != columns.len() {
        return None;
    }
    let average = row[at] * gb;
    (average.is_finite() && average > 0.0).then_some(average)
}

fn quoted(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    let line: String = words.join(" ").chars().filter(|char| !char.is_control()).take(QUOTED).collect();
    if line.is_empty() { "it printed nothing".into() } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const TABLE: &str = " local address: LID 0000 QPN 0x0011\n\
        ---------------------------------------------------------------------------------------\n \
        #bytes     #iterations    BW peak[Gb/sec]    BW average[Gb/sec]   MsgRate[Mpps]\n \
        131072     1869456          0.00               392.03             0.373868\n\
        ---------------------------------------------------------------------------------------\n";

    fn setting() -> Setting {
        Setting {
            device: "mlx5_0".into(),
            port: 1,
            gid_index: Some(3),
            bytes: 131_072,
            qps: 16,
            depth: Some(16),
            seconds: 1,
        }
    }

    /// Measures with a script in the program's place.
    fn with(name: &str, script: &str) -> anyhow::Result<BareLimit> {
        let path = std::env::temp_dir().join(format!("kvrail-bare-{name}-{}", std::process::id()));
        fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let measured = measure(&path, &setting(), Some("192.0.2.1:7471"));
        fs::remove_file(&path).unwrap();
        measured
    }

    #[test]
    fn the_table_is_read_in_the_units_that_it_names() {
        assert!((average(TABLE).unwrap() - 392.03 / 8.0).abs() < 1e-9);
        let old = TABLE.replace("Gb/sec", "MB/sec").replace("392.03", "46730.10");
        assert!((average(&old).unwrap() - 49.0).abs() < 0.01);
        let wide = TABLE.replace("MsgRate[Mpps]", "MsgRate[Mpps] CPU_Util[%]");
        for bad in [
            "",
            "#bytes",
            &TABLE.replace("Gb/sec", "furlongs"),
            &TABLE.replace("BW average", "BW typical"),
            &TABLE.replace("392.03", "fast"),
            &TABLE.replace("392.03", "nan"),
            &TABLE.replace("392.03", "0.00"),
            &wide,
        ] {
            assert_eq!(average(bad), None, "{bad}");
        }
    }

    #[test]
    fn it_runs_with_the_sizes_and_the_depth_of_the_ladder() {
        let script = format!("echo \"$@\" >&2\ncat <<'END'\n{TABLE}END\n");
        let bare = with("good", &script).unwrap();
        let words = "-F --report_gbits -d mlx5_0 -i 1 -s 131072 -q 16 -D 1 -o 16 -x 3 -p 7471 192.0.2.1";
        assert_eq!(bare.command, format!("ib_read_bw {words}"));
        assert_eq!((bare.bytes, (bare.gb_per_s * 10.0).round()), (131_072, 490.0));
        assert!(setting().server_line().ends_with("-s 131072 -q 16 -D 1 -o 16 -x 3"));
    }

    #[test]
    fn a_program_that_fails_or_prints_another_table_is_quoted() {
        let error = with("fails", "echo Couldn\\'t connect to 192.0.2.1 >&2; exit 1").unwrap_err();
        let text = format!("{error:#}");
        for word in ["ib_read_bw -F", "exit status: 1", "Couldn't connect", "--bare off"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        let text = format!("{:#}", with("other", "echo bandwidth 392").unwrap_err());
        for word in ["no table of a version that is known", "bandwidth 392", "--bare off"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        let text = format!("{:#}", with("silent", "true").unwrap_err());
        assert!(text.contains("it printed nothing"), "{text}");
    }
}
