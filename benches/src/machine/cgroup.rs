//! The limits that control groups set on this process. In a container these are what the container
//! has, while the files under `/proc` describe the whole machine.
//!
//! A limit holds for a group and for all groups below it, so the limits of every ancestor count.
//! Both versions of control groups are read, also on hosts where they are mixed: a controller
//! belongs to version 1 where `/proc/self/cgroup` names it, and to version 2 otherwise. Groups
//! above the root of the mount, such as those outside of a container with a namespace of its own,
//! cannot be seen from within, and neither can their limits.
//!
//! Every function takes the root of the file system, so that tests can bring their own.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// The most bytes of a file: a host with thousands of containers has as many mounts.
const MAX_FILE: u64 = 16 << 20;

/// Why the limits are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unknown {
    /// A file cannot be read.
    #[error("{} cannot be read: {kind}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        kind: ErrorKind,
    },
    /// A file does not hold what the kernel documents.
    #[error("{} holds `{text}`, which is no {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The beginning of its text, at most a line.
        text: String,
        /// What was expected.
        what: &'static str,
    },
    /// The hierarchy is not mounted, or not the part of it that this process is in.
    #[error("this process is in control group {group}, and no mounted {hierarchy} hierarchy shows it")]
    NotMounted {
        /// Its name in `/proc/self/cgroup`.
        group: String,
        /// The version and the controller.
        hierarchy: String,
    },
}

/// A limit on memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryLimit {
    /// The file that holds it.
    pub(crate) file: PathBuf,
    /// Bytes that the group may have.
    pub(crate) bytes: u64,
    /// Bytes that it can still have. The file cache counts as free, as in `MemAvailable`, because
    /// the kernel takes it back before it kills a process.
    pub(crate) free: u64,
}

/// A limit on the time of CPUs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CpuQuota {
    /// The file that holds it.
    pub(crate) file: PathBuf,
    /// How many cores' time the group may have.
    pub(crate) cores: f64,
    /// How often, and for how long, the group has been stopped because it had used its share up.
    pub(crate) throttled: Throttled,
}

/// How much a quota has throttled so far. Only differences between two readings mean something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Throttled {
    /// Periods in which the group was stopped.
    pub(crate) times: u64,
    /// How long, summed over the CPUs on which it was stopped.
    pub(crate) time: Duration,
}

/// The limits on this process's memory, its own group's first.
///
/// # Errors
///
/// The limits are not known, and why.
pub(crate) fn memory(root: &Path) -> Result<Vec<MemoryLimit>, Unknown> {
    let Some(groups) = Groups::find(root, "memory")? else { return Ok(Vec::new()) };
    let mut limits = Vec::new();
    for (above, folder) in groups.folders.iter().enumerate() {
        let (names, usage, cache): (&[_], _, _) = match groups.version {
            // Above `memory.high` the kernel kills no process, but slows all of them down.
            Version::Two => {
                (&["memory.max", "memory.high"], "memory.current", ["inactive_file", "active_file"])
            }
            Version::One => (
                &["memory.limit_in_bytes"],
                "memory.usage_in_bytes",
                ["total_inactive_file", "total_active_file"],
            ),
        };
        // Before Linux 5.11 the limit of a version 1 group did not need to hold for the groups
        // below it.
        let alone = groups.version == Version::One
            && above > 0
            && read(&folder.join("memory.use_hierarchy"))?.is_some_and(|text| text.trim() == "0");
        if alone {
            continue;
        }
        for name in names {
            let file = folder.join(name);
            let Some(text) = read(&file)? else { continue };
            let Some(bytes) = limit(&file, &text)? else { continue };
            let usage = folder.join(usage);
            let used = number(&usage, &require(&usage)?)?;
            let stat = read(&folder.join("memory.stat"))?.unwrap_or_default();
            let cache = cache.iter().filter_map(|key| entry(&stat, key)).fold(0, u64::saturating_add);
            let free = bytes.saturating_sub(used.saturating_sub(cache));
            limits.push(MemoryLimit { file, bytes, free });
        }
    }
    Ok(limits)
}

