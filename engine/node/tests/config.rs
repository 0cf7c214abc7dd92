//! The configuration file: what is read, and what is refused with its key and line.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kvrail::PageLayout;
use kvrail::layouts::catalogue::{SglMlaPageFirst, VllmMlaBf16};
use kvrail_node::config::{DirectoryFile, NodeFile, NodeFileError, NodeTransport, PoolSize, StartedNode};
use kvrail_node::{GetBatch, Key, KeySpace, Namespace, Node, Put};

const LEAST: &str = "name = \"n\"\npsk_file = \"psk\"\ntag_secret_file = \"tags\"\n";

fn parse(text: &str) -> Result<NodeFile, NodeFileError> {
    NodeFile::parse(text, Path::new("/etc/kvrail/node.toml"))
}

#[test]
fn the_sample_is_a_configuration_with_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/node.toml");
    let file = NodeFile::read(&path).unwrap();
    assert_eq!(file.name.to_string(), "decode-3");
    assert_eq!(file.listen.unwrap().to_string(), "10.0.0.5:7470");
    assert_eq!(file.advertise.unwrap().to_string(), "decode-3.example.org:7470");
    assert_eq!(file.zone.unwrap().to_string(), "rack-7");
    assert_eq!(file.psk_file, Path::new("/etc/kvrail/psk"));
    assert_eq!(file.tag_secret_file, Path::new("/etc/kvrail/tag-secret"));
    assert_eq!((file.transport, file.rails, file.readers), (NodeTransport::Tcp, vec![], 2));
    assert_eq!((file.peers, file.near_nics), (Some(512), true));
    assert_eq!(file.layouts, [PageLayout::of::<VllmMlaBf16>()]);
    let [pool] = &file.pools[..] else { panic!("{:?}", file.pools) };
    assert_eq!(pool.page, PageLayout::of::<SglMlaPageFirst>(), "the layout that a program names");
    assert_eq!((pool.layout, pool.size, pool.pages()), ("sgl_mla_page_first", PoolSize::Pages(4096), 4096));
    let DirectoryFile::Embedded { candidates } = &file.directory else { panic!("{:?}", file.directory) };
    assert_eq!(candidates.len(), 2);
    assert_eq!(file.directory_cache, Duration::from_secs(5));
    assert_eq!(file.metrics.unwrap().to_string(), "10.0.0.5:9470");
    assert_eq!(file.slow_request, Some(Duration::from_millis(50)));
    let times = (file.connect_timeout, file.request_timeout);
    assert_eq!(times, (Duration::from_secs(2), Duration::from_secs(5)));
}

#[test]
fn the_least_that_a_file_says_is_a_name_and_two_secrets() {
    let file = parse(LEAST).unwrap();
    assert_eq!(file.psk_file, Path::new("/etc/kvrail/psk"), "below the file's folder");
    assert_eq!((file.listen, file.metrics, file.slow_request), (None, None, None));
    assert_eq!((file.directory, file.readers, file.peers), (DirectoryFile::None, 1, None));
    assert!(file.pools.is_empty() && file.near_nics);
    let off = format!("{LEAST}[transport]\nkind = \"tcp\"\nnear_nics = false\n");
    assert!(!parse(&off).unwrap().near_nics);
}

#[test]
fn a_pool_of_bytes_has_the_pages_that_fit() {
    let text = |bytes: u64| format!("{LEAST}[[pool]]\nlayout = \"sgl_mla_page_first\"\nbytes = {bytes}\n");
    let page = parse(&text(1 << 30)).unwrap().pools[0].geometry.page_bytes();
    assert_eq!(page, 4_497_408, "docs/layouts.md");
    assert_eq!(parse(&text(3 * page)).unwrap().pools[0].pages(), 3);
    assert_eq!(parse(&text(4 * page - 1)).unwrap().pools[0].pages(), 3);
    assert!(parse(&text(page - 1)).is_err());
}

