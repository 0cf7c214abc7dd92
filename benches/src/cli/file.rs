//! `--config FILE`: the configuration file of a node, for the keys that mean the same here.
//!
//! What the file says stands in for arguments that are not given. It becomes arguments itself, so
//! that it is checked, refused and documented as they are.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser};
use kvrail_node::config::{DirectoryFile, NodeFile, NodeTransport};

use crate::cli::Cli;

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// A configuration file of a node (docs/node.toml). What it says of the key, the transport, its
    /// rails, the layout, the directory, the address and the metrics is taken where no argument
    /// says it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Parses the command line, with what its file says.
pub(crate) fn parse(given: Vec<OsString>) -> Result<Cli, clap::Error> {
    let matches = Cli::command().try_get_matches_from(&given)?;
    let of_file = matches.subcommand().map_or(Ok(Vec::new()), |(name, matches)| of_file(name, matches))?;
    if of_file.is_empty() {
        return Cli::from_arg_matches(&matches);
    }
    Cli::try_parse_from(given.into_iter().chain(of_file.into_iter().map(OsString::from)))
}

/// The arguments that the command's file stands for.
fn of_file(command: &str, matches: &ArgMatches) -> Result<Vec<String>, clap::Error> {
    // Other commands have no such argument.
    let Ok(Some(path)) = matches.try_get_one::<PathBuf>("config") else { return Ok(Vec::new()) };
    let file = NodeFile::read(path).map_err(|error| Cli::command().error(ErrorKind::Io, error))?;
    let given = |name: &str| matches.value_source(name) == Some(ValueSource::CommandLine);
    let mut arguments = Vec::new();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|_| !given(&name.replace('-', "_"))) {
            arguments.push(format!("--{name}={value}"));
        }
    };
    if !given("key") {
        add("key-file", Some(file.psk_file.display().to_string()));
    }
    add("transport", Some(transport(file.transport).into()));
    add("rails", (!file.rails.is_empty()).then(|| file.rails.join(",")));
    let directory = match &file.directory {
        DirectoryFile::Embedded { .. } => Some("embedded".into()),
        DirectoryFile::OneSided { .. } => Some("one-sided".into()),
        DirectoryFile::Redis { url, .. } => Some(url.clone()),
        // Without one these commands have nothing to look up at.
        _ => None,
    };
    add("directory", directory);
    let pool = file.pools.first();
    let read = file.layouts.first().map(|layout| layout.name());
    add("layout", pool.map(|pool| pool.layout).or(read).map(str::to_owned));
    if command == "serve" {
        let bytes = |pages: u32, page: u64| format!("{}B", u64::from(pages) * page);
        add("working-set", pool.map(|pool| bytes(pool.pages(), pool.geometry.page_bytes())));
        add("listen", file.listen.map(|listen| listen.to_string()));
        add("metrics", file.metrics.map(|metrics| metrics.to_string()));
    } else {
        add("readers", Some(file.readers.to_string()));
        add("dir-cache", Some(file.directory_cache.as_secs_f64().to_string()));
    }
    Ok(arguments)
}

const fn transport(of: NodeTransport) -> &'static str {
    match of {
        NodeTransport::Shm => "shm",
        NodeTransport::Verbs => "verbs",
        _ => "tcp",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn arguments(line: &str) -> Result<Vec<String>, String> {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/node.toml");
        let words = line.split(' ').map(|word| word.replace("SAMPLE", &sample.display().to_string()));
        let matches = Cli::command().try_get_matches_from(words).map_err(|error| error.to_string())?;
        let (name, matches) = matches.subcommand().expect("a command");
        of_file(name, matches).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_stands_in_for_what_no_argument_says() {
        let common = ["--key-file=/etc/kvrail/psk", "--transport=tcp", "--directory=embedded"];
        let layout = "--layout=sgl_mla_page_first";
        let serve = arguments("kvrail-bench serve --config SAMPLE").unwrap();
        let bytes = format!("--working-set={}B", 4096 * 4_497_408_u64);
        let of_serve = [layout, &bytes, "--listen=10.0.0.5:7470", "--metrics=10.0.0.5:9470"];
        assert_eq!(serve, [&common[..], &of_serve].concat());
        let drive = arguments("kvrail-bench drive --config SAMPLE").unwrap();
        assert_eq!(drive, [&common[..], &[layout, "--readers=2", "--dir-cache=5"]].concat());
    }

    #[test]
    fn an_argument_comes_before_the_file() {
        let key = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
        let line = format!("kvrail-bench drive --config SAMPLE --key {key} --transport shm --dir-cache 0");
        let left = arguments(&line).unwrap();
        assert_eq!(left, ["--directory=embedded", "--layout=sgl_mla_page_first", "--readers=2"]);
        assert_eq!(arguments("kvrail-bench drive --transport shm").unwrap(), [""; 0]);
    }

    #[test]
    fn a_file_becomes_a_command() {
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/node.toml");
        let line = ["kvrail-bench", "drive", "--config", &sample.display().to_string()].map(OsString::from);
        let cli = parse(line.to_vec()).unwrap();
        let text = format!("{:?}", cli.into_command());
        assert!(text.contains("Tcp") && text.contains("/etc/kvrail/psk"), "{text}");
    }

    #[test]
    fn a_file_that_cannot_be_is_refused_with_its_name() {
        let error = arguments("kvrail-bench serve --config /nowhere/node.toml").unwrap_err();
        assert!(error.contains("/nowhere/node.toml"), "{error}");
    }
}