/// The quotas on this process's CPU time, its own group's first.
///
/// # Errors
///
/// The limits are not known, and why.
pub(crate) fn cpu(root: &Path) -> Result<Vec<CpuQuota>, Unknown> {
    let Some(groups) = Groups::find(root, "cpu")? else { return Ok(Vec::new()) };
    let mut quotas = Vec::new();
    for folder in &groups.folders {
        let (file, quota, period) = match groups.version {
            Version::Two => {
                let file = folder.join("cpu.max");
                let Some(text) = read(&file)? else { continue };
                let Some((quota, period)) = text.trim().split_once(' ') else {
                    return Err(malformed(&file, &text, "quota and period"));
                };
                if quota == "max" {
                    continue;
                }
                let (quota, period) = (number(&file, quota)?, number(&file, period)?);
                (file, quota, period)
            }
            Version::One => {
                let file = folder.join("cpu.cfs_quota_us");
                let Some(quota) = read(&file)? else { continue };
                if quota.trim() == "-1" {
                    continue;
                }
                let period = folder.join("cpu.cfs_period_us");
                let (quota, period) = (number(&file, &quota)?, number(&period, &require(&period)?)?);
                (file, quota, period)
            }
        };
        if quota == 0 || period == 0 {
            return Err(malformed(&file, &format!("{quota} of {period}"), "share of the time"));
        }
        let stat = read(&folder.join("cpu.stat"))?.unwrap_or_default();
        let us = entry(&stat, "throttled_usec").map(Duration::from_micros);
        let time = us.or(entry(&stat, "throttled_time").map(Duration::from_nanos)).unwrap_or_default();
        let throttled = Throttled { times: entry(&stat, "nr_throttled").unwrap_or(0), time };
        quotas.push(CpuQuota { file, cores: quota as f64 / period as f64, throttled });
    }
    Ok(quotas)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The group of this process and its ancestors, in the hierarchy that a controller belongs to.
#[derive(Debug)]
struct Groups {
    version: Version,
    /// The process's own group first, the root of the mount last.
    folders: Vec<PathBuf>,
}

impl Groups {
    /// `None` if the process is in no group of such a hierarchy: then no limit holds.
    fn find(root: &Path, controller: &str) -> Result<Option<Self>, Unknown> {
        let groups = require(&root.join("proc/self/cgroup"))?;
        let Some((version, group)) = membership(&groups, controller) else { return Ok(None) };
        let path = root.join("proc/self/mountinfo");
        let mounts = require(&path)?;
        let mounts = mounts.lines().filter_map(Mount::parse).filter(|mount| mount.has(version, controller));
        // Several mounts may show the group. The one with the most ancestors shows the most limits.
        let mut best: Option<Vec<PathBuf>> = None;
        for mount in mounts {
            let Some(below) = below(&mount.root, group) else { continue };
            let top = root.join(mount.point.strip_prefix("/").unwrap_or(&mount.point));
            let own = top.join(below);
            // Another mount may cover this one.
            if !own.is_dir() {
                continue;
            }
            let folders = own.ancestors().take_while(|folder| folder.starts_with(&top));
            let folders: Vec<_> = folders.map(Path::to_owned).collect();
            if best.as_ref().is_none_or(|best| folders.len() > best.len()) {
                best = Some(folders);
            }
        }
        let hierarchy = match version {
            Version::One => format!("version 1 {controller}"),
            Version::Two => "version 2".into(),
        };
        match best {
            Some(folders) => Ok(Some(Self { version, folders })),
            None => Err(Unknown::NotMounted { group: group.into(), hierarchy }),
        }
    }
}

/// The group of the process in the hierarchy that `controller` belongs to. A line of
/// `/proc/self/cgroup` is `number:controllers:group`; that of version 2 has number 0 and no
/// controllers.
fn membership<'a>(groups: &'a str, controller: &str) -> Option<(Version, &'a str)> {
    let mut unified = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(group)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if controllers.split(',').any(|name| name == controller) {
            return Some((Version::One, group));
        }
        if number == "0" && controllers.is_empty() {
            unified = Some((Version::Two, group));
        }
    }
    unified
}

