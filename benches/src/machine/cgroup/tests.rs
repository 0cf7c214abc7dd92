//! Trees of files that kernels and container runtimes make.

use super::*;

const GIB: u64 = 1 << 30;

/// A root file system in a temporary folder. It is removed when this is dropped.
struct Root(PathBuf);

impl Root {
    fn new(files: &[(&str, &str)]) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("kvrail-cgroup-{}-{number}", std::process::id());
        let root = Self(std::env::temp_dir().join(name));
        for (path, text) in files {
            let path = root.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    /// The limits on memory: file below the root, bytes, free bytes.
    fn memory(&self) -> Vec<(String, u64, u64)> {
        let name = |file: &Path| file.strip_prefix(&self.0).unwrap().to_str().unwrap().to_owned();
        memory(&self.0).unwrap().iter().map(|limit| (name(&limit.file), limit.bytes, limit.free)).collect()
    }

    fn cores(&self) -> Vec<f64> {
        cpu(&self.0).unwrap().iter().map(|quota| quota.cores).collect()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const V2_MOUNT: &str = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
const V1_MOUNTS: &str = "\
    31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs rw,mode=755\n\
    32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
    35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 master:2 - cgroup cgroup rw,memory\n";
const NO_LIMIT_V1: &str = "9223372036854771712\n";

#[test]
fn every_ancestor_of_version_2_counts() {
    let root = Root::new(&[
        ("proc/self/cgroup", "0::/kube/pod7/box\n"),
        ("proc/self/mountinfo", V2_MOUNT),
        ("sys/fs/cgroup/kube/pod7/box/memory.max", "max\n"),
        ("sys/fs/cgroup/kube/pod7/box/memory.high", "1073741824\n"),
        ("sys/fs/cgroup/kube/pod7/box/memory.current", "536870912\n"),
        ("sys/fs/cgroup/kube/pod7/memory.max", "2147483648\n"),
        ("sys/fs/cgroup/kube/pod7/memory.current", "1610612736\n"),
        ("sys/fs/cgroup/kube/pod7/memory.stat", "anon 1\ninactive_file 100\nactive_file 20\nfile 999\n"),
        ("sys/fs/cgroup/kube/memory.max", "max\n"),
        ("sys/fs/cgroup/kube/pod7/box/cpu.max", "max 100000\n"),
        ("sys/fs/cgroup/kube/pod7/cpu.max", "150000 100000\n"),
        (
            "sys/fs/cgroup/kube/pod7/cpu.stat",
            "usage_usec 9\nnr_periods 8\nnr_throttled 7\nthrottled_usec 65000\n",
        ),
        ("sys/fs/cgroup/kube/cpu.max", "1200000 100000\n"),
    ]);
    assert_eq!(
        root.memory(),
        [
            ("sys/fs/cgroup/kube/pod7/box/memory.high".into(), GIB, GIB / 2),
            ("sys/fs/cgroup/kube/pod7/memory.max".into(), 2 * GIB, GIB / 2 + 120),
        ]
    );
    let quotas = cpu(&root.0).unwrap();
    assert_eq!(root.cores(), [1.5, 12.0]);
    assert_eq!(quotas[0].throttled, Throttled { times: 7, time: Duration::from_millis(65) });
    assert!(quotas[0].file.ends_with("pod7/cpu.max"));
}

#[test]
fn every_ancestor_of_version_1_counts_unless_it_leaves_its_children_alone() {
    let group = "sys/fs/cgroup/memory/docker/box";
    let above = "sys/fs/cgroup/memory/docker";
    let cpu = "sys/fs/cgroup/cpu,cpuacct/docker/box";
    let files = |hierarchy: &'static str| {
        [
            (
                "proc/self/cgroup".into(),
                "5:cpu,cpuacct:/docker/box\n4:memory:/docker/box\n1:name=systemd:/x\n",
            ),
            ("proc/self/mountinfo".into(), V1_MOUNTS),
            (format!("{group}/memory.limit_in_bytes"), "3221225472\n"),
            (format!("{group}/memory.usage_in_bytes"), "1073741824\n"),
            (format!("{group}/memory.stat"), "cache 4096\ninactive_file 7\ntotal_inactive_file 4096\n"),
            (format!("{group}/memory.use_hierarchy"), "0\n"),
            (format!("{above}/memory.limit_in_bytes"), "2147483648\n"),
            (format!("{above}/memory.usage_in_bytes"), "2147483648\n"),
            (format!("{above}/memory.use_hierarchy"), hierarchy),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes".into(), NO_LIMIT_V1),
            (format!("{cpu}/cpu.cfs_quota_us"), "50000\n"),
            (format!("{cpu}/cpu.cfs_period_us"), "100000\n"),
            (format!("{cpu}/cpu.stat"), "nr_periods 5\nnr_throttled 3\nthrottled_time 2000000000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us".into(), "-1\n"),
        ]
    };
    let make = |hierarchy| {
        let files = files(hierarchy);
        Root::new(&files.iter().map(|(path, text)| (path.as_str(), *text)).collect::<Vec<_>>())
    };
    let own = (format!("{group}/memory.limit_in_bytes"), 3 * GIB, 2 * GIB + 4096);
    let root = make("1\n");
    assert_eq!(root.memory(), [own.clone(), (format!("{above}/memory.limit_in_bytes"), 2 * GIB, 0)]);
    assert_eq!(root.cores(), [0.5]);
    let throttled = super::cpu(&root.0).unwrap()[0].throttled;
    assert_eq!(throttled, Throttled { times: 3, time: Duration::from_secs(2) });
    assert_eq!(make("0\n").memory(), [own]);
}

#[test]
fn on_a_hybrid_host_each_controller_has_its_version() {
    let mounts = [V1_MOUNTS, "40 31 0:40 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"].concat();
    let root = Root::new(&[
        ("proc/self/cgroup", "4:memory:/a\n0::/b\n"),
        ("proc/self/mountinfo", &mounts),
        ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "4096\n"),
        ("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "0\n"),
        // Limits of another hierarchy than the controller's, and of a group of other processes.
        ("sys/fs/cgroup/unified/b/memory.max", "1\n"),
        ("sys/fs/cgroup/memory/b/memory.limit_in_bytes", "1\n"),
        ("sys/fs/cgroup/unified/b/cpu.max", "200000 100000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/b/cpu.cfs_quota_us", "1\n"),
    ]);
    assert_eq!(root.memory(), [("sys/fs/cgroup/memory/a/memory.limit_in_bytes".into(), 4096, 4096)]);
    assert_eq!(root.cores(), [2.0]);
}

#[test]
fn a_container_sees_its_own_group_wherever_it_is_mounted() {
    // Without a namespace of groups the mount shows a part of the hierarchy.
    let root = Root::new(&[
        ("proc/self/cgroup", "4:memory:/docker/box/inner\n"),
        ("proc/self/mountinfo", "9 8 0:32 /docker/box /sys/fs/my\\040groups ro - cgroup cgroup rw,memory\n"),
        ("sys/fs/my groups/inner/memory.limit_in_bytes", NO_LIMIT_V1),
        ("sys/fs/my groups/memory.limit_in_bytes", "8192\n"),
        ("sys/fs/my groups/memory.usage_in_bytes", "8191\n"),
    ]);
    assert_eq!(root.memory(), [("sys/fs/my groups/memory.limit_in_bytes".into(), 8192, 1)]);
    // In a namespace the process's group is the root, and has limits nevertheless.
    let root = Root::new(&[
        ("proc/self/cgroup", "0::/\n"),
        ("proc/self/mountinfo", V2_MOUNT),
        ("sys/fs/cgroup/memory.max", "8192\n"),
        ("sys/fs/cgroup/memory.current", "9000\n"),
    ]);
    assert_eq!(root.memory(), [("sys/fs/cgroup/memory.max".into(), 8192, 0)]);
    assert_eq!(root.cores(), [0.0; 0]);
}

#[test]
fn of_several_mounts_the_one_with_most_ancestors_is_read() {
    let mounts = [
        "9 8 0:32 /a/b /part rw - cgroup2 cgroup2 rw\n",
        "10 8 0:32 / /whole rw - cgroup2 cgroup2 rw\n",
        "11 8 0:32 / /hidden rw - cgroup2 cgroup2 rw\n",
        "12 8 0:32 /z /other rw - cgroup2 cgroup2 rw\n",
    ];
    let root = Root::new(&[
        ("proc/self/cgroup", "0::/a/b\n"),
        ("proc/self/mountinfo", &mounts.concat()),
        ("part/memory.max", "1\n"),
        ("part/memory.current", "0\n"),
        ("other/memory.max", "2\n"),
        ("whole/a/b/memory.max", "max\n"),
        ("whole/a/memory.max", "3\n"),
        ("whole/a/memory.current", "0\n"),
    ]);
    assert_eq!(root.memory(), [("whole/a/memory.max".into(), 3, 3)]);
}

#[test]
fn a_group_that_no_mount_shows_is_reported_as_unknown() {
    let outside = [
        // No mount; a mount of another part of the hierarchy; a group or a mount outside of the
        // namespace.
        ("0::/a\n", ""),
        ("0::/a\n", "9 8 0:32 /b /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
        ("0::/../other\n", V2_MOUNT),
        ("0::/a\n", "9 8 0:32 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
        ("0::/gone (deleted)\n", V2_MOUNT),
        ("4:memory:/a\n0::/\n", V2_MOUNT),
    ];
    for (groups, mounts) in outside {
        let root = Root::new(&[
            ("proc/self/cgroup", groups),
            ("proc/self/mountinfo", mounts),
            ("sys/fs/cgroup/memory.max", "1\n"),
            ("sys/fs/other/memory.max", "1\n"),
        ]);
        let error = memory(&root.0).unwrap_err();
        assert!(matches!(error, Unknown::NotMounted { .. }), "{groups:?} {mounts:?}: {error}");
        assert!(error.to_string().contains("no mounted version"), "{error}");
    }
}

#[test]
fn missing_and_garbled_limits_are_reported_as_unknown() {
    let base = [("proc/self/cgroup", "0::/\n"), ("proc/self/mountinfo", V2_MOUNT)];
    let fails = |more: &[(&str, &str)], words: &[&str]| {
        let root = Root::new(more);
        let errors = [memory(&root.0).err(), cpu(&root.0).err()];
        let text = errors.into_iter().flatten().next().unwrap().to_string();
        for word in words {
            assert!(text.contains(word), "`{word}` is not in: {text}");
        }
    };
    let with = |more: &[(&'static str, &'static str)]| [&base[..], more].concat();
    fails(&[("else", "")], &["proc/self/cgroup", "cannot be read", "not found"]);
    fails(&base[..1], &["proc/self/mountinfo", "cannot be read"]);
    fails(&with(&[("sys/fs/cgroup/memory.max", "lots\n")]), &["memory.max holds `lots`", "no number"]);
    fails(&with(&[("sys/fs/cgroup/memory.max", "-5\n")]), &["memory.max holds `-5`"]);
    fails(&with(&[("sys/fs/cgroup/memory.max", "5\n")]), &["memory.current", "cannot be read"]);
    fails(&with(&[("sys/fs/cgroup/cpu.max", "5\n")]), &["cpu.max holds `5`", "no quota and period"]);
    fails(&with(&[("sys/fs/cgroup/cpu.max", "5 0\n")]), &["cpu.max holds `5 of 0`"]);
    fails(&with(&[("sys/fs/cgroup/memory.max/folder", "")]), &["memory.max cannot be read"]);
}

#[test]
fn a_process_in_no_group_has_no_limits() {
    for groups in ["", "1:name=systemd:/x\n", "nonsense\n"] {
        let root = Root::new(&[("proc/self/cgroup", groups), ("proc/self/mountinfo", V2_MOUNT)]);
        assert_eq!((memory(&root.0), cpu(&root.0)), (Ok(vec![]), Ok(vec![])), "{groups:?}");
    }
}

#[test]
fn escapes_of_mountinfo_are_undone() {
    for (text, path) in
        [("/a\\040b\\134\\011", "/a b\\\t"), ("/a\\9", "/a\\9"), ("\\", "\\"), ("/a\\777", "/a\\777")]
    {
        assert_eq!(unescaped(text), Path::new(path), "{text}");
    }
}
