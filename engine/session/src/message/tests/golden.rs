//! The bytes of every message, in golden files. A message of a kind that exists never gets other
//! bytes; what a later version adds is an addition or another kind.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use super::super::{MessageKind, parse};
use super::bytes;
use super::samples::samples;

/// Lines of 16 bytes with their offset.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (i, line) in bytes.chunks(16).enumerate() {
        write!(text, "{:04x}:", i * 16).unwrap();
        line.iter().for_each(|b| write!(text, " {b:02x}").unwrap());
        text.push('\n');
    }
    text
}

#[test]
fn messages_encode_to_the_golden_bytes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/message/golden");
    for message in samples() {
        let kind = message.kind().unwrap();
        let file = folder.join(format!("{kind:?}.hex").to_lowercase());
        let dump = dump(&bytes(&message));
        if env::var_os("BLESS").is_some() {
            fs::write(&file, &dump).unwrap();
        }
        let golden = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(
            dump,
            golden,
            "{}: BLESS=1 writes the file again, and breaks every peer that runs the bytes from before",
            file.display()
        );
    }
}

#[test]
fn there_is_a_sample_and_a_golden_file_of_every_kind() {
    let kinds: Vec<_> = samples().iter().filter_map(|message| message.kind()).collect();
    assert_eq!(kinds, MessageKind::ALL);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/message/golden");
    assert_eq!(fs::read_dir(folder).unwrap().count(), kinds.len());
}

#[test]
fn a_sample_parses_to_itself_and_is_appended_to_what_was_there() {
    for message in samples() {
        let mut bytes = vec![0xee; 3];
        message.encode(&mut bytes);
        assert_eq!(bytes[..3], [0xee; 3]);
        assert_eq!(parse(&bytes[3..]), Ok(message));
    }
}