#[test]
fn keys_that_are_not_known_are_refused_with_their_name_and_line() {
    let cases = [
        (format!("{LEAST}listn = \"a:1\"\n"), 4, "listn"),
        (format!("{LEAST}\n[transport]\nkind = \"tcp\"\nrail = []\n"), 7, "rail"),
        (format!("{LEAST}[[pool]]\nlayout = \"x\"\npages = 1\nslots = 2\n"), 7, "slots"),
        (format!("{LEAST}[directory]\nkind = \"none\"\nttl = 2\n"), 6, "ttl"),
        (format!("{LEAST}[timeouts]\nread = 2\n"), 5, "read"),
        (format!("{LEAST}[dirctory]\nkind = \"none\"\n"), 4, "dirctory"),
    ];
    for (text, wanted, key) in cases {
        let error = parse(&text).unwrap_err();
        let NodeFileError::Syntax { line, why, .. } = &error else { panic!("{error}") };
        assert_eq!(*line, wanted, "{error}");
        assert!(why.contains(&format!("`{key}`")), "{error}");
        assert!(error.to_string().starts_with("/etc/kvrail/node.toml, line "), "{error}");
        assert_eq!(error.code(), 7341);
    }
}

#[test]
fn what_is_no_toml_lacks_a_key_or_has_another_type_is_refused() {
    for text in [
        "name = ",
        "name = 7\npsk_file = \"a\"\ntag_secret_file = \"b\"\n",
        "name = \"n\"\npsk_file = \"a\"\n",
        "\u{0}",
        &format!("{LEAST}name = \"again\"\n"),
        &format!("{LEAST}[transport]\nrails = [\"a\"]\n"),
        &format!("{LEAST}[transport]\nkind = \"tcp\"\nreaders = 1.5\n"),
    ] {
        assert!(matches!(parse(text), Err(NodeFileError::Syntax { .. })), "{text}");
    }
}

#[test]
fn values_that_cannot_be_are_refused_with_their_key_and_line() {
    let with = |rest: &str| format!("{LEAST}{rest}\n");
    let cases = [
        ("name = \"\"\npsk_file = \"a\"\ntag_secret_file = \"b\"\n".to_owned(), 1, "name"),
        ("name = \"n\"\npsk_file = \"\"\ntag_secret_file = \"b\"\n".to_owned(), 2, "psk_file"),
        (with("listen = \"nowhere\""), 4, "listen"),
        (with("metrics = \"host:9470\""), 4, "metrics"),
        (with("listen = \"0.0.0.0:7470\""), 4, "listen"),
        (with("layouts = [\"vllm_mla_bf16\",\n\"nothing\"]"), 5, "layouts"),
        (with(&format!("zone = \"{}\"", "z".repeat(65))), 4, "zone"),
        (with("slow_request_seconds = -1"), 4, "slow_request_seconds"),
        (with("slow_request_seconds = nan"), 4, "slow_request_seconds"),
        (with("[transport]\nkind = \"ib\""), 5, "transport.kind"),
        (with("[transport]\nkind = \"tcp\"\nreaders = 0"), 6, "transport.readers"),
        (with("[transport]\nkind = \"tcp\"\nrails = [\"a\",\n\"\"]"), 7, "transport.rails"),
        (with("[transport]\nkind = \"shm\"\nrails = [\"a\"]"), 6, "transport.rails"),
        (with("[transport]\nkind = \"tcp\"\nreaders = 65"), 6, "transport.readers"),
        (with("[transport]\nkind = \"tcp\"\npeers = 0"), 6, "transport.peers"),
        (with("[transport]\nkind = \"tcp\"\npeers = 1025"), 6, "transport.peers"),
        (with("[[pool]]\nlayout = \"nothing\"\npages = 1"), 5, "pool.layout"),
        (with("[[pool]]\nlayout = \"sgl_mla_page_first\"\npages = 0"), 6, "pool.pages"),
        (with("[[pool]]\nlayout = \"sgl_mla_page_first\"\nbytes = 1"), 6, "pool.bytes"),
        (with("[[pool]]\nlayout = \"sgl_mla_page_first\""), 5, "pool"),
        (with("[[pool]]\nlayout = \"sgl_mla_page_first\"\npages = 1\nbytes = 99999999"), 5, "pool"),
        (with("[directory]\nkind = \"etcd\""), 5, "directory.kind"),
        (with("[directory]\nkind = \"etcd://x\""), 5, "directory.kind"),
        (with("[directory]\nkind = \"none\"\ncandidates = [\"a:1\"]"), 6, "directory.candidates"),
        (with("[directory]\nkind = \"embedded\"\ncandidates = [\"a\"]"), 6, "directory.candidates"),
        (with("[directory]\nkind = \"embedded\"\nprefix = \"p\""), 6, "directory.prefix"),
        (with("[directory]\nkind = \"embedded\"\nlease_seconds = 3"), 6, "directory.lease_seconds"),
        (with("[directory]\nkind = \"none\"\ncache_seconds = 1e9"), 6, "directory.cache_seconds"),
        (with("[timeouts]\nconnect_seconds = 0"), 5, "timeouts.connect_seconds"),
        (with("[timeouts]\nrequest_seconds = inf"), 5, "timeouts.request_seconds"),
    ];
    for (text, wanted, name) in cases {
        let error = parse(&text).unwrap_err();
        let NodeFileError::Value { line, key, .. } = &error else { panic!("{text}: {error}") };
        assert_eq!((*line, *key), (wanted, name), "{error}");
        assert_eq!(error.code(), 7342);
    }
}

