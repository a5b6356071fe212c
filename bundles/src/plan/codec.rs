//! The plan's canonical encoding, and a decoder for untrusted bytes.

use super::{Affine, Cell, Conv, Gate, Linear, Op, Owner, Path, Plan, Role, Shape};
use crate::Result;
use crate::wire::{Cursor, Sink, Text, at_most, corrupt};

/// Leading version byte of an encoded plan.
const VERSION: u8 = 1;
/// Maximum length of a tensor prefix or architecture name, in bytes.
pub(crate) const MAX_NAME: usize = 128;
/// Maximum channel count, extent, kernel, stride, padding or node number.
const MAX_EXTENT: usize = 1 << 24;
/// Maximum number of cells, of gates in a cell, and of paths in a gate.
const MAX_CELLS: usize = 4096;
const MAX_GATES: usize = 4097;
const MAX_PATHS: usize = 16;
/// Maximum number of operations in one line, and of operations, paths and gates (each) in a plan.
const MAX_LINE: usize = 256;
const MAX_TOTAL: usize = 1 << 16;

const CONV: u8 = 1;
const AFFINE: u8 = 2;
const RELU: u8 = 3;
const MAX_POOL: u8 = 4;
const AVG_POOL: u8 = 5;
const SUBSAMPLE: u8 = 6;
const PAD_CHANNELS: u8 = 7;
const GLOBAL_AVG_POOL: u8 = 8;
const LINEAR: u8 = 9;

impl Plan {
    /// Canonical encoding, specified in `FORMAT.md`: equal plans give equal bytes.
    ///
    /// # Errors
    /// `TooLarge` or `Corrupt` if [`Plan::from_bytes`] would not accept the plan (names longer than 128
    /// bytes, extents above 2^24, more than 4096 cells, ...).
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut sink = Sink::default();
        self.encode(&mut sink)?;
        Ok(sink.bytes)
    }

    /// Decodes exactly one plan from untrusted bytes.
    ///
    /// Never panics, and never uses more memory than 256 times the size of `bytes`. The result is well-formed
    /// as data; whether shapes match is for [`Plan::check`].
    ///
    /// # Errors
    /// `Truncated`, `TooLarge`, or `Corrupt` (unknown tag, padded number, trailing bytes, ...).
    pub fn from_bytes(bytes: &[u8]) -> Result<Plan> {
        let mut cursor = Cursor::new(bytes, "the plan");
        let plan = Plan::decode(&mut cursor)?;
        cursor.finish()?;
        Ok(plan)
    }

    pub(crate) fn encode(&self, to: &mut Sink) -> Result<()> {
        let mut total = Totals::default();
        to.u8(VERSION);
        to.text("architecture name", &self.arch, Text::Line, MAX_NAME)?;
        for extent in [self.input.c, self.input.h, self.input.w] {
            to.size("input extent", extent, MAX_EXTENT)?;
        }
        put_line(to, &self.stem, &mut total)?;
        to.size("number of cells", self.cells.len(), MAX_CELLS)?;
        for cell in &self.cells {
            to.bool(cell.relu);
            to.size("number of gates", cell.gates.len(), MAX_GATES)?;
            total.gates(cell.gates.len())?;
            for gate in &cell.gates {
                put_gate(to, gate, &mut total)?;
            }
        }
        put_line(to, &self.head, &mut total)
    }

    pub(crate) fn decode(from: &mut Cursor<'_>) -> Result<Plan> {
        let mut total = Totals::default();
        let version = from.u8()?;
        if version != VERSION {
            return corrupt("version of the plan", VERSION.to_string(), version);
        }
        let arch = from.text("architecture name", Text::Line, MAX_NAME)?;
        let mut extent = || from.size("input extent", MAX_EXTENT);
        let input = Shape::new(extent()?, extent()?, extent()?);
        let stem = get_line(from, &mut total)?;
        let n = from.count("number of cells", MAX_CELLS)?;
        let cells = from.list(n, |from| {
            let relu = from.bool("ReLU of a cell")?;
            let n = from.count("number of gates", MAX_GATES)?;
            total.gates(n)?;
            Ok(Cell { gates: from.list(n, |from| get_gate(from, &mut total))?, relu })
        })?;
        let head = get_line(from, &mut total)?;
        Ok(Plan { arch, input, stem, cells, head })
    }
}

/// Running totals of a plan against its caps. Bounds memory: a ReLU is one byte encoded and eighty in memory.
#[derive(Default)]
struct Totals {
    ops: usize,
    gates: usize,
    paths: usize,
}