/// A mount, as a line of `/proc/self/mountinfo` describes it.
#[derive(Debug)]
struct Mount<'a> {
    /// The folder of its file system that is mounted.
    root: PathBuf,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    /// `id parent major:minor root point options [more ...] - kind source options`
    fn parse(line: &'a str) -> Option<Self> {
        let (place, system) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let mut system = system.split(' ');
        Some(Self {
            root: unescaped(place.next()?),
            point: unescaped(place.next()?),
            kind: system.next()?,
            options: system.nth(1)?,
        })
    }

    fn has(&self, version: Version, controller: &str) -> bool {
        match version {
            Version::One => self.kind == "cgroup" && self.options.split(',').any(|name| name == controller),
            Version::Two => self.kind == "cgroup2",
        }
    }
}

/// Decodes a path of mountinfo, where a backslash and three octal digits stand for space, tab, line
/// feed and backslash.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        let octal = |digits: &[u8; 3]| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok();
        match after.split_first_chunk::<3>() {
            Some((digits, after)) if *first == b'\\' => match octal(digits) {
                Some(byte) => {
                    bytes.push(byte);
                    rest = after;
                }
                None => bytes.push(*first),
            },
            _ => bytes.push(*first),
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// The path of `group` below the root of a mount; `None` if the group is elsewhere. Both paths are
/// relative to the process's namespace of groups, and begin with `/..` where they lie outside of
/// it.
fn below(root: &Path, group: &str) -> Option<PathBuf> {
    let below = Path::new(group).strip_prefix(root).ok()?;
    let inside = below.components().all(|part| matches!(part, Component::Normal(_)));
    inside.then(|| below.to_owned())
}

/// Reads a file. `None` if it does not exist, since not every group has every limit.
fn read(path: &Path) -> Result<Option<String>, Unknown> {
    let text = || {
        // Under another root than `/` anything may have the file's name. A FIFO would block.
        let about = fs::metadata(path)?;
        if !about.is_file() && !about.is_dir() {
            return Err(ErrorKind::InvalidInput.into());
        }
        let mut text = String::new();
        let got = File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
        if got as u64 > MAX_FILE { Err(ErrorKind::FileTooLarge.into()) } else { Ok(text) }
    };
    match text() {
        Ok(text) => Ok(Some(text)),
        Err(error) if io::Error::kind(&error) == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Unknown::Unreadable { path: path.into(), kind: error.kind() }),
    }
}

fn require(path: &Path) -> Result<String, Unknown> {
    read(path)?.ok_or_else(|| Unknown::Unreadable { path: path.into(), kind: ErrorKind::NotFound })
}

fn malformed(path: &Path, text: &str, what: &'static str) -> Unknown {
    let text = text.lines().next().unwrap_or_default().chars().take(80).collect();
    Unknown::Malformed { path: path.into(), text, what }
}

fn number(path: &Path, text: &str) -> Result<u64, Unknown> {
    text.trim().parse().map_err(|_| malformed(path, text, "number"))
}

/// Parses a limit on memory; `None` if it limits nothing, which version 1 expresses by its largest
/// number, one that depends on the page size of the kernel.
fn limit(path: &Path, text: &str) -> Result<Option<u64>, Unknown> {
    if text.trim() == "max" {
        return Ok(None);
    }
    number(path, text).map(|bytes| (bytes < 1 << 62).then_some(bytes))
}

/// The number after `key` in a file with a key and a number in each line.
fn entry(stat: &str, key: &str) -> Option<u64> {
    let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == key)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests;