#[test]
fn a_redis_url_is_checked_and_its_password_is_never_shown() {
    let text = |url: &str, rest: &str| format!("{LEAST}[directory]\nkind = \"{url}\"\n{rest}\n");
    let good = parse(&text("redis-cluster://u:hidden@a:1,b:2", "prefix = \"p\"\nlease_seconds = 1.5"));
    if cfg!(feature = "redis") {
        let good = good.unwrap();
        assert!(!format!("{good:?}").contains("hidden"), "{good:?}");
        let DirectoryFile::Redis { url, prefix, lease } = good.directory else { panic!() };
        assert_eq!((url.as_str(), prefix.as_deref()), ("redis-cluster://u:hidden@a:1,b:2", Some("p")));
        assert_eq!(lease, Some(Duration::from_millis(1500)));
    } else {
        assert!(good.unwrap_err().to_string().contains("feature `redis`"));
    }
    for (url, rest) in [
        ("redis://u:hidden@a,b", ""),
        ("redis:/u:hidden@a", ""),
        ("redis://u:hidden@a", "prefix = \"{}\""),
        ("redis://u:hidden@a", "unknown = 1"),
        ("redis://u:hidden@a", "cache_seconds = \"1\""),
    ] {
        let error = parse(&text(url, rest)).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hidden"), "{error:?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = NodeFile::read(Path::new("/nowhere/node.toml")).unwrap_err();
    assert!(matches!(error, NodeFileError::File { .. }) && error.code() == 7340);
    assert!(error.to_string().contains("/nowhere/node.toml"), "{error}");
}

/// A folder of this test's own, which goes away with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kvrail-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn secret(&self, name: &str, digit: char) {
        let path = self.0.join(name);
        let mut file =
            File::options().create(true).write(true).truncate(true).mode(0o600).open(path).unwrap();
        writeln!(file, "{}", "1234567890abcdef".repeat(4).replace('0', &digit.to_string())).unwrap();
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is below the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The text with each of these places changed, all of which it must have.
fn changed(text: &str, places: &[(&str, &str)]) -> String {
    places.iter().fold(text.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "the sample has no {from:?}");
        text.replace(from, to)
    })
}

fn page_key(started: &StartedNode, layout: &PageLayout) -> Key {
    let namespace = Namespace { model: "m".into(), layout: layout.fingerprint(), shape: "tp 1".into() };
    KeySpace::new(&started.tag_secret, &namespace).unwrap().key(b"a page").unwrap()
}

