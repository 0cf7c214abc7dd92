//! The key that both sides hold, given as text or in a file.

use std::path::PathBuf;

use anyhow::{Context, anyhow};
use clap::Args;
use kvrail::PeerKey;
use kvrail::session::KeyError;
use kvrail_host::secret::random_bytes;
use serde::{Deserialize, Serialize};

#[derive(Debug, Args)]
pub(crate) struct KeyArgs {
    /// The key that both sides hold: 64 hexadecimal digits. Other users of this host can see it
    /// while this runs.
    #[arg(long, value_name = "HEX", value_parser = Key::parse, conflicts_with = "key_file")]
    pub(crate) key: Option<Key>,
    /// A file that holds the key, as 32 bytes or 64 hexadecimal digits, readable by its owner only.
    #[arg(long, value_name = "FILE", visible_alias = "psk-file")]
    pub(crate) key_file: Option<PathBuf>,
}

/// A valid key as text, in the form in which a child process gets it over its pipe.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Key(String);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// A new random key.
    pub(crate) fn random() -> anyhow::Result<Self> {
        let bytes: [u8; 32] = random_bytes().map_err(|error| {
            anyhow!("cannot make a key, because the system gives no random numbers: {error}; give one by --key-file")
        })?;
        Ok(Self::of(&bytes))
    }

    fn of(bytes: &[u8; 32]) -> Self {
        Self(bytes.iter().map(|b| format!("{b:02x}")).collect())
    }

    fn parse(text: &str) -> Result<Self, KeyError> {
        PeerKey::from_hex(text)?;
        Ok(Self(text.trim_ascii().into()))
    }

    /// The key in the library's type.
    pub(crate) fn peer_key(&self) -> anyhow::Result<PeerKey> {
        Ok(PeerKey::from_hex(&self.0)?)
    }

    /// The key as 64 hexadecimal digits.
    pub(crate) fn hex(&self) -> &str {
        &self.0
    }
}

impl KeyArgs {
    /// The key that was given, directly or by its file; `None` if there was neither.
    pub(crate) fn read(&self) -> anyhow::Result<Option<Key>> {
        let Some(path) = &self.key_file else { return Ok(self.key.clone()) };
        // Checks the file's permissions and its content.
        PeerKey::from_file(path)?;
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read the key file {}", path.display()))?;
        Ok(Some(match <&[u8; 32]>::try_from(&bytes[..]) {
            Ok(raw) => Key::of(raw),
            Err(_) => Key(String::from_utf8_lossy(&bytes).trim_ascii().into()),
        }))
    }
}
