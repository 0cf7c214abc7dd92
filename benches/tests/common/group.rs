//! Control groups for programs that a test runs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs the rest of its arguments in the group whose file of processes is the first.
const ENTER: &str = "echo $$ >\"$0\" && exec \"$@\"";

/// A control group below this process's own. It is removed when this is dropped.
pub(crate) struct Group(pub(crate) PathBuf);

impl Group {
    /// Makes a group with limits of a controller. `two` and `one` are the files of these limits and
    /// their new content in version 2 and version 1. `None`, and a line on stderr, where this
    /// process may not make one.
    pub(crate) fn new(
        controller: &str,
        name: &str,
        two: &[(&str, &str)],
        one: &[(&str, &str)],
    ) -> Option<Self> {
        let skipped = |why: &str| {
            eprintln!("SKIPPED: no control group with a limit on {controller} can be made here ({why})");
            None
        };
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let own = |wanted: &dyn Fn(&str) -> bool| {
            groups.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let found = wanted(fields.next()?);
                fields.next().filter(|_| found).map(|group| group.trim_start_matches('/').to_owned())
            })
        };
        let names = |controllers: &str| controllers.split(',').any(|name| name == controller);
        let (folder, limits) = match own(&names) {
            Some(group) => (PathBuf::from("/sys/fs/cgroup").join(controller).join(group), one),
            None => match own(&str::is_empty) {
                Some(group) => (PathBuf::from("/sys/fs/cgroup").join(group), two),
                None => return skipped("this process is in none"),
            },
        };
        let group = Self(folder.join(format!("kvrail-{name}-{}", std::process::id())));
        if let Err(error) = fs::create_dir(&group.0) {
            return skipped(&format!("{}: {error}", group.0.display()));
        }
        for (file, text) in limits {
            if let Err(error) = fs::write(group.0.join(file), text) {
                return skipped(&format!("{file}: {error}"));
            }
        }
        Some(group)
    }

    pub(crate) fn memory(name: &str, bytes: u64) -> Option<Self> {
        let text = bytes.to_string();
        Self::new("memory", name, &[("memory.max", &text)], &[("memory.limit_in_bytes", &text)])
    }

    /// The words before a command that run it in the group.
    pub(crate) fn before(&self) -> [String; 4] {
        let processes = self.0.join("cgroup.procs");
        ["sh".into(), "-c".into(), ENTER.into(), processes.to_str().unwrap().into()]
    }

    /// The program with these arguments, in the group.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let [sh, before @ ..] = self.before();
        let mut command = Command::new(sh);
        command.args(before).arg(env!("CARGO_BIN_EXE_kvrail-bench")).args(args);
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Processes take a moment to leave the group.
        let until = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