#[test]
fn the_sample_starts_a_node_and_another_file_one_that_reads_from_it() {
    let folder = Folder::new("files");
    folder.secret("psk", 'a');
    folder.secret("tag-secret", 'b');
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/node.toml");
    // What a test does not have: the hosts, the secrets, 18 GB of memory.
    let places = [
        ("10.0.0.5:7470", "127.0.0.1:0"),
        ("10.0.0.5:9470", "127.0.0.1:0"),
        ("advertise = \"decode-3.example.org:7470\"\n", ""),
        ("[\"10.0.0.1:7470\", \"10.0.0.2:7470\"]", "[]"),
        ("/etc/kvrail/", ""),
        ("pages = 4096", "pages = 2"),
    ];
    let text = changed(&fs::read_to_string(sample).unwrap(), &places);
    let owner = Node::start_from_file(folder.file("node.toml", &text)).unwrap();
    assert_eq!(owner.request_timeout, Duration::from_secs(5));
    let layout = PageLayout::of::<SglMlaPageFirst>();
    let page = vec![0x5a; layout.page_bytes() as usize];
    let key = page_key(&owner, &layout);
    assert!(matches!(owner.node.put(&layout, key, &page), Ok(Put::Stored(_))));
    owner.node.announcer().unwrap().flush(Instant::now() + Duration::from_secs(60)).unwrap();
    #[cfg(feature = "metrics")]
    {
        let address = owner.metrics.as_ref().unwrap().local_addr();
        std::net::TcpStream::connect(address).unwrap();
    }

    let address = owner.node.address().unwrap();
    for directory in ["embedded", "one-sided"] {
        let text = format!(
            "name = \"reader\"\npsk_file = \"psk\"\ntag_secret_file = \"tag-secret\"\n\
             layouts = [\"sgl_mla_page_first\"]\n[transport]\nkind = \"tcp\"\n\
             [directory]\nkind = \"{directory}\"\ncandidates = [\"{address}\"]\n"
        );
        let reader = Node::start_from_file(folder.file("reader.toml", &text)).unwrap();
        assert_eq!(page_key(&reader, &layout), key, "the same secret");
        let memory = kvrail::memory::leaked(page.len()).unwrap();
        let places = reader.node.register(&layout, memory).unwrap();
        let mut batch = GetBatch::default();
        batch.read(key, places.take_any().unwrap());
        let counts = reader.node.get(&mut batch, Instant::now() + Duration::from_secs(60));
        assert_eq!(counts.hits, 1, "{directory}: {:?}", batch.result(0));
        assert!(batch.destination(0).unwrap().bytes(0) == Some(&page[..]), "{directory}: the bytes");
    }
}

#[test]
fn a_file_whose_node_cannot_start_says_why() {
    let folder = Folder::new("bad-files");
    folder.secret("tags", 'b');
    let start = |text: &str| Node::start_from_file(folder.file("node.toml", text)).unwrap_err();
    let error = start(LEAST);
    assert!(matches!(error, NodeFileError::Secret { key: "psk_file", .. }), "{error}");
    assert!(error.to_string().contains("psk") && error.code() == 7343, "{error}");
    folder.secret("psk", 'a');
    let error = start(LEAST);
    assert_eq!(error.code(), 7220, "there is no layout: {error}");
    let error = start(&format!("{LEAST}[transport]\nkind = \"verbs\"\n"));
    if cfg!(feature = "verbs") {
        assert!(matches!(error, NodeFileError::Node(_)), "{error}");
    } else {
        assert!(matches!(error, NodeFileError::Missing { feature: "verbs", .. }), "{error}");
        assert_eq!(error.code(), 7344);
    }
    let text = changed(LEAST, &[("\"tags\"", "\"psk/none\"")]);
    let error = start(&text);
    assert!(matches!(error, NodeFileError::Secret { key: "tag_secret_file", .. }), "{error}");
}
