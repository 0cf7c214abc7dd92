use std::fs::Permissions;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{PeerKey, TagSecret};

const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";

fn raw() -> [u8; 32] {
    *from_hex(HEX).unwrap()
}

/// A folder of its own, removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static FOLDERS: AtomicUsize = AtomicUsize::new(0);
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kvrail-key-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A file with `content` in it.
    fn file(&self, content: &[u8], mode: u32) -> PathBuf {
        let path = self.0.join("key");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn a_file_holds_32_bytes_or_64_digits() {
    let folder = Folder::new();
    let digits = [format!("{HEX}\n"), HEX.into(), format!(" \t\n{HEX}\r\n\n")];
    for content in digits.iter().map(String::as_bytes).chain([&raw()[..]]) {
        assert_eq!(*from_file(&folder.file(content, 0o600)).unwrap(), raw());
    }
    let path = folder.file(&raw(), 0o600);
    assert_eq!(PeerKey::from_file(&path).unwrap().id(), PeerKey::from_bytes(raw()).id());
    assert_eq!(TagSecret::from_file(&path).unwrap().id(), TagSecret::from_bytes(raw()).id());
}

/// What is wrong with the content of a file.
fn wrong(content: &[u8]) -> KeyError {
    let folder = Folder::new();
    let path = folder.file(content, 0o600);
    match from_file(&path) {
        Err(KeyError::Content { path: named, source }) if named == path => *source,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_with_other_content_holds_no_key() {
    assert!(matches!(wrong(b""), KeyError::Length { len: 0 }));
    assert!(matches!(wrong(&HEX.as_bytes()[1..]), KeyError::Length { len: 63 }));
    assert!(matches!(wrong(HEX.replace('7', "x").as_bytes()), KeyError::Digit { at: 15 }));
    assert!(matches!(wrong(&[0xff; 31]), KeyError::Size { len: 31 }));
    assert!(matches!(wrong(&[0xff; 33]), KeyError::Size { len: 33 }));
    assert!(matches!(wrong(&[0xff; 4096]), KeyError::Size { len: 256 }));
    assert!(matches!(wrong(&[b'a'; 4096]), KeyError::Length { len: 256 }));
}

#[test]
fn thirty_two_bytes_that_are_not_random_are_no_key() {
    // 16 bytes as digits, a pass phrase with its line end, an empty device.
    for content in [&HEX.as_bytes()[..32], b"correct horse battery and stapl\n", &[0; 32], &[0xff; 32]] {
        assert!(matches!(wrong(content), KeyError::NotRandom), "{content:02x?}");
    }
}

#[test]
fn a_file_that_others_can_open_is_refused() {
    let folder = Folder::new();
    for mode in [0o600, 0o640, 0o660, 0o400] {
        assert!(from_file(&folder.file(HEX.as_bytes(), mode)).is_ok(), "{mode:o}");
    }
    for mode in [0o644, 0o602, 0o601, 0o666] {
        let error = from_file(&folder.file(HEX.as_bytes(), mode)).unwrap_err();
        assert!(matches!(error, KeyError::Exposed { mode: named, .. } if named == mode), "{error}");
        assert!(error.to_string().contains(&format!("mode {mode:o}")), "{error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let path = Path::new("/nonexistent/kvrail/key");
    let error = from_file(path).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("/nonexistent/kvrail/key") && text.contains("No such file"), "{text}");
}

#[test]
fn no_error_contains_a_part_of_the_secret() {
    let shown = |error: KeyError| format!("{error} {error:?}");
    for error in [from_hex(&HEX[1..]).unwrap_err(), wrong(&HEX.as_bytes()[2..]), wrong(&HEX.as_bytes()[..32])]
    {
        let text = shown(error);
        assert!(!text.contains("0203") && !text.contains("1a1b"), "{text}");
    }
}

#[test]
fn a_content_error_has_the_code_of_its_cause() {
    let content = |source| KeyError::Content { path: "key".into(), source: Box::new(source) };
    assert_eq!(content(KeyError::NotRandom).code(), 4035);
    assert_eq!(content(KeyError::Size { len: 1 }).code(), 4036);
    assert_eq!(content(KeyError::Length { len: 1 }).code(), 4030);
}
