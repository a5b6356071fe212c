//! A device's latency table: microseconds of every block and proxy, as written by `edge-runtime bench
//! --blocks`.

use crate::plural::counted;
use crate::{Error, Result};
use bundles::plan::{Arch, Gate, Op, Plan, Role};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The part of the network that a row measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Stem,
    Block,
    Proxy,
    /// A pooled source, for the proxies of all nodes of one size that read it.
    Pool,
    /// The call that computes a node's proxies, whatever their number.
    Proxies,
    Sum,
    Head,
}

impl Part {
    fn named(word: &str) -> Option<Part> {
        [
            ("stem", Part::Stem),
            ("block", Part::Block),
            ("proxy", Part::Proxy),
            ("pool", Part::Pool),
            ("proxies", Part::Proxies),
            ("sum", Part::Sum),
            ("head", Part::Head),
        ]
        .into_iter()
        .find_map(|(name, part)| (name == word).then_some(part))
    }

    /// Whether the part reads a source node, which the row must then name.
    fn has_source(self) -> bool {
        matches!(self, Part::Block | Part::Proxy | Part::Pool)
    }
}

/// What the table was measured on, if it says so.
#[derive(Debug, Clone, PartialEq, Default)]
struct Measured {
    arch: Option<String>,
    /// Height and width of the images.
    size: Option<[usize; 2]>,
    /// Instruction set, precision and number of threads, in words.
    by: Option<String>,
}

/// Microseconds of each part of a student, measured on a device.
#[derive(Debug, Clone, PartialEq)]
pub struct LatencyTable {
    /// Path of the file, for error messages.
    file: String,
    measured: Measured,
    rows: BTreeMap<Key, f64>,
}

/// Node, source, part.
type Key = (usize, Option<usize>, Part);

