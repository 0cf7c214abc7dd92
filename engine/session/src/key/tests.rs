use super::*;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";

#[test]
fn hex_is_64_digits() {
    let key = PeerKey::from_hex(&format!(" {HEX}\n")).unwrap();
    assert!((0..32).eq(key.0));
    assert!(matches!(PeerKey::from_hex(&HEX[1..]), Err(KeyError::Length { len: 63 })));
    assert!(matches!(PeerKey::from_hex(&format!("{HEX}0")), Err(KeyError::Length { len: 65 })));
    assert!(matches!(PeerKey::from_hex(&HEX.replace('A', "g")), Err(KeyError::Digit { at: 53 })));
    assert!(matches!(PeerKey::from_hex(&HEX.replace('A', "é")), Err(KeyError::Digit { at: 53 })));
}

#[test]
fn neither_debug_output_nor_errors_contain_the_key() {
    let key = PeerKey::from_hex(HEX).unwrap();
    let shown = format!("{key:?}");
    assert!(!shown.contains("0001") && shown.contains(&key.id().to_string()), "{shown}");
    let error = PeerKey::from_hex(&HEX[1..]).unwrap_err().to_string();
    assert!(!error.contains("010203"), "{error}");
}

#[test]
fn a_file_open_to_others_is_refused() {
    let dir = std::env::temp_dir().join(format!("kvrail-key-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("key");
    let mut file = std::fs::File::create(&path).unwrap();
    writeln!(file, "{HEX}").unwrap();
    let chmod = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    chmod(0o640);
    assert_eq!(PeerKey::from_file(&path).unwrap().id(), PeerKey::from_hex(HEX).unwrap().id());
    chmod(0o644);
    let error = PeerKey::from_file(&path).unwrap_err();
    assert!(error.to_string().contains("mode 644"), "{error}");
    chmod(0o600);
    file.write_all(&[b'a'; 4096]).unwrap();
    assert!(matches!(PeerKey::from_file(&path), Err(KeyError::Content { .. })));
    std::fs::remove_dir_all(&dir).unwrap();
    let error = PeerKey::from_file(&path).unwrap_err().to_string();
    assert!(error.contains("kvrail-key") && error.contains("No such file"), "{error}");
}

/// Python: `hashlib.pbkdf2_hmac("sha256", words, salt, 1000)`.
#[test]
fn passphrases_are_stretched_by_pbkdf2() {
    assert!(matches!(PeerKey::from_passphrase("too short"), Err(KeyError::Passphrase { len: 9 })));
    let key = PeerKey::stretch("correct horse battery staple", 1000);
    let hex: String = key.0.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, PBKDF2_1000);
}

const PBKDF2_1000: &str = "a582513ba71a5f03172b554f856e3a508eafac2ed9d25542d390a5228aec211e";