impl Totals {
    fn add(sum: &mut usize, n: usize, what: &str) -> Result<()> {
        *sum += n;
        at_most(what, *sum as u64, MAX_TOTAL as u64)
    }

    fn ops(&mut self, n: usize) -> Result<()> {
        Totals::add(&mut self.ops, n, "operations in the plan")
    }

    fn gates(&mut self, n: usize) -> Result<()> {
        Totals::add(&mut self.gates, n, "gates in the plan")
    }

    fn paths(&mut self, n: usize) -> Result<()> {
        Totals::add(&mut self.paths, n, "paths in the plan")
    }
}

fn put_gate(to: &mut Sink, gate: &Gate, total: &mut Totals) -> Result<()> {
    to.u8(match gate.role {
        Role::Block => 0,
        Role::Proxy => 1,
    });
    to.size("source of a gate", gate.source, MAX_EXTENT)?;
    to.bool(gate.scaled);
    to.size("number of paths", gate.paths.len(), MAX_PATHS)?;
    total.paths(gate.paths.len())?;
    gate.paths.iter().try_for_each(|path| put_line(to, &path.ops, total))
}

fn get_gate(from: &mut Cursor<'_>, total: &mut Totals) -> Result<Gate> {
    let role = match from.u8()? {
        0 => Role::Block,
        1 => Role::Proxy,
        other => return corrupt("role of a gate", "0 (block) or 1 (proxy)", other),
    };
    let source = from.size("source of a gate", MAX_EXTENT)?;
    let scaled = from.bool("whether a gate is scaled")?;
    let n = from.count("number of paths", MAX_PATHS)?;
    total.paths(n)?;
    let paths = from.list(n, |from| Ok(Path { ops: get_line(from, total)? }))?;
    Ok(Gate { role, source, scaled, paths })
}

fn put_line(to: &mut Sink, ops: &[Op], total: &mut Totals) -> Result<()> {
    to.size("number of operations", ops.len(), MAX_LINE)?;
    total.ops(ops.len())?;
    ops.iter().try_for_each(|op| put_op(to, op))
}

fn get_line(from: &mut Cursor<'_>, total: &mut Totals) -> Result<Vec<Op>> {
    let n = from.count("number of operations", MAX_LINE)?;
    total.ops(n)?;
    from.list(n, get_op)
}

pub(crate) fn put_owner(to: &mut Sink, owner: Owner) {
    to.u8(match owner {
        Owner::Backbone => 0,
        Owner::Task => 1,
    });
}

pub(crate) fn get_owner(from: &mut Cursor<'_>) -> Result<Owner> {
    match from.u8()? {
        0 => Ok(Owner::Backbone),
        1 => Ok(Owner::Task),
        other => corrupt("owner", "0 (backbone) or 1 (task)", other),
    }
}

fn put_op(to: &mut Sink, op: &Op) -> Result<()> {
    let numbers = |to: &mut Sink, values: &[usize]| {
        values.iter().try_for_each(|&x| to.size("number in an operation", x, MAX_EXTENT))
    };
    let name = |to: &mut Sink, name: &str| to.text("name of an operation", name, Text::Token, MAX_NAME);
    match op {
        Op::Conv(conv) => {
            to.u8(CONV);
            name(to, &conv.name)?;
            put_owner(to, conv.owner);
            numbers(to, &[conv.c_in, conv.c_out, conv.kernel, conv.stride, conv.pad])?;
            to.bool(conv.bias);
        }
        Op::Affine(affine) => {
            to.u8(AFFINE);
            name(to, &affine.name)?;
            numbers(to, &[affine.channels])?;
        }
        Op::Relu => to.u8(RELU),
        &Op::MaxPool { kernel, stride, pad } => {
            to.u8(MAX_POOL);
            numbers(to, &[kernel, stride, pad])?;
        }
        &Op::AvgPool { kernel, stride } => {
            to.u8(AVG_POOL);
            numbers(to, &[kernel, stride])?;
        }
        &Op::Subsample { stride } => {
            to.u8(SUBSAMPLE);
            numbers(to, &[stride])?;
        }
        &Op::PadChannels { front, back } => {
            to.u8(PAD_CHANNELS);
            numbers(to, &[front, back])?;
        }
        Op::GlobalAvgPool => to.u8(GLOBAL_AVG_POOL),
        Op::Linear(linear) => {
            to.u8(LINEAR);
            name(to, &linear.name)?;
            numbers(to, &[linear.c_in, linear.c_out])?;
        }
    }
    Ok(())
}