impl LatencyTable {
    /// Reads a table.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for anything but a table, a time that is negative or not finite, or a
    /// duplicate row.
    pub fn read(path: &Path) -> Result<LatencyTable> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        LatencyTable::parse(&path.display().to_string(), &bytes)
    }

    fn parse(file: &str, bytes: &[u8]) -> Result<LatencyTable> {
        let refuse =
            |found: String| Error::data(file, found, "a table made by `edge-runtime bench --blocks`");
        let (measured, rows) = rows_of(bytes).map_err(refuse)?;
        let mut table = LatencyTable { file: file.into(), measured, rows: BTreeMap::new() };
        for row in rows {
            let key = row.key().map_err(refuse)?;
            if table.rows.insert(key, row.us).is_some() {
                return Err(refuse(format!("node {} has two rows for the same {}", row.node, row.role)));
            }
        }
        match table.rows.is_empty() {
            true => Err(refuse("no rows".into())),
            false => Ok(table),
        }
    }

    /// The table's file and what computed its times, in words; `None` if the table does not say. Networks that
    /// run on other instructions, at another precision or on more threads take other times.
    pub fn about(&self) -> Option<String> {
        Some(format!("latencies of {} were measured with {}", self.file, self.measured.by.as_ref()?))
    }

    /// Refuses a table that names another architecture or an image size other than `size` pixels each way:
    /// its nodes may have the same numbers but different costs.
    ///
    /// # Errors
    /// [`Error::Data`].
    pub fn check(&self, arch: Arch, size: usize) -> Result<()> {
        let Measured { arch: named, size: images, .. } = &self.measured;
        let refuse = |found: String, want: String| Err(Error::data(&self.file, found, want));
        if let Some(named) = named.as_ref().filter(|named| **named != arch.to_string()) {
            let want = format!("a table of a {arch}; make it with `edge-runtime bench --blocks`");
            return refuse(format!("measured on a {named}"), want);
        }
        match images {
            Some([height, width]) if [*height, *width] != [size; 2] => refuse(
                format!("measured on images of {width}x{height} pixels"),
                format!(
                    "a table of images of {size}x{size}, made with `edge-runtime bench --blocks` from a backbone for that size; or leave out --size"
                ),
            ),
            _ => Ok(()),
        }
    }

    /// Microseconds of gate `g` of cell `node` of `plan`.
    ///
    /// # Errors
    /// [`Error::Data`] if the table lacks it.
    pub fn gate(&self, plan: &Plan, node: usize, g: usize) -> Result<f64> {
        let gate = &plan.cells[node - 1].gates[g];
        let part = if gate.role == Role::Block { Part::Block } else { Part::Proxy };
        self.get((node, Some(gate.source), part))
    }

    /// Microseconds of stem and head.
    ///
    /// # Errors
    /// [`Error::Data`] if the table lacks them.
    pub fn fixed(&self, plan: &Plan) -> Result<f64> {
        Ok(self.get((0, None, Part::Stem))? + self.get((plan.cells.len() + 1, None, Part::Head))?)
    }

    /// Microseconds of what the live gates of `plan` share: sums of nodes, calls that compute a node's proxies, and
    /// pools, each as often as it is computed.
    pub fn shared(&self, plan: &Plan) -> f64 {
        let cells = plan.cells.iter().enumerate();
        let gates = cells.flat_map(|(i, cell)| cell.gates.iter().map(move |gate| (i + 1, gate)));
        let parts: BTreeSet<Key> = gates.flat_map(|(node, gate)| self.parts_shared_by(node, gate)).collect();
        parts.iter().filter_map(|part| self.rows.get(part)).sum()
    }

    /// Microseconds of what `gate` of `node` shares with others, if it has to pay for all of it.
    pub fn shared_by(&self, node: usize, gate: &Gate) -> f64 {
        self.parts_shared_by(node, gate).filter_map(|part| self.rows.get(&part)).sum()
    }

    /// The rows that a live gate needs besides its own.
    fn parts_shared_by(&self, node: usize, gate: &Gate) -> impl Iterator<Item = Key> {
        let is_proxy = gate.role == Role::Proxy;
        let is_pooled =
            is_proxy && gate.paths.iter().any(|path| matches!(path.ops.first(), Some(Op::MaxPool { .. })));
        // Later nodes are smaller, so a pool belongs to the last of its source's rows that is not behind the node.
        let pool = || {
            let pools = self.rows.keys().filter(|(of, source, part)| {
                *part == Part::Pool && *source == Some(gate.source) && *of <= node
            });
            pools.max_by_key(|(of, ..)| *of).copied()
        };
        let pool = if is_pooled { pool() } else { None };
        [Some((node, None, Part::Sum)), is_proxy.then_some((node, None, Part::Proxies)), pool]
            .into_iter()
            .flatten()
    }

    /// The table's contents, as part of a run's identity.
    pub fn fingerprint(&self) -> String {
        let row = |(&(node, source, part), us): (&Key, &f64)| {
            format!("{node} {} {part:?} {us}", source.map_or("-".into(), |s| s.to_string()))
        };
        self.rows.iter().map(row).collect::<Vec<_>>().join(";")
    }

    fn get(&self, key: Key) -> Result<f64> {
        self.rows.get(&key).copied().ok_or_else(|| {
            let (node, source, part) = key;
            let from = source.map_or(String::new(), |source| format!(" from node {source}"));
            Error::data(
                &self.file,
                format!("no row for the {part:?} of node {node}{from}").to_lowercase(),
                "a table of this architecture; make one with `edge-runtime bench --blocks FILE --skips K`, with the same K as \
                 here",
            )
        })
    }
}

/// One row as read from the file.
struct Row {
    node: usize,
    source: Option<usize>,
    role: String,
    us: f64,
}

impl Row {
    fn key(&self) -> std::result::Result<Key, String> {
        let Some(part) = Part::named(&self.role) else {
            return Err(format!("role `{}`", self.role));
        };
        if part.has_source() != self.source.is_some() {
            let word = if part.has_source() { "without" } else { "with" };
            return Err(format!("a {} of node {} {word} a source", self.role, self.node));
        }
        if !self.us.is_finite() || self.us < 0.0 {
            return Err(format!("{} microseconds for node {}", self.us, self.node));
        }
        Ok((self.node, self.source, part))
    }
}

/// The rows, and what they were measured on, if stated.
fn rows_of(bytes: &[u8]) -> std::result::Result<(Measured, Vec<Row>), String> {
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let rows = value["rows"].as_array().ok_or("no `rows`")?;
    let number = |value: &serde_json::Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
    let row = |row: &serde_json::Value| {
        let source = match &row["source"] {
            serde_json::Value::Null => None,
            source => Some(number(source)?),
        };
        let role = row["role"].as_str()?.to_owned();
        Some(Row { node: number(&row["node"])?, source, role, us: row["us"].as_f64()? })
    };
    let rows = rows.iter().map(|value| row(value).ok_or_else(|| format!("row {value}")));
    let size = value["size"].as_array().map(|sides| sides.iter().filter_map(number).collect::<Vec<_>>());
    let size =
        size.map(|sides| sides.try_into().map_err(|_| format!("size {}", value["size"]))).transpose()?;
    let word = |key: &str| value[key].as_str().map(str::to_owned);
    let threads = value["threads"].as_u64().map(|n| counted(n, "thread", "threads"));
    let by: Vec<String> = [word("isa"), word("precision"), threads].into_iter().flatten().collect();
    let measured = Measured { arch: word("arch"), size, by: (!by.is_empty()).then(|| by.join(", ")) };
    Ok((measured, rows.collect::<std::result::Result<_, _>>()?))
}

