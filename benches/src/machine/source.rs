//! Where facts about the machine come from: the files below a root, which is `/` unless a user
//! looks at a copy of another machine's.
//!
//! A container or a copy may hold anything under the names of the kernel's files. So no more is
//! read than a bound, only regular files are opened (a FIFO would block), and every failure is a
//! sentence that names the file as the kernel names it, without the root.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The most bytes of a file that holds one value: a page, as sysfs writes at most.
const VALUE: u64 = 4096;

/// The most entries of a folder that are looked at. mlx5 has 256 GIDs for each port.
const ENTRIES: usize = 4096;

/// The most characters of a file that an error repeats.
const QUOTED: usize = 40;

/// The root of the files.
#[derive(Clone, Debug)]
pub(crate) struct Source(PathBuf);

impl Source {
    /// The files below `root`.
    pub(crate) fn at(root: &Path) -> Self {
        Self(root.into())
    }

    /// The root itself.
    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    /// Text without its path's root. Other modules' errors name whole paths.
    pub(crate) fn without_root(&self, text: &str) -> String {
        match self.0.to_str().map(|root| root.trim_end_matches('/')) {
            Some(root) if !root.is_empty() => text.replace(root, ""),
            _ => text.into(),
        }
    }

    /// The file at `path`, which is absolute below the root.
    fn place(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    /// The first `limit` bytes of a file, and whether it has more.
    fn bytes(&self, path: &str, limit: u64) -> Result<(Vec<u8>, bool), String> {
        let failed = |error: io::Error| failure(path, &error);
        let place = self.place(path);
        if !fs::metadata(&place).map_err(failed)?.is_file() {
            return Err(format!("{path}: not a file"));
        }
        let mut bytes = Vec::new();
        File::open(&place).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).map_err(failed)?;
        let more = bytes.len() as u64 > limit;
        bytes.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok((bytes, more))
    }

    /// A file of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is longer, or is no text.
    pub(crate) fn text(&self, path: &str, limit: u64) -> Result<String, String> {
        match self.bytes(path, limit)? {
            (_, true) => Err(format!("{path}: longer than {limit} bytes")),
            (bytes, false) => String::from_utf8(bytes).map_err(|_| format!("{path}: not text")),
        }
    }

    /// The first `limit` bytes of a file that may be longer.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub(crate) fn beginning(&self, path: &str, limit: u64) -> Result<String, String> {
        Ok(String::from_utf8_lossy(&self.bytes(path, limit)?.0).into_owned())
    }

    /// The value of a file that holds one line.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is empty, or holds more.
    pub(crate) fn value(&self, path: &str) -> Result<String, String> {
        let text = self.text(path, VALUE)?;
        let value = text.trim();
        if value.is_empty() {
            return Err(format!("{path}: empty"));
        }
        if value.chars().any(char::is_control) {
            return Err(malformed(path, value, "line of text"));
        }
        Ok(value.into())
    }

    /// The value of a file as `parse` reads it. `what` names what it should be.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or holds something else.
    pub(crate) fn parsed<T>(
        &self,
        path: &str,
        what: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, String> {
        let value = self.value(path)?;
        parse(&value).ok_or_else(|| malformed(path, &value, what))
    }

    /// The number that a file holds.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or holds no such number.
    pub(crate) fn number<T: FromStr>(&self, path: &str) -> Result<T, String> {
        self.parsed(path, "number", |value| value.parse().ok())
    }

    /// The names in a folder: those that are text, in the order of the numbers at their ends.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub(crate) fn names(&self, path: &str) -> Result<Vec<String>, String> {
        let entries = fs::read_dir(self.place(path)).map_err(|error| failure(path, &error))?;
        let names = entries.take(ENTRIES).flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<_> = names.filter(|name| !name.chars().any(char::is_control)).collect();
        names.sort_by_cached_key(|name| {
            let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
            (stem.to_owned(), name[stem.len()..].parse::<u64>().ok(), name.clone())
        });
        Ok(names)
    }

    /// The last part of the path that a link leads to.
    ///
    /// # Errors
    ///
    /// There is no such link.
    pub(crate) fn link(&self, path: &str) -> Result<String, String> {
        let target = fs::read_link(self.place(path)).map_err(|error| failure(path, &error))?;
        let name = target.file_name().and_then(|name| name.to_str());
        name.map(str::to_owned).ok_or_else(|| format!("{path}: leads to no name"))
    }

    /// Whether something is at `path`, as far as this process can see.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.place(path).exists()
    }
}

fn failure(path: &str, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => format!("{path}: not found"),
        ErrorKind::PermissionDenied => format!("{path}: permission denied"),
        kind => format!("{path}: {kind}"),
    }
}

/// The error of a file that holds `text` where it should hold a `what`.
pub(crate) fn malformed(path: &str, text: &str, what: impl fmt::Display) -> String {
    let quoted: String = text.chars().take(QUOTED).flat_map(char::escape_debug).collect();
    let more = if text.chars().nth(QUOTED).is_some() { "..." } else { "" };
    format!("{path}: `{quoted}{more}` is no {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own that is removed afterwards.
    /// Each test has a tree of its own: they run at the same time.
    fn tree(name: &str, test: impl FnOnce(&Path, &Source)) {
        let folder = std::env::temp_dir().join(format!("kvrail-source-{name}-{}", std::process::id()));
        fs::create_dir_all(folder.join("sys")).unwrap();
        test(&folder, &Source::at(&folder));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_is_no_value_is_an_error_that_names_the_file() {
        tree("1", |folder, source| {
            let long = "9".repeat(1 << 20);
            for (text, complaint) in [
                (&b"400\n"[..], None),
                (b"", Some("/sys/x: empty")),
                (b"many", Some("/sys/x: `many` is no number")),
                (b"-4", Some("/sys/x: `-4` is no number")),
                (b"4\n5", Some("/sys/x: `4\\n5` is no line of text")),
                (b"\x1b[31m", Some("/sys/x: `\\u{1b}[31m` is no line of text")),
                (b"\xFF\xFE", Some("/sys/x: not text")),
                (long.as_bytes(), Some("/sys/x: longer than 4096 bytes")),
            ] {
                fs::write(folder.join("sys/x"), text).unwrap();
                assert_eq!(source.number::<u32>("/sys/x").err().as_deref(), complaint);
            }
            assert_eq!(source.number::<u32>("/sys/y"), Err("/sys/y: not found".into()));
            assert_eq!(source.number::<u32>("/sys"), Err("/sys: not a file".into()));
            assert_eq!(source.number::<u32>("/sys/x/y"), Err("/sys/x/y: not a directory".into()));
            assert!(malformed("/x", &long, "number").len() < 100);
        });
    }

    #[test]
    fn names_come_in_the_order_of_their_numbers() {
        tree("2", |folder, source| {
            for name in ["mlx5_10", "mlx5_2", "eth0", "mlx5_", "sys"] {
                fs::create_dir_all(folder.join(name)).unwrap();
            }
            assert_eq!(source.names("/").unwrap(), ["eth0", "mlx5_", "mlx5_2", "mlx5_10", "sys"]);
            assert_eq!(source.names("/none"), Err("/none: not found".into()));
            let text = format!("{}/proc/self/cgroup is missing", folder.display());
            assert_eq!(source.without_root(&text), "/proc/self/cgroup is missing");
            assert_eq!(Source::at(Path::new("/")).without_root("/proc"), "/proc");
        });
    }
}
