//! A device's latency table: microseconds of every block and proxy, as written by `edge-runtime bench
//! --blocks`.

use crate::{Error, Result};
use bundles::plan::{Arch, Plan, Role};
use std::collections::BTreeMap;
use std::path::Path;

/// The part of the network that a row measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Stem,
    Block,
    Proxy,
    Sum,
    Head,
}

impl Part {
    fn named(word: &str) -> Option<Part> {
        [
            ("stem", Part::Stem),
            ("block", Part::Block),
            ("proxy", Part::Proxy),
            ("sum", Part::Sum),
            ("head", Part::Head),
        ]
        .into_iter()
        .find_map(|(name, part)| (name == word).then_some(part))
    }

    /// Whether the part reads a source node, which the row must then name.
    fn has_source(self) -> bool {
        matches!(self, Part::Block | Part::Proxy)
    }
}

/// What the table was measured on, if it says so; tab-separated tables do not.
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
    rows: BTreeMap<(usize, Option<usize>, Part), f64>,
}

impl LatencyTable {
    /// Reads a table: JSON if the name ends in `.json`, tab-separated `node source role us` otherwise.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Data`] for a malformed line, a time that is negative or not finite, or a
    /// duplicate row.
    pub fn read(path: &Path) -> Result<LatencyTable> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let read = match path.extension().is_some_and(|extension| extension == "json") {
            true => rows_of_json(&text),
            false => rows_of_lines(&text).map(|rows| (Measured::default(), rows)),
        };
        let file = path.display().to_string();
        let refuse =
            |found: String| Error::data(&file, found, "a table made by `edge-runtime bench --blocks`");
        let (measured, rows) = read.map_err(refuse)?;
        let mut table = LatencyTable { file: file.clone(), measured, rows: BTreeMap::new() };
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

    /// Microseconds that node `node` takes regardless of its inputs; 0 if its sum is part of another step.
    pub fn sum(&self, node: usize) -> f64 {
        self.rows.get(&(node, None, Part::Sum)).copied().unwrap_or(0.0)
    }

    /// The table's contents, as part of a run's identity.
    pub fn fingerprint(&self) -> String {
        let row = |(&(node, source, part), us): (&(usize, Option<usize>, Part), &f64)| {
            format!("{node} {} {part:?} {us}", source.map_or("-".into(), |s| s.to_string()))
        };
        self.rows.iter().map(row).collect::<Vec<_>>().join(";")
    }

