//! From backbone to student (adding proxies and gates), and from student to deployed plan (folding them).

use super::{Affine, Conv, Gate, Op, Owner, Path, Plan, ProxyForm, Role, Shape};
use crate::{Error, Result};
use std::{fmt, str::FromStr};

/// How far back proxies reach: `x_l` reads nodes `l-1 … max(l-k, 0)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Skips {
    /// The `k` nearest earlier nodes.
    Nearest(usize),
    /// All earlier nodes.
    Dense,
}

impl fmt::Display for Skips {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Skips::Nearest(k) => write!(f, "{k}"),
            Skips::Dense => f.write_str("dense"),
        }
    }
}

impl FromStr for Skips {
    type Err = Error;

    fn from_str(text: &str) -> Result<Skips> {
        match text.parse() {
            _ if text == "dense" => Ok(Skips::Dense),
            Ok(k) if k > 0 => Ok(Skips::Nearest(k)),
            _ => Err(Error::BadRequest {
                what: format!("skips `{text}`"),
                want: "a number from 1, or `dense`".into(),
            }),
        }
    }
}

impl Plan {
    /// The student of this backbone: every block gated, and a proxy from each of the nearest `skips` nodes.
    ///
    /// # Errors
    /// As [`Plan::check`]; [`Error::BadRequest`] if the plan already has proxies.
    pub fn with_proxies(&self, skips: Skips, form: ProxyForm) -> Result<Plan> {
        let nodes = self.check()?;
        if self.proxies() > 0 || !self.dead_nodes().is_empty() {
            return Err(Error::BadRequest {
                what: format!("{} already has proxies or dead nodes", self.arch),
                want: "a plain backbone".into(),
            });
        }
        let mut student = self.clone();
        for (i, cell) in student.cells.iter_mut().enumerate() {
            let node = i + 1;
            for gate in &mut cell.gates {
                gate.scaled = true;
            }
            let nearest = match skips {
                Skips::Nearest(k) => node.saturating_sub(k),
                Skips::Dense => 0,
            };
            for source in (nearest..node).rev() {
                if let (Some(from), Some(to)) = (nodes[source], nodes[node]) {
                    let path = Path { ops: proxy(node, source, from, to, form) };
                    cell.gates.push(Gate { role: Role::Proxy, source, scaled: true, paths: vec![path] });
                }
            }
        }
        student.check()?;
        Ok(student)
    }

    /// The plan a device runs: each proxy's norm and alpha are folded exactly into its convolution, which
    /// gains a bias. Blocks keep their alpha, because an identity shortcut has nothing to fold it into.
    pub fn folded(&self) -> Plan {
        let mut folded = self.clone();
        for gate in folded.cells.iter_mut().flat_map(|c| &mut c.gates) {
            if gate.role == Role::Block {
                continue;
            }
            let mut absorbed = !gate.paths.is_empty();
            for path in &mut gate.paths {
                path.ops = fold_line(&path.ops);
                absorbed &= matches!(path.ops.last(), Some(Op::Conv(c)) if c.owner == Owner::Task && c.bias);
            }
            if absorbed {
                gate.scaled = false;
            }
        }
        folded
    }
}

/// Folds each norm that follows a task-owned convolution into it.
fn fold_line(ops: &[Op]) -> Vec<Op> {
    let mut out = Vec::with_capacity(ops.len());
    let mut rest = ops.iter().peekable();
    while let Some(op) = rest.next() {
        match (op, rest.peek()) {
            (Op::Conv(conv), Some(Op::Affine(_))) if conv.owner == Owner::Task && !conv.bias => {
                out.push(Op::Conv(Conv { bias: true, ..conv.clone() }));
                rest.next();
            }
            _ => out.push(op.clone()),
        }
    }
    out
}

fn proxy(node: usize, source: usize, from: Shape, to: Shape, form: ProxyForm) -> Vec<Op> {
    let conv = |name: &str, c_in, c_out| {
        Op::Conv(Conv {
            name: format!("proxy{node}.{source}.{name}"),
            owner: Owner::Task,
            c_in,
            c_out,
            kernel: 1,
            stride: 1,
            pad: 0,
            bias: false,
        })
    };
    let norm =
        |name: &str, channels| Op::Affine(Affine { name: format!("proxy{node}.{source}.{name}"), channels });
    let mut ops = Vec::new();
    let stride = from.h.div_ceil(to.h);
    if stride > 1 {
        ops.push(Op::MaxPool { kernel: stride + 1, stride, pad: stride / 2 });
    }
    match form {
        ProxyForm::Single => ops.extend([conv("conv", from.c, to.c), norm("bn", to.c)]),
        ProxyForm::Bottleneck => {
            let mid = (to.c / 32).max(16);
            ops.extend([
                conv("conv1", from.c, mid),
                norm("bn1", mid),
                Op::Relu,
                conv("conv2", mid, to.c),
                norm("bn2", to.c),
            ]);
        }
    }
    ops
}
