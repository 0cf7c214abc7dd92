//! What a rail can carry at most: the lower of its port's rate and its PCIe link's.

use serde_json::Value;

/// Figures above a limit by less than this are noise: the counted window begins and ends between
/// batches.
const NOISE: f64 = 1.02;

/// The most that a rail carries.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limit {
    pub(crate) gb_per_s: f64,
    /// What sets it, in words.
    pub(crate) what: String,
}

impl Limit {
    /// The limit of a rail, by the `host.environment` of an artifact. `None`: the rail is no NIC
    /// port of that machine, or neither rate is known.
    pub(crate) fn of(environment: &Value, rail: &str) -> Option<Self> {
        let (name, port) = rail.split_once(':').unwrap_or((rail, "1"));
        let named = |device: &&Value| device["name"] == name;
        let device = environment["devices"].as_array()?.iter().find(named)?;
        let numbered = |found: &&Value| found["port"].as_u64().is_some_and(|n| n.to_string() == port);
        let port = device["ports"].as_array()?.iter().find(numbered)?;
        let link = port["gbit_per_s"]
            .as_f64()
            .map(|gbit| Self { gb_per_s: gbit / 8.0, what: format!("its port's {gbit} Gb/s") });
        let pcie = device["pcie"]["gb_per_s"].as_f64().map(|gb_per_s| {
            let (speed, width) = (&device["pcie"]["gt_per_s"], &device["pcie"]["width"]);
            Self { gb_per_s, what: format!("its PCIe link of {speed} GT/s x{width}") }
        });
        link.into_iter().chain(pcie).min_by(|a, b| a.gb_per_s.total_cmp(&b.gb_per_s))
    }

    /// What is wrong with a figure of this rail; `None` if it can be true.
    pub(crate) fn complaint(&self, rail: &str, gb_per_s: f64) -> Option<String> {
        (gb_per_s > self.gb_per_s * NOISE).then(|| {
            format!(
                "{rail}: {gb_per_s:.1} GB/s is more than {} carries ({:.1} GB/s): the figure is wrong; windows that do not overlap, or bytes that did not cross the rail, were added up",
                self.what, self.gb_per_s
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reference() -> Value {
        let port = |number: u32, gbit| json!({"port": number, "gbit_per_s": gbit});
        let pcie = json!({"gb_per_s": 63.0, "gt_per_s": 32.0, "width": 16});
        let narrow = json!({"gb_per_s": 31.5, "gt_per_s": 16.0, "width": 16});
        json!({"devices": [
            {"name": "mlx5_0", "pcie": pcie, "ports": [port(1, json!(400.0)), port(2, json!(800.0))]},
            {"name": "mlx5_1", "pcie": narrow, "ports": [port(1, json!(400.0))]},
            {"name": "rxe0", "pcie": null, "ports": [port(1, json!({"unknown": "no rate"}))]},
        ]})
    }

    #[test]
    fn the_lower_of_port_and_pcie_is_the_limit() {
        let facts = reference();
        let of = |rail| Limit::of(&facts, rail);
        assert_eq!(of("mlx5_0").unwrap().gb_per_s, 50.0);
        assert_eq!(of("mlx5_0:2").unwrap().what, "its PCIe link of 32.0 GT/s x16");
        assert_eq!(of("mlx5_1").unwrap().gb_per_s, 31.5);
        for none in ["rxe0", "shm0", "mlx5_0:3", ""] {
            assert_eq!(of(none), None, "{none}");
        }
    }

    #[test]
    fn the_published_89_gb_per_s_of_one_nic_are_called_wrong() {
        let limit = Limit::of(&reference(), "mlx5_0").unwrap();
        let text = limit.complaint("mlx5_0", 89.0).unwrap();
        for word in ["mlx5_0: 89.0 GB/s", "its port's 400 Gb/s", "50.0 GB/s", "windows"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        assert_eq!(limit.complaint("mlx5_0", 49.0), None);
        assert_eq!(limit.complaint("mlx5_0", 50.9), None);
    }
}