    fn get(&self, key: (usize, Option<usize>, Part)) -> Result<f64> {
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
    fn key(&self) -> std::result::Result<(usize, Option<usize>, Part), String> {
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

fn rows_of_lines(text: &str) -> std::result::Result<Vec<Row>, String> {
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    if header.split('\t').ne(["node", "source", "role", "us"]) {
        return Err(format!("first line `{header}`"));
    }
    let row = |line: &str| {
        let mut fields = line.split('\t');
        let node = fields.next()?.parse().ok()?;
        let source = match fields.next()? {
            "-" => None,
            number => Some(number.parse().ok()?),
        };
        let role = fields.next()?.to_owned();
        let us = fields.next()?.parse().ok()?;
        fields.next().is_none().then_some(Row { node, source, role, us })
    };
    lines.map(|line| row(line).ok_or_else(|| format!("line `{line}`"))).collect()
}

/// The rows, and what they were measured on, if stated.
fn rows_of_json(text: &str) -> std::result::Result<(Measured, Vec<Row>), String> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
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
    let threads =
        value["threads"].as_u64().map(|n| format!("{n} {}", if n == 1 { "thread" } else { "threads" }));
    let by: Vec<String> = [word("isa"), word("precision"), threads].into_iter().flatten().collect();
    let measured = Measured { arch: word("arch"), size, by: (!by.is_empty()).then(|| by.join(", ")) };
    Ok((measured, rows.collect::<std::result::Result<_, _>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bundles::plan::Skips;

    const TSV: &str = "node\tsource\trole\tus\n0\t-\tstem\t5\n1\t0\tblock\t10\n1\t0\tproxy\t2\n1\t-\tsum\t0.5\n\
                       4\t-\thead\t1\n";

    fn read(name: &str, text: &str) -> Result<LatencyTable> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        LatencyTable::read(&path)
    }

    #[test]
    fn both_forms_say_the_same() {
        let json = r#"{"arch":"cifar-resnet8-b","size":[32,32],"isa":"avx2","precision":"f32","threads":2,"rows":[{"node":0,"source":null,"role":"stem","us":5},
            {"node":1,"source":0,"role":"block","us":10},{"node":1,"source":0,"role":"proxy","us":2},
            {"node":1,"source":null,"role":"sum","us":0.5},{"node":4,"source":null,"role":"head","us":1}]}"#;
        let (a, b) = (read("t.tsv", TSV).unwrap(), read("t.json", json).unwrap());
        assert_eq!(a.rows, b.rows);
        assert_eq!(a.fingerprint(), b.fingerprint());
        assert!(a.about().is_none() && b.about().unwrap().ends_with("with avx2, f32, 2 threads"));
        let arch: Arch = "cifar-resnet8-b".parse().unwrap();
        let other = "cifar-resnet20-b".parse().unwrap();
        for (arch, size) in [(arch, 32), (other, 32), (arch, 48)] {
            a.check(arch, size).expect("lines name neither architecture nor images");
        }
        b.check(arch, 32).expect("of this backbone");
        for (arch, size, found, want) in [
            (other, 32, "measured on a cifar-resnet8-b", "a table of a cifar-resnet20-b"),
            (arch, 48, "measured on images of 32x32 pixels", "a table of images of 48x48"),
        ] {
            let error = b.check(arch, size).unwrap_err().to_string();
            assert!(["t.json", found, want].iter().all(|part| error.contains(part)), "{error}");
        }
        let plan = arch.plan(32, 32, 10).unwrap().with_proxies(Skips::Nearest(1), arch.proxy_form()).unwrap();
        assert_eq!((a.gate(&plan, 1, 0).unwrap(), a.gate(&plan, 1, 1).unwrap()), (10.0, 2.0));
        assert_eq!((a.fixed(&plan).unwrap(), a.sum(1), a.sum(2)), (6.0, 0.5, 0.0));
        let missing = a.gate(&plan, 2, 0).unwrap_err().to_string();
        assert!(missing.contains("block of node 2 from node 1") && missing.contains("--blocks"), "{missing}");
    }

    #[test]
    fn malformed_tables_are_refused_with_the_line() {
        let cases = [
            ("t.tsv", "", "first line"),
            ("t.tsv", "node\tsource\trole\tus\n", "no row"),
            ("t.tsv", "node\tsource\trole\tus\n1\t0\tblock\tfast\n", "1\t0\tblock\tfast"),
            ("t.tsv", "node\tsource\trole\tus\n1\t0\tblock\t-3\n", "-3 microseconds"),
            ("t.tsv", "node\tsource\trole\tus\n1\t0\tblock\tNaN\n", "NaN microseconds"),
            ("t.tsv", "node\tsource\trole\tus\n1\t-\tblock\t3\n", "without a source"),
            ("t.tsv", "node\tsource\trole\tus\n1\t0\tsum\t3\n", "with a source"),
            ("t.tsv", "node\tsource\trole\tus\n1\t0\tgate\t3\n", "role `gate`"),
            ("t.tsv", "node\tsource\trole\tus\n1\t0\tblock\t3\n1\t0\tblock\t4\n", "two rows"),
            ("t.json", "{}", "no `rows`"),
            ("t.json", r#"{"rows":[{"node":1}]}"#, "row"),
            ("t.json", r#"{"size":[32],"rows":[]}"#, "size [32]"),
        ];
        for (name, text, want) in cases {
            let error = read(name, text).unwrap_err().to_string();
            assert!(error.contains(want), "{text:?}: {error}");
        }
    }

    /// A block that is slow on the device is penalised most, however few its multiply-adds.
    #[test]
    fn the_slowest_block_is_charged_most() {
        use crate::fit::Measure;
        use crate::net::{Complexity, Formula};
        use candle_core::{Device, Tensor, Var};
        let arch: Arch = "cifar-resnet8-b".parse().unwrap();
        let plan = arch.plan(32, 32, 10).unwrap().with_proxies(Skips::Nearest(1), arch.proxy_form()).unwrap();
        for slow in 1..=3 {
            let rows = (1..=3).map(|node| {
                let us = if node == slow { 500 } else { 20 };
                format!("{node}\t{}\tblock\t{us}\n{node}\t{}\tproxy\t2\n", node - 1, node - 1)
            });
            let rows: String = rows.collect();
            let text = format!("node\tsource\trole\tus\n0\t-\tstem\t5\n{rows}4\t-\thead\t1\n");
            let measure = Measure::Latency(read("t.tsv", &text).unwrap());
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
