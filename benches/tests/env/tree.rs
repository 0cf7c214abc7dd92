//! The files of the reference machine that `env` and `doctor` read: two NUMA nodes, and eight NICs
//! of 400 Gb/s, four on each.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder with the machine's files, which is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
}

/// Where a NIC is on PCI.
pub(crate) fn pci(nic: u32) -> String {
    format!("0000:{:02x}:00.0", 0x11 + 0x10 * nic)
}

/// The folder of a NIC's PCI device.
pub(crate) fn device(nic: u32) -> String {
    format!("sys/devices/pci0000:{:02x}/{}", 0x10 + 0x10 * nic, pci(nic))
}

/// The folder of a NIC's port.
pub(crate) fn port(nic: u32) -> String {
    format!("{}/infiniband/mlx5_{nic}/ports/1", device(nic))
}

/// The folder of a NIC's network interface.
pub(crate) fn net(nic: u32) -> String {
    format!("{}/net/eth{}", device(nic), nic + 1)
}

const CPUS: [&str; 2] = ["0-95,192-287", "96-191,288-383"];

impl Tree {
    /// An empty folder.
    pub(crate) fn empty() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("kvrail-env-{}-{count}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        Self { root }
    }

    /// The reference machine.
    pub(crate) fn reference() -> Self {
        let tree = Self::empty();
        tree.system();
        tree.process();
        for node in 0..2 {
            tree.node(node);
        }
        for nic in 0..8 {
            tree.nic(nic);
        }
        tree
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Writes a file, and the folders above it.
    pub(crate) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Replaces a text that stands once in a file.
    pub(crate) fn replace(&self, path: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(path)).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{path}: {from}");
        self.write(path, text.replace(from, to));
    }

    /// Removes a file or a folder.
    pub(crate) fn remove(&self, path: &str) {
        let path = self.path(path);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }

    /// All files, in order.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                match entry.file_type().unwrap() {
                    kind if kind.is_dir() => walk(&entry.path(), found),
                    kind if kind.is_file() => found.push(entry.path()),
                    _ => {}
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.root, &mut found);
        found.sort();
        found
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    fn system(&self) {
        self.write(
            "proc/version",
            "Linux version 6.8.0-45-generic (buildd@lcy02) (gcc 13.2.0) #45-Ubuntu SMP\n",
        );
        self.write("proc/cpuinfo", "processor\t: 0\nmodel name\t: AMD EPYC 9654 96-Core Processor\n");
        self.write(
            "proc/meminfo",
            "MemTotal:       1584873472 kB\nMemFree:  1400000000 kB\nMemAvailable:   1509949440 kB\n",
        );
        let modules =
            ["nvidia_peermem", "nvidia", "mlx5_ib", "mlx5_core", "ib_uverbs", "ib_core", "rdma_cm", "ext4"];
        let lines = modules.map(|name| format!("{name} 16384 0 - Live 0x0000000000000000\n"));
        self.write("proc/modules", lines.concat());
        self.write("sys/module/mlx5_core/version", "24.10-0.7.0\n");
        self.write("sys/devices/system/cpu/online", "0-383\n");
        self.huge_pages("sys/kernel/mm/hugepages", 0);
        self.write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
        let shared = "always within_size [advise] never deny force\n";
        self.write("sys/kernel/mm/transparent_hugepage/shmem_enabled", shared);
        self.write("usr/lib/x86_64-linux-gnu/libibverbs.so.1.14.50.0", "");
        self.link("usr/lib/x86_64-linux-gnu/libibverbs.so.1", "libibverbs.so.1.14.50.0");
        let version =
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.90.07  Fri May 31 09:35:42 UTC 2024\n";
        self.write("proc/driver/nvidia/version", version);
        for gpu in 0..8 {
            let pci = format!("0000:{:02x}:00.0", 0x18 + 0x10 * gpu);
            let model = "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ:   \t\t 412\n";
            self.write(&format!("proc/driver/nvidia/gpus/{pci}/information"), model);
            self.write(&format!("sys/bus/pci/devices/{pci}/numa_node"), format!("{}\n", gpu / 4));
        }
        self.write("proc/net/if_inet6", "00000000000000000000000000000001 01 80 10 80       lo\n");
        let addresses = (1..=8).map(|at| format!("     |-- 10.0.{at}.1\n        /32 host LOCAL\n"));
        self.write(
            "proc/net/fib_trie",
            format!("Local:\n  +-- 0.0.0.0/0 3 0 5\n{}", addresses.collect::<String>()),
        );
        for nic in 0..8 {
            self.write(&format!("dev/infiniband/uverbs{nic}"), "");
        }
    }

    fn process(&self) {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max locked memory         unlimited            unlimited            bytes     \n";
        self.write("proc/self/limits", limits);
        let status = "Name:\tkvrail-bench\nCapEff:\t0000000000000000\n\
                      Cpus_allowed_list:\t0-383\nMems_allowed_list:\t0-1\n";
        self.write("proc/self/status", status);
        self.write("proc/self/uid_map", "         0          0 4294967295\n");
        self.write("proc/self/cgroup", "0::/job\n");
        self.write("proc/self/mountinfo", "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        self.write("sys/fs/cgroup/job/memory.max", "max\n");
        self.write("sys/fs/cgroup/job/memory.current", "1048576\n");
        self.write("sys/fs/cgroup/job/memory.stat", "inactive_file 0\nactive_file 0\n");
        self.write("sys/fs/cgroup/job/cpu.max", "max 100000\n");
    }

    fn huge_pages(&self, folder: &str, pages: u32) {
        for (size, pages) in [("2048kB", pages), ("1048576kB", 0)] {
            self.write(&format!("{folder}/hugepages-{size}/nr_hugepages"), format!("{pages}\n"));
            self.write(&format!("{folder}/hugepages-{size}/free_hugepages"), format!("{pages}\n"));
        }
    }

    fn node(&self, node: usize) {
        let at = format!("sys/devices/system/node/node{node}");
        self.write(&format!("{at}/cpulist"), format!("{}\n", CPUS[node]));
        self.write(&format!("{at}/distance"), ["10 32\n", "32 10\n"][node]);
        let memory =
            format!("Node {node} MemTotal:       792436736 kB\nNode {node} MemFree:  700000000 kB\n");
        self.write(&format!("{at}/meminfo"), memory);
        self.huge_pages(&format!("{at}/hugepages"), 0);
    }

    fn nic(&self, nic: u32) {
        let device = device(nic);
        let write = |name: &str, text: &str| self.write(&format!("{device}/{name}"), format!("{text}\n"));
        write("numa_node", if nic < 4 { "0" } else { "1" });
        write("current_link_speed", "32.0 GT/s PCIe");
        write("current_link_width", "16");
        write("max_link_speed", "32.0 GT/s PCIe");
        write("max_link_width", "16");
        self.link(&format!("{device}/driver"), "../../../bus/pci/drivers/mlx5_core");

        let ib = format!("infiniband/mlx5_{nic}");
        self.link(&format!("{device}/{ib}/device"), &format!("../../../{}", pci(nic)));
        self.link(&format!("sys/class/{ib}"), &format!("../../../{device}/{ib}"));
        write(&format!("{ib}/fw_ver"), "28.39.1002");
        write(&format!("{ib}/board_id"), "MT_0000000838");
        write(&format!("{ib}/hca_type"), "MT4129");

        let port = port(nic);
        let write = |name: &str, text: &str| self.write(&format!("{port}/{name}"), format!("{text}\n"));
        write("state", "4: ACTIVE");
        write("phys_state", "5: LinkUp");
        write("rate", "400 Gb/sec (4X NDR)");
        write("link_layer", "Ethernet");
        write("lid", "0x0");
        let eth = format!("eth{}", nic + 1);
        let local = format!("fe80:0000:0000:0000:a288:c2ff:fe10:10{:02x}", nic + 1);
        let mapped = format!("0000:0000:0000:0000:0000:ffff:0a00:{:02x}01", nic + 1);
        for index in 0..8 {
            let gid = match index {
                0 | 1 => &local,
                2 | 3 => &mapped,
                _ => "0000:0000:0000:0000:0000:0000:0000:0000",
            };
            write(&format!("gids/{index}"), gid);
            if index < 4 {
                write(&format!("gid_attrs/types/{index}"), ["IB/RoCE v1", "RoCE v2"][index % 2]);
                write(&format!("gid_attrs/ndevs/{index}"), &eth);
            }
        }

        let net = net(nic);
        self.link(&format!("sys/class/net/{eth}"), &format!("../../../{net}"));
        let write = |name: &str, text: &str| self.write(&format!("{net}/{name}"), format!("{text}\n"));
        write("mtu", "4200");
        write("flags", "0x1003");
        write("operstate", "up");
        write("address", &format!("a0:88:c2:10:10:{:02x}", nic + 1));
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}