fn get_op(from: &mut Cursor<'_>) -> Result<Op> {
    let number = |from: &mut Cursor<'_>| from.size("number in an operation", MAX_EXTENT);
    let name = |from: &mut Cursor<'_>| from.text("name of an operation", Text::Token, MAX_NAME);
    Ok(match from.u8()? {
        CONV => Op::Conv(Conv {
            name: name(from)?,
            owner: get_owner(from)?,
            c_in: number(from)?,
            c_out: number(from)?,
            kernel: number(from)?,
            stride: number(from)?,
            pad: number(from)?,
            bias: from.bool("bias of a convolution")?,
        }),
        AFFINE => Op::Affine(Affine { name: name(from)?, channels: number(from)? }),
        RELU => Op::Relu,
        MAX_POOL => Op::MaxPool { kernel: number(from)?, stride: number(from)?, pad: number(from)? },
        AVG_POOL => Op::AvgPool { kernel: number(from)?, stride: number(from)? },
        SUBSAMPLE => Op::Subsample { stride: number(from)? },
        PAD_CHANNELS => Op::PadChannels { front: number(from)?, back: number(from)? },
        GLOBAL_AVG_POOL => Op::GlobalAvgPool,
        LINEAR => Op::Linear(Linear { name: name(from)?, c_in: number(from)?, c_out: number(from)? }),
        other => return corrupt("operation", "a tag from 1 to 9", other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::container::testing::{Rng, random_plan};

    #[test]
    fn random_plans_round_trip() {
        for seed in 0..200 {
            let plan = random_plan(&mut Rng(seed));
            let bytes = plan.to_bytes().unwrap();
            assert_eq!(Plan::from_bytes(&bytes).unwrap(), plan);
        }
    }

    #[test]
    fn truncated_plans_and_trailing_bytes_are_refused() {
        let bytes = random_plan(&mut Rng(7)).to_bytes().unwrap();
        for n in 0..bytes.len() {
            assert!(matches!(Plan::from_bytes(&bytes[..n]), Err(Error::Truncated { .. })), "{n}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(matches!(Plan::from_bytes(&longer), Err(Error::Corrupt { .. })));
    }

    /// Damaged bytes that still decode encode to the same bytes again: there is no second encoding.
    #[test]
    fn damaged_plans_never_panic_and_stay_canonical() {
        let mut rng = Rng(3);
        let mut decoded = 0;
        for seed in 0..40 {
            let bytes = random_plan(&mut Rng(seed)).to_bytes().unwrap();
            for _ in 0..500 {
                let mut damaged = bytes.clone();
                for _ in 0..=rng.below(3) {
                    let at = rng.below(damaged.len());
                    damaged[at] = rng.below(256) as u8;
                }
                if let Ok(plan) = Plan::from_bytes(&damaged) {
                    assert_eq!(plan.to_bytes().unwrap(), damaged);
                    decoded += 1;
                }
            }
        }
        assert!(decoded > 100, "the damage was too heavy to test anything: {decoded}");
    }

    #[test]
    fn counts_are_capped_before_anything_is_allocated() {
        let head = |rest: &[u8]| {
            let mut bytes = vec![VERSION, 1, b'x', 3, 32, 32];
            bytes.extend_from_slice(rest);
            Plan::from_bytes(&bytes)
        };
        let cases: [(&str, &[u8]); 4] = [
            ("stem of 2^60 operations", &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]),
            ("4097 cells", &[0, 0x81, 0x20]),
            ("2^21 gates", &[0, 1, 1, 0x80, 0x80, 0x80, 0x01]),
            ("convolution name of 2^20 bytes", &[1, CONV, 0x80, 0x80, 0x40]),
        ];
        for (case, bytes) in cases {
            assert!(matches!(head(bytes), Err(Error::TooLarge { .. })), "{case}: {:?}", head(bytes));
        }
        assert!(matches!(head(&[0, 0x80, 0x20]), Err(Error::Truncated { .. })), "4096 cells in no bytes");
        // 300 cells x 256 one-byte operations: few bytes, but more memory than a plan may take.
        let mut bomb = vec![0, 0xac, 0x02];
        for _ in 0..300 {
            bomb.extend_from_slice(&[1, 1, 0, 0, 0, 1, 0x80, 0x02]);
            bomb.extend_from_slice(&[RELU; 256]);
        }
        bomb.push(0);
        assert!(matches!(head(&bomb), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn unknown_tags_are_refused() {
        for bytes in [&[0u8, 3][..], &[1, 0], &[1, 10], &[0, 1, 2]] {
            let mut whole = vec![VERSION, 1, b'x', 3, 32, 32];
            whole.extend_from_slice(bytes);
            whole.extend_from_slice(&[0; 8]);
            assert!(Plan::from_bytes(&whole).is_err(), "{bytes:?}");
        }
    }
}