#[cfg(test)]
impl LatencyTable {
    /// A table of `(node, source, role, microseconds)`, that says nothing about where it was measured.
    pub(crate) fn of(rows: &[(usize, Option<usize>, &str, f64)]) -> LatencyTable {
        let row = |&(node, source, role, us): &(usize, Option<usize>, &str, f64)| serde_json::json!({"node": node, "source": source, "role": role, "us": us});
        let rows: Vec<_> = rows.iter().map(row).collect();
        LatencyTable::parse("table.json", serde_json::json!({"rows": rows}).to_string().as_bytes()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::Measure;
    use bundles::plan::{GateId, Skips};

    fn student(arch: Arch, skips: usize) -> Plan {
        let backbone = arch.plan(32, 32, 10).unwrap();
        backbone.with_proxies(Skips::Nearest(skips), arch.proxy_form()).unwrap()
    }

    #[test]
    fn a_table_says_what_it_was_measured_on_and_for() {
        let rows = r#"[{"node":0,"source":null,"role":"stem","us":5},{"node":1,"source":0,"role":"block","us":10},
            {"node":1,"source":0,"role":"proxy","us":2},{"node":1,"source":null,"role":"sum","us":0.5},
            {"node":4,"source":null,"role":"head","us":1}]"#;
        let full = format!(
            r#"{{"arch":"cifar-resnet8-b","size":[32,32],"isa":"avx2","precision":"f32","threads":2,"rows":{rows}}}"#
        );
        let silent = format!(r#"{{"rows":{rows}}}"#);
        let read = |text: &str| LatencyTable::parse("t.json", text.as_bytes()).unwrap();
        let (full, silent) = (read(&full), read(&silent));
        assert_eq!(full.rows, silent.rows);
        assert_eq!(full.fingerprint(), silent.fingerprint());
        assert!(silent.about().is_none() && full.about().unwrap().ends_with("with avx2, f32, 2 threads"));
        let arch: Arch = "cifar-resnet8-b".parse().unwrap();
        let other = "cifar-resnet20-b".parse().unwrap();
        for (arch, size) in [(arch, 32), (other, 32), (arch, 48)] {
            silent.check(arch, size).expect("names neither architecture nor images");
        }
        full.check(arch, 32).expect("of this backbone");
        for (arch, size, found, want) in [
            (other, 32, "measured on a cifar-resnet8-b", "a table of a cifar-resnet20-b"),
            (arch, 48, "measured on images of 32x32 pixels", "a table of images of 48x48"),
        ] {
            let error = full.check(arch, size).unwrap_err().to_string();
            assert!(["t.json", found, want].iter().all(|part| error.contains(part)), "{error}");
        }
        let plan = student(arch, 1);
        assert_eq!((full.gate(&plan, 1, 0).unwrap(), full.gate(&plan, 1, 1).unwrap()), (10.0, 2.0));
        assert_eq!((full.fixed(&plan).unwrap(), full.shared(&plan)), (6.0, 0.5));
        let missing = full.gate(&plan, 2, 0).unwrap_err().to_string();
        assert!(missing.contains("block of node 2 from node 1") && missing.contains("--blocks"), "{missing}");
    }

    #[test]
    fn malformed_tables_are_refused_with_the_row() {
        let row = |row: &str| format!(r#"{{"rows":[{row}]}}"#);
        let block = |us: &str| format!(r#"{{"node":1,"source":0,"role":"block","us":{us}}}"#);
        let cases = [
            ("PK\u{3}\u{4}".into(), "expected value"),
            ("{}".into(), "no `rows`"),
            (row(""), "no row"),
            (row(r#"{"node":1}"#), r#"row {"node":1}"#),
            (row(&block("\"fast\"")), "fast"),
            (row(&block("-3")), "-3 microseconds"),
            (row(r#"{"node":1,"source":null,"role":"block","us":3}"#), "without a source"),
            (row(r#"{"node":1,"source":null,"role":"pool","us":3}"#), "without a source"),
            (row(r#"{"node":1,"source":0,"role":"sum","us":3}"#), "with a source"),
            (row(r#"{"node":1,"source":0,"role":"gate","us":3}"#), "role `gate`"),
            (row(&format!("{},{}", block("3"), block("4"))), "two rows"),
            (r#"{"size":[32],"rows":[]}"#.into(), "size [32]"),
        ];
        for (text, want) in cases {
            let text: String = text;
            let error = LatencyTable::parse("t.json", text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(want) && error.contains("t.json"), "{text:?}: {error}");
        }
    }

    /// Nodes 1, 2 and 3 of this network are 32, 16 and 8 pixels wide.
    #[test]
    fn what_gates_share_is_charged_as_often_as_it_is_computed() {
        let whole = student("cifar-resnet8-b".parse().unwrap(), 3);
        let shared = [
            (2, None, "proxies", 100.0),
            (3, None, "proxies", 200.0),
            (2, Some(0), "pool", 10.0),
            (2, Some(1), "pool", 20.0),
            (3, Some(0), "pool", 1.0),
            (3, Some(1), "pool", 2.0),
            (3, Some(2), "pool", 4.0),
            (3, None, "sum", 0.5),
        ];
        let table = LatencyTable::of(&shared);
        let without = |gates: &[(usize, usize, Role)]| {
            let dropped = gates.iter().map(|&(node, source, role)| {
                let is_it = |gate: &Gate| (gate.source, gate.role) == (source, role);
                GateId { node, gate: whole.cells[node - 1].gates.iter().position(is_it).unwrap() }
            });
            table.shared(&whole.without(&dropped.collect()).unwrap())
        };
        use Role::{Block, Proxy};
        assert_eq!(table.shared(&whole), 337.5);
        assert_eq!(without(&[(3, 1, Proxy)]), 335.5);
        assert_eq!(without(&[(3, 0, Proxy), (3, 1, Proxy), (3, 2, Proxy)]), 130.5);
        assert_eq!(without(&[(2, 0, Proxy), (2, 1, Proxy), (3, 2, Block)]), 207.5);
        // Two nodes of one size share a pool: in ResNet-20, nodes 4, 5 and 6 read the wider node 3.
        let wide = student("cifar-resnet20-b".parse().unwrap(), 3);
        let table = LatencyTable::of(&[(4, Some(3), "pool", 8.0), (7, Some(3), "pool", 64.0)]);
        assert_eq!(table.shared(&wide), 8.0);
        // It is there as long as one of them reads it, whichever that is.
        let first =
            wide.cells[3].gates.iter().position(|gate| (gate.source, gate.role) == (3, Proxy)).unwrap();
        let less = wide.without(&[GateId { node: 4, gate: first }].into_iter().collect()).unwrap();
        assert_eq!(table.shared(&less), 8.0);
    }

    /// A block that is slow on the device is penalised most, however few its multiply-adds.
    #[test]
    fn the_slowest_block_is_charged_most() {
        use crate::net::{Complexity, Formula};
        use candle_core::{Device, Tensor, Var};
        let plan = student("cifar-resnet8-b".parse().unwrap(), 1);
        for slow in 1..=3 {
            let mut rows = vec![(0, None, "stem", 5.0), (4, None, "head", 1.0)];
            for node in 1..=3 {
                let us = if node == slow { 500.0 } else { 20.0 };
                rows.extend([(node, Some(node - 1), "block", us), (node, Some(node - 1), "proxy", 2.0)]);
            }
            let measure = Measure::Latency(LatencyTable::of(&rows));
            assert_eq!(measure.total(&plan).unwrap(), 552.0);
            let whole = 552.0;
            let costs =
                Complexity::new(&plan, measure.gates(&plan).unwrap(), whole, Formula::Product).unwrap();
            let gates: Vec<Var> = (0..3)
                .map(|_| {
                    Var::from_tensor(&Tensor::from_vec(vec![0.6f32, 0.4], 2, &Device::Cpu).unwrap()).unwrap()
                })
                .collect();
            let alphas: Vec<_> = gates.iter().map(|gate| Some(gate.as_tensor().clone())).collect();
            let slopes = crate::ops::backward(&costs.expected(&alphas).unwrap()).unwrap();
            let of_block = |node: usize| slopes.get(&gates[node - 1]).unwrap().to_vec1::<f32>().unwrap()[0];
            let others = (1..=3).filter(|&node| node != slow).map(of_block);
            assert!(others.into_iter().all(|slope| slope < of_block(slow)), "{slow}");
        }
    }
}
